//go:build linux

package publish

import (
	"bytes"
	"crypto"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// module is a hardware module: it signs, and gives its key to nobody.
type module struct {
	key   crypto.Signer
	err   error
	wrong bool
}

func (m *module) Public() crypto.PublicKey { return m.key.Public() }

func (m *module) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if m.err != nil {
		return nil, m.err
	}
	sig, err := m.key.Sign(rand, digest, opts)
	if m.wrong {
		sig[len(sig)-1] ^= 1
	}
	return sig, err
}

// TestEveryKeyType: a device updates from repositories whose keys are all of one
// type, in files and in a module, and when they change from one to the next.
func TestEveryKeyType(t *testing.T) {
	var all []Keys
	for _, kind := range []KeyType{"", Ed25519, ECDSA, RSA} {
		dir := KeyDir{Path: filepath.Join(t.TempDir(), "keys"), Type: kind}
		_, err := dir.Make(1, false)
		require.NoError(t, err)
		keys, err := dir.LoadAll()
		require.NoError(t, err)
		all = append(all, keys)
	}
	inModule := Keys{}
	for i, role := range Roles() {
		inModule[role] = []crypto.Signer{&module{key: all[i][role][0]}}
	}
	all = append(all, inModule)
	for i, keys := range all {
		f := &fixture{dir: filepath.Join(t.TempDir(), "repo"), keys: Keys{}, now: start}
		for role, list := range keys {
			f.keys[role] = list
		}
		f.open(t, nil)
		require.NoError(t, f.Create(t.Context(), "gateway", 1))
		d := f.newDevice(t)
		f.mustAdd(t, "default")
		require.EqualValues(t, 1, d.seq(t, "default"))

		next := all[(i+1)%len(all)]
		var changes []RoleChange
		for _, role := range Roles() {
			if idOf(t, keys[role][0]) != idOf(t, next[role][0]) {
				changes = append(changes, f.replace(t, role, keys[role][0], next[role][0]))
			}
		}
		f.keys[Root] = append(f.keys[Root], keys[Root][0])
		require.NoError(t, f.Rotate(t.Context(), changes...))
		f.keys[Root] = next[Root]
		f.mustAdd(t, "default")
		require.EqualValues(t, 2, d.seq(t, "default"))
		f.good(t)
	}
	_, err := KeyDir{Path: t.TempDir(), Type: "dsa"}.Make(1, false)
	require.ErrorContains(t, err, "dsa")
}

// TestBrokenModule: a module that cannot sign, or signs wrongly, stops the change
// before anything is written.
func TestBrokenModule(t *testing.T) {
	f := newFixture(t)
	f.mustAdd(t, "default")
	m := &module{key: f.keys[Timestamp][0], err: errors.New("the module is locked")}
	f.keys[Timestamp] = []crypto.Signer{m}
	before := names(t, f.dir)
	_, err := f.Refresh(t.Context())
	require.ErrorIs(t, err, m.err)
	m.err, m.wrong = nil, true
	_, err = f.Refresh(t.Context())
	require.ErrorIs(t, err, ErrKeys)
	require.Equal(t, before, names(t, f.dir))
	m.wrong = false
	_, err = f.Refresh(t.Context())
	require.NoError(t, err)
}

func TestNewKeys(t *testing.T) {
	d := KeyDir{Path: filepath.Join(t.TempDir(), "keys"), Spare: 2}
	keys, err := d.Make(1, false)
	require.NoError(t, err)
	require.Len(t, keys[Root], 3)
	require.Len(t, keys[Targets], 3)
	require.Len(t, keys[Timestamp], 1)
	key, path, err := d.New("team-a", false)
	require.NoError(t, err)
	require.Equal(t, filepath.Join(d.Path, "team-a.1.pub.pem"), path)
	public, err := ReadPublicKey(path)
	require.NoError(t, err)
	require.Equal(t, key.Public(), public)
	require.NoError(t, os.Remove(filepath.Join(d.Path, "root.3.pem")))
	_, path, err = d.New(Root, false)
	require.NoError(t, err)
	require.Equal(t, "root.4.pub.pem", filepath.Base(path), "no number is given twice")
	_, _, err = d.New("../x", false)
	require.Error(t, err)

	all, err := d.LoadAll(Targets)
	require.NoError(t, err)
	require.Len(t, all[Root], 3)
	require.Len(t, all["team-a"], 1)
	require.NotContains(t, all, Targets)
	for _, e := range files(t, d.Path) {
		info, err := os.Stat(filepath.Join(d.Path, e))
		require.NoError(t, err)
		if !strings.HasSuffix(e, ".pub.pem") {
			require.Equal(t, fs.FileMode(0o600), info.Mode().Perm(), e)
		}
	}
	_, err = KeyDir{Path: filepath.Join(d.Path, "none")}.LoadAll()
	require.ErrorIs(t, err, fs.ErrNotExist, "a folder that is missing is an error")
	_, err = KeyDir{Path: d.Path, Spare: -1}.Make(1, false)
	require.Error(t, err)
	_, err = ReadPublicKey(filepath.Join(d.Path, "root.2.pem"))
	require.ErrorIs(t, err, ErrKeys, "a private key is none")
	require.NotContains(t, err.Error(), "MC4", "and is not told")

	// A key that is there and cannot be read is never passed over.
	for name, spoil := range map[string]func(path string) error{
		"cut":      func(path string) error { return os.Truncate(path, 20) },
		"empty":    func(path string) error { return os.Truncate(path, 0) },
		"too long": func(path string) error { return os.WriteFile(path, bytes.Repeat([]byte("x"), maxKeyFile+1), 0o600) },
		"a folder": func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) },
		"a link":   func(path string) error { return errors.Join(os.Remove(path), os.Symlink("/nowhere", path)) },
	} {
		d := KeyDir{Path: filepath.Join(t.TempDir(), "keys")}
		_, err := d.Make(1, false)
		require.NoError(t, err)
		require.NoError(t, spoil(filepath.Join(d.Path, "root.1.pem")), name)
		_, err = d.LoadAll()
		require.Error(t, err, name)
		_, err = d.Load(Root)
		require.Error(t, err, name)
		_, err = d.Load(Timestamp)
		require.NoError(t, err, name)
	}
}

func files(t *testing.T, dir string) (list []string) {
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}
