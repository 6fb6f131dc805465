package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/release"
)

// sv is a supervisor of one service, driven by commands: the service runs while
// DIR/runs holds the version of the app that it was started from. One whose
// bin/camera says "broken" ends at once.
const sv = `#!/bin/sh
d=%
echo "$1 $(cat $d/app/bin/camera)" >>$d/log
case $1 in
start) cp $d/app/bin/camera $d/runs ;;
stop) rm -f $d/runs ;;
status) [ -e $d/runs ] && ! grep -q broken $d/runs ;;
reread) ;;
*) exit 99 ;;
esac
`

// withService gives the device the supervisor, and a service that runs.
func (f *scripted) withService() {
	f.t.Helper()
	path := filepath.Join(f.dir, "sv")
	write(f.t, f.dir, "sv", strings.Replace(sv, "%", f.dir, 1), 0o755)
	words := map[string]any{}
	for _, verb := range []string{"start", "stop", "status", "reread"} {
		words[verb] = []string{path, verb, "{}"}
	}
	f.config["supervisor"] = words
	f.save()
}

// calls are what the supervisor was told to do, and what scripts ran, in order.
func (f *scripted) calls() string {
	f.t.Helper()
	data, err := os.ReadFile(filepath.Join(f.dir, "log"))
	require.NoError(f.t, err)
	require.NoError(f.t, os.Remove(filepath.Join(f.dir, "log")))
	var some []string
	for line := range strings.Lines(string(data)) {
		if !strings.HasPrefix(line, "status") && !strings.HasPrefix(line, "reread") {
			some = append(some, strings.TrimSpace(line))
		}
	}
	return strings.Join(some, ", ")
}

// TestServicesAroundTheSwitch has a service stopped before the files change and
// started from the new ones, with the scripts of the component outside of that;
// one that does not stay up is taken back to what ran before, without any
// health check of the maker's.
func TestServicesAroundTheSwitch(t *testing.T) {
	t.Parallel()
	m := newScriptMaker(t)
	bothLayouts(t, func(t *testing.T, layout string) {
		f := newScripted(t, m, layout)
		delete(f.config, "health")
		const services = "  services: [{name: camera.service}]"
		around := []script{
			{name: "before", at: release.BeforeActivate, component: true, run: "true", undo: "true"},
			{name: "after", at: release.AfterActivate, component: true, run: "true", undo: "true"},
		}
		f.m.release("1.1.0", f.v1, append(f.scripts(around...), services)...)
		require.Equal(t, "supervisor", f.must(1, "update").Kind, "nobody could start the services")
		require.Equal(t, "camera.service", f.must(0, "diff").Plan.Services[0].Name)

		f.withService()
		f.must(0, "update")
		require.Equal(t, "before, start one, after", f.calls())
		f.m.release("1.2.0", f.v2, append(f.scripts(around...), services)...)
		f.must(0, "update")
		require.Equal(t, "before, stop one, start two, after", f.calls())
		f.is(f.v2)

		// It does not come up, and then one that comes up and ends in the trial.
		bad := cloneTree(t, f.v2, filepath.Join(f.m.dir, "bad"))
		write(t, bad, "bin/camera", "broken", 0o644)
		f.m.release("1.3.0", bad, append(f.scripts(around...), services)...)
		f.set("trial", "deadline", "500ms")
		require.Contains(t, f.must(10, "update").Error, "service camera.service does not run after its start")
		require.Equal(t, "before, stop two, start broken, start two, before-undo", f.calls())
		f.is(f.v2)

		write(t, bad, "bin/camera", "three", 0o644)
		around[1].run = "echo broken >$d/runs"
		f.m.release("1.4.0", bad, append(f.scripts(around...), services)...)
		a := f.must(10, "update")
		require.Equal(t, "unhealthy", a.Kind, a.Error)
		require.Contains(t, a.Error, "camera.service")
		require.Equal(t, "before, stop two, start three, after, after-undo, start two, before-undo", f.calls())
		f.is(f.v2)
		running, err := os.ReadFile(filepath.Join(f.dir, "runs"))
		require.NoError(t, err)
		require.Equal(t, "two", string(running))
	})
}
