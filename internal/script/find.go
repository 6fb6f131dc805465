//go:build linux

package script

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxEnviron is how many bytes of a process's environment are looked at.
const maxEnviron = 256 << 10

// process is one process of a boot: no other has the same pid and start.
type process struct {
	pid   int
	start uint64 // clock ticks after boot
}

// find returns the processes that have the mark, and those in the leader's
// session or in one whose own leader has the mark; not the leader, and nobody
// that is dead. A session of which only another member has the mark is not
// taken: somebody who handed the mark on to a process of another origin would
// have that one's whole session killed.
//
// With doubt there may be more: one was gone before it could be looked at and
// may have left a child that came after the list was made, or is in the middle
// of execve, where it has no environment yet.
func (s *sweep) find() (found []process, doubt bool, err error) {
	names, err := readNames("/proc")
	if err != nil {
		return nil, false, fmt.Errorf("cannot look for processes: %w", err)
	}
	sessions := map[int]bool{}
	if s.leader != nil && s.leader.held() {
		sessions[s.leader.pid] = true
	}
	members := map[int]int{} // session of each pid without the mark
	add := func(pid int) {
		p, unclear := s.living(pid)
		doubt = doubt || unclear
		if p.pid != 0 {
			found = append(found, p)
		}
	}
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || pid == os.Getpid() || s.leader != nil && pid == s.leader.pid {
			continue
		}
		// A session of another pid namespace, or of the kernel's own threads,
		// reads as 0. The program is in neither.
		session, err := unix.Getsid(pid)
		if err == nil && session == 0 {
			continue
		}
		marked, unclear := s.look(pid)
		doubt = doubt || unclear
		if marked {
			sessions[pid] = true
			add(pid)
		} else {
			members[pid] = session
		}
	}
	for pid, session := range members {
		if sessions[session] {
			add(pid)
		}
	}
	return found, doubt, nil
}

// look reads the environment of a process.
func (s *sweep) look(pid int) (marked, unclear bool) {
	env, err := s.environ(pid)
	if err == nil && len(env) > 0 {
		return hasEntry(env, s.mark), false
	}
	// What is dead, or in the middle of execve, has no environment. To an
	// ordinary user the kernel says then that it may not be read.
	p, unclear := s.living(pid)
	forbidden := errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM)
	return false, unclear || p.pid != 0 && p.start >= s.since && (!forbidden || isOwn(pid))
}

// isOwn reports whether the process runs as the user of this one.
func isOwn(pid int) bool {
	var st unix.Stat_t
	return unix.Stat("/proc/"+strconv.Itoa(pid), &st) == nil && int(st.Uid) == os.Geteuid()
}

// living returns the process unless it is dead. That is unclear the first time:
// its last child may be younger than the list of processes.
func (s *sweep) living(pid int) (alive process, unclear bool) {
	st, ok := stat(pid)
	p := process{pid: pid, start: st.start}
	switch {
	case !ok:
		return process{}, true
	case !st.dead:
		return p, false
	case p.start < s.since || s.dead[p]:
		return process{}, false
	}
	s.dead[p] = true
	return process{}, true
}

// environ returns the environment that the process was started with. It is
// valid until the next call.
func (s *sweep) environ(pid int) ([]byte, error) {
	fd, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/environ", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	for n := 0; ; {
		if n == len(s.buf) {
			if n >= maxEnviron {
				return s.buf, nil
			}
			s.buf = append(s.buf, make([]byte, n)...)
		}
		m, err := unix.Read(fd, s.buf[n:])
		if err != nil && !errors.Is(err, unix.EINTR) {
			return nil, err
		}
		if err == nil && m == 0 {
			return s.buf[:n], nil
		}
		n += max(m, 0)
	}
}

// hasEntry reports whether entry is one of those in env, each of which ends in
// a NUL.
func hasEntry(env []byte, entry string) bool {
	for len(env) > 0 {
		one, rest, _ := bytes.Cut(env, []byte{0})
		if string(one) == entry {
			return true
		}
		env = rest
	}
	return false
}

// status is what matters here of /proc/PID/stat.
type status struct {
	dead  bool // it only waits for its parent
	start uint64
}

// stat reports false when there is no such process.
func stat(pid int) (status, bool) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return status{}, false
	}
	// The second field, in parentheses, may hold anything; the state is the
	// third and the start the 22nd.
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(fields) < 20 {
		return status{}, false
	}
	start, err := strconv.ParseUint(fields[19], 10, 64)
	return status{dead: fields[0] == "Z" || fields[0] == "X", start: start}, err == nil
}
