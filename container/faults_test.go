package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/compose"
	"github.com/pawl-ota/pawl/ota/release"
)

// device is a backend at an engine whose power can go.
type device interface {
	backend() *Compose
	dark() bool
	boot()
	reopen()
}

func (r *rig) backend() *Compose { return r.b }
func (r *rig) dark() bool        { return r.off }

// drive takes one component from one release to another as the Updater does, with
// a journal that never fails, over power cuts and errors.
type drive struct {
	device
	tx    ota.TxID
	to    testApp
	state string
	ways  []string // the states that were passed
}

// go on until the transaction has ended, the power is gone, or too much failed.
func (d *drive) run(ctx context.Context) {
	for range 30 {
		if d.dark() || d.state == "committed" || d.state == "reverted" {
			return
		}
		d.ways = append(d.ways, d.state)
		d.next(ctx)
	}
}

func (d *drive) next(ctx context.Context) {
	var err error
	then, otherwise := "", "reverting"
	switch d.state {
	case "staging":
		_, err = d.backend().Stage(ctx, d.tx, d.to.c, d.to.blobs)
		then = "staged"
	case "staged":
		then = "activating"
	case "activating":
		err = d.backend().Activate(ctx, d.tx, d.to.c)
		if err == nil {
			err = d.isActive(ctx)
		}
		then = "trial"
	case "trial":
		then = "committing"
	case "committing":
		otherwise = d.state
		if err = d.isActive(ctx); err != nil && !d.dark() {
			err = d.backend().Activate(ctx, d.tx, d.to.c)
		}
		if err == nil {
			err = d.backend().Commit(ctx, d.tx, d.to.c)
		}
		then = "committed"
	case "reverting":
		otherwise = d.state
		err = d.backend().Revert(ctx, d.tx, release.Component{Name: d.to.c.Name})
		then = "reverted"
	}
	switch {
	case d.dark(): // nobody is there to write anything
	case err != nil:
		d.state = otherwise
	default:
		d.state = then
	}
}

func (d *drive) isActive(ctx context.Context) error {
	a, err := d.backend().Active(ctx, d.to.c.Name)
	if err == nil && !a.Is(d.to.c.Digest()) {
		err = fmt.Errorf("active is %+v", a)
	}
	return err
}

// resume goes on after a boot as the Updater's Resume does.
func (d *drive) resume(ctx context.Context) {
	d.boot()
	d.reopen()
	d.resumeHere(ctx)
}

// expect checks that exactly one app runs, wholly and as it should, and that
// nothing else was left.
func (d *rig) expect(a testApp, kept ...testApp) {
	t := d.t
	t.Helper()
	require.Empty(t, d.broken)
	require.Len(t, d.boxes, len(a.app.Services), "containers: %v", d.names())
	nets := map[string]bool{}
	for _, v := range a.app.Services {
		b, ok := d.named(v.Container)
		require.True(t, ok, "%s is not there: %v", v.Container, d.names())
		require.Equal(t, a.c.Digest().String(), b.Labels[labelRelease])
		require.Equal(t, string(d.images[b.Image].config), string(a.blobs[a.app.Images[v.Image].Config.Digest]))
		require.True(t, v.OneShot && b.succeeded() || b.State == running, "%s is %s", b.Name, b.State)
		require.Equal(t, normal(v.Restart), b.Restart, b.Name)
		for _, id := range b.Networks {
			require.Contains(t, d.networks, id)
			nets[id] = true
		}
	}
	require.Len(t, d.networks, len(nets))
	tags := map[string]bool{}
	for _, k := range append(kept, a) {
		for _, i := range k.app.Images {
			tags[d.b.tag(i.Config.Digest)] = true
		}
	}
	for tag := range d.tags {
		require.True(t, tags[tag], "the image %s was left", tag)
	}
	for _, i := range a.app.Images {
		require.Contains(t, d.tags, d.b.tag(i.Config.Digest))
	}
	for name := range d.volumes {
		require.True(t, slices.ContainsFunc(a.app.Volumes, func(v compose.Volume) bool { return v.Engine == name }), "the volume %s was left", name)
	}
}

func (f *fake) names() (all []string) {
	for _, b := range f.boxes {
		all = append(all, fmt.Sprintf("%s %s %s", b.Name, b.State, b.Restart.Policy))
	}
	slices.Sort(all)
	return all
}

func (f *fake) named(name string) (fakeBox, bool) {
	for _, b := range f.boxes {
		if b.Name == name {
			return b, true
		}
	}
	return fakeBox{}, false
}

// scenario is one fault in one update.
type scenario struct {
	snapshots, lossy bool
	how              fault
	at               int
	// again is a second fault, in what Resume does; 0: none.
	again    int
	howAgain fault
	// sick has the new release go back after its trial began.
	sick bool
}

// play takes version 0 to 1 with the fault, then goes on until all has ended. It
// reports whether the faults were reached.
func (s scenario) play(t *testing.T, old, next, later testApp) (first, second bool) {
	t.Helper()
	ctx := t.Context()
	r := newRig(t, s.snapshots)
	r.install("one", old)
	r.lossy = s.lossy
	if s.how == hangs {
		r.limit = 200 * time.Millisecond
		r.reopen()
	}
	require.NoError(t, r.fake.sync(ctx))
	d := &drive{device: r, tx: "two", to: next, state: "staging"}
	r.arm(s.at, s.how)
	if s.sick {
		for d.state != "trial" && !r.off && d.state != "reverted" && len(d.ways) < 30 {
			d.ways = append(d.ways, d.state)
			d.next(ctx)
		}
		if d.state == "trial" {
			d.state = "reverting"
		}
	}
	d.run(ctx)
	first = r.struck()
	if s.again > 0 {
		r.boot()
		r.reopen()
		r.arm(s.again, s.howAgain)
		d.resumeHere(ctx)
		second = r.struck()
	}
	for range 3 {
		if d.state == "committed" || d.state == "reverted" {
			break
		}
		d.resume(ctx)
	}
	switch d.state {
	case "committed":
		require.False(t, s.sick)
		r.expect(next, old)
	case "reverted":
		r.expect(old)
	default:
		t.Fatalf("it ended %s, by way of %v", d.state, d.ways)
	}
	now, kept := next, []testApp{old}
	if d.state == "reverted" {
		now, kept = old, nil
	}
	r.arm(0, "")
	r.boot()
	r.reopen()
	r.expect(now, kept...) // the engine starts the right ones, and only those
	a, err := r.b.Active(ctx, "shop")
	require.NoError(t, err)
	require.True(t, a.Is(now.c.Digest()))
	require.NoError(t, r.b.Prune(ctx, "shop", nil, nil))
	r.expect(now)
	r.install("three", later)
	require.NoError(t, r.b.Prune(ctx, "shop", nil, nil))
	r.expect(later)
	return first, second
}

// resumeHere is resume of an engine and a process that are there already. What was
// stopped for good the boot did not start.
func (d *drive) resumeHere(ctx context.Context) {
	if r, ok := d.device.(*rig); ok && (d.state == "trial" || d.state == "committing") {
		for _, b := range r.boxes {
			if b.up() && b.Labels[labelTx] != string(d.tx) {
				r.broken = append(r.broken, "after a boot "+b.Name+" runs, which was to stay stopped")
			}
		}
	}
	switch d.state {
	case "staging", "staged", "activating":
		d.state = "reverting"
	case "trial":
		if d.backend().Activate(ctx, d.tx, d.to.c) != nil && !d.dark() {
			d.state = "reverting"
		}
	}
	d.run(ctx)
}

func (s scenario) String() string {
	return strings.ReplaceAll(fmt.Sprintf("%+v", struct {
		Snapshots, Lossy bool
		How              fault
		At, Again        int
		Sick             bool
	}{s.snapshots, s.lossy, s.how, s.at, s.again, s.sick}), "\n", "")
}

// TestEveryCall has each call of an update, and of one that is taken back, fail,
// fail although it was done, hang, and be cut short by the power, before and
// after, with and without what was not synced, in both image stores; without
// PAWL_CRASH=long some of them only at every fourth call. Nobody waits: the clock
// is that of the test.
func TestEveryCall(t *testing.T) {
	old, next, later := newApp(t, 0), newApp(t, 2), newApp(t, 3)
	ways := []fault{fails, failsLate, hangs, cutBefore, cutAfter}
	n := 0
	for _, snapshots := range []bool{false, true} {
		for _, sick := range []bool{false, true} {
			for _, how := range ways {
				for _, lossy := range []bool{false, true} {
					if lossy && how != cutBefore && how != cutAfter {
						continue
					}
					n += everyCall(t, scenario{snapshots: snapshots, sick: sick, how: how, lossy: lossy}, old, next, later)
				}
			}
		}
	}
	t.Logf("%d faults", n)
}

func everyCall(t *testing.T, s scenario, old, next, later testApp) (n int) {
	step := 1
	switch {
	case os.Getenv("PAWL_CRASH") == "long":
	case testing.Short():
		step = 16
	case s.snapshots || s.sick || s.lossy:
		step = 4
	}
	for s.at = 1; s.at < 500; s.at += step {
		reached := false
		t.Run(s.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { reached, _ = s.play(t, old, next, later) })
		})
		if !reached || t.Failed() {
			break
		}
		n++
	}
	return n
}

// TestEveryCallOfResume cuts an update short, and then has each call of what goes
// on after the boot fail or be cut short too.
func TestEveryCallOfResume(t *testing.T) {
	old, next, later := newApp(t, 0), newApp(t, 2), newApp(t, 3)
	n := 0
	stride, again := 23, 7
	if os.Getenv("PAWL_CRASH") == "long" {
		stride, again = 3, 1
	}
	for at := 20; at < 200; at += stride {
		for _, how := range []fault{fails, cutAfter} {
			s := scenario{how: cutAfter, lossy: at%2 == 0, at: at, howAgain: how}
			reached := true
			for s.again = 1; reached && s.again < 200 && !t.Failed(); s.again += again {
				t.Run(s.String(), func(t *testing.T) {
					var first bool
					if first, reached = s.play(t, old, next, later); !first {
						reached = false
					}
				})
				n++
			}
		}
	}
	t.Logf("%d pairs", n)
}

// TestNoContentIsLoaded has nothing reach the engine of an image whose bytes are
// not the signed ones.
func TestNoContentIsLoaded(t *testing.T) {
	a := newApp(t, 0)
	r := newRig(t, false)
	layer := a.app.Images[1].Layers[1]
	a.blobs[layer.Digest] = []byte(strings.Repeat("x", int(layer.Size)))
	_, err := r.b.Stage(t.Context(), "one", a.c, a.blobs)
	require.Error(t, err)
	require.True(t, errors.Is(err, ota.ErrDigest), err)
	require.Len(t, r.images, 1)
	require.NotContains(t, r.tags, r.b.tag(a.app.Images[1].Config.Digest))
}
