//go:build linux

package micro

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// snapshot describes everything in dir: a line per path with type, mode,
// owner, extended attributes, and content or target. It shares no code with
// the package.
func snapshot(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		line, err := describe(p)
		all[rel] = line
		return err
	})
	if os.IsNotExist(err) {
		return nil
	}
	require.NoError(t, err)
	return all
}

func describe(p string) (string, error) {
	info, err := os.Lstat(p)
	if err != nil {
		return "", err
	}
	st := info.Sys().(*syscall.Stat_t)
	line := fmt.Sprintf("%o %d:%d", st.Mode, st.Uid, st.Gid)
	buf := make([]byte, 4096)
	n, err := unix.Llistxattr(p, buf)
	if err == nil {
		names := strings.Split(strings.TrimRight(string(buf[:n]), "\x00"), "\x00")
		sort.Strings(names)
		for _, name := range names {
			if name == "" {
				continue
			}
			value := make([]byte, 4096)
			vn, err := unix.Lgetxattr(p, name, value)
			if err != nil {
				return "", err
			}
			line += fmt.Sprintf(" %s=%x", name, value[:vn])
		}
	}
	switch {
	case info.Mode().IsRegular():
		data, err := os.ReadFile(p)
		if err != nil {
			return "", err
		}
		sum := sha256.Sum256(data)
		line += " " + hex.EncodeToString(sum[:])
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(p)
		if err != nil {
			return "", err
		}
		line += " -> " + target
	}
	return line, nil
}

func snapshotLine(t testing.TB, root, p string) string {
	line, err := describe(filepath.Join(root, p))
	require.NoError(t, err)
	return line
}

// times describes everything in dir, with the times of all of it. What pawl
// has of its own is left out.
func times(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for p, line := range snapshot(t, dir) {
		if strings.Contains("/"+p+"/", "/.pawl.app/") {
			continue
		}
		info, err := os.Lstat(filepath.Join(dir, p))
		require.NoError(t, err)
		all[p] = line + " " + info.ModTime().String()
	}
	return all
}

// same fails with the paths that differ.
func same(t testing.TB, want, got map[string]string, msg string) {
	t.Helper()
	var diff []string
	for p, w := range want {
		if got[p] != w {
			diff = append(diff, fmt.Sprintf("%s: want %q, got %q", p, w, got[p]))
		}
	}
	for p := range got {
		if _, ok := want[p]; !ok {
			diff = append(diff, p+": should not be there: "+got[p])
		}
	}
	sort.Strings(diff)
	if len(diff) > 10 {
		diff = append(diff[:10], fmt.Sprintf("and %d more", len(diff)-10))
	}
	require.Empty(t, diff, msg)
}

// shop is a release of a tree and where its content comes from.
type shop struct {
	c       release.Component
	ix      *release.Index
	blobs   map[release.Digest][]byte
	fetched int64 // bytes handed out
	fail    func(b release.Blob) error
	corrupt map[release.Digest]bool // handed out wrong
	local   bool                    // nothing is there
	merge   func(env map[string]string) error
}

// Script implements ota.Scripter.
func (s *shop) Script(_ context.Context, name string, env ...string) error {
	if name != "merge-conf" || s.merge == nil {
		return fmt.Errorf("there is no script %s", name)
	}
	all := map[string]string{}
	for _, e := range env {
		k, v, _ := strings.Cut(e, "=")
		all[k] = v
	}
	return s.merge(all)
}

// newShop makes a release of the tree in dir. carry replaces what is there by
// carried paths.
func newShop(t testing.TB, dir string, carry ...string) *shop {
	t.Helper()
	s := &shop{ix: &release.Index{}, blobs: map[release.Digest][]byte{}}
	carried := map[string]bool{}
	for _, c := range carry {
		carried[c] = true
	}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		if carried[rel] {
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		e, err := s.entry(p, rel)
		s.ix.Entries = append(s.ix.Entries, e)
		return err
	})
	require.NoError(t, err)
	for _, c := range carry {
		s.ix.Entries = append(s.ix.Entries, release.Entry{Path: c, Type: release.Carry})
	}
	return entriesShop(t, s.blobs, s.ix.Entries, "")
}

// entriesShop makes a release of entries in any order.
func entriesShop(t testing.TB, blobs map[release.Digest][]byte, all []release.Entry, options string) *shop {
	t.Helper()
	slices.SortFunc(all, func(a, b release.Entry) int {
		if a.Path == "." { // the root comes first
			return -1
		}
		if b.Path == "." {
			return 1
		}
		return strings.Compare(a.Path, b.Path)
	})
	s := &shop{ix: &release.Index{Entries: all}, blobs: blobs}
	var buf bytes.Buffer
	require.NoError(t, s.ix.Encode(&buf))
	b := release.Blob{Digest: release.Sum(buf.Bytes()), Size: int64(buf.Len())}
	s.blobs[b.Digest] = buf.Bytes()
	s.c = release.Component{Name: "app", Kind: Kind, Index: b, Keep: release.Keep{Previous: 1, Repair: release.RepairNone}}
	if options != "" {
		s.c.Options = []byte(options)
	}
	return s
}

func (s *shop) entry(p, rel string) (release.Entry, error) {
	info, err := os.Lstat(p)
	if err != nil {
		return release.Entry{}, err
	}
	st := info.Sys().(*syscall.Stat_t)
	e := release.Entry{Path: rel, Mode: uint32(st.Mode) & 0o7777, UID: st.Uid, GID: st.Gid, Xattrs: xattrsOf(p)}
	switch {
	case info.IsDir():
		e.Type = release.Dir
	case info.Mode()&fs.ModeSymlink != 0:
		e.Type, e.Mode = release.Symlink, 0o777
		e.Target, err = os.Readlink(p)
	default:
		e.Type = release.File
		var data []byte
		data, err = os.ReadFile(p)
		e.Blob = release.Blob{Digest: release.Sum(data), Size: int64(len(data))}
		s.blobs[e.Digest] = data
	}
	return e, err
}

func xattrsOf(p string) []release.Xattr {
	buf := make([]byte, 4096)
	n, err := unix.Llistxattr(p, buf)
	if err != nil || n == 0 {
		return nil
	}
	names := strings.Split(strings.TrimRight(string(buf[:n]), "\x00"), "\x00")
	sort.Strings(names)
	var all []release.Xattr
	for _, name := range names {
		value := make([]byte, 4096)
		if n, err := unix.Lgetxattr(p, name, value); err == nil {
			all = append(all, release.Xattr{Name: name, Value: value[:n]})
		}
	}
	return all
}

// Open implements ota.Content.
func (s *shop) Open(_ context.Context, b release.Blob) (io.ReadCloser, error) {
	data, ok := s.blobs[b.Digest]
	if !ok || s.local {
		return nil, ota.ErrNotLocal
	}
	if s.fail != nil {
		if err := s.fail(b); err != nil {
			return nil, err
		}
	}
	s.fetched += int64(len(data))
	return io.NopCloser(&verifying{data: data, bad: s.corrupt[b.Digest]}), nil
}

// Each implements ota.Content.
func (s *shop) Each(ctx context.Context, blobs []release.Blob, put func(release.Blob, io.Reader) error) error {
	seen := map[release.Digest]bool{}
	for _, b := range blobs {
		if seen[b.Digest] {
			return fmt.Errorf("%s was asked for twice", b.Digest.Short())
		}
		seen[b.Digest] = true
		if len(blobs) > 3 && len(seen) == 2 { // a first place that breaks off
			err := put(b, &verifying{data: s.blobs[b.Digest], bad: true})
			if err == nil && b.Size > 0 {
				return fmt.Errorf("a reader that broke off was taken")
			}
		}
		r, err := s.Open(ctx, b)
		if err == nil {
			err = put(b, r)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// verifying is a reader that ends in ErrDigest when it is told to be bad.
type verifying struct {
	data []byte
	at   int
	bad  bool
}

func (v *verifying) Read(p []byte) (int, error) {
	if v.at == len(v.data) {
		if v.bad {
			return 0, ota.ErrDigest
		}
		return 0, io.EOF
	}
	n := copy(p, v.data[v.at:])
	v.at += n
	return n, nil
}
func (v *verifying) Close() error { return nil }

// tempDir is a t.TempDir that an ordinary user can remove although it holds
// folders that may not be written to.
func tempDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() {
		_ = filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				_ = os.Chmod(p, 0o700)
			}
			return nil
		})
	})
	return dir
}

// files writes files: a name that ends in / is a folder, content that begins
// with -> a symbolic link.
func files(t testing.TB, dir string, content map[string]string) string {
	t.Helper()
	require.NoError(t, os.MkdirAll(dir, 0o755))
	for name, data := range content {
		p := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o755))
		target, link := strings.CutPrefix(data, "->")
		switch {
		case strings.HasSuffix(name, "/"):
			require.NoError(t, os.MkdirAll(p, 0o755))
		case link:
			require.NoError(t, os.Symlink(target, p))
		default:
			require.NoError(t, os.WriteFile(p, []byte(data), 0o644))
		}
	}
	return dir
}
