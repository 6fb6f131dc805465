//go:build linux

package micro

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota"
)

func eachLayout(t *testing.T, test func(t *testing.T, l Layout)) {
	for _, l := range []Layout{Tree, InPlace} {
		t.Run(string(l), func(t *testing.T) { test(t, l) })
	}
}

// actions is the log of a fake without what is not an action.
func actions(sup *fakeSupervisor) []string {
	return slices.DeleteFunc(slices.Clone(sup.calls), func(c string) bool { return c == "did" })
}

func TestServicesAround(t *testing.T) {
	eachLayout(t, func(t *testing.T, l Layout) {
		sc := newServiceScene(t, l)
		sc.upTo("commit")
		require.Equal(t, []string{
			"stop old", "stop app", "stop db", "refresh",
			"start db", "start new", "start app", "reload web", "restart cron", "start extra", "start lazy",
		}, actions(sc.sup))
		sc.isNew("on trial")
		require.NoError(t, sc.f.CheckServices(t.Context()))
		sc.sup.calls = nil
		sc.restart()
		sc.must("activate", "t2", sc.s2)
		require.Empty(t, sc.sup.calls, "nothing is touched again")
		sc.must("commit", "t2", sc.s2)
		sc.isNew("committed")
		require.Equal(t, []string{fileRunning}, listed(t, sc.f.svc.path(dirServices)))
		require.NoError(t, sc.f.CheckServices(t.Context()))
		require.Empty(t, sc.warned)

		s3 := sc.release("3", "db")
		sc.sup.calls = nil
		for _, v := range []string{"stage", "activate", "commit"} {
			sc.must(v, "t3", s3)
		}
		require.Equal(t, []string{"stop lazy", "stop extra", "stop app", "stop new", "stop db", "refresh", "start db"}, actions(sc.sup), "not those of the device")
		sc.is(s3, map[string]string{"db": "3", "web": "2", "cron": "2"}, "fewer")
	})
}

func TestServicesGoBack(t *testing.T) {
	eachLayout(t, func(t *testing.T, l Layout) {
		sc := newServiceScene(t, l)
		sc.upTo("revert")
		sc.sup.calls = nil
		sc.must("revert", "t2", sc.s2)
		require.Equal(t, []string{
			"stop lazy", "stop extra", "stop cron", "stop app", "stop new", "stop db", "refresh",
			"start later db", "start later app", "start later old", "reload web", "start later cron",
		}, actions(sc.sup))
		sc.isOld("back")
		require.Empty(t, sc.warned)
		sc.sup.calls = nil
		sc.must("revert", "t2", sc.s2)
		require.Empty(t, sc.sup.calls)
		sc.isOld("back twice")
	})
}

// countSteps counts what can be cut in a verb.
func countSteps(t *testing.T, l Layout, verb string) int {
	sc := newServiceScene(t, l)
	sc.upTo(verb)
	count := sc.cutAt(0)
	sc.must(verb, "t2", sc.s2)
	t.Logf("%s: %d steps", verb, *count)
	return *count
}

// TestServicesCut cuts each verb at each step, and goes on in another process
// of the same boot or in the next boot, either way.
func TestServicesCut(t *testing.T) {
	ways := map[string][]string{"activate": {"revert", "activate"}, "commit": {"commit"}, "revert": {"revert"}}
	turn := 0
	for verb, nexts := range ways {
		for _, boots := range []bool{false, true} {
			for _, next := range nexts {
				turn++ // so that each step is cut in one of the ways at least
				t.Run(fmt.Sprintf("%s, boots %v, %s", verb, boots, next), func(t *testing.T) {
					t.Parallel()
					eachLayout(t, func(t *testing.T, l Layout) { cutServices(t, l, verb, next, boots, turn) })
				})
			}
		}
	}
}

func cutServices(t *testing.T, l Layout, verb, next string, boots bool, turn int) {
	for n := range countSteps(t, l, verb) + 1 {
		if n == 0 || n%4 != turn%4 && !long() {
			continue
		}
		sc := newServiceScene(t, l)
		sc.upTo(verb)
		sc.cutAt(n)
		if err := sc.verb(verb, "t2", sc.s2); err != nil && verb != "revert" {
			require.ErrorIs(t, err, errCut)
		}
		if sc.restart(); boots {
			sc.sup.boot()
		}
		msg := fmt.Sprintf("%s cut at %d, then %s", verb, n, next)
		require.NoError(t, sc.verb(next, "t2", sc.s2), msg)
		want1, want2 := running1, running2
		if boots {
			sc.sup.booted()
			delete(sc.sup.units, "extra") // the boot may start it, because it is enabled
			want2 = without(want2, "extra")
			if verb == "commit" {
				want2 = without(want2, "lazy") // and nothing else
			}
		}
		if next == "revert" {
			sc.is(sc.s1, want1, msg)
			require.Equal(t, []string{fileRunning}, listed(t, sc.f.svc.path(dirServices)), msg)
			continue
		}
		sc.is(sc.s2, want2, msg)
	}
}

// TestServicesFail has each call of the supervisor fail by itself, without
// effect or after it: the release goes back, or the way back goes on.
func TestServicesFail(t *testing.T) {
	t.Parallel()
	eachLayout(t, func(t *testing.T, l Layout) {
		for _, verb := range []string{"activate", "revert"} {
			sc := newServiceScene(t, l)
			sc.upTo(verb)
			sc.sup.calls = nil
			sc.must(verb, "t2", sc.s2)
			for n := range sc.sup.calls {
				for i, broken := range []error{errors.New("no"), ErrSupervisor} {
					if verb == "revert" || i == n%2 || long() {
						failService(t, l, verb, n, broken)
					}
				}
			}
		}
	})
}

func failService(t *testing.T, l Layout, verb string, n int, broken error) {
	sc := newServiceScene(t, l)
	sc.upTo(verb)
	count, hit := -1, ""
	sc.sup.tick = func(call string) error {
		if count++; count != n {
			return nil
		}
		hit = call
		return broken
	}
	err := sc.verb(verb, "t2", sc.s2)
	if verb == "activate" {
		require.ErrorIs(t, err, broken, hit)
		sc.restart()
		sc.must("revert", "t2", sc.s2)
		sc.isOld(fmt.Sprint("call ", n, ": ", hit))
		return
	}
	if err != nil {
		require.ErrorIs(t, err, ErrSupervisor, "the one error that is tried again")
		sc.must("revert", "t2", sc.s2)
	} else {
		require.NotEmpty(t, sc.warned, "call %d: %s", n, hit)
	}
	a, err := sc.f.Active(t.Context(), "app")
	require.NoError(t, err)
	require.True(t, a.Is(sc.s1.c.Digest()))
	if len(sc.warned) == 0 {
		sc.isOld(hit)
		return
	}
	all := errors.Join(sc.warned...).Error()
	for name, version := range running1 {
		if strings.Contains(all, "service "+name+":") || strings.Contains(all, "read again") {
			continue
		}
		require.Equal(t, version, sc.sup.runs()[name], "%s, while the trouble was: %s", name, all)
	}
}

func TestSickServices(t *testing.T) {
	eachLayout(t, func(t *testing.T, l Layout) {
		for _, version := range []string{"crashes", "does not start"} {
			sc := newServiceScene(t, l)
			sick := sc.release(version, services2)
			sc.must("stage", "t2", sick)
			err := sc.verb("activate", "t2", sick)
			require.ErrorContains(t, err, "service db")
			sc.must("revert", "t2", sick)
			sc.isOld(version)
		}
	})
}

func TestCheckServices(t *testing.T) {
	sc := newServiceScene(t, Tree)
	check := func(want string) {
		t.Helper()
		err := sc.f.CheckServices(t.Context())
		if want == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, want)
		}
	}
	sc.must("stage", "t2", sc.s2)
	check("service extra does not run")
	sc.must("activate", "t2", sc.s2)
	check("")
	sc.sup.unit("app").restarts = 1
	check("service app ended and was started again 1 times")
	sc.sup.unit("app").restarts = 0
	sc.sup.unit("web").running = false
	check("service web does not run")
	sc.sup.unit("web").running = true
	sc.sup.unit("new").failed = true
	check("service new has failed")
	sc.sup.unit("new").failed = false
	sc.sup.unit("lazy").running = false
	check("service lazy does not run")
	sc.sup.unit("lazy").running = true
	sc.must("commit", "t2", sc.s2)
	sc.sup.unit("app").restarts = 7
	check("")
}

// TestServicesAreLeftAlone cuts a verb after it started the first service, and
// once more later on: what was started already is not touched again.
func TestServicesAreLeftAlone(t *testing.T) {
	eachLayout(t, func(t *testing.T, l Layout) {
		for verb, calls := range map[string][]string{"activate": {"start new", "restart cron"}, "revert": {"start later app"}} {
			sc := newServiceScene(t, l)
			sc.upTo(verb)
			for i, at := range calls {
				sc.sup.tick = func(call string) error {
					if call == at {
						return ErrSupervisor
					}
					return nil
				}
				require.ErrorIs(t, sc.verb(verb, "t2", sc.s2), ErrSupervisor)
				if sc.restart(); i == 0 {
					sc.sup.calls = nil
				}
			}
			sc.must(verb, "t2", sc.s2)
			for _, call := range sc.sup.calls {
				require.NotContains(t, call, "stop", verb)
				require.NotContains(t, call, " db", verb)
			}
			reloads := slices.DeleteFunc(actions(sc.sup), func(c string) bool { return c != "reload web" })
			require.Len(t, reloads, 1, verb)
		}
	})
}

// TestServicesInTheQueue goes back before the boot has started anything: what
// it will start on the old files stays in the queue, and nothing else does.
func TestServicesInTheQueue(t *testing.T) {
	eachLayout(t, func(t *testing.T, l Layout) {
		sc := newServiceScene(t, l)
		sc.upTo("revert")
		sc.restart()
		sc.sup.boot()
		sc.sup.calls = nil
		sc.must("revert", "t2", sc.s2)
		require.Equal(t, []string{"stop extra", "stop new", "refresh", "start later old"}, actions(sc.sup))
		sc.sup.booted()
		sc.isOld("after the boot")
	})
}

// TestPruneServices: the records of transactions that are not open go.
func TestPruneServices(t *testing.T) {
	sc := newServiceScene(t, Tree)
	sc.upTo("revert")
	var before []string
	for _, open := range [][]ota.TxID{{"t2"}, nil} {
		before = listed(t, sc.f.svc.path(dirServices))
		require.NoError(t, sc.f.Prune(t.Context(), "app", nil, open))
	}
	require.Equal(t, []string{"room.t2", fileRunning, "tx.t2"}, before, "while it is open")
	require.Equal(t, []string{fileRunning}, listed(t, sc.f.svc.path(dirServices)))
}

// TestServicesComeUpMeanwhile: somebody starts a service while it should rest.
func TestServicesComeUpMeanwhile(t *testing.T) {
	sc := newServiceScene(t, Tree)
	sc.must("stage", "t2", sc.s2)
	sc.sup.tick = func(call string) error {
		if call == "stop db" {
			*sc.sup.unit("app") = fakeUnit{running: true, version: "1"}
		}
		return nil
	}
	sc.must("activate", "t2", sc.s2)
	sc.isNew("with the new files all the same")
}

// TestRestartsOfTheOldOne: an old app that was started again and again says
// nothing of the new one, whose first time counts.
func TestRestartsOfTheOldOne(t *testing.T) {
	sc := newServiceScene(t, InPlace)
	for _, u := range sc.sup.units {
		u.restarts = 5
	}
	sc.upTo("commit")
	sc.restart()
	for name, before := range map[string]int{"app": 0, "cron": 0, "web": 5} {
		require.NoError(t, sc.f.CheckServices(t.Context()))
		sc.sup.unit(name).restarts = before + 1
		require.ErrorContains(t, sc.f.CheckServices(t.Context()), "service "+name+" ended and was started again 1 times")
		sc.sup.unit(name).restarts = before
	}
}

// TestRestartCutInTheMiddle: a supervisor that restarts by a stop and a start
// has done the first when the power of this process goes.
func TestRestartCutInTheMiddle(t *testing.T) {
	sc := newServiceScene(t, Tree)
	sc.must("stage", "t2", sc.s2)
	restarted := ""
	sc.sup.tick = func(call string) error {
		if name, ok := strings.CutPrefix(call, "restart "); ok {
			restarted = name
			sc.sup.unit(name).running = false
			return errCut
		}
		return nil
	}
	require.Error(t, sc.verb("activate", "t2", sc.s2))
	require.NotEmpty(t, restarted)
	sc.restart()
	sc.must("activate", "t2", sc.s2)
	sc.isNew(restarted + " stayed down")
	require.NoError(t, sc.f.CheckServices(t.Context()))
}

// TestFinishedServices: what runs to its end does so once per update.
func TestFinishedServices(t *testing.T) {
	sc := newServiceScene(t, Tree)
	sc.sup.oneshot = "new"
	sc.upTo("commit")
	require.NoError(t, sc.f.CheckServices(t.Context()))
	sc.restart()
	sc.sup.calls = nil
	sc.must("activate", "t2", sc.s2)
	require.Empty(t, sc.sup.calls)
	sc.must("revert", "t2", sc.s2)
	sc.isOld("back")
}

func TestNoSupervisor(t *testing.T) {
	eachLayout(t, func(t *testing.T, l Layout) {
		sc := newServiceScene(t, l)
		sc.upTo("revert")
		none, err := New(Options{Name: "app", Root: sc.root, Layout: l, Warn: func(err error) { sc.warned = append(sc.warned, err) }})
		require.NoError(t, err)
		_, err = none.Stage(t.Context(), "t3", sc.s1.c, sc.s1)
		require.ErrorIs(t, err, ErrNoSupervisor)
		plain := sc.release("4", "db")
		plain.c.Options = nil
		_, err = none.Stage(t.Context(), "t3", plain.c, plain)
		require.ErrorIs(t, err, ErrNoSupervisor, "what runs has services")
		require.NoError(t, none.Revert(t.Context(), "t2", sc.s2.c), "the files go back all the same")
		require.ErrorIs(t, errors.Join(sc.warned...), ErrNoSupervisor)
	})
}

// TestServicesOverStuck puts a newer release over one whose way back is stuck.
func TestServicesOverStuck(t *testing.T) {
	eachLayout(t, func(t *testing.T, l Layout) {
		sc := newServiceScene(t, l)
		sc.upTo("revert")
		s3 := sc.release("3", "db, app")
		sc.must("stage", "t3", s3)
		sc.must("activate", "t3", s3)
		sc.is(s3, map[string]string{"db": "3", "app": "3", "web": "2", "cron": "2"}, "t3 knows what t2 brought")
		require.NoError(t, sc.f.CheckServices(t.Context()))
		sc.must("revert", "t3", s3)
		sc.isNew("t2 again")
		sc.must("revert", "t2", sc.s2)
		sc.isOld("and back")
	})
}

// TestServicesFullDisk: what is written after Stage has its room.
func TestServicesFullDisk(t *testing.T) {
	sc := newServiceScene(t, Tree)
	sc.upTo("activate")
	room := sc.f.svc.path(dirServices, prefixRunRoom+"t2")
	require.FileExists(t, room)
	sc.f.svc.before = func(op, path string) error {
		if op == "write" && strings.Contains(path, "/"+dirServices+"/") {
			if _, err := look(room); err == nil && slices.Contains(listed(t, sc.f.svc.path(dirServices)), prefixRunRoom+"t2") {
				return ota.ErrNoSpace
			}
		}
		return nil
	}
	sc.must("activate", "t2", sc.s2)
	require.NoFileExists(t, room)
	sc.isNew("without space")
}

func TestServiceOptions(t *testing.T) {
	long := strings.Repeat("x", 256)
	many := strings.Repeat(`{"name":"a"},`, 65)
	for bad, want := range map[string]string{
		`{"services":[{"name":""}]}`:                          "services[0].name: it is empty",
		`{"services":[{"name":"a"},{"name":"` + long + `"}]}`: "services[1].name",
		`{"services":[{"name":"-a"}]}`:                        "begins with",
		`{"services":[{"name":"../a"}]}`:                      "begins with",
		`{"services":[{"name":"a/b"}]}`:                       "holds the character '/'",
		`{"services":[{"name":"a b"}]}`:                       "holds the character ' '",
		`{"services":[{"name":"{}"}]}`:                        "holds the character '{'",
		`{"services":[{"name":"a"},{"name":"a"}]}`:            "listed twice",
		`{"services":[{"name":"a","do":"stop"}]}`:             `services[0].do: "stop" is not known`,
		`{"services":[{"name":"a","when":"now"}]}`:            "unknown field",
		`{"services":[` + many[:len(many)-1] + `]}`:           "65 are more than 64",
	} {
		_, err := ParseOptions([]byte(bad))
		require.ErrorContains(t, err, want, "%.60s", bad)
	}
	o, err := ParseOptions([]byte(`{"services":[{"name":"getty@tty1.service"},{"name":"dev-disk\\x2d1.mount","do":"reload"}],"localChanges":"keep"}`))
	require.NoError(t, err)
	require.Equal(t, []Service{{"getty@tty1.service", ""}, {`dev-disk\x2d1.mount`, AfterReload}}, o.Services)
	require.Equal(t, Around, o.Services[0].handling())
	_, err = New(Options{Name: "app", Root: "/srv/app", ServiceLimit: -1})
	require.ErrorContains(t, err, "ServiceLimit")
}
