//go:build linux

package publish

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
	"github.com/pawl-ota/pawl/ota/tuf"
)

// device is a client of the repository, with the trust store of one device.
type device struct{ o tuf.Options }

// newDevice is a device as it left the factory.
func (f *fixture) newDevice(t testing.TB) *device {
	root, err := os.ReadFile(filepath.Join(f.dir, "metadata", "1.root.json"))
	require.NoError(t, err)
	return &device{tuf.Options{URL: f.dir, Root: root, Dir: filepath.Join(t.TempDir(), "trust"), TrustClock: true,
		Now: func() time.Time { return f.now }}}
}

// latest looks for the newest release of a variant, and for its content.
func (d *device) latest(ctx context.Context, variant string) (*release.Release, error) {
	s, err := tuf.New(d.o)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	r, err := s.Latest(ctx, ota.Device{ID: "7", Product: "gateway", Variant: variant})
	if err != nil {
		return nil, err
	}
	if _, err = s.Locator(ctx, r); err != nil {
		return nil, err
	}
	return r, nil
}

// seq returns the seq of the newest release.
func (d *device) seq(t testing.TB, variant string) uint64 {
	t.Helper()
	r, err := d.latest(t.Context(), variant)
	require.NoError(t, err)
	return r.Seq
}

func newKey(t testing.TB) crypto.Signer {
	_, key, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	return key
}

func idOf(t testing.TB, key crypto.Signer) string {
	id, err := KeyID(key.Public())
	require.NoError(t, err)
	return id
}

// replace is the change that puts the key by in the place of key, which the
// publisher has lost by then.
func (f *fixture) replace(t testing.TB, role Role, key, by crypto.Signer) RoleChange {
	f.keys[role] = []crypto.Signer{by}
	return RoleChange{Role: role, Remove: []string{idOf(t, key)}, Add: []crypto.PublicKey{by.Public()}}
}

// add adds a release of a variant.
func (f *fixture) add(t testing.TB, variant string) (Added, error) {
	s := spec("1", tree{"a": fmt.Sprint(variant, f.now)}.write(t))
	s.Variant = variant
	return f.Release(t.Context(), s)
}

func (f *fixture) mustAdd(t testing.TB, variant string) uint64 {
	t.Helper()
	a, err := f.add(t, variant)
	require.NoError(t, err)
	return a.Seq
}

// delegate gives a variant to a team with a new key.
func (f *fixture) delegate(t testing.TB, name string, variants ...string) crypto.Signer {
	key := newKey(t)
	f.keys[Role(name)] = []crypto.Signer{key}
	require.NoError(t, f.Delegate(t.Context(), Delegation{Name: name, Variants: variants, Keys: []crypto.PublicKey{key.Public()}}))
	return key
}

// good checks the repository as a client that knows nothing but the first root.
func (f *fixture) good(t testing.TB) {
	t.Helper()
	v, err := f.Verify(t.Context(), nil)
	require.NoError(t, err)
	require.Empty(t, v.Ignored)
}
