//go:build linux

package container

import (
	"context"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/compose"
)

// killer kills a real engine at one of the calls that change something.
type killer struct {
	engine
	kill func()
	at   int
	late bool // when the call is done
	n    int
	dead bool
}

func (k *killer) step(do func() error) error {
	if k.n++; k.n != k.at {
		return do()
	}
	k.dead = true
	if k.late {
		_ = do()
	}
	k.kill()
	return errPower
}

func (k *killer) Load(ctx context.Context, archive io.Reader) error {
	return k.step(func() error { return k.engine.Load(ctx, archive) })
}

func (k *killer) Untag(ctx context.Context, ref string, force bool) error {
	return k.step(func() error { return k.engine.Untag(ctx, ref, force) })
}

func (k *killer) Create(ctx context.Context, s boxSpec) (id string, err error) {
	err = k.step(func() (err error) { id, err = k.engine.Create(ctx, s); return err })
	return id, err
}

func (k *killer) Start(ctx context.Context, id string) error {
	return k.step(func() error { return k.engine.Start(ctx, id) })
}

func (k *killer) Stop(ctx context.Context, id string, grace time.Duration) error {
	return k.step(func() error { return k.engine.Stop(ctx, id, grace) })
}

func (k *killer) SetName(ctx context.Context, id, name string) error {
	return k.step(func() error { return k.engine.SetName(ctx, id, name) })
}

func (k *killer) SetRestart(ctx context.Context, id string, p compose.Restart) error {
	return k.step(func() error { return k.engine.SetRestart(ctx, id, p) })
}

func (k *killer) Remove(ctx context.Context, id string) error {
	return k.step(func() error { return k.engine.Remove(ctx, id) })
}

func (k *killer) CreateNetwork(ctx context.Context, name string, n compose.Network, labels map[string]string) (id string, err error) {
	err = k.step(func() (err error) { id, err = k.engine.CreateNetwork(ctx, name, n, labels); return err })
	return id, err
}

func (k *killer) RemoveNetwork(ctx context.Context, id string) error {
	return k.step(func() error { return k.engine.RemoveNetwork(ctx, id) })
}

// killRig is a real engine that is killed.
type killRig struct {
	*realRig
	k *killer
}

func (r *killRig) backend() *Compose { return r.b }
func (r *killRig) dark() bool        { return r.k.dead }

func (r *killRig) reopen() {
	r.realRig.reopen()
	l := r.b.engine.(*limited)
	r.k = &killer{engine: l.e, kill: r.e.Kill}
	l.e = r.k
	l.opts.EngineWait = time.Second // what was killed comes back when this test says so
}

// onlyRuns checks that the engine runs exactly the app, and has nothing else of
// ours.
func (r *killRig) onlyRuns(a testApp) {
	r.t.Helper()
	ctx := r.t.Context()
	w, err := r.b.look(ctx)
	require.NoError(r.t, err)
	require.Len(r.t, w, len(a.app.Services))
	for _, v := range a.app.Services {
		require.Eventually(r.t, func() bool {
			w, err := r.b.look(ctx)
			return err == nil && len(w) > 0 && w[0].Name == v.Container && w[0].State == running && w[0].Restart == normal(v.Restart) &&
				w[0].Labels[labelRelease] == a.c.Digest().String()
		}, 30*time.Second, 50*time.Millisecond, "%+v", w)
	}
	nets, err := r.b.engine.Networks(ctx)
	require.NoError(r.t, err)
	ours := 0
	for _, n := range nets {
		if n.Labels[labelComponent] != "" {
			ours++
		}
	}
	require.Equal(r.t, len(a.app.Networks), ours)
}

// killApp has one container and one network, which is another one in version 2.
func killApp(t testing.TB, n int) testApp {
	return realApp(t, n).changed(t, func(a *compose.App) {
		v := testService("web", 0)
		v.Command = []string{"-after", "1h"}
		plain(&v)
		a.Services, a.Volumes, a.Files = []compose.Service{v}, nil, nil
		a.Networks[0].Internal = n > 1
	})
}

// TestKilledEngine kills a real engine, with all that it started, at every call of
// an update, before and after in turn, and at some of one that is taken back; with
// PAWL_CRASH=long before and after every one. After a restart and Resume exactly one
// release runs, and after another crash of the engine still.
func TestKilledEngine(t *testing.T) {
	r := &killRig{realRig: &realRig{t: t, dir: t.TempDir()}}
	r.e = startEngine(t)
	r.reopen()
	now, next := killApp(t, 1), killApp(t, 2)
	r.install("first", now)
	long, n := os.Getenv("PAWL_CRASH") == "long", 0
	for _, sick := range []bool{false, true} {
		stride := 1
		if sick && !long {
			stride = 9
		}
		for at, reached := 1, true; reached && at < 100; at += stride {
			for _, late := range []bool{false, true} {
				if !long && late != (at%2 == 0) {
					continue
				}
				n++
				var committed bool
				if reached, committed = r.killAt(t, at, late, sick, long || n%4 == 0, now, next, fmt.Sprintf("%v-%v-%d", late, sick, at)); committed {
					now, next = next, now
				}
			}
		}
	}
	t.Logf("%d kills", n-2)
}

// killAt takes one to two with one kill, and checks. It reports whether the call
// was reached, and whether two is in effect.
func (r *killRig) killAt(t *testing.T, at int, late, sick, twice bool, one, two testApp, tx string) (reached, committed bool) {
	t.Helper()
	ctx := t.Context()
	d := &drive{device: r, tx: ota.TxID("to-" + tx), to: two, state: "staging"}
	r.k.at, r.k.late, r.k.n = at, late, 0
	for sick && !r.dark() && d.state != "trial" && d.state != "reverting" {
		d.next(ctx)
	}
	if sick && d.state == "trial" {
		d.state = "reverting"
	}
	d.run(ctx)
	reached = r.k.dead
	r.k.at = 0
	if reached {
		r.boot()
		r.reopen()
		d.resumeHere(ctx)
	}
	require.Contains(t, []string{"committed", "reverted"}, d.state, "at %s by way of %v", tx, d.ways)
	now := map[string]testApp{"committed": two, "reverted": one}[d.state]
	r.onlyRuns(now)
	if reached && twice {
		r.boot()
		r.onlyRuns(now)
	}
	require.NoError(t, r.b.Prune(ctx, "shop", nil, nil))
	r.onlyRuns(now)
	return reached, d.state == "committed"
}
