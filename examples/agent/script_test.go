package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

func TestScriptLines(t *testing.T) {
	runs := []ota.ScriptRun{
		{Name: "a", At: release.BeforeStage, Outcome: ota.ScriptOK, Undo: ota.ScriptOK, Output: "fine"},
		{Name: "quiet", At: release.BeforeActivate, Outcome: ota.ScriptLater, Undo: ota.ScriptOK, Why: "exit code 75", Tries: 3, Output: "one\nthe camera records\n\n"},
		{Name: "move", Component: "app", At: release.AfterActivate, Outcome: ota.ScriptFailed, Why: "it took longer than 1s", Tries: 1},
		{Name: "back", At: release.AfterActivate, Outcome: ota.ScriptOK, Undo: ota.ScriptFailed, UndoWhy: "exit code 4", Output: "no"},
		{Name: "long", At: release.AfterCommit, Outcome: ota.ScriptBegun, Undo: ota.ScriptBegun, Output: strings.Repeat("x", 1000)},
	}
	require.Equal(t, []string{
		"script quiet (before-activate) asked for another time in run 3, exit code 75, and was undone: the camera records",
		"script move (after-activate of app) failed, it took longer than 1s",
		"script back (after-activate) succeeded, and its undo failed, exit code 4: no",
		"script long (after-commit) is running, or was cut short, and its undo is running, or was cut short: " + strings.Repeat("x", 200),
	}, scriptLines(ota.Result{Scripts: runs}))
}

// TestTerminalIsLeftAlone has a script write what a terminal would obey.
func TestTerminalIsLeftAlone(t *testing.T) {
	require.Equal(t, "a?[2Jb\n\tümläut → 1,024", plain("a\x1b[2Jb\n\tümläut → 1,024"))
	var stdout, stderr strings.Builder
	ans := answer{Line: "x\x1by", more: []string{"m\x07"}, Error: "e\x1b]0;t\x07"}
	printAnswer(ans, args{verb: "update"}, &stdout, &stderr)
	require.NotContains(t, stdout.String()+stderr.String(), "\x1b")
	require.NotContains(t, stdout.String()+stderr.String(), "\x07")
}

func TestPlanAsATable(t *testing.T) {
	p := plan{
		Changes: []ota.Change{
			{Component: "app", Path: "etc/camera.conf", What: ota.LocallyChanged, Detail: "kept"},
			{Component: "application", Path: "new\nline", What: ota.Added},
			{Component: "app", Path: strings.Repeat("d/", 60) + "x", What: ota.Changed, Detail: "1 → 2 bytes"},
		},
		Scripts:  []plannedScript{{"", release.BeforeStage, "battery", true, 90}},
		Services: []plannedService{{"app", "camera.service", "reload"}},
	}
	lines := p.lines()
	require.Equal(t, "local    app          etc/camera.conf"+strings.Repeat(" ", widest-15)+"  kept", lines[0])
	require.Equal(t, `added    application  "new\nline"`, lines[1])
	require.Equal(t, "changed  app          "+strings.Repeat("d/", 60)+"x  1 → 2 bytes", lines[2])
	require.Equal(t, "script                battery"+strings.Repeat(" ", widest-7)+"  before-stage, at most 1m30s, with an undo", lines[3])
	require.Equal(t, "service  app          camera.service"+strings.Repeat(" ", widest-14)+"  reload", lines[4])
}

func TestPlannedScriptsAreInTheOrderOfTheTransaction(t *testing.T) {
	var scripts []plannedScript
	for _, s := range []string{"/after-commit", "/after-stage", "/before-stage", "app/after-stage", "app/before-stage", "web/before-stage", "app/on-merge"} {
		component, point, _ := strings.Cut(s, "/")
		scripts = append(scripts, plannedScript{Component: component, At: release.Point(point)})
	}
	slices.SortStableFunc(scripts, plannedScript.compare)
	var order []string
	for _, s := range scripts {
		order = append(order, s.Component+"/"+string(s.At))
	}
	require.Equal(t, []string{"/before-stage", "app/before-stage", "web/before-stage", "app/after-stage", "/after-stage", "/after-commit", "app/on-merge"}, order)
}
