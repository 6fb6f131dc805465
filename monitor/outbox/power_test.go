//go:build linux && (amd64 || arm64)

package outbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/powercut/model"
	"github.com/pawl-ota/pawl/internal/testneeds"
	"github.com/pawl-ota/pawl/internal/trace"
	"github.com/pawl-ota/pawl/ota/durable"
)

func TestMain(m *testing.M) {
	if role := os.Getenv(killedRole); role != "" {
		os.Exit(killed(role, os.Args[len(os.Args)-1]))
	}
	ran, err := model.Child([]model.Workload{keeping()})
	if !ran {
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// TestPowerCuts loses the power after every call, with any of what was not
// synced kept. A result that Flush had waited for is sent, and no id is ever of
// two events.
func TestPowerCuts(t *testing.T) {
	if err := trace.Available(); errors.Is(err, trace.ErrUnavailable) {
		testneeds.Missing(t, "to trace processes: "+err.Error())
	}
	states := 160
	switch {
	case os.Getenv("PAWL_CRASH") == "long":
		states = 20000
	case testing.Short() || os.Geteuid() != 0:
		states = 60
	}
	dir, err := os.MkdirTemp("/dev/shm", "pawl-outbox-")
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o755))
	stand, done := model.NewStand(dir)
	t.Cleanup(done)
	w := keeping()
	r, err := w.Run(t.Context(), stand, model.Options{States: states, Recoveries: 2, RecoveryStates: states / 5})
	require.NoError(t, err)
	t.Log(r.String())
	for _, v := range r.Violations {
		t.Error(v.String())
	}
}

// cutOptions have files be short and everything be written soon.
func cutOptions(disk string) Options {
	return Options{
		Dir: filepath.Join(disk, "box"), MaxBytes: minBytes, Buffer: 3000, BatchItems: 2, Interval: time.Nanosecond, RetryMin: time.Nanosecond, RetryMax: time.Nanosecond,
		Now: func() (time.Time, bool) { return time.Unix(1893456000, 0), true },
	}
}

// wordy is a result of 2 kB that does not compress to nothing.
func wordy(n int) []byte {
	out := fmt.Appendf(nil, "r%d ", n)
	for x := uint32(n); len(out) < 2000; {
		x = x*1664525 + 1013904223
		out = strconv.AppendUint(out, uint64(x), 36)
	}
	return out
}

func numberOf(data []byte) string { return strings.Fields(string(data))[0] }

// told is a Sender that acknowledges to fact what it took.
type told func(string) error

func (fact told) Send(_ context.Context, items []Item) error {
	for _, i := range items {
		if err := fact(fmt.Sprintf("took %s %s", i.ID, numberOf(i.Data))); err != nil {
			return err
		}
	}
	return nil
}

// keeping is the outbox in four processes, the first of which ends without
// Close and the third in the middle: results and metrics come, files are begun and go, some are sent.
func keeping() model.Workload {
	part := func(from, to, send int, closes bool) model.Process {
		return model.Process{Run: func(ctx context.Context, disk string, fact func(string) error) error {
			b, err := Open(ctx, cutOptions(disk))
			if err != nil {
				return err
			}
			for n := from - 1; n <= to; n++ {
				if n == send {
					if err := empty(ctx, b, told(fact)); err != nil {
						return err
					}
				}
				if n < from {
					continue
				}
				b.Append(false, "", fmt.Appendf(nil, "m%d %s", n, strings.Repeat("x", 700)))
				b.Append(true, fmt.Sprint("key", n), wordy(n))
				if err := errors.Join(b.Flush(ctx), fact(fmt.Sprint("durable r", n))); err != nil {
					return err
				}
			}
			if closes {
				err = b.Close()
			}
			return err
		}}
	}
	// One that is killed between writing and persisting: the next process finds
	// what the disk may not have.
	killed := model.Process{Run: func(ctx context.Context, disk string, _ func(string) error) error {
		o, written, opened := cutOptions(disk), make(chan bool), atomic.Bool{}
		dir, err := durable.OpenDir(o.Dir)
		if err != nil {
			return err
		}
		o.dir = &faulty{dir, func(op, _ string) error {
			if op == "persist" && opened.Load() {
				close(written)
				select {}
			}
			return nil
		}}
		b, err := Open(ctx, o)
		if err != nil {
			return err
		}
		opened.Store(true)
		b.Append(true, "", wordy(15))
		<-written
		return nil
	}}
	return model.Workload{
		Name:      "outbox",
		Prepare:   func(_ context.Context, disk string) error { return os.Mkdir(disk, 0o700) },
		Processes: []model.Process{part(1, 7, 3, false), part(8, 14, 12, true), killed, part(16, 17, 15, true)},
		Check:     afterCut,
		Recover: func(ctx context.Context, disk string) error {
			b, err := Open(ctx, cutOptions(disk))
			if err != nil {
				return err
			}
			b.Append(true, "", wordy(500))
			return errors.Join(b.Flush(ctx), b.Close())
		},
	}
}

// empty sends everything.
func empty(ctx context.Context, b *Outbox, to Sender) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	ended := make(chan error)
	go func() { ended <- b.Run(ctx, to) }()
	for s := b.Stats(); s.Results+s.Metrics > 0 && ctx.Err() == nil; s = b.Stats() {
		if err := b.Flush(ctx); err != nil {
			cancel()
			<-ended
			return err
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		return fmt.Errorf("not everything was sent: %w", err)
	}
	return b.Flush(context.WithoutCancel(ctx))
}

// arrivals is what a receiver knows.
type arrivals struct {
	ids  map[string]string
	last int
	have map[string]bool
}

// Send refuses an id of another event, and results out of order.
func (a *arrivals) Send(_ context.Context, items []Item) error {
	for _, i := range items {
		if err := a.take(i.ID, numberOf(i.Data)); err != nil {
			return err
		}
		if n, _ := strconv.Atoi(numberOf(i.Data)[1:]); i.Keep && n <= a.last {
			return fmt.Errorf("r%d came after r%d", n, a.last)
		} else if i.Keep {
			a.last = n
		}
	}
	return nil
}

func (a *arrivals) take(id, text string) error {
	if had, ok := a.ids[id]; ok && had != text {
		return fmt.Errorf("id %s is of %s and of %s", id, had, text)
	}
	a.ids[id], a.have[text] = text, true
	return nil
}

// afterCut opens the outbox as a device does after the power came back, sends
// what is there, and then one result more.
func afterCut(ctx context.Context, disk string, facts []string, _ int) error {
	a := &arrivals{ids: map[string]string{}, have: map[string]bool{}}
	var durable []string
	for _, f := range facts {
		words := strings.Fields(f)
		if words[0] == "durable" {
			durable = append(durable, words[1])
		} else if err := a.take(words[1], words[2]); err != nil {
			return err
		}
	}
	b, err := Open(ctx, cutOptions(disk))
	if err != nil {
		return err
	}
	first := &firstError{to: a}
	err = empty(ctx, b, first)
	b.Append(true, "last", wordy(999))
	err = errors.Join(err, b.Flush(ctx), empty(ctx, b, first), first.err, b.Close())
	for _, r := range append(durable, "r999") {
		if !a.have[r] {
			err = errors.Join(err, fmt.Errorf("%s was durable and did not arrive", r))
		}
	}
	if b.LastKey() != "last" {
		err = errors.Join(err, fmt.Errorf("the last key is %q", b.LastKey()))
	}
	return err
}

// firstError keeps what is wrong, and goes on.
type firstError struct {
	to  Sender
	err error
}

func (f *firstError) Send(ctx context.Context, items []Item) error {
	if err := f.to.Send(ctx, items); err != nil && f.err == nil {
		f.err = err
	}
	return nil
}
