package tuf_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/otatest"
	"github.com/pawl-ota/pawl/ota/release"
	"github.com/pawl-ota/pawl/ota/tuf"
)

// contents is what the file "trust" of a store holds.
type contents struct {
	Marks json.RawMessage   `json:"marks"`
	Roots [][]byte          `json:"roots,omitempty"`
	Roles map[string][]byte `json:"roles,omitempty"`
}

func readTrust(t *testing.T, dir string) (c contents) {
	data, err := os.ReadFile(filepath.Join(dir, "trust"))
	require.NoError(t, err)
	_, body, ok := bytes.Cut(data, []byte("\n"))
	require.True(t, ok)
	require.NoError(t, json.Unmarshal(body, &c))
	return c
}

// writeTrust seals contents as a program does that knows the format: the
// checksum is right, whatever stands in it.
func writeTrust(t *testing.T, dir string, c contents) {
	body, err := json.Marshal(c)
	require.NoError(t, err)
	const format = "pawl-trust/0"
	head := format + " " + release.Sum([]byte(format+"\n"+string(body))).String() + "\n"
	require.NoError(t, os.WriteFile(filepath.Join(dir, "trust"), append([]byte(head), body...), 0o600))
}

// roleDamages are what can stand in the store in place of a role's file.
var roleDamages = map[string]func(whole, older, foreign []byte) []byte{
	"missing":          func(_, _, _ []byte) []byte { return nil },
	"empty":            func(_, _, _ []byte) []byte { return []byte{} },
	"cut":              func(whole, _, _ []byte) []byte { return whole[:len(whole)/2] },
	"zeroed":           func(whole, _, _ []byte) []byte { return make([]byte, len(whole)) },
	"flipped":          func(whole, _, _ []byte) []byte { w := bytes.Clone(whole); w[len(w)*2/3] ^= 1; return w },
	"older":            func(_, older, _ []byte) []byte { return older },
	"another device's": func(_, _, foreign []byte) []byte { return foreign },
	"null":             func(_, _, _ []byte) []byte { return []byte("null") },
	"nothing signed":   func(_, _, _ []byte) []byte { return []byte(`{"signed":{},"signatures":[]}`) },
	"signed twice": func(whole, _, _ []byte) []byte {
		return bytes.Replace(whole, []byte(`"signatures":[`), []byte(`"signatures":[{"keyid":"a","sig":"00"},{"keyid":"a","sig":"00"},`), 1)
	},
	"expires never": func(whole, _, _ []byte) []byte {
		return bytes.Replace(whole, []byte(`"expires":"2`), []byte(`"expires":"x`), 1)
	},
	"another type": func(whole, _, _ []byte) []byte {
		return bytes.Replace(whole, []byte(`"_type":"`), []byte(`"_type":"x`), 1)
	},
	"meta of no sense": func(whole, _, _ []byte) []byte {
		return bytes.Replace(whole, []byte(`"meta":{`), []byte(`"meta":{"snapshot.json":null,`), 1)
	},
	"another role's":      nil,
	"garbage":             func(_, _, _ []byte) []byte { return bytes.Repeat([]byte("garbage\n"), 99) },
	"of another spelling": func(whole, _, _ []byte) []byte { return append([]byte(" \n"), whole...) },
}

// TestEveryStoredRoleHeals: whatever stands in the store in a role's place, the
// next lookup at the repository succeeds, and nothing older than what was seen is
// taken, before and after.
func TestEveryStoredRoleHeals(t *testing.T) {
	r := otatest.NewTUFRepo(t, today)
	r.Delegate("targets", "team", false, "releases/kiosk/arm/*", "locators/kiosk/arm/*")
	r.AddRelease("team", 1, nil)
	r.Publish()
	old := r.Copy()
	seen := optionsFor(t, r, r.Dir)
	_, err := latest(t, seen)
	require.NoError(t, err)
	older := readTrust(t, seen.Dir)
	r.Rotate(func() {})
	r.AddRelease("team", 2, nil)
	r.Publish()
	_, err = latest(t, seen)
	require.NoError(t, err)
	whole := readTrust(t, seen.Dir)
	marks, err := os.ReadFile(filepath.Join(seen.Dir, "marks"))
	require.NoError(t, err)

	another := otatest.NewTUFRepo(t, today)
	another.Delegate("targets", "team", false, "releases/kiosk/arm/*", "locators/kiosk/arm/*")
	another.AddRelease("team", 9, nil)
	another.Publish()
	there := optionsFor(t, another, another.Dir)
	_, err = latest(t, there)
	require.NoError(t, err)
	foreign := readTrust(t, there.Dir)

	for _, role := range []string{"root", "timestamp", "snapshot", "targets", "team"} {
		for what, damage := range roleDamages {
			if testing.Short() && what != "flipped" {
				continue
			}
			t.Run(role+" "+what, func(t *testing.T) {
				t.Parallel()
				damaged := contents{whole.Marks, append([][]byte{}, whole.Roots...), map[string][]byte{}}
				for name, data := range whole.Roles {
					damaged.Roles[name] = data
				}
				switch {
				case role == "root" && damage == nil:
					damaged.Roots[1] = whole.Roles["targets"]
				case role == "root":
					damaged.Roots[1] = damage(whole.Roots[1], older.Roots[0], foreign.Roots[0])
				case damage == nil:
					damaged.Roles[role] = whole.Roles[map[string]string{"timestamp": "snapshot", "snapshot": "targets", "targets": "timestamp", "team": "targets"}[role]]
				default:
					damaged.Roles[role] = damage(whole.Roles[role], older.Roles[role], foreign.Roles[role])
				}
				o := optionsFor(t, r, r.Dir)
				require.NoError(t, os.Mkdir(o.Dir, 0o700))
				place := func() {
					writeTrust(t, o.Dir, damaged)
					require.NoError(t, os.WriteFile(filepath.Join(o.Dir, "marks"), marks, 0o600))
				}
				place()
				back := o
				back.URL = old.Dir
				_, err := latest(t, back)
				require.ErrorIs(t, err, tuf.ErrRollback)
				place()
				seq, err := latest(t, o)
				require.NoError(t, err)
				require.EqualValues(t, 2, seq)
				_, err = latest(t, back)
				require.ErrorIs(t, err, tuf.ErrRollback, "healed")
				healed := readTrust(t, o.Dir)
				require.Len(t, healed.Roots, len(whole.Roots))
				for i := range whole.Roots {
					require.JSONEq(t, string(whole.Roots[i]), string(healed.Roots[i]))
				}
				require.Len(t, healed.Roles, len(whole.Roles))
				for name := range whole.Roles {
					require.JSONEq(t, string(whole.Roles[name]), string(healed.Roles[name]))
				}
			})
		}
	}
}

// TestStoreOfAnotherDevice of the same repository: newer or older than this one's,
// it is as good.
func TestStoreOfAnotherDevice(t *testing.T) {
	r := otatest.NewTUFRepo(t, today)
	r.AddRelease("targets", 1, nil)
	r.Publish()
	past := r.Copy()
	r.AddRelease("targets", 2, nil)
	r.Publish()
	for _, url := range []string{past.Dir, r.Dir} {
		o := optionsFor(t, r, url)
		_, err := latest(t, o)
		require.NoError(t, err)
		clone := optionsFor(t, r, r.Dir)
		require.NoError(t, os.CopyFS(clone.Dir, os.DirFS(o.Dir)))
		require.NoError(t, os.Chmod(clone.Dir, 0o700))
		seq, err := latest(t, clone)
		require.NoError(t, err)
		require.EqualValues(t, 2, seq)
		clone.URL = past.Dir
		_, err = latest(t, clone)
		require.ErrorIs(t, err, tuf.ErrRollback)
	}
}
