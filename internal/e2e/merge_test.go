package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/release"
)

// merge puts the lines of the release that the old one lacks behind what a
// person made of the file.
const merge = `cp "$PAWL_MERGE_LOCAL" "$PAWL_MERGE_OUT"
grep -vxFf "${PAWL_MERGE_BASE:-/dev/null}" "$PAWL_MERGE_NEW" >>"$PAWL_MERGE_OUT"
echo "merged $PAWL_MERGE_PATH from $PAWL_FROM_VERSION to $PAWL_TO_VERSION" >>$d/log`

// TestMerge has a script of the release merge a file that a person changed: the
// merged file is tried, comes back as the person's when the release is bad,
// and stays when it is good. A script that cannot merge stops the update.
func TestMerge(t *testing.T) {
	t.Parallel()
	f := newScripted(t, newScriptMaker(t), "inplace")
	options := "  options: {paths: [{path: etc/*, localChanges: merge, script: conf}]}"
	publish := func(version, body string) {
		f.m.release(version, f.v2, append(f.scripts(script{name: "conf", at: release.OnMerge, component: true, run: body}), options)...)
	}
	const name = "etc/camera.conf"
	content := func() string {
		data, err := os.ReadFile(filepath.Join(f.app, name))
		require.NoError(t, err)
		return string(data)
	}
	write(t, f.app, name, "a=7\n", 0o644)
	before := pictureOf(t, f.app)

	publish("1.1.0", "echo cannot read this >&2; exit 3")
	require.Contains(t, f.must(10, "update").Error, "cannot read this")
	requireSame(t, before, pictureOf(t, f.app))

	f.health("false")
	f.set("trial", "deadline", "200ms")
	publish("1.2.0", merge)
	f.must(10, "update")
	requireSame(t, before, pictureOf(t, f.app))

	f.health("true")
	f.set("trial", "deadline", "3s")
	publish("1.3.0", merge)
	f.must(0, "update")
	// The release before listed no merge: its own version is gone.
	require.Equal(t, "a=7\na=1\nb=2\n", content())
	require.Contains(t, f.log(), "merged etc/camera.conf from 1.0.0 to 1.3.0")
	info, err := os.Stat(filepath.Join(f.app, name))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode(), "the mode is the release's")
	require.Contains(t, f.must(0, "verify").Line, "is as published")

	// The next release is merged with this one's own version as the base.
	v3 := cloneTree(t, f.v2, filepath.Join(f.m.dir, "v3"))
	f.v2 = v3
	write(t, v3, name, "a=1\nb=2\nc=3\n", 0o600)
	publish("1.4.0", merge)
	f.must(0, "update")
	require.Equal(t, "a=7\na=1\nb=2\nc=3\n", content())
	f.m.server.Close()
	f.must(0, "rollback")
}
