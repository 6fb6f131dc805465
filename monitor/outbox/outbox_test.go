package outbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/monitor"
)

var _ monitor.Sink = (*Outbox)(nil)

func open(t *testing.T, o Options) *Outbox {
	t.Helper()
	b, err := Open(t.Context(), o)
	require.NoError(t, err)
	return b
}

// receiver is a Sender that notes what it took. answer, where it is there, is
// asked first, and what it returns is the answer.
type receiver struct {
	answer func(items []Item) error

	mu    sync.Mutex
	all   []Item
	tries int
}

func (r *receiver) Send(_ context.Context, items []Item) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tries++
	if r.answer != nil {
		if err := r.answer(items); err != nil {
			return err
		}
	}
	r.all = append(r.all, items...)
	return nil
}

// texts returns what arrived of a class, each id once.
func (r *receiver) texts(keep bool) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	seen := map[string]string{}
	for _, i := range r.all {
		if had, ok := seen[i.ID]; ok {
			if had != string(i.Data) {
				return []string{"one id of two events: " + i.ID}
			}
			continue
		}
		seen[i.ID] = string(i.Data)
		if i.Keep == keep {
			out = append(out, string(i.Data))
		}
	}
	return out
}

// drain runs the outbox until the receiver took everything.
func drain(t *testing.T, b *Outbox, r *receiver) {
	t.Helper()
	require.NoError(t, b.Flush(t.Context()))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- b.Run(ctx, r) }()
	wait := time.Second
	for s := b.Stats(); s.Results+s.Metrics > 0; s = b.Stats() {
		<-time.After(wait)
		wait = min(2*wait, 24*time.Hour)
	}
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
}

func numbered(letter string, from, to int) []string {
	var out []string
	for n := from; n <= to; n++ {
		out = append(out, fmt.Sprintf("%s%d", letter, n))
	}
	return out
}

func fill(b *Outbox, from, to int) {
	for n := from; n <= to; n++ {
		b.Append(true, fmt.Sprint("key", n), fmt.Appendf(nil, "r%d", n))
		b.Append(false, "", fmt.Appendf(nil, "m%d", n))
	}
}

// TestOrder: everything arrives in its order over restarts, each with its own
// number and id, and nothing is left.
func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := Options{Dir: t.TempDir() + "/box", BatchItems: 7}
		r := &receiver{}
		b := open(t, o)
		fill(b, 1, 100)
		require.NoError(t, b.Close())
		b = open(t, o)
		require.Equal(t, "key100", b.LastKey())
		fill(b, 101, 200)
		drain(t, b, r)
		require.Equal(t, "key200", b.LastKey())
		require.NoError(t, b.Close())
		b = open(t, o)
		require.Zero(t, b.Stats().Results+b.Stats().Metrics)
		fill(b, 201, 300)
		drain(t, b, r)
		require.NoError(t, b.Close())

		require.Equal(t, numbered("r", 1, 300), r.texts(true))
		require.Equal(t, numbered("m", 1, 300), r.texts(false))
		require.Len(t, r.all, 600, "none twice, as nothing failed")
		next := map[bool]uint64{}
		for _, i := range r.all {
			next[i.Keep]++
			require.Equal(t, next[i.Keep], i.Seq)
		}
		require.ErrorIs(t, b.Close(), ErrClosed)
		require.ErrorIs(t, b.Flush(t.Context()), ErrClosed)
	})
}

// TestReceivers: whatever the receiver does, every result arrives, and each
// once after those with the same id are dropped.
func TestReceivers(t *testing.T) {
	down := errors.New("connection refused")
	for name, answer := range map[string]func() func([]Item) error{
		"well": func() func([]Item) error { return nil },
		"down for long": func() func([]Item) error {
			back := time.Now().Add(200 * 24 * time.Hour)
			return func([]Item) error {
				if time.Now().Before(back) {
					return down
				}
				return nil
			}
		},
		"every other time": func() func([]Item) error {
			n := 0
			return func([]Item) error {
				if n++; n%2 == 1 {
					return down
				}
				return nil
			}
		},
		"slow": func() func([]Item) error {
			return func([]Item) error { <-time.After(time.Minute); return nil }
		},
		"asking for time": func() func([]Item) error {
			var last time.Time
			return func([]Item) error {
				if since := time.Since(last); since < time.Hour {
					return &Refused{fmt.Errorf("came back after %v", since)}
				}
				if last = time.Now(); last.UnixNano()%3 != 0 {
					return &Later{time.Hour, down}
				}
				last = time.Time{}
				return nil
			}
		},
		"panicking": func() func([]Item) error {
			n := 0
			return func([]Item) error {
				if n++; n%3 == 1 {
					panic("out of range")
				}
				return nil
			}
		},
		"taking only few": func() func([]Item) error {
			return func(items []Item) error {
				if len(items) > 3 {
					return &Refused{errors.New("413")}
				}
				return nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := open(t, Options{Dir: t.TempDir() + "/box", Now: func() (time.Time, bool) { return time.Now(), true }, MaxAge: 100 * 365 * 24 * time.Hour})
				fill(b, 1, 40)
				r := &receiver{answer: answer()}
				drain(t, b, r)
				require.Equal(t, numbered("r", 1, 40), r.texts(true))
				require.Equal(t, numbered("m", 1, 40), r.texts(false))
				require.Zero(t, b.Stats().Lost)
				require.NoError(t, b.Close())
			})
		})
	}
}

// TestTakenAndNotSaid: what the receiver took without being able to say so comes
// again, with the same id.
func TestTakenAndNotSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := Options{Dir: t.TempDir() + "/box"}
		b := open(t, o)
		fill(b, 1, 20)
		r := &receiver{}
		n := 0
		r.answer = func(items []Item) error {
			if n++; n < 4 {
				r.all = append(r.all, items...)
				return errors.New("the connection broke")
			}
			return nil
		}
		drain(t, b, r)
		require.NoError(t, b.Close())
		require.Greater(t, len(r.all), 40)
		require.Equal(t, numbered("r", 1, 20), r.texts(true))
		require.Equal(t, numbered("m", 1, 20), r.texts(false))
	})
}

// TestOneThatIsRefused does not hold up those behind it for ever.
func TestOneThatIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t, Options{Dir: t.TempDir() + "/box"})
		var told map[string]float64
		b.OnLoss(func(counts map[string]float64) []byte { told = counts; return []byte("lost") })
		fill(b, 1, 40)
		r := &receiver{answer: func(items []Item) error {
			for _, i := range items {
				if string(i.Data) == "r17" || string(i.Data) == "m5" {
					return &Refused{errors.New("400")}
				}
			}
			return nil
		}}
		drain(t, b, r)
		<-time.After(2 * time.Hour)
		drain(t, b, r)
		require.NotContains(t, r.texts(true), "r17")
		require.NotContains(t, r.texts(false), "m5")
		require.Equal(t, "lost", r.texts(true)[39], "it is told with the results")
		require.Len(t, r.texts(false), 39)
		require.Equal(t, Lost{Refused: 2}, b.Stats().Lost)
		require.Equal(t, map[string]float64{"refused": 2}, told)
		require.NoError(t, b.Close())
	})
}

// TestBackOff: the time between tries grows, is not the same on two devices, and
// is never more than the limit.
func TestBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gaps := func() (all []time.Duration) {
			b := open(t, Options{Dir: t.TempDir() + "/box", RetryMin: time.Second, RetryMax: time.Minute})
			b.Append(true, "", []byte("r1"))
			last, n := time.Now(), 0
			drain(t, b, &receiver{answer: func([]Item) error {
				all, last = append(all, time.Since(last)), time.Now()
				if n++; n < 40 {
					return errors.New("down")
				}
				return nil
			}})
			require.NoError(t, b.Close())
			return all
		}
		one, two := gaps(), gaps()
		require.NotEqual(t, one, two)
		for i, gap := range one[1:] {
			require.LessOrEqual(t, gap, min(time.Minute, time.Second<<min(i, 10)), "try %d", i)
		}
		var late time.Duration
		for _, gap := range one[10:] {
			late += gap
		}
		require.Greater(t, late, 5*time.Minute)
	})
}

// TestMetricsWait for their time, and results do not.
func TestMetricsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t, Options{Dir: t.TempDir() + "/box"})
		r := &receiver{}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- b.Run(ctx, r) }()
		for range 60 {
			b.Append(false, "", []byte("m"))
			<-time.After(time.Minute)
		}
		require.LessOrEqual(t, r.tries, 5, "metrics go together")
		require.GreaterOrEqual(t, len(r.texts(false)), 40)
		before := time.Now()
		b.Append(true, "", []byte("r"))
		synctest.Wait()
		require.Equal(t, []string{"r"}, r.texts(true))
		require.Equal(t, before, time.Now())
		cancel()
		<-ended
		require.NoError(t, b.Close())
	})
}

// TestAge: old metrics go and results do not, where the clock can be trusted.
func TestAge(t *testing.T) {
	for _, trusted := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			b := open(t, Options{Dir: t.TempDir() + "/box", MaxAge: 24 * time.Hour, Now: func() (time.Time, bool) { return time.Now(), trusted }})
			for day := range 10 {
				fill(b, day+1, day+1)
				require.NoError(t, b.Flush(t.Context()))
				<-time.After(24 * time.Hour)
			}
			r := &receiver{}
			drain(t, b, r)
			require.Equal(t, numbered("r", 1, 10), r.texts(true))
			if trusted {
				require.LessOrEqual(t, len(r.texts(false)), 2)
			} else {
				require.Equal(t, numbered("m", 1, 10), r.texts(false))
			}
			require.NoError(t, b.Close())
		})
	}
}

func TestWhatIsNoEvent(t *testing.T) {
	b := open(t, Options{Dir: t.TempDir() + "/box"})
	b.Append(true, "", nil)
	b.Append(true, "", make([]byte, maxData+1))
	b.Append(false, strings.Repeat("k", maxKey+1), []byte("x"))
	require.NoError(t, b.Flush(t.Context()))
	require.Equal(t, Lost{TooLarge: 3}, b.Stats().Lost)
	require.NoError(t, b.Close())
	b.Append(true, "", []byte("late"))
	require.EqualValues(t, 1, b.Stats().Lost.Results)
}

func TestOptions(t *testing.T) {
	for field, o := range map[string]Options{
		"Dir": {}, "MaxBytes": {Dir: "x", MaxBytes: 1}, "Buffer": {Dir: "x", Buffer: 1 << 30}, "MaxAge": {Dir: "x", MaxAge: -1},
		"Batch": {Dir: "x", BatchItems: -1}, "Delay": {Dir: "x", Delay: -1},
	} {
		_, err := Open(t.Context(), o)
		require.ErrorContains(t, err, "field "+field)
	}
	dir := t.TempDir() + "/box"
	b := open(t, Options{Dir: dir})
	_, err := Open(t.Context(), Options{Dir: dir, LockWait: time.Millisecond})
	require.Error(t, err, "one at a time")
	require.NoError(t, b.Close())
	require.NoError(t, open(t, Options{Dir: dir}).Close())
}

// TestDamage: files that were damaged are told from those of another version,
// and what is whole of them is sent.
func TestDamage(t *testing.T) {
	dir := t.TempDir() + "/box"
	b := open(t, Options{Dir: dir})
	for n := range 3 {
		fill(b, n+1, n+1)
		require.NoError(t, b.Flush(t.Context()))
	}
	require.NoError(t, b.Close())
	file := filepath.Join(dir, name(results, 1))
	good, err := os.ReadFile(file)
	require.NoError(t, err)
	for n, want := range map[int][]string{
		0: nil, 20: nil, len(good) - 1: numbered("r", 1, 2), len(good) - 42: {"r1", "r3"}, len(good) - 60: {"r1"},
	} {
		data := append([]byte(nil), good...)
		data[n] ^= 1
		require.NoError(t, os.WriteFile(file, data, 0o600))
		synctest.Test(t, func(t *testing.T) {
			b := open(t, Options{Dir: dir, Interval: 1000 * time.Hour})
			r := &receiver{}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error)
			go func() { ended <- b.Run(ctx, r) }()
			synctest.Wait()
			require.Equal(t, want, r.texts(true), "byte %d", n)
			cancel()
			<-ended
			require.NoError(t, b.Close())
		})
		for _, j := range []string{"journal.a", "journal.b"} {
			require.NoError(t, os.RemoveAll(filepath.Join(dir, j)))
		}
	}
	future := strings.Replace(string(good[:strings.IndexByte(string(good), '\n')]), "/0 ", "/1 ", 1)
	require.NoError(t, os.WriteFile(file, resum(future), 0o600))
	_, err = Open(t.Context(), Options{Dir: dir})
	require.ErrorIs(t, err, ErrFormat)
	kept, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, resum(future), kept)
}
