//go:build linux

package micro

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// localEdits are the ways in which the entry conf, which a release put there,
// is changed on the device.
var localEdits = map[string]func(t *testing.T, conf string){
	"content": func(t *testing.T, p string) { require.NoError(t, os.WriteFile(p, []byte("mine"), 0o644)) },
	"mode":    func(t *testing.T, p string) { require.NoError(t, os.Chmod(p, 0o600)) },
	"deleted": func(t *testing.T, p string) { require.NoError(t, os.Remove(p)) },
	"link": func(t *testing.T, p string) {
		require.NoError(t, os.Remove(p))
		require.NoError(t, os.Symlink("mine", p))
	},
	"folder": func(t *testing.T, p string) {
		require.NoError(t, os.Remove(p))
		files(t, p, map[string]string{"own": "mine"})
	},
	// in its place the release has a folder of its own
	"foreign": func(t *testing.T, p string) { files(t, p, map[string]string{"own": "mine"}) },
}

// TestPolicies goes through all local changes, what a release does to the
// entry, and the policies.
func TestPolicies(t *testing.T) {
	t.Parallel()
	policies := []Policy{Refuse, Keep, Overwrite, Merge}
	rows := 0
	for _, row := range []struct{ local, release, outcomes string }{
		{"content", "changes", "refused beside new merged"},
		{"content", "leaves", "refused stays new stays"},
		{"content", "removes", "refused stays gone stays"},
		{"mode", "changes", "refused beside new new"},
		{"mode", "leaves", "refused stays new stays"},
		{"mode", "removes", "refused stays gone stays"},
		{"deleted", "changes", "refused beside new beside"},
		{"deleted", "leaves", "refused stays new stays"},
		{"deleted", "removes", "gone gone gone gone"},
		{"link", "changes", "refused beside new beside"},
		{"link", "leaves", "refused stays new stays"},
		{"link", "removes", "refused stays gone stays"},
		// a folder is never kept in the place of a file, nor one in use replaced
		{"folder", "changes", "refused refused unmanaged refused"},
		{"folder", "leaves", "refused refused unmanaged refused"},
		{"folder", "removes", "stays stays stays stays"},
		// what else is in a folder is not the folder's
		{"foreign", "changes", "unmanaged unmanaged unmanaged unmanaged"},
		{"foreign", "leaves", "stays stays stays stays"},
		{"foreign", "removes", "stays stays stays stays"},
	} {
		for i, want := range strings.Fields(row.outcomes) {
			rows++
			t.Run(fmt.Sprint(row.local, "/", row.release, "/", policies[i]), func(t *testing.T) {
				require.Equal(t, want, policyOutcome(t, row.local, row.release, policies[i]))
			})
		}
	}
	require.Equal(t, 72, rows)
}

func policyOutcome(t *testing.T, local, next string, policy Policy) string {
	options := fmt.Sprintf(`{"paths":[{"path":"etc/*","localChanges":%q%s}]}`, policy, map[bool]string{true: `,"script":"merge-conf"`}[policy == Merge])
	version := func(conf map[string]string) *shop {
		conf["bin/app"] = "app"
		return withMerge(placeShop(t, files(t, t.TempDir(), conf), options))
	}
	conf := "etc/conf"
	if local == "foreign" {
		conf = "etc/conf/"
	}
	s2 := map[string]*shop{
		"changes": version(map[string]string{"etc/conf": "two"}), "leaves": version(map[string]string{conf: "one"}), "removes": version(map[string]string{}),
	}[next]
	d := newPlaceDevice(t)
	d.install("t1", version(map[string]string{conf: "one", "etc/stays": "x"}))
	localEdits[local](t, filepath.Join(d.root, "etc/conf"))
	before := times(t, d.root)
	diff := strings.Join(d.diff(s2), "\n")

	err := d.stage("t2", s2)
	if err == nil {
		require.NotContains(t, diff, "refused")
		require.NoError(t, d.f.Activate(t.Context(), "t2", s2.c))
		d.isWhole(s2)
	}
	outcome := policySeen(t, d, before, s2, err)
	d.revert("t2", s2)
	same(t, before, times(t, d.root), "back")
	d.tidy("back")
	if err != nil {
		require.Contains(t, diff, isRefused)
		return outcome
	}
	d.install("t3", s2)
	require.Equal(t, outcome, policySeen(t, d, before, s2, nil), "committed")
	for _, damage := range d.damage(s2) {
		require.Fail(t, "it is the device's", damage.String())
	}
	return outcome
}

// policySeen says what became of etc/conf.
func policySeen(t *testing.T, d *placeDevice, before map[string]string, s2 *shop, err error) string {
	switch {
	case errors.Is(err, ErrLocalChange):
		return "refused"
	case errors.Is(err, ErrUnmanaged):
		return "unmanaged"
	}
	require.NoError(t, err)
	now := times(t, d.root)
	require.NotContains(t, now, "etc/stays")
	_, beside := now["etc/conf"+suffixNew]
	e := s2.ix.Find("etc/conf")
	stays := now["etc/conf"] == before["etc/conf"] && now["etc/conf/own"] == before["etc/conf/own"]
	switch {
	case beside && stays:
		require.Equal(t, "two", d.read("etc/conf"+suffixNew))
		return "beside"
	case now["etc/conf"] == "" && (e == nil || !stays):
		return "gone"
	case stays:
		return "stays"
	case d.read("etc/conf") == "<one><mine><two>":
		return "merged"
	}
	require.Equal(t, string(s2.blobs[e.Digest]), d.read("etc/conf"))
	return "new"
}
