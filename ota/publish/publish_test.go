package publish

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/release"
)

var start = time.Date(2026, 9, 1, 12, 0, 0, 500, time.UTC)

// testKeys makes keys in a folder of their own.
func testKeys(t testing.TB, threshold int) Keys {
	keys, err := KeyDir{Path: filepath.Join(t.TempDir(), "keys")}.Make(threshold, false)
	require.NoError(t, err)
	return keys
}

// fixture is a repository with its keys and clock.
type fixture struct {
	*Repository
	dir  string
	keys Keys
	now  time.Time
}

func newFixture(t testing.TB) *fixture {
	f := &fixture{dir: filepath.Join(t.TempDir(), "repo"), keys: testKeys(t, 1), now: start}
	f.open(t, nil)
	require.NoError(t, f.Create(t.Context(), "gateway", 1))
	return f
}

// open opens the repository, with step called around each write.
func (f *fixture) open(t testing.TB, step func(string) error) {
	r, err := Open(Options{Dir: f.dir, Keys: f.keys, Now: func() time.Time { return f.now }, step: step})
	require.NoError(t, err)
	f.Repository = r
}

// tree is a folder of files by path; a path with a slash at its end is a
// folder.
type tree map[string]string

func (tr tree) write(t testing.TB) string {
	dir := t.TempDir()
	for path, content := range tr {
		full := filepath.Join(dir, path)
		if path[len(path)-1] == '/' {
			require.NoError(t, os.MkdirAll(full, 0o755))
			continue
		}
		require.NoError(t, os.MkdirAll(filepath.Dir(full), 0o755))
		require.NoError(t, os.Chmod(filepath.Dir(full), 0o755))
		require.NoError(t, os.WriteFile(full, []byte(content), 0o644))
		require.NoError(t, os.Chmod(full, 0o644)) // whatever the umask is
	}
	return dir
}

func spec(version string, from string) Spec {
	return Spec{Version: version, Components: []Component{{Name: "app", From: from}}}
}

func many(n int, mark string) tree {
	tr := tree{}
	for i := range n {
		tr[fmt.Sprintf("d%d/f%d", i%7, i)] = fmt.Sprintf("content of file %d %s\n", i, mark)
	}
	return tr
}

func TestReleases(t *testing.T) {
	f := newFixture(t)
	v, err := f.Verify(t.Context(), nil)
	require.NoError(t, err)
	require.Zero(t, v.Releases)

	one := many(50, "")
	one["empty"] = ""
	a, err := f.Release(t.Context(), spec("1.0.0", one.write(t)))
	require.NoError(t, err)
	require.Equal(t, release.ID{Product: "gateway", Variant: "default", Seq: 1}, a.ID)
	require.Equal(t, 51, a.NewBlobs)
	require.Equal(t, start.Truncate(time.Second), a.Issued)

	one["d0/f0"] = "other"
	b, err := f.Release(t.Context(), spec("1.1.0", one.write(t)))
	require.NoError(t, err)
	require.Equal(t, uint64(2), b.Seq)
	require.Equal(t, 1, b.NewBlobs, "only what is new is stored")
	require.Less(t, b.Stored, a.Stored/2)

	other := spec("1.0.0", one.write(t))
	other.Variant = "arm"
	c, err := f.Release(t.Context(), other)
	require.NoError(t, err)
	require.Equal(t, uint64(1), c.Seq, "each variant counts for itself")
	require.Zero(t, c.NewBlobs, "content is shared between variants")

	list, err := f.List(t.Context())
	require.NoError(t, err)
	require.Len(t, list, 3)
	require.Equal(t, "arm", list[0].Variant)
	require.Equal(t, []string{"1.0.0", "1.1.0"}, []string{list[1].Version, list[2].Version})
	require.Equal(t, []string{"app"}, list[1].Components)

	v, err = f.Verify(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, 3, v.Releases)
	require.Equal(t, 52+2, v.Blobs, "files and indexes")
	require.Empty(t, v.Unused)
}

func TestReleaseRefused(t *testing.T) {
	f := newFixture(t)
	dir := tree{"a": "a"}.write(t)
	for name, change := range map[string]func(s *Spec){
		"other product":  func(s *Spec) { s.Product = "other" },
		"no components":  func(s *Spec) { s.Components = nil },
		"bad name":       func(s *Spec) { s.Components[0].Name = "A" },
		"bad kind":       func(s *Spec) { s.Components[0].Kind = "compose" },
		"no folder":      func(s *Spec) { s.Components[0].From = filepath.Join(dir, "none") },
		"floor":          func(s *Spec) { s.SecurityFloor = 2 },
		"carry in tree":  func(s *Spec) { s.Components[0].Scan.Carry = []string{"a"} },
		"carry nowhere":  func(s *Spec) { s.Components[0].Scan.Carry = []string{"x/y"} },
		"carry twice":    func(s *Spec) { s.Components[0].Scan.Carry = []string{"x", "x"} },
		"absent in tree": func(s *Spec) { s.Components[0].Scan.Absent = []string{"a"} },
		"absent twice":   func(s *Spec) { s.Components[0].Scan.Absent = []string{"x", "x"} },
		"absent outside": func(s *Spec) { s.Components[0].Scan.Absent = []string{"../x"} },
		"below absent":   func(s *Spec) { s.Components[0].Scan.Absent = []string{"x", "x/y"} },
		"carry outside":  func(s *Spec) { s.Components[0].Scan.Carry = []string{"../x"} },
	} {
		s := spec("1", dir)
		change(&s)
		_, err := f.Release(t.Context(), s)
		require.Error(t, err, name)
	}
	s := spec("1", dir)
	s.Seq = 5
	_, err := f.Release(t.Context(), s)
	require.NoError(t, err)
	_, err = f.Release(t.Context(), s)
	require.ErrorIs(t, err, ErrSeq)
	v, err := f.Verify(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, 1, v.Releases)
	require.Empty(t, v.Unused, "what was refused left nothing")
}

func TestDeterministic(t *testing.T) {
	one, two := newFixture(t), newFixture(t)
	tr := many(30, "x")
	s := spec("1.0.0", tr.write(t))
	s.Issued = start.Add(time.Hour)
	a, err := one.Release(t.Context(), s)
	require.NoError(t, err)
	s.Components[0].From = tr.write(t)
	two.now = start.Add(24 * time.Hour)
	b, err := two.Release(t.Context(), s)
	require.NoError(t, err)
	require.Equal(t, a.Release, b.Release)
	require.Equal(t, contents(t, one.dir), contents(t, two.dir), "packs and tables too")
}

// contents lists the files of content, whose names are their digests.
func contents(t *testing.T, dir string) (names []string) {
	require.NoError(t, filepath.WalkDir(filepath.Join(dir, "content"), func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			names = append(names, e.Name())
		}
		return err
	}))
	return names
}

func TestRefresh(t *testing.T) {
	f := newFixture(t)
	_, err := f.Release(t.Context(), spec("1", tree{"a": "a"}.write(t)))
	require.NoError(t, err)
	f.now = start.Add(100 * day)
	_, err = f.Verify(t.Context(), nil)
	require.ErrorContains(t, err, "expired")
	r, err := f.Refresh(t.Context())
	require.NoError(t, err)
	require.Equal(t, []Role{Timestamp}, r.Signed)
	require.Equal(t, f.now.Truncate(time.Second).Add(90*day), r.Expires[Timestamp])
	_, err = f.Verify(t.Context(), nil)
	require.NoError(t, err)

	f.now = start.Add(300 * day)
	r, err = f.Refresh(t.Context())
	require.NoError(t, err)
	require.Equal(t, []Role{Targets, Snapshot, Timestamp}, r.Signed)
	_, err = f.Verify(t.Context(), nil)
	require.NoError(t, err)

	targets := f.keys[Targets]
	delete(f.keys, Targets)
	f.now = start.Add(310 * day)
	r, err = f.Refresh(t.Context())
	require.NoError(t, err, "the targets key may be offline")
	require.Equal(t, []Role{Timestamp}, r.Signed)
	_, err = f.Release(t.Context(), spec("2", tree{"a": "b"}.write(t)))
	require.ErrorIs(t, err, ErrKeys)
	f.keys[Targets] = testKeys(t, 1)[Targets]
	_, err = f.Release(t.Context(), spec("2", tree{"a": "b"}.write(t)))
	require.ErrorIs(t, err, ErrKeys, "a key of another repository")
	f.keys[Targets] = targets
	_, err = f.Release(t.Context(), spec("2", tree{"a": "b"}.write(t)))
	require.NoError(t, err)
}

func TestCreate(t *testing.T) {
	f := newFixture(t)
	require.ErrorIs(t, f.Create(t.Context(), "gateway", 1), fs.ErrExist)
	f.dir = t.TempDir()
	f.open(t, nil)
	require.ErrorIs(t, f.Create(t.Context(), "gateway", 2), ErrKeys)
	require.ErrorIs(t, f.Create(t.Context(), "Gate/way", 1), release.ErrName)
	_, err := f.Release(t.Context(), spec("1", t.TempDir()))
	require.ErrorIs(t, err, ErrNoRepository)
	_, err = Open(Options{})
	require.Error(t, err)
	_, err = Open(Options{Dir: "x", Lifetimes: Lifetimes{Root: -1}})
	require.Error(t, err)
}

func TestThreshold(t *testing.T) {
	f := &fixture{dir: filepath.Join(t.TempDir(), "repo"), keys: testKeys(t, 3), now: start}
	f.open(t, nil)
	require.NoError(t, f.Create(t.Context(), "gateway", 3))
	s := spec("1", tree{"a": "a"}.write(t))
	all := f.keys[Targets]
	f.keys[Targets] = []crypto.Signer{all[0], all[1], all[1]}
	_, err := f.Release(t.Context(), s)
	require.ErrorIs(t, err, ErrKeys, "one key does not count twice")
	f.keys[Targets] = all
	_, err = f.Release(t.Context(), s)
	require.NoError(t, err)
	_, err = f.Verify(t.Context(), nil)
	require.NoError(t, err)
}

// TestOtherKeys signs with keys of every kind through crypto.Signer alone.
func TestOtherKeys(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	rs, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	f := &fixture{dir: filepath.Join(t.TempDir(), "repo"), keys: testKeys(t, 1), now: start}
	f.keys[Root] = append(f.keys[Root], opaque{ec}, opaque{rs})
	f.keys[Timestamp] = []crypto.Signer{opaque{ec}}
	f.keys[Snapshot] = []crypto.Signer{opaque{rs}}
	f.open(t, nil)
	require.NoError(t, f.Create(t.Context(), "gateway", 1))
	_, err = f.Release(t.Context(), spec("1", tree{"a": "a"}.write(t)))
	require.NoError(t, err)
	_, err = f.Verify(t.Context(), nil)
	require.NoError(t, err)

	weak, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(t, err)
	f.keys[Timestamp] = []crypto.Signer{weak}
	f.dir = t.TempDir()
	f.open(t, nil)
	require.ErrorContains(t, f.Create(t.Context(), "gateway", 1), "384 bits")
}

// opaque hides what kind of key a Signer is, as a hardware module does.
type opaque struct{ crypto.Signer }

func TestKeyFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	asked := 0
	d := KeyDir{Path: dir, WorkFactor: 10, Passphrase: func(string) (string, error) { asked++; return "open sesame", nil }}
	keys, err := d.Make(2, true)
	require.NoError(t, err)
	require.Len(t, keys[Root], 2)
	require.Len(t, keys[Targets], 2)
	require.Len(t, keys[Snapshot], 1)
	require.Equal(t, 6, asked)
	again, err := d.Make(2, true)
	require.NoError(t, err)
	require.Equal(t, keys, again, "keys that are there stay")
	names, err := filepath.Glob(filepath.Join(dir, "*.pem.age"))
	require.NoError(t, err)
	require.Len(t, names, 6)
	info, err := os.Stat(names[0])
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o600), info.Mode().Perm())

	_, err = KeyDir{Path: dir}.Load(Roles()...)
	require.ErrorIs(t, err, ErrKeys, "no passphrase")
	_, err = KeyDir{Path: dir, Passphrase: func(string) (string, error) { return "wrong", nil }}.Load(Snapshot)
	require.ErrorIs(t, err, ErrKeys)
	some, err := d.Load(Snapshot, Timestamp)
	require.NoError(t, err)
	require.Equal(t, Keys{Snapshot: keys[Snapshot], Timestamp: keys[Timestamp]}, some)

	plain := KeyDir{Path: filepath.Join(t.TempDir(), "plain")}
	_, err = plain.Make(1, false)
	require.NoError(t, err)
	name := filepath.Join(plain.Path, "root.1.pem")
	require.NoError(t, os.Chmod(name, 0o644))
	_, err = plain.Load(Root)
	require.ErrorIs(t, err, ErrKeys, "others can read it")
	require.NoError(t, os.Chmod(name, 0o600))
	require.NoError(t, os.WriteFile(name, []byte("nothing"), 0o600))
	_, err = plain.Load(Root)
	require.ErrorIs(t, err, ErrKeys)
	_, err = plain.Make(1, false)
	require.ErrorIs(t, err, ErrKeys, "a damaged key is never replaced")
	_, err = plain.Make(0, false)
	require.Error(t, err)
}

func TestBusy(t *testing.T) {
	f := newFixture(t)
	unlock, err := f.disk.lock()
	require.NoError(t, err)
	_, err = f.Refresh(t.Context())
	require.ErrorIs(t, err, ErrBusy)
	unlock()
	_, err = f.Refresh(t.Context())
	require.NoError(t, err)
}

var errPower = errors.New("the power is gone")

// TestCutAnywhere cuts the publisher before and after each of its writes, while
// it makes a repository, adds two releases and refreshes: what clients see is
// whole at every point, and the next publisher carries on.
func TestCutAnywhere(t *testing.T) {
	one, two := many(20, "one"), many(20, "one")
	two["d0/f0"], two["new"] = "changed", "new"
	oneDir, twoDir := one.write(t), two.write(t)
	keys := testKeys(t, 1)
	cuts, every := 0, 1
	if testing.Short() {
		every = 5
	}
	for n := 0; ; n += every {
		f := &fixture{dir: filepath.Join(t.TempDir(), "repo"), keys: keys, now: start}
		step, where := 0, ""
		f.open(t, func(what string) error {
			if step++; step > n {
				if where == "" {
					where = what
				}
				return errPower
			}
			return nil
		})
		err := f.all(t, oneDir, twoDir)
		if err == nil {
			break
		}
		require.ErrorIs(t, err, errPower)
		cuts++
		f.open(t, nil)
		f.checkAfterCut(t, where, oneDir, twoDir)
	}
	t.Logf("%d cuts", cuts)
	require.Greater(t, cuts*every, 40)
}

// all is the work that is cut.
func (f *fixture) all(t *testing.T, oneDir, twoDir string) error {
	if err := f.Create(t.Context(), "gateway", 1); err != nil {
		return err
	}
	if _, err := f.Release(t.Context(), spec("1", oneDir)); err != nil {
		return err
	}
	if _, err := f.Release(t.Context(), spec("2", twoDir)); err != nil {
		return err
	}
	_, err := f.Refresh(t.Context())
	return err
}

func (f *fixture) checkAfterCut(t *testing.T, where, oneDir, twoDir string) {
	v, err := f.Verify(t.Context(), nil)
	if errors.Is(err, ErrNoRepository) {
		require.NoError(t, f.Create(t.Context(), "gateway", 1), where)
	} else {
		require.NoError(t, err, where)
	}
	list, err := f.List(t.Context())
	require.NoError(t, err, where)
	require.Len(t, list, v.Releases, where)
	for i, dir := range []string{oneDir, twoDir} {
		if i < len(list) {
			continue
		}
		a, err := f.Release(t.Context(), spec(fmt.Sprint(i+1), dir))
		require.NoError(t, err, where)
		require.Equal(t, uint64(i+1), a.Seq, where)
	}
	_, err = f.Refresh(t.Context())
	require.NoError(t, err, where)
	v, err = f.Verify(t.Context(), nil)
	require.NoError(t, err, where)
	require.Equal(t, 2, v.Releases, where)
	require.Empty(t, v.Unused, "the same content has the same names: %s", where)
}

// TestDamageIsFound changes each file of a repository in turn.
func TestDamageIsFound(t *testing.T) {
	f := newFixture(t)
	_, err := f.Release(t.Context(), spec("1", many(5, "").write(t)))
	require.NoError(t, err)
	_, err = f.Release(t.Context(), spec("2", many(6, "").write(t)))
	require.NoError(t, err)
	var files []string
	require.NoError(t, filepath.WalkDir(f.dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && e.Name() != ".lock" {
			files = append(files, path)
		}
		return err
	}))
	live := 0
	for _, path := range files {
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		for _, i := range []int{0, len(data) / 2, len(data) - 1} {
			broken := slices.Clone(data)
			broken[i] ^= 1
			require.NoError(t, os.WriteFile(path, broken, 0o644))
			_, damaged := f.Verify(t.Context(), nil)
			require.True(t, i == 0 || (err != nil) == (damaged != nil), "%s: byte %d", path, i)
			err = damaged
		}
		if err != nil {
			live++
		}
		require.NoError(t, os.Remove(path))
		_, gone := f.Verify(t.Context(), nil)
		require.Equal(t, err != nil, gone != nil, path)
		require.NoError(t, os.WriteFile(path, data, 0o644))
	}
	// Not in use any more: two targets and two snapshots of earlier states.
	require.Equal(t, len(files)-4, live)
	_, err = f.Verify(t.Context(), nil)
	require.NoError(t, err)
	other := newFixture(t)
	root, err := os.ReadFile(filepath.Join(other.dir, "metadata", "1.root.json"))
	require.NoError(t, err)
	_, err = f.Verify(t.Context(), root)
	require.Error(t, err, "another root")
}

func TestUnusedIsListed(t *testing.T) {
	f := newFixture(t)
	require.NoError(t, f.disk.writeFile("content/00/left", []byte("x")))
	v, err := f.Verify(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, []string{"content/00/left"}, v.Unused)
}

// TestDamagedRepositoryTakesNoRelease: nothing is added to a repository that
// lacks a file, and the file is named.
func TestDamagedRepositoryTakesNoRelease(t *testing.T) {
	f := newFixture(t)
	_, err := f.Release(t.Context(), spec("1", tree{"a": "a"}.write(t)))
	require.NoError(t, err)
	packs, err := filepath.Glob(filepath.Join(f.dir, "content", "*", "*.pack"))
	require.NoError(t, err)
	require.NoError(t, os.Remove(packs[0]))
	_, err = f.Release(t.Context(), spec("2", tree{"a": "a"}.write(t)))
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, filepath.Base(packs[0]))
	list, err := f.List(t.Context())
	require.NoError(t, err)
	require.Len(t, list, 1)
}
