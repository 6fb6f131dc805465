//go:build linux

package systemd_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/micro"
	"github.com/pawl-ota/pawl/micro/systemctl"
	"github.com/pawl-ota/pawl/micro/systemd"
	"github.com/pawl-ota/pawl/ota/release"
)

// TestMain is also the guard of the devices below: a program that a unit runs
// before the app.
func TestMain(m *testing.M) {
	if what := os.Getenv("PAWL_GUARD"); what != "" {
		if err := guard(what); err != nil {
			fmt.Println("guard:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// guard goes on with the transaction t2, as Resume does: forward or back.
func guard(what string) error {
	var verb, root, address string
	var layout micro.Layout
	if _, err := fmt.Sscan(what, &verb, &layout, &root, &address); err != nil {
		return err
	}
	var s micro.Supervisor = &systemctl.Supervisor{Args: []string{"--user"}, Env: []string{"XDG_RUNTIME_DIR=" + os.Getenv("XDG_RUNTIME_DIR")}}
	if address != "systemctl" {
		var err error
		if s, err = systemd.New(systemd.Options{Address: address, Direct: true}); err != nil {
			return err
		}
	}
	warn := func(err error) { fmt.Println("guard warns:", err) }
	f, err := micro.New(micro.Options{Name: "app", Root: root, Layout: layout, Supervisor: s, Warn: warn})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), tooLong)
	defer cancel()
	if verb == "revert" {
		return f.Revert(ctx, "t2", release.Component{Name: "app"})
	}
	var c release.Component
	data, err := os.ReadFile(os.Getenv("PAWL_DOCUMENT"))
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	if err != nil {
		return err
	}
	return f.Activate(ctx, "t2", c)
}

// The boot of these devices: the guard comes before the app, and something
// else depends on that.
var bootUnits = map[string]string{
	"boot.target":   "[Unit]\nWants=guard.service app.service needs.service\nAfter=guard.service app.service needs.service\n",
	"quiet.target":  "[Unit]\nWants=guard.service\nAfter=guard.service\n",
	"guard.service": "[Unit]\nDefaultDependencies=no\nBefore=app.service\n[Service]\nType=oneshot\nRemainAfterExit=yes\nEnvironment=\"PAWL_GUARD=WHAT\" PAWL_DOCUMENT=COMPONENT\nExecStart=SELF\nStandardOutput=file:OUTPUT\nStandardError=inherit\nTimeoutStartSec=90\n",
	"needs.service": "[Unit]\nRequires=app.service\nAfter=app.service\n[Service]\nExecStart=sleep 1000\n",
}

// TestBootWithGuard cuts the power in an update, and has the guard settle it in
// the next boot: it waits for nobody, and the right version comes up with what
// depends on it. In the quiet boot nothing but the guard is what starts the app.
func TestBootWithGuard(t *testing.T) {
	for _, c := range []struct{ verb, cut, target string }{
		{"revert", "before the start", "boot.target"},
		{"revert", "before the start", "quiet.target"},
		{"revert", "in the trial", "boot.target"},
		{"activate", "before the start", "boot.target"},
		{"activate", "before the start", "quiet.target"},
		{"activate", "in the trial", "boot.target"},
	} {
		t.Run(fmt.Sprint(c.verb, " ", c.cut, " ", c.target), func(t *testing.T) {
			eachWay(t, func(t *testing.T, a *app) {
				two := a.second()
				a.verb("stage", "t2", two)
				if c.cut == "in the trial" {
					a.verb("activate", "t2", two)
					a.runs("2")
				} else {
					a.files = a.backend(&cutting{a.sup, 1})
					require.Error(t, a.try("activate", "t2", two))
				}
				a.Cut()
				require.NoError(t, os.RemoveAll(filepath.Join(a.Run, "version")))
				a.boot(c.target, c.verb, two)
				a.settled(map[string]string{"revert": "1", "activate": "2"}[c.verb])
				if c.target == "boot.target" {
					until(t, a.sup, "needs.service", running)
				}
				if c.verb == "activate" {
					require.NoError(t, a.files.CheckServices(t.Context()))
				}
			})
		})
	}
}

// settled checks that the guard ended well and a version runs.
func (a *app) settled(version string) {
	a.t.Helper()
	a.runs(version)
	said, err := os.ReadFile(filepath.Join(a.Run, "guard"))
	require.NoError(a.t, err)
	require.Empty(a.t, string(said))
	state, err := a.sup.State(a.t.Context(), "guard.service")
	require.NoError(a.t, err)
	require.True(a.t, state.Running, "%+v", state)
}

// second is the release that is on its way.
func (a *app) second() release.Component {
	return a.release(version{lasts + "# 2\n", service("2", "Type=exec")})
}

// boot starts the device with the guard before the app.
func (a *app) boot(target, verb string, c release.Component) {
	a.t.Helper()
	self, err := os.Executable()
	require.NoError(a.t, err)
	what := fmt.Sprint(verb, " ", a.layout, " ", a.root, " ", cmp.Or(a.via, a.Address()))
	component, output := filepath.Join(a.Run, "component"), filepath.Join(a.Run, "guard")
	data, err := json.Marshal(c)
	require.NoError(a.t, err)
	require.NoError(a.t, os.WriteFile(component, data, 0o644))
	for name, text := range bootUnits {
		text = strings.NewReplacer("WHAT", what, "SELF", self, "COMPONENT", component, "OUTPUT", output).Replace(text)
		a.other(name, text)
	}
	a.Start(target)
	a.sup = a.reach(0)
	a.files = a.backend(a.sup)
}

// cutting is a supervisor that is cut off after some actions.
type cutting struct {
	micro.Supervisor
	left int
}

func (c *cutting) Do(ctx context.Context, a micro.Action, name string) error {
	if c.left--; c.left < 0 {
		return fmt.Errorf("the power went before %s %s", a, name)
	}
	return c.Supervisor.Do(ctx, a, name)
}
