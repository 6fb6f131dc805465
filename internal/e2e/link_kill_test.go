package e2e

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// oneRead is the most that the agent can have read and not kept yet: a record of
// its spool, and the buffer of net/http.
const oneRead = 64<<10 + 4096

// TestKillInTheDownload kills the agent again and again in the middle of
// downloads, after random numbers of bytes. Each time it is stopped first, so that
// the kernel can say what is on the way: sent, and not read by the agent. The next
// one fetches that again and, at most, what a single read returned. In the end
// all that was sent is at most 1 % more than the content and what was on the way.
func TestKillInTheDownload(t *testing.T) {
	t.Parallel()
	kills := 30
	switch {
	case os.Getenv("PAWL_CRASH") == "long":
		kills = 1000
	case testing.Short():
		kills = 10
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	k := &killer{random: rand.New(rand.NewPCG(seed, 0))}
	p := newLinkPair(t)
	rounds := 0
	for ; k.kills < kills; rounds++ {
		require.Less(t, rounds, kills, "the agent is not met")
		k.download(t, p, rounds%2 == 0)
	}
	t.Logf("%d kills in %d downloads: %d bytes of content, %d sent, %d of them on the way when the agent was killed, at most %d read and not kept",
		k.kills, rounds, k.size, k.sent, k.lost, k.most)
	require.LessOrEqual(t, k.sent, k.size*101/100+k.lost)
	require.Greater(t, k.kills, 5*rounds)
}

// killer kills agents.
type killer struct {
	random *rand.Rand
	kills  int
	size   int64 // of what had to come
	sent   int64
	lost   int64 // on the way when an agent was killed
	most   int64 // that an agent had read and the next one fetched again
}

// download brings the second release to a device with the first one, or with
// nothing.
func (k *killer) download(t *testing.T, p *linkPair, installed bool) {
	d := p.newDevice(t)
	if installed {
		d = p.device(t)
	}
	d.link.gentle = true
	d.link.serves(p.m.repo)
	var before, onTheWay int64 // sent twice, and lost by the kill before
	for again := true; again; {
		var lost int64
		lost, again = k.once(t, d)
		_, twice := d.counts()
		require.LessOrEqual(t, twice-before, onTheWay+oneRead, "kill %d", k.kills)
		k.most = max(k.most, twice-before-onTheWay)
		k.lost += lost
		before, onTheWay = twice, lost
	}
	d.holds(p.v2)
	left, err := filepath.Glob(filepath.Join(d.state, "updates", "spool", "*"))
	require.NoError(t, err)
	require.Empty(t, left, "what was fetched is still set aside")
	all, twice := d.counts()
	k.size, k.sent = k.size+all-twice, k.sent+all
}

// once runs an agent until it has done its work, or has been sent a random
// number of bytes of content: then it is killed. It returns what was on the way
// to it.
func (k *killer) once(t *testing.T, d *linked) (lost int64, killed bool) {
	cmd := d.command(t.Context(), "update")
	target := d.link.soFar() + 1 + k.random.Int64N(d.pair.size/8)
	drained := k.random.IntN(2) == 0 // kill when it waits for more, else while it works
	var mu sync.Mutex
	d.link.until = func(now int64) int64 { return target - now }
	d.link.after = func(c *conn, now int64) {
		mu.Lock()
		defer mu.Unlock()
		if now < target || killed {
			return
		}
		if drained {
			c.drain()
		}
		killed = true
		lost = stopAndKill(d.link, cmd)
	}
	mu.Lock()
	require.NoError(t, cmd.Start())
	mu.Unlock()
	err := cmd.Wait()
	mu.Lock()
	defer mu.Unlock()
	if !killed {
		require.NoError(t, err)
		return 0, false
	}
	if cmd.ProcessState.Exited() {
		require.NoError(t, err)
	} else {
		k.kills++
	}
	return lost, true
}

// stopAndKill stops a process, looks what is on the way to it, by any connection, and
// kills it.
func stopAndKill(l *link, cmd *exec.Cmd) (onTheWay int64) {
	l.wire.Lock()
	defer l.wire.Unlock()
	pid := cmd.Process.Pid
	if cmd.Process.Signal(unix.SIGSTOP) == nil {
		// It is not waited for in the sense that it could be gone afterwards.
		_ = unix.Waitid(unix.P_PID, pid, nil, unix.WSTOPPED|unix.WEXITED|unix.WNOWAIT, nil)
	}
	l.each(func(c *conn) { onTheWay += c.onTheWay() })
	_ = cmd.Process.Kill()
	// It may be long until the process is gone: nothing more is sent.
	l.each(func(c *conn) { _ = c.Close() })
	return onTheWay
}

// drain waits until nothing is on the way, for some seconds at most.
func (c *conn) drain() {
	tick := time.NewTicker(200 * time.Microsecond)
	defer tick.Stop()
	for range 50_000 {
		if c.onTheWay() == 0 {
			return
		}
		<-tick.C
	}
}
