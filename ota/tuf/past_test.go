package tuf_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/otatest"
	"github.com/pawl-ota/pawl/ota/release"
	"github.com/pawl-ota/pawl/ota/tuf"
)

// The holes that other clients had, tried on this one.

// pastRepo has two releases, of which the device has seen both.
func pastRepo(t *testing.T) (*repo, tuf.Options) {
	r := otatest.NewTUFRepo(t, today)
	r.AddRelease("targets", 1, nil)
	r.Publish()
	r.AddRelease("targets", 2, nil)
	r.Publish()
	o := optionsFor(t, r, r.Dir)
	seq, err := latest(t, o)
	require.NoError(t, err)
	require.EqualValues(t, 2, seq)
	return r, o
}

// TestAktualizr1553 and aktualizr-lite 157: metadata of the same version with other bytes,
// as a publisher makes who restored a backup. A device that has the version
// keeps what it has, mixes nothing, takes no release of a seq that it saw with
// other bytes, and goes on with the next version.
func TestAktualizr1553(t *testing.T) {
	for _, upTo := range []string{"targets", "snapshot", "timestamp"} {
		t.Run("same versions up to "+upTo, func(t *testing.T) {
			r, o := pastRepo(t)
			before := readTrust(t, o.Dir).Roles
			r.AddRelease("targets", 2, func(r *release.Release) { r.Version = "replaced" })
			r.WriteRole("targets")
			meta := object{"targets.json": object{"version": r.Roles["targets"].Version()}}
			r.Roles["snapshot"].Signed["meta"] = meta
			if upTo == "targets" {
				r.Roles["snapshot"].SetVersion(r.Roles["snapshot"].Version() + 1)
			}
			r.WriteRole("snapshot")
			if upTo != "timestamp" {
				r.PublishTimestamp()
			}
			seq, err := latest(t, o)
			require.NoError(t, err)
			require.EqualValues(t, 2, seq)
			require.Equal(t, before["targets"], readTrust(t, o.Dir).Roles["targets"])
			r.Publish()
			_, err = latest(t, o)
			require.ErrorIs(t, err, tuf.ErrReplaced)
			r.AddRelease("targets", 3, nil)
			r.Publish()
			seq, err = latest(t, o)
			require.NoError(t, err)
			require.EqualValues(t, 3, seq)
		})
	}
}

// TestCVE202015163 of python-tuf: a root that was refused was kept, and trusted in the next
// lookup.
func TestCVE202015163(t *testing.T) {
	r, o := pastRepo(t)
	good := r.Copy()
	r.ReplaceKeys("root") // signed by the thief's keys alone
	refused := r.PublishRoot()
	for range 3 {
		_, err := latest(t, o)
		require.ErrorIs(t, err, tuf.ErrThreshold)
		trust := readTrust(t, o.Dir)
		require.False(t, bytes.Contains(bytes.Join(trust.Roots, nil), refused))
		require.NotContains(t, trust.Roles, "root")
	}
	// What that root would sign counts for nothing, and neither does a successor.
	r.Rotate(func() { r.ReplaceKeys("timestamp") })
	r.Publish()
	_, err := latest(t, o)
	require.ErrorIs(t, err, tuf.ErrThreshold)
	require.NoError(t, os.Remove(filepath.Join(r.Dir, "metadata", "2.root.json")))
	_, err = latest(t, o)
	require.ErrorIs(t, err, tuf.ErrThreshold, "version 3 alone")
	o.URL = good.Dir
	_, err = latest(t, o)
	require.NoError(t, err)
}

// TestGHSAfphv of go-tuf (GHSA-fphv-w9fq-2525): a delegation of threshold 0 let anybody
// sign.
func TestGHSAfphv(t *testing.T) {
	r, o := pastRepo(t)
	r.Delegate("targets", "team", false, "releases/kiosk/arm/*", "locators/kiosk/arm/*")
	r.Roles["targets"].Signed["delegations"].(object)["roles"].([]any)[0].(object)["threshold"] = 0
	r.Roles["team"].Keys = nil // not signed at all
	r.AddRelease("team", 9, nil)
	r.Publish()
	for _, device := range []tuf.Options{o, optionsFor(t, r, r.Dir)} {
		_, err := latest(t, device)
		require.ErrorIs(t, err, tuf.ErrUntrusted)
	}
}

// TestCVE202229173 of go-tuf: versions of root, timestamp, snapshot and targets could go
// back, also after the store's files were lost.
func TestCVE202229173(t *testing.T) {
	for _, role := range []string{"timestamp", "snapshot", "targets"} {
		for _, lost := range []string{"", "trust", "marks"} {
			t.Run(role+" without "+lost, func(t *testing.T) {
				r, o := pastRepo(t)
				if lost != "" {
					require.NoError(t, os.Remove(filepath.Join(o.Dir, lost)))
				}
				r.Roles[role].SetVersion(r.Roles[role].Version() - 2)
				r.Publish()
				_, err := latest(t, o)
				require.ErrorIs(t, err, tuf.ErrRollback)
			})
		}
	}
	r, o := pastRepo(t)
	past := r.Copy()
	r.Rotate(func() {})
	_, err := latest(t, o)
	require.NoError(t, err)
	o.URL = past.Dir
	_, err = latest(t, o)
	require.NoError(t, err, "its own newer root stands")
	require.NoError(t, os.Remove(filepath.Join(o.Dir, "trust")))
	_, err = latest(t, o)
	require.ErrorIs(t, err, tuf.ErrRollback)
}

// TestGO20221004 of go-tuf: one key under several ids counted several times.
func TestGO20221004(t *testing.T) {
	r, o := pastRepo(t)
	thief := r.Roles["targets"].Keys[0]
	r.Rotate(func() {
		ids := role(r, "targets")
		for _, id := range []string{"a", "b"} {
			r.Roles["root"].Signed["keys"].(object)[id] = thief.Public
			ids["keyids"] = append(ids["keyids"].([]string), id)
		}
	})
	r.Roles["targets"].Keys = []otatest.TUFKey{thief, renamed(thief, "a"), renamed(thief, "b")}
	r.AddRelease("targets", 9, nil)
	r.Publish()
	for _, device := range []tuf.Options{o, optionsFor(t, r, r.Dir)} {
		_, err := latest(t, device)
		require.ErrorIs(t, err, tuf.ErrThreshold)
	}
}

// TestGoTUF781: a stored file that cannot be read stopped all further lookups. See
// also TestEveryStoredRoleHeals.
func TestGoTUF781(t *testing.T) {
	_, o := pastRepo(t)
	for _, role := range []string{"timestamp", "snapshot", "targets"} {
		trust := readTrust(t, o.Dir)
		trust.Roles[role] = []byte("{")
		writeTrust(t, o.Dir, trust)
		_, err := latest(t, o)
		require.NoError(t, err)
	}
}
