package e2e

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// TestScriptChangesTheTree has a script write where the release does. The
// device is the old release or the new one but for the one path that the script
// changed, which no update takes for its own, and the operator reads which one
// it is.
func TestScriptChangesTheTree(t *testing.T) {
	t.Parallel()
	const conf, same, mine = "etc/camera.conf", "same", "etc/mine"
	m := newScriptMaker(t)
	for _, c := range []struct {
		name, layout string
		at           release.Point
		run          string
		path         string // what is left of the script's doing; empty: nothing
		code         int
		kind         string
		verify       string // what verify says of the path; empty: all is as published
	}{
		{"what the release replaces", "tree", release.BeforeActivate, "echo mine >$d/app/" + conf, "", 0, "", ""},
		{"what both trees share", "tree", release.BeforeActivate, "echo mine >$d/app/" + same, same, 10, "changed", "it has 5 bytes instead of 4"},
		{"a new file", "tree", release.AfterStage, "echo mine >$d/app/" + mine, mine, 10, "unmanaged", "the release does not list it"},
		{"the new release", "tree", release.AfterActivate, "echo mine >$d/app/" + conf, conf, 0, "", "it has 5 bytes"},
		{"the new release, and fails", "tree", release.AfterActivate, "echo mine >$d/app/" + conf + "; exit 1", "", 10, "script", ""},
		{"what the release replaces", "inplace", release.BeforeActivate, "echo mine >$d/app/" + conf, conf, 10, "localchange", "it has 5 bytes instead of 4"},
		{"before it is staged", "inplace", release.BeforeStage, "rm $d/app/" + same, same, 1, "localchange", ""},
		{"what the release leaves", "inplace", release.BeforeActivate, "chmod 755 $d/app/" + same, same, 0, "", "its mode is 755 instead of 644"},
		{"a new file", "inplace", release.BeforeActivate, "echo mine >$d/app/" + mine, mine, 0, "", ""},
		{"the new release", "inplace", release.AfterActivate, "echo mine >$d/app/" + conf, conf, 0, "", "it has 5 bytes"},
		{"the new release, and fails", "inplace", release.AfterActivate, "echo mine >$d/app/" + conf + "; exit 1", "", 10, "script", ""},
	} {
		t.Run(c.layout+"/"+c.name, func(t *testing.T) {
			t.Parallel()
			f := newScripted(t, m, c.layout)
			f.m.release("1.1.0", f.v2, f.scripts(script{name: "x", at: c.at, run: c.run})...)
			a := f.must(c.code, "update")
			require.Equal(t, c.kind, a.Kind, a.Error)
			want, got := pictureOf(t, f.v1), pictureOf(t, f.app)
			if c.code == 0 {
				want = pictureOf(t, f.v2)
			}
			delete(want, c.path)
			delete(got, c.path)
			requireSame(t, want, got)
			if c.code != 0 && c.kind != "script" {
				require.Contains(t, a.Error, c.path)
			}
			if c.code == 1 { // the change is to be undone, and the update goes on
				f.stateIs(ota.Staging)
				write(t, f.app, same, "same", 0o644)
				f.m.release("1.2.0", f.v2)
				f.must(0, "update")
				f.is(f.v2)
				return
			}
			if c.verify == "" {
				f.must(0, "verify")
				return
			}
			damage := f.must(1, "verify").Damage
			require.Len(t, damage, 1)
			require.Equal(t, c.path, damage[0].Path)
			require.Contains(t, damage[0].Reason, c.verify)
		})
	}
}

// TestUndoFails has an undo that cannot do its work until a person has been
// there: the files are as they were all the same, the state says stuck and why,
// and then it gets out by itself.
func TestUndoFails(t *testing.T) {
	t.Parallel()
	m := newScriptMaker(t)
	for _, layout := range []string{"tree", "inplace"} {
		t.Run(layout, func(t *testing.T) {
			t.Parallel()
			f := newScripted(t, m, layout)
			x := script{name: "x", at: release.AfterActivate, component: true, run: "echo no camera; exit 3", undo: "[ -e $d/mended ] || { echo the motor is stuck; exit 4; }"}
			f.m.release("1.1.0", f.v2, f.scripts(append(bystanders(), x)...)...)
			a := f.must(12, "update")
			require.Equal(t, "stuck", a.Kind)
			require.Contains(t, a.Error, "no camera")
			require.Contains(t, a.Error, "the motor is stuck")
			f.told("runs 1.0.0 (seq 1), stuck", "script x (after-activate of app) failed", "its undo failed, exit code 4", "the motor is stuck")
			f.stateIs(ota.Stuck)
			requireSame(t, pictureOf(t, f.v1), pictureOf(t, f.app))
			require.Equal(t, "first ready x x-undo x-undo x-undo ready-undo first-undo", f.log())

			write(t, f.dir, "mended", "", 0o644)
			f.must(0, "resume")
			require.Equal(t, "first ready x x-undo x-undo x-undo ready-undo first-undo x-undo told", f.log())
			f.is(f.v1)
		})
	}
}
