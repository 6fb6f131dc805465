//go:build linux

package publish

import (
	"crypto"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/tuf"
)

// TestDelegate: a team releases for its variants with its own key, and for
// nothing else; targets' keys are not needed for it.
func TestDelegate(t *testing.T) {
	f := newFixture(t)
	f.mustAdd(t, "arm")
	d := f.newDevice(t)
	team := f.delegate(t, "team", "arm", "riscv")
	require.EqualValues(t, 1, d.seq(t, "arm"), "what targets signed stays")
	targets := f.keys[Targets]
	delete(f.keys, Targets)
	require.EqualValues(t, 2, f.mustAdd(t, "arm"), "the seq goes on")
	require.EqualValues(t, 1, f.mustAdd(t, "riscv"))
	require.EqualValues(t, 2, d.seq(t, "arm"))
	require.EqualValues(t, 1, d.seq(t, "riscv"))
	_, err := f.add(t, "default")
	require.ErrorIs(t, err, ErrKeys, "the team has no say there")
	list, err := f.List(t.Context())
	require.NoError(t, err)
	require.Equal(t, []Role{Targets, "team", "team"}, []Role{list[0].Role, list[1].Role, list[2].Role})
	f.good(t)

	f.keys[Targets], f.keys["team"] = targets, nil
	_, err = f.add(t, "arm")
	require.ErrorIs(t, err, ErrKeys, "the variant is the team's")
	require.EqualValues(t, 1, f.mustAdd(t, "default"))
	s, err := f.Status()
	require.NoError(t, err)
	require.Equal(t, RoleStatus{Role: "team", Version: 3, Threshold: 1, Keys: []string{idOf(t, team)},
		Expires: f.now.Truncate(1e9).Add(365 * day), Variants: []string{"arm", "riscv"}}, s.Roles[4])

	require.ErrorIs(t, f.Delegate(t.Context(), Delegation{Name: "two", Variants: []string{"arm"}, Keys: []crypto.PublicKey{newKey(t).Public()}}), ErrDelegation)
	require.NoError(t, f.Revoke(t.Context(), "team", true))
	require.EqualValues(t, 2, d.seq(t, "arm"), "targets vouches for them now")
	require.EqualValues(t, 3, f.mustAdd(t, "arm"))
	require.EqualValues(t, 3, d.seq(t, "arm"))
	f.delegate(t, "team", "arm")
	require.EqualValues(t, 4, f.mustAdd(t, "arm"))
	require.EqualValues(t, 4, d.seq(t, "arm"), "versions of a role go on where they were")
	require.NoError(t, f.Revoke(t.Context(), "team", false))
	require.EqualValues(t, 3, f.newDevice(t).seq(t, "arm"))
	require.EqualValues(t, 5, f.mustAdd(t, "arm"), "no seq is given twice")
	require.EqualValues(t, 5, d.seq(t, "arm"))
	f.good(t)
}

func TestDelegateRefused(t *testing.T) {
	f := newFixture(t)
	key := newKey(t)
	f.keys["team"] = []crypto.Signer{key}
	keys := []crypto.PublicKey{key.Public()}
	for name, d := range map[string]Delegation{
		"name of a role":  {Name: "snapshot", Variants: []string{"arm"}, Keys: keys},
		"name":            {Name: "../x", Variants: []string{"arm"}, Keys: keys},
		"name with a dot": {Name: "1.team", Variants: []string{"arm"}, Keys: keys},
		"no variants":     {Name: "team", Keys: keys},
		"pattern":         {Name: "team", Variants: []string{"*"}, Keys: keys},
		"variant twice":   {Name: "team", Variants: []string{"arm", "arm"}, Keys: keys},
		"no keys":         {Name: "team", Variants: []string{"arm"}},
		"threshold":       {Name: "team", Variants: []string{"arm"}, Keys: keys, Threshold: 2},
		"below 1":         {Name: "team", Variants: []string{"arm"}, Keys: keys, Threshold: -1},
		"key elsewhere":   {Name: "other", Variants: []string{"arm"}, Keys: keys},
	} {
		before := names(t, f.dir)
		require.Error(t, f.Delegate(t.Context(), d), name)
		require.Equal(t, before, names(t, f.dir), name)
	}
	require.ErrorIs(t, f.Revoke(t.Context(), "team", true), ErrDelegation)
}

// TestTeamOutOfBounds: what a team signs outside its variants nobody sees, and
// verify says so.
func TestTeamOutOfBounds(t *testing.T) {
	f := newFixture(t)
	f.mustAdd(t, "default")
	f.delegate(t, "team", "arm")
	f.mustAdd(t, "arm")
	state, err := f.disk.load(nil, start)
	require.NoError(t, err)
	e := &edit{}
	meta := e.bump(state, "team", start.Add(day))
	for name, file := range state.Targets["targets"].Signed.Targets {
		meta.Signed.Targets[name] = file
	}
	far := target{Kind: kindRelease, Product: "gateway", Variant: "default", Seq: 99, Version: "9"}
	require.NoError(t, far.addTo(&meta.Signed, []byte("{}")))
	require.NoError(t, f.finish(state, e))
	require.EqualValues(t, 1, f.newDevice(t).seq(t, "default"))
	require.EqualValues(t, 1, f.newDevice(t).seq(t, "arm"))
	v, err := f.Verify(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, []string{"team: locators/gateway/default/1.json", "team: releases/gateway/default/1.json", "team: releases/gateway/default/99.json"}, v.Ignored)
	require.EqualValues(t, 2, f.mustAdd(t, "default"), "it takes no seq away")
}

// TestTeamExpires: a team that does not refresh stops its own variants.
func TestTeamExpires(t *testing.T) {
	f := newFixture(t)
	f.mustAdd(t, "default")
	f.delegate(t, "team", "arm")
	f.mustAdd(t, "arm")
	delete(f.keys, "team")
	f.now = start.Add(350 * day)
	_, err := f.Refresh(t.Context())
	require.NoError(t, err)
	f.now = start.Add(370 * day)
	require.EqualValues(t, 1, f.newDevice(t).seq(t, "default"))
	_, err = f.newDevice(t).latest(t.Context(), "arm")
	require.ErrorIs(t, err, tuf.ErrExpired)
	_, err = f.Verify(t.Context(), nil)
	require.ErrorContains(t, err, "expired")
}

// TestDrop: dropped releases are not offered any more, their seqs are not given
// again, and devices on one of them take the newest.
func TestDrop(t *testing.T) {
	f := newFixture(t)
	d := f.newDevice(t)
	f.delegate(t, "team", "arm")
	for _, variant := range []string{"default", "arm"} {
		for range 5 {
			f.mustAdd(t, variant)
		}
		require.EqualValues(t, 5, d.seq(t, variant))
		dropped, err := f.KeepLast(t.Context(), variant, 2)
		require.NoError(t, err)
		require.Equal(t, []uint64{1, 2, 3}, dropped)
		require.EqualValues(t, 5, d.seq(t, variant))
		dropped, err = f.KeepLast(t.Context(), variant, 2)
		require.NoError(t, err)
		require.Empty(t, dropped)
		_, err = f.KeepLast(t.Context(), variant, 0)
		require.Error(t, err)
		require.ErrorIs(t, f.Drop(t.Context(), variant, 3), ErrNoRelease)
		require.NoError(t, f.Drop(t.Context(), variant, 4, 5))
		_, err = f.newDevice(t).latest(t.Context(), variant)
		require.ErrorIs(t, err, ota.ErrNoRelease)
		require.EqualValues(t, 6, f.mustAdd(t, variant))
		require.EqualValues(t, 6, d.seq(t, variant))
	}
	f.good(t)
}

// TestRetry: a raised attempt is taken by a device that has seen the release;
// the content is not touched.
func TestRetry(t *testing.T) {
	f := newFixture(t)
	d := f.newDevice(t)
	f.mustAdd(t, "default")
	before, err := d.latest(t.Context(), "default")
	require.NoError(t, err)
	files := contents(t, f.dir)
	for want := range uint32(3) {
		n, err := f.Retry(t.Context(), "default", 1)
		require.NoError(t, err)
		require.Equal(t, want+1, n)
		r, err := d.latest(t.Context(), "default")
		require.NoError(t, err)
		require.Equal(t, n, r.Attempt)
		require.Equal(t, before.Identity(), r.Identity())
	}
	require.Equal(t, files, contents(t, f.dir))
	f.good(t)
	f.mustAdd(t, "default")
	_, err = f.Retry(t.Context(), "default", 1)
	require.ErrorContains(t, err, "not the newest")
	_, err = f.Retry(t.Context(), "default", 3)
	require.ErrorIs(t, err, ErrNoRelease)
	_, err = f.Retry(t.Context(), "arm", 1)
	require.True(t, errors.Is(err, ErrNoRelease))
}
