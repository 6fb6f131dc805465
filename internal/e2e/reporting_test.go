package e2e

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/micro"
	"github.com/pawl-ota/pawl/monitor"
	"github.com/pawl-ota/pawl/monitor/cloudevents"
	"github.com/pawl-ota/pawl/monitor/outbox"
	"github.com/pawl-ota/pawl/monitor/updates"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/tuf"
)

var quiet = log.New(io.Discard, "", 0)

// rollout is a repository as it was with each of its releases: the first, one
// that is well, and one that is sick.
type rollout struct {
	first, well, sick *maker
	trees             [4]string // by seq
}

func newRollout(t testing.TB, folders ...string) *rollout {
	t.Helper()
	r := &rollout{first: newMaker(t)}
	at := r.first
	tree := copyTree(t, filepath.Join(at.dir, "v1"), folders...)
	for seq, next := range []**maker{&r.first, &r.well, &r.sick} {
		if seq > 0 {
			*next = at.copy(t)
			tree = cloneTree(t, tree, filepath.Join((*next).dir, "tree"))
			for _, name := range files(t, tree)[:3] {
				appendTo(t, filepath.Join(tree, name), "// one line more\n")
			}
		}
		write(t, tree, "health", []string{"well", "well", "sick"}[seq], 0o644)
		at = *next
		at.release([]string{"1.0.0", "1.1.0", "1.2.0"}[seq], tree)
		r.trees[seq+1] = tree
	}
	return r
}

// outcome is what an update came to.
type outcome struct {
	result ota.Result
	err    string
	took   time.Duration
}

// what leaves out what differs from run to run.
func (o outcome) what() outcome {
	r := o.result
	return outcome{ota.Result{State: r.State, From: r.From, To: r.To, Condemned: r.Condemned, Starts: r.Starts, Needs: r.Needs, Bytes: r.Bytes}, o.err, 0}
}

// updateTold updates the device from m, in this process, and tells r of it; nil
// is nobody.
func (d *device) updateTold(m *maker, r *updates.Reporter) (o outcome) {
	ctx, cancel := context.WithTimeout(d.t.Context(), time.Minute)
	defer cancel()
	options, done := d.options(m)
	defer done()
	if r != nil {
		options.Progress = r.Progress
	}
	begin := time.Now()
	u, err := ota.Open(ctx, options)
	require.NoError(d.t, err)
	o.result, err = u.Update(ctx)
	if r != nil {
		r.Outcome(o.result, err)
	}
	o.took = time.Since(begin)
	require.NoError(d.t, u.Close())
	if err != nil {
		o.err, _, _ = strings.Cut(err.Error(), " after ")
	}
	return o
}

// options are those of a program that updates the device from m and whose app says
// itself how it is. done lets go of what they hold.
func (d *device) options(m *maker) (o ota.Options, done func()) {
	root, err := os.ReadFile(filepath.Join(m.repo, "metadata", "1.root.json"))
	require.NoError(d.t, err)
	src, err := tuf.New(tuf.Options{URL: m.url, Root: root, Dir: filepath.Join(d.state, "trust")})
	require.NoError(d.t, err)
	app, err := micro.New(micro.Options{Name: "app", Root: d.app})
	require.NoError(d.t, err)
	return ota.Options{
		Dir: filepath.Join(d.state, "updates"), Source: src, Backends: map[string]ota.Backend{"app": app},
		Device: ota.Device{ID: "d1", Product: "camera", Variant: "arm", Hardware: "rev-b"},
		Health: d.asksItself, Trial: cmp.Or(d.trial, ota.Trial{Soak: 20 * time.Millisecond, Interval: 10 * time.Millisecond, Deadline: 100 * time.Millisecond}),
	}, func() { require.NoError(d.t, src.Close()) }
}

func (d *device) asksItself(context.Context) error {
	data, err := os.ReadFile(filepath.Join(d.app, "health"))
	if err == nil && string(data) != "well" {
		err = errors.New("it is " + string(data))
	}
	return err
}

// told is what a program has so that its owner is told.
type told struct {
	*updates.Reporter
	box *outbox.Outbox // nil where it cannot be opened
	end func()
}

func nobody() *told { return &told{end: func() {}} }

// begin starts to report with what fails in this way; o has the other options of
// the outbox.
func (w way) begin(t testing.TB, o outbox.Options) *told {
	t.Helper()
	o.Dir = filepath.Join(t.TempDir(), "disk", "outbox")
	require.NoError(t, os.Mkdir(filepath.Dir(o.Dir), 0o700))
	if w.before != nil {
		w.before(t, o.Dir)
	}
	if w.url == nil {
		w.url = answers(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	}
	r := nobody()
	var sink monitor.Sink
	box, err := outbox.Open(t.Context(), o)
	if err == nil {
		r.box, sink = box, box
		t.Cleanup(func() { _ = box.Close() }) // once what after breaks is mended
		r.end = w.run(t, box)
	}
	stream, err := monitor.NewStream(monitor.StreamOptions{Device: "d1", Sink: sink})
	require.NoError(t, err)
	r.Reporter = updates.New(updates.Options{Stream: stream})
	if w.after != nil {
		w.after(t, o.Dir)
	}
	return r
}

func (w way) run(t testing.TB, box *outbox.Outbox) (end func()) {
	sender, err := cloudevents.New(cloudevents.Options{URL: w.url(t), Retries: -1})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan bool)
	go func() { defer close(ended); _ = box.Run(ctx, sender) }()
	return func() { cancel(); <-ended; _ = sender.Close() }
}

// TestReportingThatFails: whatever keeps a device from reporting, an update comes
// to the same end, one that is kept and one that is taken back.
func TestReportingThatFails(t *testing.T) {
	all := newRollout(t, "net/netip", "net/textproto")
	disks := newFailing(t)
	update := func(t *testing.T, r *told) [3]outcome {
		d := newDevice(t, all.first, t.TempDir())
		var ends [3]outcome
		for i, m := range []*maker{all.first, all.well, all.sick} {
			ends[i] = d.updateTold(m, r.Reporter).what()
			requireSame(t, pictureOf(t, all.trees[min(i+1, 2)]), pictureOf(t, d.app))
		}
		return ends
	}
	want := update(t, nobody())
	require.Equal(t, []ota.State{ota.Committed, ota.Committed, ota.Reverted}, []ota.State{want[0].result.State, want[1].result.State, want[2].result.State})
	t.Run("ways", func(t *testing.T) {
		for _, w := range ways(disks) {
			t.Run(w.name, func(t *testing.T) {
				t.Parallel()
				r := w.begin(t, outbox.Options{RetryMin: time.Millisecond, RetryMax: 5 * time.Millisecond})
				defer r.end()
				require.Equal(t, want, update(t, r))
				if w.failed == nil {
					w.failed = sendFailed
				}
				if r.box != nil {
					require.Eventually(t, func() bool { return w.failed(r.box.Stats()) }, 20*time.Second, 5*time.Millisecond)
				}
			})
		}
	})
}
