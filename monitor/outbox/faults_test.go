package outbox

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/seam"
	"github.com/pawl-ota/pawl/monitor"
	"github.com/pawl-ota/pawl/ota/durable"
)

// faulty is a folder whose changes fail as fail says.
type faulty struct {
	seam.Dir
	fail func(op, name string) error
}

func (f *faulty) WriteFile(name string, data []byte) error {
	if err := f.fail("writefile", name); err != nil {
		return err
	}
	return f.Dir.WriteFile(name, data)
}

func (f *faulty) Remove(name string) error {
	if err := f.fail("remove", name); err != nil {
		return err
	}
	return f.Dir.Remove(name)
}

func (f *faulty) Append(name string, size int64) (seam.Log, error) {
	if err := f.fail("append", name); err != nil {
		return nil, err
	}
	log, err := f.Dir.Append(name, size)
	return &faultyLog{log, name, f}, err
}

type faultyLog struct {
	seam.Log
	name string
	dir  *faulty
}

// Write leaves half of it behind when it fails.
func (l *faultyLog) Write(p []byte) (int, error) {
	if err := l.dir.fail("write", l.name); err != nil {
		n, _ := l.Log.Write(p[:len(p)/2])
		return n, err
	}
	return l.Log.Write(p)
}

func (l *faultyLog) Persist() error {
	if err := l.dir.fail("persist", l.name); err != nil {
		return err
	}
	return l.Log.Persist()
}

func faultyDir(t *testing.T, path string, fail func(op, name string) error) seam.Dir {
	t.Helper()
	dir, err := durable.OpenDir(path)
	require.NoError(t, err)
	return &faulty{dir, fail}
}

// TestEachFault: one call of the file system fails, each in turn, or two in a row,
// in the course of three processes: every result arrives, in order, and metrics
// at most once. Nothing is written to a file again after that failed.
func TestEachFault(t *testing.T) {
	for _, c := range []struct {
		errno error
		row   int
	}{{syscall.ENOSPC, 1}, {syscall.EIO, 1}, {syscall.EIO, 2}} {
		for n, reached := 1, true; reached; n++ {
			synctest.Test(t, func(t *testing.T) {
				count, bad := 0, map[string]bool{}
				fail := func(op, name string) error {
					if bad[name] && (op == "write" || op == "persist") {
						t.Errorf("fault %d: %s of %s after it had failed", n, op, name)
					}
					if count++; count >= n && count < n+c.row {
						bad[name] = op == "write" || op == "persist"
						return c.errno
					}
					return nil
				}
				r, path := &receiver{}, t.TempDir()+"/box"
				for part := range 3 {
					clear(bad)
					b, err := Open(t.Context(), Options{dir: faultyDir(t, path, fail), MaxBytes: minBytes, Buffer: 100})
					require.NoError(t, err)
					for i := 30*part + 1; i <= 30*part+30; i++ {
						fill(b, i, i)
						if i%10 == 0 {
							_ = b.Flush(t.Context())
						}
					}
					<-time.After(time.Hour)
					if part > 0 {
						drain(t, b, r)
					}
					if err := b.Close(); err != nil { // the last call may be the one that fails
						require.ErrorIs(t, err, c.errno)
					}
				}
				reached = count >= n
				require.Equal(t, numbered("r", 1, 90), r.texts(true), "fault %d: %v", n, c)
				once := map[string]bool{}
				for _, m := range r.texts(false) {
					require.False(t, once[m], "fault %d: %s came twice", n, m)
					once[m] = true
				}
				require.GreaterOrEqual(t, len(once), 30)
			})
		}
	}
}

// TestFullDisk: from some time on nothing can be written but into what removing
// a file makes free; then there is room again. No result is lost and Append
// never waits.
func TestFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var full atomic.Bool
		fail := func(op, name string) error {
			switch {
			case full.Load() && op == "remove":
				if strings.HasPrefix(name, "metrics/") {
					full.Store(false)
				}
			case full.Load():
				return syscall.ENOSPC
			}
			return nil
		}
		b, err := Open(t.Context(), Options{dir: faultyDir(t, t.TempDir()+"/box", fail), Buffer: 1 << 10, MaxBytes: 128 << 10})
		require.NoError(t, err)
		for n := 1; n <= 300; n++ {
			b.Append(false, "", []byte(strings.Repeat(fmt.Sprint(n), 100)))
			require.NoError(t, b.Flush(t.Context()))
			if n%50 == 0 {
				full.Store(true)
			}
			b.Append(true, "", fmt.Appendf(nil, "r%d", n))
			_ = b.Flush(t.Context())
			require.False(t, full.Load() && b.Stats().Metrics > 0, "metrics make room")
			full.Store(false)
			<-time.After(time.Minute)
		}
		r := &receiver{}
		drain(t, b, r)
		require.Equal(t, numbered("r", 1, 300), r.texts(true))
		require.Positive(t, b.Stats().Lost.Metrics)
		require.NoError(t, b.Close())
	})
}

// TestDiskThatIsGone for days: Append returns, memory is bounded, and what it
// still holds is written when the disk is back.
func TestDiskThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var gone atomic.Bool
		b, err := Open(t.Context(), Options{dir: faultyDir(t, t.TempDir()+"/box", func(string, string) error {
			if gone.Load() {
				return syscall.EIO
			}
			return nil
		})})
		require.NoError(t, err)
		gone.Store(true)
		for n := range 12000 {
			b.Append(true, "", []byte(strings.Repeat(fmt.Sprintf("%06d", n), 20)))
			b.Append(false, "", []byte("m"))
			if n%100 == 0 {
				<-time.After(time.Minute)
			}
		}
		b.mu.Lock()
		require.LessOrEqual(t, b.waiting[results].bytes, maxWaiting)
		require.LessOrEqual(t, b.waiting[metrics].bytes, 2<<20)
		b.mu.Unlock()
		gone.Store(false)
		r := &receiver{}
		drain(t, b, r)
		s := b.Stats()
		require.Equal(t, uint64(12000), uint64(len(r.texts(true)))+s.Lost.Results)
		require.Greater(t, len(r.texts(true)), 7000)
		require.Positive(t, s.Errors)
		require.Contains(t, s.Error, "input/output error")
		require.NoError(t, b.Close())
	})
}

// TestDiskThatHangs: nobody waits for it, but those who ask to, and they only for
// their time.
func TestDiskThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free, hangs := make(chan bool), atomic.Bool{}
		b, err := Open(t.Context(), Options{dir: faultyDir(t, t.TempDir()+"/box", func(op, _ string) error {
			if op == "persist" && hangs.Load() {
				<-free
			}
			return nil
		})})
		require.NoError(t, err)
		hangs.Store(true)
		began := time.Now()
		for n := range 1000 {
			fill(b, n+1, n+1)
			_ = b.Stats()
			_ = b.LastKey()
		}
		require.Equal(t, began, time.Now())
		require.ErrorContains(t, b.Close(), "did not answer within 10s")
		require.Equal(t, began.Add(closeLimit), time.Now())
		hangs.Store(false)
		close(free)
		<-b.ended
	})
}

// sampleJSON is an event as a stream makes it.
const sampleJSON = `{"format":"pawl-event/0","kind":"sample","device":"pump-7","run":"K7QX2M5RB3JD6TZN","seq":%d,"boot":"8f14e45f-ceea-467f-a8f0-2f3f1c9d1b7e","uptimeNs":%d000000000,"time":"2031-02-03T04:05:06.789Z","timeTrusted":true,"name":"machine","values":{"free":%d,"load":%d}}`

// TestBounded: many metrics into an outbox that is far too small keep every
// result. With PAWL_CRASH=long there are a million.
func TestBounded(t *testing.T) {
	many := 100_000
	if os.Getenv("PAWL_CRASH") == "long" {
		many = 1_000_000
	}
	b := open(t, Options{Dir: t.TempDir() + "/box", MaxBytes: 512 << 10, MaxAge: time.Hour * 1e5})
	stream, err := monitor.NewStream(monitor.StreamOptions{Device: "pump-7", Sink: b})
	require.NoError(t, err)
	random := rand.New(rand.NewPCG(1, 2))
	kept := 0
	for n := range many {
		b.Append(false, "", fmt.Appendf(nil, sampleJSON, n, n, random.Uint32(), random.Uint32()))
		if n%1000 == 0 {
			kept++
			stream.Emit(monitor.Event{Kind: monitor.Committed, Tx: fmt.Sprint("tx", kept), Key: fmt.Sprint(kept)})
		}
		if n%4000 == 0 {
			require.NoError(t, b.Flush(t.Context()))
			require.LessOrEqual(t, b.Stats().Bytes, int64(512<<10))
		}
	}
	require.NoError(t, b.Close())
	b = open(t, Options{Dir: b.o.Dir, MaxBytes: 512 << 10})
	s := b.Stats()
	require.EqualValues(t, kept, s.Results)
	require.EqualValues(t, many, s.Metrics+s.Lost.Metrics)
	require.Equal(t, fmt.Sprint(kept), b.LastKey())
	t.Logf("of %d metrics %d are kept beside %d results in %d bytes", many, s.Metrics, s.Results, s.Bytes)
	require.NoError(t, b.Close())
}

// TestResultsAlone: when there is nothing else left the oldest results go, and
// that is said.
func TestResultsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t, Options{Dir: t.TempDir() + "/box", MaxBytes: minBytes})
		b.OnLoss(func(counts map[string]float64) []byte { return fmt.Appendf(nil, "lost %v", counts["results"] > 0) })
		random := rand.NewChaCha8([32]byte{})
		for n := range 200 {
			data := make([]byte, 1000)
			_, _ = random.Read(data)
			b.Append(true, "", append(fmt.Appendf(nil, "r%d ", n), data...))
			require.NoError(t, b.Flush(t.Context()))
			require.LessOrEqual(t, b.Stats().Bytes, int64(minBytes))
		}
		<-time.After(time.Hour)
		r := &receiver{}
		drain(t, b, r)
		got := r.texts(true)
		require.Greater(t, len(got), 40)
		require.Contains(t, strings.Join(got, "\n"), "r199 ")
		require.Contains(t, got, "lost true")
		require.NoError(t, b.Close())
	})
}

// TestMetricsNeverPushResultsOut: a full outbox of results takes no metrics.
func TestMetricsNeverPushResultsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t, Options{Dir: t.TempDir() + "/box", MaxBytes: minBytes})
		for n := 0; b.Stats().Bytes+2*cluster <= minBytes; n++ {
			b.Append(true, "", fmt.Appendf(nil, "r%d %s", n, strings.Repeat("x", 900)))
			require.NoError(t, b.Flush(t.Context()))
		}
		had := b.Stats().Results
		for range 100 {
			b.Append(false, "", []byte(strings.Repeat("m", 60<<10)))
			_ = b.Flush(t.Context())
		}
		s := b.Stats()
		require.Equal(t, had, s.Results)
		require.Zero(t, s.Lost.Results)
		require.EqualValues(t, 100, s.Lost.Metrics+s.Metrics)
		require.NoError(t, b.Close())
	})
}
