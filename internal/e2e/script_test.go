package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/testneeds"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// row is one thing that a script can do to an update. The script is called x
// and has an undo unless the row has none to say.
type row struct {
	name      string
	at        release.Point
	component bool
	run       string
	limit     string
	sick      bool // the release is taken back by its health

	code int
	kind string
	log  string // what ran, the bystanders of bystanders() among it
	says string // to the operator, in status or history and with the error
	// then is what the next update ends with; empty says that it is not run.
	then func(f *scripted)
}

// The ends of a row.
const (
	back      = "first x x-undo first-undo told"                  // it came before the component's own
	backReady = "first ready x x-undo ready-undo first-undo told" // it came after them
)

// condemned wants the release to be held back from now on.
func condemned(f *scripted) {
	require.Equal(f.t, "condemned", f.must(11, "update").Kind)
}

// again wants that the next update tries the release again.
func again(f *scripted) {
	runs := strings.Count(f.log(), "x")
	f.must(10, "update")
	require.Greater(f.t, strings.Count(f.log(), "x"), runs)
	f.is(f.v1)
}

// waits says that x asked for another time and nothing was touched. It asks
// four more times, more often than a script may be cut short, before the update
// goes on. each and last are what every update runs, and the last one.
func waits(state ota.State, each, last string) func(*scripted) {
	return func(f *scripted) {
		log := f.log()
		for range 4 {
			f.stateIs(state)
			f.told("script x", "asked for another time", "exit code 75", "the camera records")
			f.must(14, "update")
			log += each
			require.Equal(f.t, log, f.log())
			requireSame(f.t, pictureOf(f.t, f.v1), pictureOf(f.t, f.app))
		}
		write(f.t, f.dir, "ready", "", 0o644)
		f.must(0, "update")
		require.Equal(f.t, log+last, f.log())
		f.is(f.v2)
	}
}

const asksLater = "[ -e $d/ready ] || { echo the camera records; exit 75; }"

func rows() []row {
	const fails, refuses, later = "echo no camera found >&2; exit 3", "echo too old a lens; exit 77", "echo the camera records; exit 75"
	const saysFailed, saysRefused = "exit code 3: no camera found", "exit code 77: too old a lens"
	return []row{
		{name: "fails/before-stage", at: release.BeforeStage, run: fails, code: 10, kind: "script", log: back, says: saysFailed, then: again},
		{name: "fails/after-stage", at: release.AfterStage, run: fails, code: 10, kind: "script", log: back, says: saysFailed},
		{name: "fails/before-activate", at: release.BeforeActivate, run: fails, code: 10, kind: "script", log: back, says: saysFailed},
		{name: "fails/before-activate of app", at: release.BeforeActivate, component: true, run: fails, code: 10, kind: "script", log: backReady, says: saysFailed},
		{name: "fails/after-activate of app", at: release.AfterActivate, component: true, run: fails, code: 10, kind: "script", log: backReady, says: saysFailed},
		{name: "fails/after-activate", at: release.AfterActivate, run: fails, code: 10, kind: "script", log: backReady, says: saysFailed, then: again},
		{name: "fails/before-commit", at: release.BeforeCommit, run: fails, code: 10, kind: "script", log: backReady, says: saysFailed, then: condemned},
		{name: "fails/after-commit", at: release.AfterCommit, run: fails, code: 0, log: "first ready done x x x", says: saysFailed},
		{name: "fails/after-revert", at: release.AfterRevert, run: fails, sick: true, code: 10, kind: "unhealthy",
			log: "first ready ready-undo first-undo told x x x", says: saysFailed},

		{name: "refuses/before-stage", at: release.BeforeStage, run: refuses, code: 10, kind: "refused", log: back, says: saysRefused, then: condemned},
		{name: "refuses/before-activate", at: release.BeforeActivate, run: refuses, code: 10, kind: "refused", log: back, says: saysRefused, then: condemned},
		{name: "refuses/after-activate of app", at: release.AfterActivate, component: true, run: refuses, code: 10, kind: "refused", log: backReady, says: saysRefused, then: condemned},
		{name: "refuses/before-commit", at: release.BeforeCommit, run: refuses, code: 10, kind: "refused", log: backReady, says: saysRefused, then: condemned},

		{name: "later/before-stage", at: release.BeforeStage, run: asksLater, code: 14, kind: "later", log: "first x", then: waits(ota.Staging, " x", " x ready done")},
		{name: "later/after-stage of app", at: release.AfterStage, component: true, run: asksLater, code: 14, kind: "later", log: "first x", then: waits(ota.Staging, " x", " x ready done")},
		{name: "later/before-activate", at: release.BeforeActivate, run: asksLater, code: 14, kind: "later", log: "first x x-undo", then: waits(ota.Staged, " x x-undo", " x ready done")},
		{name: "later/before-activate of app", at: release.BeforeActivate, component: true, run: later, code: 10, kind: "script", log: backReady, says: "exit code 75: the camera records"},
		{name: "later/after-activate", at: release.AfterActivate, run: later, code: 10, kind: "script", log: backReady, says: "exit code 75: the camera records"},
		{name: "later/before-commit", at: release.BeforeCommit, run: "[ $PAWL_ATTEMPT -ge 4 ] || " + later[:len(later)-len("; exit 75")] + " || true; [ $PAWL_ATTEMPT -ge 4 ] || exit 75",
			code: 0, log: "first ready x x x x done"},
		{name: "later/before-commit for ever", at: release.BeforeCommit, run: later, code: 10, kind: "unhealthy", says: "the camera records"},

		{name: "hangs", at: release.AfterActivate, run: "echo $$ >$d/pids; echo waiting for the lens; sleep 1000 & echo $! >>$d/pids; wait", limit: "1s",
			code: 10, kind: "script", log: backReady, says: "it took longer than 1s: waiting for the lens"},
		{name: "hangs and does not listen", at: release.BeforeActivate, component: true, run: "trap '' TERM; echo $$ >$d/pids; while :; do sleep 1000; done", limit: "1s",
			code: 10, kind: "script", log: backReady, says: "it took longer than 1s"},
		{name: "floods", at: release.BeforeActivate, run: "head -c 50000000 /dev/zero; echo; echo the end", code: 0, log: "first x ready done"},
		{name: "floods and fails", at: release.BeforeActivate, run: "yes | head -c 50000000; printf '\\033[2Jthe end\\n'; exit 1", code: 10, kind: "script", log: back, says: "exit code 1: ?[2Jthe end"},
		{name: "forks", at: release.AfterActivate, component: true, run: "for i in 1 2 3 4 5 6 7 8 9; do (sleep 1000 & echo $! >>$d/pids; sleep 1000) & echo $! >>$d/pids; done; sleep 0.1",
			code: 0, log: "first ready x done"},
		{name: "leaves a child", at: release.BeforeStage, run: "setsid sleep 1000 & echo $! >>$d/pids; sleep 0.1", code: 0, log: "first x ready done"},
		{name: "is killed", at: release.AfterStage, run: "echo so far; kill -9 $$", code: 10, kind: "script", log: back, says: "killed by SIGKILL: so far"},
		{name: "interpreter missing", at: release.BeforeActivate, run: "#!/usr/bin/no-such-thing -x\n", code: 10, kind: "script", log: back[:5] + " x-undo first-undo told",
			says: `its interpreter "/usr/bin/no-such-thing" is not on this device`},
		{name: "not a program", at: release.BeforeActivate, run: "#!/bin/sh\nexec /bin/sh -c 'echo $0 $# $PAWL_POINT \"<$SECRET>\"; exit 9'\n", code: 10, kind: "script",
			log: back[:5] + " x-undo first-undo told", says: "exit code 9: /bin/sh 0 before-activate <>"},
	}
}

// TestScripts is the table of what scripts do: for each row what becomes of the
// release, the exit code, what runs and is undone, what the operator reads, and
// that the device is the old release or the new one, exactly. The rows take
// turns in the two layouts.
func TestScripts(t *testing.T) {
	t.Parallel()
	testneeds.Program(t, "setsid")
	m := newScriptMaker(t)
	for i, r := range rows() {
		layout := []string{"tree", "inplace"}[i%2]
		t.Run(r.name+"/"+layout, func(t *testing.T) {
			t.Parallel()
			r.play(newScripted(t, m, layout))
		})
	}
}

func (r row) play(f *scripted) {
	f.t.Helper()
	x := script{name: "x", at: r.at, component: r.component, run: r.run, undo: "true", limit: r.limit}
	if !r.at.HasUndo() {
		x.undo = ""
	}
	if r.sick {
		write(f.t, f.dir, "sick", "", 0o644)
	}
	f.m.release("1.1.0", f.v2, f.scripts(append(bystanders(), x)...)...)
	a := f.must(r.code, "update")
	require.Equal(f.t, r.kind, a.Kind, "%s: %s", a.Line, a.Error)
	if r.log != "" {
		require.Equal(f.t, r.log, f.log())
	}
	if r.says != "" && r.code == 10 {
		require.Contains(f.t, plainly(a.Error+" "+fmt.Sprint(a.Result.Scripts)), r.says)
	}
	if r.says != "" {
		f.told(r.says)
	}
	f.bounded(a)
	f.gone(f.pids()...)
	switch r.code {
	case 0:
		f.is(f.v2)
	case 10:
		require.Equal(f.t, ota.Reverted, a.Result.State)
		f.is(f.v1)
	default:
		requireSame(f.t, pictureOf(f.t, f.v1), pictureOf(f.t, f.app))
	}
	if r.then != nil {
		r.then(f)
	}
}

// plainly is what the agent does to a text for a person.
func plainly(text string) string { return strings.ReplaceAll(text, "\x1b", "?") }

// bounded checks that no output is longer than it may be.
func (f *scripted) bounded(a answer) {
	f.t.Helper()
	require.NotEmpty(f.t, a.Result.Scripts)
	for _, s := range a.Result.Scripts {
		require.LessOrEqual(f.t, len(s.Output), 2048)
	}
	for _, name := range must(filepath.Glob(filepath.Join(f.state, "updates", "journal.[ab]"))) {
		require.Less(f.t, must(os.Stat(name)).Size(), int64(64<<10))
	}
}
