package durable

import (
	"errors"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// allPrimitives adds those that take opened folders.
func allPrimitives() []primitive {
	return append([]primitive{
		{"RenameAt", at(func(dir, full *os.File) error { return RenameAt(full, "below", dir, "new") }),
			"rename dir/new, fsyncdir dir, fsyncdir full"},
		{"RenameAt in one folder", at(func(_, full *os.File) error { return RenameAt(full, "below", full, "new") }),
			"rename full/new, fsyncdir full"},
		{"RenameNewAt", at(func(dir, full *os.File) error { return RenameNewAt(full, "below", dir, "new") }),
			"rename dir/new, fsyncdir dir, fsyncdir full"},
		{"ExchangeAt", at(func(_, full *os.File) error { return ExchangeAt(full, "below", full, "file") }),
			"exchange full/file, fsyncdir full"},
		{"LinkAt", at(func(dir, full *os.File) error { return LinkAt(full, "file", dir, "new") }), "link dir/new"},
		{"SyncOpen of a folder", at(func(dir, _ *os.File) error { return SyncOpen(dir) }), "fsyncdir dir"},
	}, primitives...)
}

// at opens the folders dir and full of a folder.
func at(call func(dir, full *os.File) error) func(string) error {
	return func(path string) error {
		dir, err := os.Open(path + "/dir")
		if err != nil {
			return err
		}
		full, err := os.Open(path + "/full")
		if err != nil {
			return errors.Join(err, dir.Close())
		}
		return errors.Join(call(dir, full), dir.Close(), full.Close())
	}
}

func TestAtCannot(t *testing.T) {
	dir := folder(t)
	require.NoError(t, at(func(dir, full *os.File) error {
		require.ErrorIs(t, RenameNewAt(full, "below", full, "file"), syscall.EEXIST)
		require.ErrorIs(t, ExchangeAt(full, "below", dir, "missing"), syscall.ENOENT)
		require.NotErrorIs(t, ExchangeAt(full, "below", dir, "missing"), ErrNoExchange)
		require.ErrorIs(t, LinkAt(full, "file", full, "below"), syscall.EEXIST)
		return nil
	})(dir))
}

// TestRenameNewUnderBothNames: a move that a power cut halved is finished, and
// nothing else is taken for one.
func TestRenameNewUnderBothNames(t *testing.T) {
	dir := folder(t)
	for name, call := range map[string]func() error{
		"RenameNew": func() error { return RenameNew(dir+"/a", dir+"/full/twin") },
		"RenameNewAt": func() error {
			return at(func(_, full *os.File) error { return RenameNewAt(full, "../a", full, "twin") })(dir)
		},
		"Batch.Move": func() error {
			return at(func(_, full *os.File) error {
				var b Batch
				return errors.Join(b.Move(full, "../a", full, "twin"), b.Flush())
			})(dir)
		},
	} {
		require.NoError(t, os.Link(dir+"/a", dir+"/full/twin"))
		require.NoError(t, call(), name)
		require.NoFileExists(t, dir+"/a", name)
		require.Equal(t, "a", read(t, dir+"/full/twin"), name)
		require.NoError(t, os.Rename(dir+"/full/twin", dir+"/a"))
	}
	require.ErrorIs(t, RenameNew(dir+"/a", dir+"/full/../a"), syscall.EEXIST, "one name")
	require.ErrorIs(t, RenameNew(dir+"/full", dir+"/full/../full"), syscall.EEXIST, "a folder")
	require.ErrorIs(t, RenameNew(dir+"/a", dir+"/b"), syscall.EEXIST, "two files")
	require.Equal(t, "a", read(t, dir+"/a"))
}
