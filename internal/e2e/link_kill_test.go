package e2e

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// oneRead is the most that the agent can have read and not kept yet: a record of
// its spool, and the buffer of net/http for each of two connections.
const oneRead = 64<<10 + 2*4096

// TestKillInTheDownload kills the agent again and again in the middle of
// downloads, after random numbers of bytes. Each time it is stopped first, so that
// the kernel can say what is on the way: sent, and not read by the agent. Then what
// was sent is compared, byte by byte, with what the agent's spool holds. No byte
// that it held is ever sent again; what it does not hold is what was on the way
// and, at most, what a single read returned. In the end all that was sent is at
// most 1 % more than the content and what was on the way.
//
// PAWL_KILLS says how many kills there are, where it is set.
func TestKillInTheDownload(t *testing.T) {
	t.Parallel()
	kills := 30
	switch {
	case os.Getenv("PAWL_KILLS") != "":
		n, err := strconv.Atoi(os.Getenv("PAWL_KILLS"))
		require.NoError(t, err)
		kills = n
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
	t.Logf("%d kills in %d downloads: %d bytes of content, %d sent, %d of them on the way when the agent was killed, %d read and not kept, at most %d by one kill; "+
		"%d sent a third time or more, %d kills with bytes on the way by two connections, %d with some by one that the server had closed",
		k.kills, rounds, k.size, k.sent, k.lost, k.unkept, k.most, k.thrice, k.two, k.closed)
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
	unkept int64 // read and not kept then
	most   int64 // of that by one kill
	thrice int64 // bytes that were lost more than once
	two    int   // kills with bytes on the way by more than one connection
	closed int   // and by one that was closed on this side
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
	held := holdings{}
	for again := true; again; {
		before := d.link.image()
		var lost int64
		lost, again = k.once(t, d)
		after := d.link.image()
		twice, thrice := newly(before, after, held)
		require.Zero(t, twice, "kill %d: bytes that were kept came again", k.kills)
		k.thrice += thrice
		if now := holdingsOf(t, d, after); len(now) > 0 {
			held = now
			kept, _ := newly(before, after, held)
			missing := sum(after) - sum(before) - kept - lost
			require.LessOrEqual(t, missing, int64(oneRead), "kill %d: %d were on the way", k.kills, lost)
			k.most = max(k.most, missing)
			k.unkept += max(missing, 0)
		} else if len(held) > 0 {
			held = allOf(after) // all is installed, and what was set aside is dropped
		}
		k.lost += lost
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
		lost = k.stopAndKill(d.link, cmd)
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
func (k *killer) stopAndKill(l *link, cmd *exec.Cmd) (onTheWay int64) {
	l.wire.Lock()
	defer l.wire.Unlock()
	pid := cmd.Process.Pid
	if cmd.Process.Signal(unix.SIGSTOP) == nil {
		// It is not waited for in the sense that it could be gone afterwards.
		_ = unix.Waitid(unix.P_PID, pid, nil, unix.WSTOPPED|unix.WEXITED|unix.WNOWAIT, nil)
	}
	ways := 0
	l.each(func(c *conn) {
		n := c.onTheWay()
		onTheWay += n
		if n == 0 {
			return
		}
		ways++
		if c.over.Load() {
			k.closed++
		}
	})
	if ways > 1 {
		k.two++
	}
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

// holdings are the bytes of files of content that a spool holds.
type holdings map[string][]bool

// newly returns how often bytes were sent, from one image of a link to the next,
// that h has, and how many bytes came for the third time then.
func newly(before, after map[string][]uint8, h holdings) (had, thrice int64) {
	for name, file := range after {
		was, has := before[name], h[name]
		if was == nil {
			was = make([]uint8, len(file))
		}
		if has == nil {
			has = make([]bool, len(file))
		}
		for i, n := range file {
			if n == was[i] {
				continue
			}
			if has[i] {
				had += int64(n - was[i])
			}
			if was[i] < 3 && n >= 3 {
				thrice++
			}
		}
	}
	return had, thrice
}

func sum(sent map[string][]uint8) (n int64) {
	for _, file := range sent {
		for _, times := range file {
			n += int64(times)
		}
	}
	return n
}

func allOf(sent map[string][]uint8) holdings {
	h := holdings{}
	for name, file := range sent {
		h[name] = make([]bool, len(file))
		for i, n := range file {
			h[name][i] = n > 0
		}
	}
	return h
}

// holdingsOf reads the files of a device's spool: the name is that of the file of
// content, an offset and a number; then come a line and records, each the length,
// a CRC-32C and the bytes.
func holdingsOf(t *testing.T, d *linked, sent map[string][]uint8) holdings {
	t.Helper()
	h := holdings{}
	for name, file := range sent {
		found, err := filepath.Glob(filepath.Join(d.state, "updates", "spool", path.Base(name)+".*"))
		require.NoError(t, err)
		for _, spool := range found {
			first, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(spool), path.Base(name)+"."), ".")
			offset, err := strconv.ParseInt(first, 16, 64)
			require.NoError(t, err)
			data, err := os.ReadFile(spool)
			require.NoError(t, err)
			if h[name] == nil {
				h[name] = make([]bool, len(file))
			}
			for n := recordsOf(data); n > 0; n-- {
				h[name][offset] = true
				offset++
			}
		}
	}
	return h
}

// recordsOf returns how many bytes a file of a spool holds in whole records.
func recordsOf(data []byte) (n int) {
	_, data, _ = bytes.Cut(data, []byte("\n"))
	for len(data) >= 8 {
		length := int(binary.LittleEndian.Uint32(data))
		if length > len(data)-8 {
			break
		}
		sum := crc32.Checksum(data[:4], crc32.MakeTable(crc32.Castagnoli))
		if crc32.Update(sum, crc32.MakeTable(crc32.Castagnoli), data[8:8+length]) != binary.LittleEndian.Uint32(data[4:]) {
			break
		}
		n, data = n+length, data[8+length:]
	}
	return n
}
