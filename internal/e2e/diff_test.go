package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// TestDiff asks what an update would change: every path that it then changes
// and no other, and the scripts that then run. Asking changes nothing.
func TestDiff(t *testing.T) {
	t.Parallel()
	m := newScriptMaker(t)
	bothLayouts(t, func(t *testing.T, layout string) {
		f := newScripted(t, m, layout)
		a := f.must(0, "diff")
		require.Nil(t, a.Plan)
		require.Contains(t, a.Line, "is the newest release")

		f.m.release("1.1.0", f.v2, f.scripts(bystanders()...)...)
		before := pictureOf(t, f.app)
		spool := pictureOf(t, filepath.Join(f.dir, ".pawl.app"))
		a = f.must(0, "diff")
		require.Equal(t, "1.1.0", a.Available.Version)
		changes := map[string]ota.ChangeKind{}
		for _, c := range a.Plan.Changes {
			require.Equal(t, "app", c.Component)
			changes[c.Path] = c.What
		}
		require.Equal(t, map[string]ota.ChangeKind{
			"bin/camera": ota.Changed, "bin/link": ota.Added, "etc/camera.conf": ota.Changed, "lib/new": ota.Added, "lib/old": ota.Removed,
		}, changes)
		var scripts []string
		for _, s := range a.Plan.Scripts {
			scripts = append(scripts, s.Name)
		}
		require.Equal(t, []string{"first", "ready", "done", "told"}, scripts)
		require.True(t, a.Plan.Scripts[0].Undo)
		require.Equal(t, release.BeforeStage, a.Plan.Scripts[0].At)

		text := f.reads("diff")
		require.Regexp(t, `(?m)^changed +app +etc/camera.conf +.*4 → 8 bytes.*mode 0644 → 0600`, text)
		require.Regexp(t, `(?m)^script +first +before-stage, with an undo$`, text)
		requireSame(t, before, pictureOf(t, f.app))
		requireSame(t, spool, pictureOf(t, filepath.Join(f.dir, ".pawl.app")))
		require.Empty(t, f.log(), "a script ran")

		f.must(0, "update")
		f.is(f.v2)

		require.NoError(t, os.WriteFile(filepath.Join(f.dir, "sick"), nil, 0o644))
		f.set("trial", "deadline", "200ms")
		f.m.release("1.2.0", f.v1)
		f.must(10, "update")
		require.Equal(t, "condemned", f.must(11, "diff").Kind)
		require.NotEmpty(t, f.agent("diff").Plan.Changes, "a release that is held back can be looked at all the same")
	})
}
