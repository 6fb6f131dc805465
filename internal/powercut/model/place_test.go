//go:build linux && (amd64 || arm64)

package model

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/internal/seam"
)

// anyDisk makes a disk by chance, out of few inodes, so that one disk has much in
// common with the next.
func anyDisk(r *rand.Rand, nodes []*Node) []Entry {
	all := []Entry{{".", nodes[0]}}
	for i, n := range nodes[1:] {
		parents := []string{""}
		for _, e := range all[1:] {
			if e.is(unix.S_IFDIR) {
				parents = append(parents, e.Path+"/")
			}
		}
		if r.IntN(4) == 0 {
			continue
		}
		names := 1
		if n.is(unix.S_IFREG) && r.IntN(3) == 0 {
			names = 2
		}
		for k := range names {
			at := 0
			if r.IntN(3) == 0 {
				at = r.IntN(len(parents))
			}
			all = append(all, Entry{fmt.Sprintf("%s%d%c", parents[at], i, 'a'+k), n})
		}
	}
	slices.SortFunc(all, func(a, b Entry) int { return slices.Compare(split(a.Path), split(b.Path)) })
	return all
}

func split(p string) []string {
	if p == "." {
		return nil
	}
	dir, base := filepath.Split(p)
	return append(split(filepath.Clean(dir)), base)
}

// anyNodes are a root and inodes of all types.
func anyNodes(r *rand.Rand, xattrs bool) (all []*Node) {
	for i := range 30 {
		n := &Node{
			Ident: seam.Ident{Ino: uint64(1000 + i), Birth: int64(i) * 1e9, Ctime: int64(i) * 2e9},
			UID:   uint32(os.Geteuid()), GID: uint32(os.Getegid()), Mtime: 1e18 + int64(i),
		}
		switch {
		case i == 0 || i%5 == 1:
			n.Mode = unix.S_IFDIR | []uint32{0o700, 0o755, 0o500}[r.IntN(3)]
		case i%5 == 2:
			n.Mode, n.Target = unix.S_IFLNK|0o777, fmt.Sprint("to ", i)
		default:
			n.Mode, n.Data = unix.S_IFREG|[]uint32{0o600, 0o644, 0o444, 0o4755}[r.IntN(4)], make([]byte, r.IntN(9000))
			if xattrs && i%5 == 3 {
				n.Xattrs = map[string]string{"user.note": fmt.Sprint(i)}
			}
		}
		all = append(all, n)
	}
	return all
}

// TestLay lays out one disk after the other in the same folder, in which
// somebody makes a mess in between: what is there is always exactly the disk, with
// the inodes that it had.
func TestLay(t *testing.T) {
	for _, watched := range []bool{false, true} {
		t.Run(fmt.Sprint("watched ", watched), func(t *testing.T) { lays(t, watched) })
	}
}

func lays(t *testing.T, watched bool) {
	r := rand.New(rand.NewPCG(1, 2))
	dir := inMemory(t)
	xattrs := unix.Setxattr(dir, "user.note", []byte("probe"), 0) == nil
	x := &known{}
	l := newLayout(filepath.Join(dir, diskName), x)
	if watched {
		defer l.follow()()
		require.NotNil(t, l.watch)
	}
	nodes := anyNodes(r, xattrs)
	for range 300 {
		want := anyDisk(r, nodes)
		require.NoError(t, l.lay(want))
		require.NoError(t, l.prove())
		before, err := Scan(l.root, nil)
		require.NoError(t, err)
		require.NoError(t, l.lay(want))
		again, err := Scan(l.root, nil)
		require.NoError(t, err)
		for i := range before {
			if e := want[i]; e.is(unix.S_IFREG) && l.names[e.Node] == 1 && l.fine {
				require.Equal(t, before[i].Ino, again[i].Ino, "%s was right", e.Path)
			}
		}
		got, err := Scan(l.root, x.show)
		require.NoError(t, err)
		require.Equal(t, len(want), len(got))
		for i := range want {
			require.Equal(t, want[i].Path, got[i].Path)
			require.NoError(t, want[i].same(got[i].Node), want[i].Path)
			require.Equal(t, want[i].Ino, got[i].Ino, want[i].Path)
			require.Equal(t, want[i].Mtime, got[i].Mtime, want[i].Path)
			if want[i].is(unix.S_IFREG) {
				require.Equal(t, want[i].Ident, got[i].Ident, want[i].Path)
			}
		}
		mess(t, r, l.root, want)
	}
}

// mess changes something, as a program would.
func mess(t *testing.T, r *rand.Rand, root string, disk []Entry) {
	for range r.IntN(6) {
		e := disk[1+r.IntN(len(disk)-1)]
		full := filepath.Join(root, e.Path)
		_ = os.Chmod(filepath.Dir(full), 0o700)
		switch r.IntN(8) {
		case 6:
			other := filepath.Join(root, disk[1+r.IntN(len(disk)-1)].Path)
			_ = os.Chmod(filepath.Dir(other), 0o700)
			_ = unix.Renameat2(unix.AT_FDCWD, full, unix.AT_FDCWD, other, unix.RENAME_EXCHANGE)
		case 7: // by a name that nobody knows of
			if e.is(unix.S_IFREG) && os.Mkdir(filepath.Join(root, "new"), 0o700) == nil && os.Link(full, filepath.Join(root, "new", "x")) == nil {
				_ = os.Chmod(filepath.Join(root, "new", "x"), 0o600)
				_ = os.WriteFile(filepath.Join(root, "new", "x"), []byte("changed"), 0o600)
				_ = os.RemoveAll(filepath.Join(root, "new"))
			}
		case 0:
			_ = removeAll(full)
		case 1:
			_ = os.Rename(full, full+" moved")
		case 2:
			if e.is(unix.S_IFREG) {
				_ = os.WriteFile(full, []byte("changed"), 0o600)
			}
		case 3:
			if !e.is(unix.S_IFLNK) {
				_ = os.Chmod(full, 0o711)
			}
		case 4:
			_ = unix.Setxattr(full, "user.mess", []byte("x"), 0)
		case 5:
			_ = os.Link(full, full+" again")
		}
	}
}

// TestInodesForAnotherProcess: what one process laid out, another one sees.
func TestInodesForAnotherProcess(t *testing.T) {
	x, path := &known{}, filepath.Join(t.TempDir(), inodesName)
	is, was := seam.Ident{Ino: 7, Birth: 8, Ctime: 9}, seam.Ident{Ino: 1, Birth: 2, Ctime: 3}
	x.all.Store(is.Ino, laid{is, was})
	require.NoError(t, x.write(path))
	y, err := readKnown(path)
	require.NoError(t, err)
	see := func(id seam.Ident) seam.Ident { y.show(&id); return id }
	require.Equal(t, was, see(is))
	require.Equal(t, seam.Ident{Ino: 1, Birth: 2, Ctime: 10}, see(seam.Ident{Ino: 7, Birth: 8, Ctime: 10}), "it was changed since")
	other := seam.Ident{Ino: 7, Birth: 80, Ctime: 9}
	require.Equal(t, other, see(other), "the number of an inode that is gone")
}
