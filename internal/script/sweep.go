//go:build linux

package script

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// maxDoubt is how long the processes are looked at again and again because some
// could not be told.
const maxDoubt = 500 * time.Millisecond

// sweep finds and ends the processes of one program. It is used by one
// goroutine.
type sweep struct {
	leader *leader // nil when the program was started by another process
	mark   string
	buf    []byte
	since  uint64 // when the leader began, as stat says it; 0: not known
	dead   map[process]bool
}

// newSweep makes a sweep. It refuses a /proc that shows other pids than those
// that this process may send signals to.
func newSweep(mark string) (*sweep, error) {
	if err := checkMark(mark); err != nil {
		return nil, err
	}
	self, err := os.Readlink("/proc/self")
	if err != nil {
		return nil, fmt.Errorf("cannot look for processes: %w", err)
	}
	if self != strconv.Itoa(os.Getpid()) {
		return nil, fmt.Errorf("cannot look for processes: /proc is of another pid namespace, it calls this process %s and not %d", self, os.Getpid())
	}
	return &sweep{mark: mark, buf: make([]byte, 4<<10), dead: map[process]bool{}}, nil
}

// own takes the leader as one whose whole session is to be ended.
func (s *sweep) own(l *leader) {
	s.leader = l
	if st, ok := stat(l.pid); ok {
		s.since = st.start
	}
}

// terminate asks all processes to end and gives them until grace is over; it
// returns before that when they did.
func (s *sweep) terminate(ctx context.Context, grace time.Duration) error {
	found, _, err := s.find()
	if err != nil {
		return err
	}
	s.signalGroup(unix.SIGTERM, unix.SIGCONT)
	for _, p := range found {
		if group, err := unix.Getpgid(p.pid); err == nil && (s.leader == nil || group != s.leader.pid) {
			send(p, unix.SIGTERM, unix.SIGCONT)
		}
	}
	for end := time.Now().Add(grace); err == nil && time.Now().Before(end); found, _, err = s.find() {
		if len(found) == 0 && s.leaderEnded() {
			return nil
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
	return err
}

// kill kills until nobody is left, the leader neither, and returns how many
// others there were.
func (s *sweep) kill(ctx context.Context, within time.Duration) (int, error) {
	killed := map[process]bool{}
	began, wait := time.Now(), time.Millisecond
	calm := began // nobody was found since
	for {
		ended := s.leaderEnded() // before the look, so that it sees the leader's last child
		found, doubt, err := s.find()
		if err != nil {
			s.signalGroup(unix.SIGKILL)
			return len(killed), err
		}
		for _, p := range found {
			killed[p] = true
		}
		if len(found) > 0 || !ended {
			s.killAll(found)
			if time.Since(began) > within {
				return len(killed), fmt.Errorf("cannot end all processes: %v after SIGKILL %v still run", within, s.named(found))
			}
			calm, wait = time.Now(), min(2*wait, 20*time.Millisecond)
		} else if !doubt || time.Since(calm) > maxDoubt {
			return len(killed), nil
		}
		if err := pause(ctx, wait); err != nil {
			return len(killed), err
		}
	}
}

func (s *sweep) killAll(found []process) {
	s.signalGroup(unix.SIGKILL)
	for _, p := range found {
		send(p, unix.SIGKILL)
	}
}

// named lists the pids of the processes that would not end.
func (s *sweep) named(found []process) []int {
	var pids []int
	for _, p := range found {
		pids = append(pids, p.pid)
	}
	if !s.leaderEnded() {
		pids = append(pids, s.leader.pid)
	}
	return pids
}

func (s *sweep) leaderEnded() bool { return s.leader == nil || s.leader.hasEnded() }

// signalGroup sends to the leader's group at one instant, so that no fork gets
// between.
func (s *sweep) signalGroup(signals ...unix.Signal) {
	if s.leader == nil || !s.leader.held() {
		return
	}
	for _, sig := range signals {
		_ = unix.Kill(-s.leader.pid, sig) // none there is what is wanted
	}
}

// send sends to a process that find returned. The pid may be somebody else's
// by now: so it is looked at again behind a descriptor that stays with the
// process, where the kernel has that (Linux 5.3).
func send(p process, signals ...unix.Signal) {
	kill := func(sig unix.Signal) error { return unix.Kill(p.pid, sig) }
	if fd, err := unix.PidfdOpen(p.pid, 0); err == nil {
		defer unix.Close(fd)
		kill = func(sig unix.Signal) error { return unix.PidfdSendSignal(fd, sig, nil, 0) }
	}
	if now, ok := stat(p.pid); !ok || now.start != p.start {
		return
	}
	for _, sig := range signals {
		_ = kill(sig) // find says whether it helped
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// checkMark refuses what may be in the environment of any process.
func checkMark(mark string) error {
	name, value, _ := strings.Cut(mark, "=")
	if name == "" || value == "" || strings.ContainsRune(mark, 0) {
		return fmt.Errorf("cannot know processes by the mark %q: it is not NAME=VALUE", mark)
	}
	return nil
}
