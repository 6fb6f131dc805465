package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
	"github.com/stretchr/testify/require"
)

// device is a folder with an agent's configuration, and what the agent keeps.
type device struct {
	t      testing.TB
	dir    string
	app    string // where the app finds its files
	state  string
	config map[string]any
	trial  ota.Trial // of a program that embeds the library; zero is a very short one
}

// answer is what agent -json prints.
type answer struct {
	Code      int
	Line      string
	Kind      string
	Error     string
	Hint      string
	Available *ota.Installed
	Plan      *plan
	Need      *ota.Plan
	Result    *ota.Result
	Status    *ota.Status
	History   []ota.Result
	Damage    []ota.Damage
}

// plan is what agent -json diff says.
type plan struct {
	Changes []ota.Change
	Scripts []struct {
		Component, Name string
		At              release.Point
		Undo            bool
		Limit           int
	}
	Services []struct{ Component, Name, Do string }
}

// newDevice makes a device in dir, whose app is healthy while DIR/sick is not
// there and the app's own selftest, if it has one, succeeds.
func newDevice(t testing.TB, m *maker, dir string) *device {
	t.Helper()
	d := &device{t: t, dir: dir, app: filepath.Join(dir, "app"), state: filepath.Join(dir, "state")}
	d.config = map[string]any{
		"state":      d.state,
		"device":     map[string]any{"id": "d1", "product": "camera", "variant": "arm", "hardware": "rev-b"},
		"source":     map[string]any{"url": m.url, "root": filepath.Join(m.repo, "metadata", "1.root.json")},
		"components": map[string]any{"app": map[string]any{"kind": "files", "root": d.app, "layout": "tree"}},
		"trial":      map[string]any{"soak": "50ms", "interval": "20ms", "timeout": "20s", "deadline": "3s"},
		"limits":     map[string]any{"lock": "300ms"},
	}
	d.health("[ ! -e " + filepath.Join(dir, "sick") + " ] && { [ ! -e bin/selftest ] || sh bin/selftest; }")
	return d
}

// health sets the health check to a script that runs in the app's folder.
func (d *device) health(script string) {
	d.config["health"] = []any{map[string]any{"exec": []string{"/bin/sh", "-c", "cd " + d.app + " && { " + script + "; }"}}}
	d.save()
}

// bothLayouts runs a test over each layout, at the same time. With -short it is
// one of them: they differ in micro, whose own tests have both.
func bothLayouts(t *testing.T, test func(t *testing.T, layout string)) {
	for i, layout := range []string{"tree", "inplace"} {
		if testing.Short() && i != len(t.Name())%2 {
			continue
		}
		t.Run(layout, func(t *testing.T) {
			t.Parallel()
			test(t, layout)
		})
	}
}

// layout changes the layout of the app.
func (d *device) layout(word string) {
	d.t.Helper()
	d.config["components"].(map[string]any)["app"].(map[string]any)["layout"] = word
	if word == "inplace" { // its root has to be there
		require.NoError(d.t, os.MkdirAll(d.app, 0o755))
	}
	d.save()
}

// set changes one key of one section of the configuration.
func (d *device) set(section, key string, value any) {
	d.config[section].(map[string]any)[key] = value
	d.save()
}

func (d *device) save() {
	data, err := json.Marshal(d.config)
	require.NoError(d.t, err)
	require.NoError(d.t, os.WriteFile(d.configFile(), data, 0o600))
}

func (d *device) configFile() string { return filepath.Join(d.dir, "agent.json") }

// command prepares the agent, in a process group of its own limits.
func (d *device) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program(d.t, "agent"), append([]string{"-config", d.configFile()}, args...)...)
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// agent runs the agent with -json and returns what it said.
func (d *device) agent(args ...string) answer {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := d.command(ctx, append(args, "-json")...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	_ = cmd.Run()
	require.NoError(d.t, ctx.Err(), "agent %v did not end", args)
	var a answer
	require.NoError(d.t, json.Unmarshal(stdout.Bytes(), &a), "agent %v: %s%s", args, stdout.String(), stderr.String())
	require.Equal(d.t, cmd.ProcessState.ExitCode(), a.Code, "the code in the answer is the exit code")
	require.Empty(d.t, stderr.String(), "with -json nothing is printed beside")
	return a
}

// must runs the agent and wants the exit code.
func (d *device) must(code int, args ...string) answer {
	d.t.Helper()
	a := d.agent(args...)
	require.Equal(d.t, code, a.Code, "agent %v: %s: %s", args, a.Line, a.Error)
	return a
}

// holds checks that the app's folder is exactly tree, that nothing is open, and
// that the agent finds the same.
func (d *device) holds(tree string) {
	d.t.Helper()
	requireSame(d.t, pictureOf(d.t, tree), pictureOf(d.t, d.app))
	require.Equal(d.t, ota.Idle, d.must(0, "status").Status.State)
}

// reads returns what the agent says to a person.
func (d *device) reads(args ...string) string {
	d.t.Helper()
	cmd := d.command(d.t.Context(), args...)
	out, _ := cmd.CombinedOutput()
	require.NotNil(d.t, cmd.ProcessState, "agent %v", args)
	return string(out)
}
