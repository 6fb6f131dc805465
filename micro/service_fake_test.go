//go:build linux

package micro

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota"
)

// fakeSupervisor is a supervisor that knows the services whose unit files lay
// in the root when it last looked. A service holds on to the version of the
// files that it found when it started.
type fakeSupervisor struct {
	root    string
	known   []string
	units   map[string]*fakeUnit
	booting bool
	oneshot string // a service that has ended well when its start has
	calls   []string
	// tick is called before and after each call that changes something.
	tick func(call string) error
}

type fakeUnit struct {
	running, failed, queued bool
	version                 string
	restarts                int
}

var _ Supervisor = (*fakeSupervisor)(nil)

func (s *fakeSupervisor) unit(name string) *fakeUnit {
	if s.units[name] == nil {
		s.units[name] = &fakeUnit{}
	}
	return s.units[name]
}

// look reads which units there are.
func (s *fakeSupervisor) look() {
	s.known = nil
	entries, _ := os.ReadDir(filepath.Join(s.root, "units"))
	for _, e := range entries {
		s.known = append(s.known, e.Name())
	}
}

func (s *fakeSupervisor) version() string {
	data, err := os.ReadFile(filepath.Join(s.root, "app"))
	if err != nil {
		return "nothing"
	}
	return string(data)
}

func (s *fakeSupervisor) step(call string) error {
	s.calls = append(s.calls, call)
	if s.tick == nil {
		return nil
	}
	return s.tick(call)
}

func (s *fakeSupervisor) Do(ctx context.Context, a Action, name string) error {
	if err := errors.Join(ctx.Err(), s.step(fmt.Sprint(a, " ", name))); err != nil {
		return err
	}
	u := s.unit(name)
	switch a {
	case Stop:
		u.running, u.queued = false, false
	case Start, StartLater:
		if err := s.start(a, name); err != nil {
			return err
		}
	case Restart:
		u.running = false
		if err := s.start(Start, name); err != nil {
			return err
		}
	case Reload:
		u.version = s.version()
	}
	return s.step("did")
}

func (s *fakeSupervisor) start(a Action, name string) error {
	if !slices.Contains(s.known, name) {
		return errors.New("there is no unit " + name)
	}
	u := s.unit(name)
	switch {
	case s.booting:
		u.queued = !u.running
	case !u.running:
		*u = fakeUnit{running: true, version: s.version()}
		if u.version == "crashes" {
			u.running, u.failed = false, true
		}
		u.running = u.running && name != s.oneshot
		if u.version == "does not start" {
			*u = fakeUnit{failed: true}
			return errors.New("exit status 1")
		}
	}
	return nil
}

func (s *fakeSupervisor) State(_ context.Context, name string) (ServiceState, error) {
	u := s.unit(name)
	return ServiceState{Running: u.running, Failed: u.failed, Queued: u.queued, Finished: name == s.oneshot && u.version != "", Restarts: u.restarts, Detail: "as the fake says"}, nil
}

func (s *fakeSupervisor) Refresh(context.Context) error {
	err := s.step("refresh")
	if err == nil {
		s.look()
		err = s.step("did")
	}
	return err
}

// boot is a power cycle: what is enabled is in the queue.
func (s *fakeSupervisor) boot() {
	s.look()
	s.booting = true
	s.units = map[string]*fakeUnit{}
	for _, name := range s.known {
		s.unit(name).queued = !strings.HasPrefix(name, "lazy")
	}
}

// booted starts what the boot has left in the queue.
func (s *fakeSupervisor) booted() {
	s.booting = false
	for name, u := range s.units {
		if u.queued && slices.Contains(s.known, name) {
			u.queued = false
			_ = s.start(Start, name)
		}
	}
}

// runs returns the version that each running service has.
func (s *fakeSupervisor) runs() map[string]string {
	all := map[string]string{}
	for name, u := range s.units {
		if u.running {
			all[name] = u.version
		}
	}
	return all
}

// serviceScene is a device whose v1 runs with services around it, and a v2 with
// others. The services extra and lazy do not run before the update.
type serviceScene struct {
	t      testing.TB
	layout Layout
	root   string
	sup    *fakeSupervisor
	f      *Files
	s1, s2 *shop
	warned []error
}

const (
	services1 = `db around, app, old, web reload, cron restart, extra start, lazy`
	services2 = `db, new, app, web reload, cron restart, extra start, lazy`
)

var (
	running1 = map[string]string{"db": "1", "app": "1", "old": "1", "web": "1", "cron": "1"}
	running2 = map[string]string{"db": "2", "app": "2", "new": "2", "web": "2", "cron": "2", "extra": "2", "lazy": "2"}
)

func newServiceScene(t testing.TB, l Layout) *serviceScene {
	t.Helper()
	sc := &serviceScene{t: t, layout: l, root: filepath.Join(tempDir(t), "srv", "app")}
	sc.s1, sc.s2 = sc.release("1", services1), sc.release("2", services2)
	if l == InPlace {
		files(t, sc.root, nil)
	}
	sc.sup = &fakeSupervisor{root: sc.root, units: map[string]*fakeUnit{}}
	sc.restart()
	sc.must("stage", "t1", sc.s1)
	sc.must("activate", "t1", sc.s1)
	sc.must("commit", "t1", sc.s1)
	for _, name := range []string{"web", "cron"} {
		require.NoError(t, sc.sup.Do(t.Context(), Start, name))
	}
	for _, name := range []string{"extra", "lazy"} {
		require.NoError(t, sc.sup.Do(t.Context(), Stop, name))
	}
	require.Equal(t, running1, sc.sup.runs())
	sc.sup.calls = nil
	return sc
}

// release makes a release whose app is version, with a unit file for each
// service in list.
func (sc *serviceScene) release(version, list string) *shop {
	content := map[string]string{"app": version, "bin/" + version: "only here"}
	var all []Service
	for one := range strings.SplitSeq(list, ", ") {
		name, do, _ := strings.Cut(one, " ")
		all = append(all, Service{name, Handling(do)})
		content["units/"+name] = "unit of " + version
	}
	dir := files(sc.t, sc.t.TempDir(), content)
	s := newShop(sc.t, dir)
	if sc.layout == InPlace {
		s = placeShop(sc.t, dir, "")
	}
	raw, err := json.Marshal(ComponentOptions{Services: all})
	require.NoError(sc.t, err)
	s.c.Options = raw
	return s
}

// restart is a new process.
func (sc *serviceScene) restart() {
	sc.t.Helper()
	f, err := New(Options{Name: "app", Root: sc.root, Layout: sc.layout, Supervisor: sc.sup, Warn: func(err error) { sc.warned = append(sc.warned, err) }})
	require.NoError(sc.t, err)
	sc.f = f
	sc.sup.tick = nil
}

func (sc *serviceScene) verb(name string, tx ota.TxID, s *shop) error {
	ctx := sc.t.Context()
	switch name {
	case "stage":
		_, err := sc.f.Stage(ctx, tx, s.c, s)
		return err
	case "activate":
		return sc.f.Activate(ctx, tx, s.c)
	case "commit":
		return sc.f.Commit(ctx, tx, s.c)
	}
	return sc.f.Revert(ctx, tx, s.c)
}

func (sc *serviceScene) must(name string, tx ota.TxID, s *shop) {
	sc.t.Helper()
	require.NoError(sc.t, sc.verb(name, tx, s), name)
}

// upTo runs the verbs of the update to v2 before the one that is named.
func (sc *serviceScene) upTo(name string) {
	sc.t.Helper()
	for _, v := range map[string][]string{"activate": {"stage"}, "commit": {"stage", "activate"}, "revert": {"stage", "activate"}}[name] {
		sc.must(v, "t2", sc.s2)
	}
}

// cutAt has everything from step n on fail: what lasts on the disk, and what
// is done to services. It counts the steps.
func (sc *serviceScene) cutAt(n int) *int {
	count := new(int)
	tick := func(string) error {
		if *count++; n > 0 && *count >= n {
			return errCut
		}
		return nil
	}
	sc.sup.tick = tick
	sc.f.svc.before = func(op, _ string) error { return tick(op) }
	return count
}

// isOld checks that the device is as before, with what ran before and nothing
// else.
func (sc *serviceScene) isOld(msg string) {
	sc.t.Helper()
	sc.is(sc.s1, running1, msg)
	require.Equal(sc.t, []string{fileRunning}, listed(sc.t, sc.f.svc.path(dirServices)), msg)
}

func (sc *serviceScene) isNew(msg string) {
	sc.t.Helper()
	sc.is(sc.s2, running2, msg)
}

func (sc *serviceScene) is(s *shop, want map[string]string, msg string) {
	sc.t.Helper()
	a, err := sc.f.Active(sc.t.Context(), "app")
	require.NoError(sc.t, err)
	require.True(sc.t, a.Is(s.c.Digest()), "%s: %v", msg, a)
	require.Equal(sc.t, want, sc.sup.runs(), msg)
}

// without returns m without some services.
func without(m map[string]string, names ...string) map[string]string {
	m = maps.Clone(m)
	for _, n := range names {
		delete(m, n)
	}
	return m
}
