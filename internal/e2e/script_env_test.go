package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/release"
)

// TestScriptEnvironment compares all that a script is given with SCRIPTS.md:
// one of a component, its undo, and one of the release.
func TestScriptEnvironment(t *testing.T) {
	t.Parallel()
	f := newScripted(t, newScriptMaker(t), "tree")
	dump := func(name string) string {
		return `#!/usr/bin/env -S sh
{ env; pwd; } | sort >'` + filepath.Join(f.dir, name) + "'\n"
	}
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join(f.dir, name))
		require.NoError(t, err)
		var lines []string
		for line := range strings.Lines(string(data)) {
			line = strings.TrimSpace(line)
			if tx, ok := strings.CutPrefix(line, "PAWL_TX="); ok {
				require.Regexp(t, `^2-[a-z0-9]{10}$`, tx)
				line = "PAWL_TX=…"
			}
			switch {
			case strings.HasPrefix(line, "PWD="), strings.HasPrefix(line, "SHLVL="), strings.HasPrefix(line, "_="), strings.HasPrefix(line, "OLDPWD="): // the shell's own
			default:
				lines = append(lines, line)
			}
		}
		return strings.Join(lines, "\n")
	}
	f.health("false")
	f.set("trial", "deadline", "200ms")
	f.m.release("1.1.0", f.v2, f.scripts(
		script{name: "mine", at: release.AfterActivate, component: true, run: dump("mine"), undo: dump("undo")},
		script{name: "all", at: release.BeforeStage, run: dump("all")},
	)...)
	f.must(10, "update")

	const common = "HOME=/\nLANG=C\nPATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nPAWL_ATTEMPT=1\n"
	const versions = "PAWL_FROM_SEQ=1\nPAWL_FROM_VERSION=1.0.0\n"
	const to = "PAWL_TO_SEQ=2\nPAWL_TO_VERSION=1.1.0\nPAWL_TX=…"
	component := "PAWL_COMPONENT=app\n" + versions + "PAWL_POINT=after-activate\nPAWL_ROOT=" + f.app + "\nPAWL_SCRIPT=mine\n" + to
	rest := func(name string) string {
		text := read(name)
		i, j := strings.Index(text, "HOME="), strings.Index(text, "PAWL_TX=…")
		require.GreaterOrEqual(t, i, 0, text)
		require.Contains(t, text[:i], "/", "the working folder of %s", name)
		return text[i : j+len("PAWL_TX=…")]
	}
	require.Equal(t, common+component, rest("mine"))
	require.Equal(t, common+component, rest("undo"))
	require.Contains(t, read("undo"), "PAWL_UNDO=1")
	require.NotContains(t, read("mine"), "PAWL_UNDO")
	require.Equal(t, common+versions+"PAWL_POINT=before-stage\nPAWL_SCRIPT=all\n"+to, rest("all"))
	for _, name := range []string{"mine", "all"} {
		require.NotContains(t, read(name), "PAWL_BACK")
	}
}
