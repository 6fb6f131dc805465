//go:build linux

package systemd_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/micro"
	"github.com/pawl-ota/pawl/micro/systemd"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/otatest"
	"github.com/pawl-ota/pawl/ota/release"
)

// version is a release of one app: its program and its unit file.
type version struct{ program, unit string }

const (
	shebang = "#!/bin/sh\necho $VERSION >$XDG_RUNTIME_DIR/version\n"
	lasts   = shebang + "exec sleep 1000\n"
)

func service(version, more string) string {
	return fmt.Sprintf("[Service]\nEnvironment=VERSION=%s\nExecStart=ROOT/bin/app\n%s\n", version, more)
}

var one = version{lasts, service("1", "Restart=on-failure\nRestartSec=0.1")}

// app is a device with a systemd, an app in a root, and its unit file there
// too.
type app struct {
	*manager
	root   string
	layout micro.Layout
	via    string // how systemd is reached: "" for D-Bus, or systemctl
	sup    micro.Supervisor
	files  *micro.Files
	blobs  otatest.Blobs
	warned []error
}

func newApp(t *testing.T, l micro.Layout, via string) *app {
	t.Helper()
	root := filepath.Join(t.TempDir(), "app")
	a := &app{manager: newManager(t, filepath.Join(root, "units")), root: root, layout: l, via: via, blobs: otatest.Blobs{}}
	require.NoError(t, os.Mkdir(root, 0o755))
	first := a.release(one)
	// A unit that something wants stays loaded when it is stopped, as those of
	// a real device do: only a reload has systemd read its file again.
	a.other("pawl-test.target", "[Unit]\nWants=app.service\n")
	a.Units += ":" + filepath.Join(a.Run, "units")
	a.Start("pawl-test.target")
	a.sup = a.reach(0)
	a.files = a.backend(a.sup)
	a.verb("stage", "t1", first)
	a.verb("activate", "t1", first)
	a.verb("commit", "t1", first)
	a.runs("1")
	return a
}

// other writes a unit file that is not the app's.
func (a *app) other(name, text string) {
	a.t.Helper()
	dir := filepath.Join(a.Run, "units")
	require.NoError(a.t, os.MkdirAll(dir, 0o755))
	require.NoError(a.t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
}

// reach returns the supervisor of another process.
func (a *app) reach(stopLimit time.Duration) micro.Supervisor {
	if a.via == "systemctl" {
		s := a.systemctl()
		s.StopLimit = stopLimit
		return s
	}
	return a.supervisor(systemd.Options{StopLimit: stopLimit})
}

func (a *app) backend(s micro.Supervisor) *micro.Files {
	a.t.Helper()
	f, err := micro.New(micro.Options{Name: "app", Root: a.root, Layout: a.layout, Supervisor: s, Warn: func(err error) { a.warned = append(a.warned, err) }})
	require.NoError(a.t, err)
	return f
}

// release makes a release of a version.
func (a *app) release(v version) release.Component {
	a.t.Helper()
	ix := release.Index{}
	dir := func(p string) {
		if a.layout != micro.InPlace {
			ix.Entries = append(ix.Entries, release.Entry{Path: p, Type: release.Dir, Mode: 0o755})
		}
	}
	file := func(p, data string, mode uint32) {
		data = strings.ReplaceAll(data, "ROOT", a.root)
		a.blobs.Add([]byte(data))
		b := release.Blob{Digest: release.Sum([]byte(data)), Size: int64(len(data))}
		ix.Entries = append(ix.Entries, release.Entry{Path: p, Type: release.File, Mode: mode, Blob: b})
	}
	dir(".")
	dir("bin")
	file("bin/app", v.program, 0o755)
	dir("units")
	file("units/app.service", v.unit, 0o644)
	var buf bytes.Buffer
	require.NoError(a.t, ix.Encode(&buf))
	a.blobs.Add(buf.Bytes())
	raw, err := json.Marshal(micro.ComponentOptions{Services: []micro.Service{{Name: "app.service"}}})
	require.NoError(a.t, err)
	return release.Component{
		Name: "app", Kind: micro.Kind, Index: release.Blob{Digest: release.Sum(buf.Bytes()), Size: int64(buf.Len())},
		Keep: release.Keep{Previous: 1, Repair: release.RepairNone}, Options: raw,
	}
}

func (a *app) try(verb string, tx ota.TxID, c release.Component) error {
	ctx := soon(a.t)
	switch verb {
	case "stage":
		_, err := a.files.Stage(ctx, tx, c, a.blobs)
		return err
	case "activate":
		return a.files.Activate(ctx, tx, c)
	case "commit":
		return a.files.Commit(ctx, tx, c)
	}
	return a.files.Revert(ctx, tx, c)
}

func (a *app) verb(verb string, tx ota.TxID, c release.Component) {
	a.t.Helper()
	require.NoError(a.t, a.try(verb, tx, c), verb)
}

// runs waits until the service runs with a version's program and unit file.
func (a *app) runs(version string) {
	a.t.Helper()
	until(a.t, a.sup, "app.service", running)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var last []byte
	for range 6000 {
		last, _ = os.ReadFile(filepath.Join(a.Run, "version"))
		if string(last) == version+"\n" {
			return
		}
		<-tick.C
	}
	a.t.Fatalf("it runs version %q, not %q", last, version)
}

// tree is everything in the root.
func (a *app) tree() map[string]string {
	all := map[string]string{}
	require.NoError(a.t, filepath.WalkDir(a.root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(p)
		all[p] = string(data)
		return err
	}))
	return all
}

// eachWay tests both layouts, one over D-Bus and one through systemctl, or each
// in both ways if there is time.
func eachWay(t *testing.T, test func(t *testing.T, a *app)) {
	for _, w := range []struct {
		layout micro.Layout
		via    string
	}{{micro.Tree, ""}, {micro.InPlace, "systemctl"}, {micro.Tree, "systemctl"}, {micro.InPlace, ""}} {
		if w.layout == micro.Tree == (w.via != "") && os.Getenv("PAWL_CRASH") != "long" {
			continue
		}
		t.Run(strings.TrimSpace(string(w.layout)+" "+w.via), func(t *testing.T) {
			t.Parallel()
			test(t, newApp(t, w.layout, w.via))
		})
	}
}

func TestUpdateOfAService(t *testing.T) {
	eachWay(t, func(t *testing.T, a *app) {
		two := a.release(version{lasts + "# 2\n", service("2", "Type=exec")})
		a.verb("stage", "t2", two)
		a.runs("1")
		begin := time.Now()
		a.verb("activate", "t2", two)
		a.runs("2")
		t.Logf("stopped, exchanged, read again and started in %v", time.Since(begin))
		require.NoError(t, a.files.CheckServices(t.Context()))
		begin = time.Now()
		a.verb("revert", "t2", two)
		t.Logf("and back in %v", time.Since(begin))
		a.runs("1")
		require.NoError(t, a.files.CheckServices(t.Context()))
		a.verb("stage", "t3", two)
		a.verb("activate", "t3", two)
		a.verb("commit", "t3", two)
		a.runs("2")
		require.Empty(t, a.warned)
	})
}

// TestSickService: what a release can do wrong, each taken back to the old
// service within bounds.
func TestSickService(t *testing.T) {
	for name, c := range map[string]struct {
		version
		activate string // what Activate says; nothing where only the trial shows it
		check    string // what the trial says then
	}{
		"not to be executed":        {version{"no program\n", service("2", "Type=exec")}, "exit status 203", ""},
		"crashes at once":           {version{shebang + "exit 3\n", service("2", "Type=notify")}, "exit status 3", ""},
		"is never ready":            {version{lasts, service("2", "Type=notify\nTimeoutStartSec=1")}, "result timeout", ""},
		"unit file without a sense": {version{lasts, "[Service]\nExecStart=\n"}, "cannot start service app.service", ""},
		"crashes after a while":     {version{shebang + "sleep 1\nexit 4\n", service("2", "")}, "", "has failed: failed (failed), result exit-code, exit status 4"},
		"crashes again and again":   {version{shebang + "sleep 1\nexit 5\n", service("2", "Restart=always\nRestartSec=0.1")}, "", "ended and was started again 1 times"},
		"ends as if it were done":   {version{shebang + "sleep 1\n", service("2", "")}, "", "does not run: inactive (dead)"},
		"does not want to stop":     {version{shebang + "trap '' TERM\nwhile :; do sleep 1; done\n", service("2", "TimeoutStopSec=infinity")}, "", "asked for"},
	} {
		t.Run(name, func(t *testing.T) {
			eachWay(t, func(t *testing.T, a *app) {
				before, begin := a.tree(), time.Now()
				sick := a.release(c.version)
				a.verb("stage", "t2", sick)
				err := a.try("activate", "t2", sick)
				if c.activate != "" {
					require.ErrorContains(t, err, c.activate)
				} else {
					require.NoError(t, err)
					a.fails(c.check)
				}
				a.files = a.backend(a.reach(time.Second)) // another process
				a.verb("revert", "t2", sick)
				require.Equal(t, before, a.tree())
				a.runs("1")
				require.Less(t, time.Since(begin), tooLong)
				require.NoError(t, a.files.CheckServices(t.Context()))
			})
		})
	}
}

// fails waits until the trial says it.
func (a *app) fails(want string) {
	a.t.Helper()
	if want == "asked for" {
		return
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var err error
	for range 6000 {
		if err = a.files.CheckServices(a.t.Context()); err != nil && strings.Contains(err.Error(), want) {
			return
		}
		<-tick.C
	}
	a.t.Fatalf("the trial says %v", err)
}
