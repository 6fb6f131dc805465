//go:build linux

package publish

import (
	"context"
	"crypto"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// cutCase is a change that is cut at each of its writes.
type cutCase struct {
	name string
	act  func(ctx context.Context, f *fixture) error
	// done reports whether the change is there, where nothing waits.
	done func(t *testing.T, f *fixture) bool
	// seqs are those of the newest releases of default and arm before and
	// after; 0 stands for none.
	before, after [2]uint64
}

// base is a repository with a team, ready to be copied.
type base struct {
	fixture
	warm  string // the trust store of a device that has seen it
	extra []crypto.Signer
}

func newBase(t *testing.T) *base {
	f := newFixture(t)
	f.mustAdd(t, "default")
	f.mustAdd(t, "default")
	f.delegate(t, "team", "arm")
	f.mustAdd(t, "arm")
	d := f.newDevice(t)
	d.seq(t, "arm")
	return &base{*f, d.o.Dir, []crypto.Signer{newKey(t), newKey(t), newKey(t), newKey(t), newKey(t)}}
}

// copy is a repository of its own with the same content.
func (b *base) copy(t *testing.T) (*fixture, *device) {
	f := &fixture{dir: filepath.Join(t.TempDir(), "repo"), keys: maps.Clone(b.keys), now: b.now}
	require.NoError(t, os.CopyFS(f.dir, os.DirFS(b.dir)))
	f.open(t, nil)
	d := f.newDevice(t)
	require.NoError(t, os.CopyFS(d.o.Dir, os.DirFS(b.warm)))
	return f, d
}

// TestChangesCutAnywhere cuts the publisher before each write of each kind of
// change, with PAWL_CRASH=long of all kinds and after it too: what it leaves serves a new
// device and one that has seen the repository before, and the next publisher
// finishes it.
func TestChangesCutAnywhere(t *testing.T) {
	b := newBase(t)
	step, long := 2, os.Getenv("PAWL_CRASH") == "long"
	switch {
	case long:
		step = 1
	case testing.Short():
		step = 8
	}
	for _, c := range b.cases(t) {
		if !long && slices.Contains([]string{"rotate timestamp", "rotate snapshot", "raise the threshold", "renew", "revoke"}, c.name) {
			continue // others take the same steps
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cuts := 0
			for ; ; cuts += step {
				f, warm := b.copy(t)
				steps, where := 0, ""
				f.open(t, func(what string) error {
					if steps++; steps > cuts {
						if where == "" {
							_, where, _ = strings.Cut(what, " ")
						}
						return errPower
					}
					return nil
				})
				err := c.act(t.Context(), f)
				if err == nil {
					f.check(t, warm, "done", c.after)
					require.True(t, c.done(t, f))
					break
				}
				require.ErrorIs(t, err, errPower)
				f.open(t, nil)
				f.check(t, warm, where, c.before, c.after)
				f.resume(t, c, where)
				for i, variant := range []string{"default", "arm"} {
					r, err := warm.latest(t.Context(), variant)
					if c.after[i] != 0 {
						require.NoError(t, err, where)
						require.Equal(t, c.after[i], r.Seq, where)
					}
				}
			}
			t.Logf("%d cuts", cuts/step)
			require.Positive(t, cuts)
		})
	}
}

// check looks as the devices do.
func (f *fixture) check(t *testing.T, warm *device, where string, want ...[2]uint64) {
	t.Helper()
	for name, d := range map[string]*device{"new device": f.newDevice(t), "device": warm} {
		var got [2]uint64
		for i, variant := range []string{"default", "arm"} {
			if name == "new device" && i == 0 {
				got[0] = want[0][0] // the other one reads no less
				continue
			}
			r, err := d.latest(t.Context(), variant)
			if err != nil && slices.ContainsFunc(want, func(w [2]uint64) bool { return w[i] == 0 }) {
				continue
			}
			require.NoError(t, err, "%s, %s: %s", where, name, variant)
			got[i] = r.Seq
		}
		require.Contains(t, want, got, "%s, %s", where, name)
	}
}

// resume does what the next publisher does.
func (f *fixture) resume(t *testing.T, c cutCase, where string) {
	t.Helper()
	s, err := f.Status()
	require.NoError(t, err, where)
	if where == "no "+waitingName && s.Waiting != nil {
		f.mustAdd(t, "default") // all is done but that
		require.NoError(t, f.Drop(t.Context(), "default", 3))
	} else if s.Waiting != nil {
		_, err = f.Sign(t.Context())
		require.NoError(t, err, where)
	} else if !c.done(t, f) {
		require.NoError(t, c.act(t.Context(), f), where)
	}
	require.True(t, c.done(t, f), where)
	_, err = f.Verify(t.Context(), nil)
	require.NoError(t, err, where)
	_, err = f.Sign(t.Context())
	require.ErrorIs(t, err, os.ErrNotExist, "%s: nothing is left over", where)
}

// rotateCase puts new keys in the place of the only ones of some roles.
func (b *base) rotateCase(t *testing.T, name string, roles ...Role) cutCase {
	var changes []RoleChange
	for i, role := range roles {
		changes = append(changes, RoleChange{Role: role, Remove: []string{idOf(t, b.keys[role][0])}, Add: []crypto.PublicKey{b.extra[i].Public()}})
	}
	same := [2]uint64{2, 1}
	return cutCase{name, func(ctx context.Context, f *fixture) error {
		for i, role := range roles {
			f.keys[role] = []crypto.Signer{b.extra[i]}
			if role == Root {
				f.keys[role] = append(f.keys[role], b.keys[role]...)
			}
		}
		return f.Rotate(ctx, changes...)
	}, func(t *testing.T, f *fixture) bool {
		for i, role := range roles {
			if !slices.Equal(f.status(t, role).Keys, []string{idOf(t, b.extra[i])}) {
				return false
			}
		}
		return true
	}, same, same}
}

func (f *fixture) status(t *testing.T, role Role) RoleStatus {
	s, err := f.Status()
	require.NoError(t, err)
	for _, r := range s.Roles {
		if r.Role == role {
			return r
		}
	}
	return RoleStatus{}
}

func (b *base) cases(t *testing.T) []cutCase {
	same := [2]uint64{2, 1}
	listed := func(t *testing.T, f *fixture, variant string, seq uint64) *Listed {
		list, err := f.List(t.Context())
		require.NoError(t, err)
		for _, l := range list {
			if l.Variant == variant && l.Seq == seq {
				return &l
			}
		}
		return nil
	}
	return []cutCase{
		b.rotateCase(t, "rotate root", Root),
		b.rotateCase(t, "rotate timestamp", Timestamp),
		b.rotateCase(t, "rotate snapshot", Snapshot),
		b.rotateCase(t, "rotate targets", Targets),
		b.rotateCase(t, "rotate team", "team"),
		b.rotateCase(t, "rotate all", Root, Timestamp, Snapshot, Targets, "team"),
		{"raise the threshold", func(ctx context.Context, f *fixture) error {
			f.keys[Targets] = []crypto.Signer{b.keys[Targets][0], b.extra[0]}
			return f.Rotate(ctx, RoleChange{Role: Targets, Add: []crypto.PublicKey{b.extra[0].Public()}, Threshold: 2})
		}, func(t *testing.T, f *fixture) bool { return f.status(t, Targets).Threshold == 2 }, same, same},
		{"renew", func(ctx context.Context, f *fixture) error { return f.Renew(ctx) },
			func(t *testing.T, f *fixture) bool { return f.status(t, Root).Version == 2 }, same, same},
		{"delegate", func(ctx context.Context, f *fixture) error {
			f.keys["channel"] = b.extra[:1]
			return f.Delegate(ctx, Delegation{Name: "channel", Variants: []string{"default"}, Keys: []crypto.PublicKey{b.extra[0].Public()}})
		}, func(t *testing.T, f *fixture) bool { return f.status(t, "channel").Version == 1 }, same, same},
		{"revoke", func(ctx context.Context, f *fixture) error { return f.Revoke(ctx, "team", false) },
			func(t *testing.T, f *fixture) bool { return f.status(t, "team").Version == 0 }, same, [2]uint64{2, 0}},
		{"revoke and adopt", func(ctx context.Context, f *fixture) error { return f.Revoke(ctx, "team", true) },
			func(t *testing.T, f *fixture) bool { return f.status(t, "team").Version == 0 }, same, same},
		{"drop", func(ctx context.Context, f *fixture) error { return f.Drop(ctx, "default", 2) },
			func(t *testing.T, f *fixture) bool { return listed(t, f, "default", 2) == nil }, same, [2]uint64{1, 1}},
		{"retry", func(ctx context.Context, f *fixture) error { _, err := f.Retry(ctx, "arm", 1); return err },
			func(t *testing.T, f *fixture) bool { return listed(t, f, "arm", 1).Attempt == 1 }, same, same},
		{"prune", func(ctx context.Context, f *fixture) error {
			_, err := f.Prune(ctx, PruneOptions{Variant: "default", Keep: 1, Grace: -1})
			return err
		}, func(t *testing.T, f *fixture) bool {
			v, err := f.Verify(t.Context(), nil)
			require.NoError(t, err)
			return v.Releases == 2 && len(v.Unused) == 0
		}, same, same},
		{"refresh all", func(ctx context.Context, f *fixture) error { f.now = start.Add(80 * day); return f.refreshAll(ctx) },
			func(t *testing.T, f *fixture) bool { return f.status(t, "team").Version == 3 }, same, same},
		{"sign", func(ctx context.Context, f *fixture) error { return b.collect(ctx, f) },
			func(t *testing.T, f *fixture) bool { return f.status(t, Root).Version == 3 }, same, same},
	}
}

// refreshAll refreshes with a lifetime that has every role signed anew.
func (f *fixture) refreshAll(ctx context.Context) error {
	f.opts.Lifetimes.Timestamp = 300 * day
	_, err := f.Refresh(ctx)
	return err
}

// collect has a change of the timestamp's key wait, and then signs it.
func (b *base) collect(ctx context.Context, f *fixture) error {
	f.keys[Timestamp] = b.extra[:1]
	root := f.keys[Root]
	delete(f.keys, Root)
	f.opts.Wait = true
	err := f.Rotate(ctx, RoleChange{Role: Timestamp, Remove: []string{mustID(b.keys[Timestamp][0])}, Add: []crypto.PublicKey{b.extra[0].Public()}})
	f.keys[Root] = root
	if !errors.Is(err, ErrWaiting) && !errors.Is(err, ErrBlocked) {
		return err
	}
	_, err = f.Sign(ctx)
	return err
}

func mustID(key crypto.Signer) string {
	id, _ := KeyID(key.Public())
	return id
}
