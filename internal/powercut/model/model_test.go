//go:build linux && (amd64 || arm64)

package model

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/internal/seam"
)

// The disk of the tests in this file: a = "old a", d/b = "old b", and an empty
// folder e; root, d, e, a and b are the inodes 1 to 5.
func small(t *testing.T, ops ...Op) *History {
	t.Helper()
	uid, gid := uint32(os.Geteuid()), uint32(os.Getegid())
	dir := func(ino uint64) *Node {
		return &Node{Ident: seam.Ident{Ino: ino}, Mode: unix.S_IFDIR | 0o755, UID: uid, GID: gid}
	}
	file := func(ino uint64, text string) *Node {
		return &Node{Ident: seam.Ident{Ino: ino}, Mode: unix.S_IFREG | 0o644, UID: uid, GID: gid, Data: []byte(text)}
	}
	h, err := NewHistory([]Entry{{".", dir(1)}, {"a", file(4, "old a")}, {"d", dir(2)}, {"d/b", file(5, "old b")}, {"e", dir(3)}}, nil)
	require.NoError(t, err)
	for _, o := range ops {
		require.NoError(t, h.Add(o))
	}
	return h
}

// view describes a disk in one line.
func view(s *State) string {
	var all []string
	for _, e := range s.Entries()[1:] {
		name := e.Path
		if e.is(unix.S_IFREG) {
			name += "=" + strings.ReplaceAll(string(e.Data), "\x00", "0")
		}
		if e.is(unix.S_IFREG) && e.Mode&0o777 == 0o600 || e.is(unix.S_IFDIR) && e.Mode&0o777 != 0o755 {
			name += "!"
		}
		if len(e.Xattrs) > 0 {
			name += "@"
		}
		all = append(all, name)
	}
	return strings.Join(all, " ")
}

// after returns what the disk can be after all calls, but for the parts that are
// as ever.
func after(h *History) []string {
	seen := map[string]bool{}
	if err := h.Add(Op{Kind: Fact, Text: "the end"}); err != nil {
		return []string{err.Error()}
	}
	for s := range h.Crashes(100_000, 1) { // those of before once more, for the fact
		if s.Op == len(h.ops) {
			seen[view(s)] = true
		}
	}
	var all []string
	for v := range seen {
		all = append(all, v)
	}
	slices.Sort(all)
	return all
}

const rest = " d d/b=old b e"

func newFile(path string) Op {
	return Op{Kind: Create, Path: path, Inode: 9, Mode: unix.S_IFREG | 0o644}
}

func write(ino uint64, at int64, text string) Op {
	return Op{Kind: Write, Inode: ino, Offset: at, Data: []byte(text)}
}

func fsync(ino uint64) Op { return Op{Kind: Fsync, Inode: ino} }

func TestNewFile(t *testing.T) {
	create, fill := newFile("f"), write(9, 0, "new!")
	noise := view(small(t, create, fill).state(2, []fate{kept, garbage}))
	require.Regexp(t, `f=[^0n].{3}$`, noise)
	require.Equal(t, sorted("a=old a"+rest, "a=old a"+rest+" f="), after(small(t, create)))
	require.Equal(t, sorted("a=old a"+rest, "a=old a"+rest+" f=", "a=old a"+rest+" f=ne", "a=old a"+rest+" f=ne00",
		"a=old a"+rest+" f=0000", "a=old a"+rest+" f=new!", noise), after(small(t, create, fill)))
	require.Equal(t, sorted("a=old a"+rest, "a=old a"+rest+" f=new!"), after(small(t, create, fill, fsync(9))),
		"fsync of a file is nothing to its name")
	require.Len(t, after(small(t, create, fill, fsync(1))), 6, "fsync of a folder is nothing to what is in its files")
	require.Equal(t, sorted("a=old a"+rest+" f=new!"), after(small(t, create, fill, fsync(1), fsync(9))))
	require.Equal(t, sorted("a=old a"+rest+" f=new!"), after(small(t, create, fill, Op{Kind: SyncAll})))
}

func sorted(all ...string) []string {
	slices.Sort(all)
	return all
}

func TestOverwrite(t *testing.T) {
	h := small(t, write(4, 0, "NEW"), Op{Kind: Truncate, Inode: 4, Offset: 4})
	require.Equal(t, sorted("a=old a"+rest, "a=Nld a"+rest, "a=NEW a"+rest, "a=old "+rest, "a=Nld "+rest, "a=NEW "+rest), after(h))
}

// TestRenameIsAtomic: neither both names nor none, and what was replaced is there
// or not with it. Either folder's fsync is enough.
func TestRenameIsAtomic(t *testing.T) {
	move := Op{Kind: Rename, Path: "a", Path2: "d/b"}
	require.Equal(t, sorted("a=old a d d/b=old b e", "d d/b=old a e"), after(small(t, move)))
	for _, dir := range []uint64{1, 2} {
		require.Equal(t, sorted("d d/b=old a e"), after(small(t, move, fsync(dir))))
	}
	require.Len(t, after(small(t, move, fsync(4), fsync(3))), 2, "others are not")
	exchange := Op{Kind: Exchange, Path: "a", Path2: "d/b"}
	require.Equal(t, sorted("a=old a d d/b=old b e", "a=old b d d/b=old a e"), after(small(t, exchange)))
	require.Equal(t, sorted("a=old b d d/b=old a e"), after(small(t, exchange, fsync(2))))
}

func TestNoOrderOfNames(t *testing.T) {
	h := small(t, Op{Kind: Unlink, Path: "a"}, Op{Kind: Mkdir, Path: "e/x", Inode: 9, Mode: unix.S_IFDIR | 0o755},
		Op{Kind: Rename, Path: "d/b", Path2: "c"})
	require.Len(t, after(h), 8, "any of three changes may be lost")
	again := small(t, newFile("t"), Op{Kind: Rename, Path: "t", Path2: "a"}, Op{Kind: Rename, Path: "a", Path2: "e/z"})
	require.Equal(t, sorted("a=old a"+rest, "a=old a"+rest+" t=", "a="+rest, "d d/b=old b e e/z="), after(again),
		"each of three moves can be the last one that is kept")
}

// TestFolderHasOneName whatever is lost, and nothing of one that nothing leads to.
func TestFolderHasOneName(t *testing.T) {
	h := small(t, Op{Kind: Rename, Path: "d", Path2: "x"}, Op{Kind: Exchange, Path: "x", Path2: "e"},
		Op{Kind: Mkdir, Path: "e/y", Inode: 9, Mode: unix.S_IFDIR | 0o755}, Op{Kind: Rename, Path: "e", Path2: "x/d"})
	for _, v := range after(h) {
		require.LessOrEqual(t, strings.Count(v, "b=old b"), 1, v)
	}
	within := small(t, Op{Kind: Rename, Path: "d", Path2: "e/d"}, Op{Kind: Rename, Path: "e/d", Path2: "d"}, Op{Kind: Rename, Path: "e", Path2: "d/e"})
	require.Contains(t, after(within), "a=old a", "two folders within each other are lost")
}

func TestMetadata(t *testing.T) {
	chmod := Op{Kind: Chmod, Inode: 4, Mode: 0o600}
	folder := Op{Kind: Chmod, Inode: 2, Mode: 0o700}
	require.Equal(t, sorted("a=old a"+rest, "a=old a!"+rest), after(small(t, chmod)))
	require.Len(t, after(small(t, chmod, folder, Op{Kind: Datasync, Inode: 4})), 4, "fdatasync is nothing to modes")
	require.Equal(t, sorted("a=old a! d! d/b=old b e"), after(small(t, chmod, folder, fsync(4), fsync(2))))
	attr := Op{Kind: SetXattr, Inode: 4, Text: "user.x", Data: []byte("v")}
	h := small(t, attr, fsync(4), Op{Kind: DelXattr, Inode: 4, Text: "user.x"})
	require.Equal(t, sorted("a=old a"+rest, "a=old a@"+rest), after(h))
}

// TestFactsAreKept: a state that is the same with more facts is shown again.
func TestFactsAreKept(t *testing.T) {
	h := small(t, Op{Kind: Fact, Text: "one"}, Op{Kind: Unlink, Path: "a"}, Op{Kind: Fact, Text: "two"})
	facts := map[int]int{}
	for s := range h.Crashes(100, 1) {
		facts[len(s.Facts())]++
	}
	require.Equal(t, map[int]int{0: 1, 1: 2, 2: 2}, facts)
}

func TestMissedCall(t *testing.T) {
	h := small(t)
	require.ErrorContains(t, h.Add(Op{Kind: Unlink, Path: "nothing"}), "call 1, unlink nothing")
	require.Error(t, h.Add(fsync(77)))
	dir := inMemory(t)
	l := newLayout(filepath.Join(dir, diskName), &known{})
	require.NoError(t, l.lay(h.End().Entries()))
	there, err := Scan(l.root, nil)
	require.NoError(t, err)
	require.NoError(t, h.End().same(there))
	require.NoError(t, h.Add(write(4, 0, "X")))
	require.ErrorContains(t, h.End().same(there), "a differs in the model")
}

// TestSeeds: the same states for the same seed, and others for another one.
func TestSeeds(t *testing.T) {
	var ops []Op
	for i := range uint64(30) {
		ops = append(ops, Op{Kind: Create, Path: "e/" + string(rune('a'+i)), Inode: 20 + i, Mode: unix.S_IFREG | 0o644})
	}
	sums := func(seed uint64) (all []uint64) {
		for s := range small(t, ops...).Crashes(500, seed) {
			all = append(all, s.Sum)
		}
		return all
	}
	require.Len(t, sums(1), 500)
	require.Equal(t, sums(1), sums(1))
	require.NotEqual(t, sums(1), sums(2))
}
