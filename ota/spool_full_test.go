package ota

import (
	"errors"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/seam"
	"github.com/pawl-ota/pawl/ota/durable"
)

// weakDir is a state folder in which a spool file takes some bytes, and whose
// disk then has no room, or does not take what was written.
type weakDir struct {
	seam.Dir
	room int
	sync error
}

func (d *weakDir) Append(name string, size int64) (seam.Log, error) {
	l, err := d.Dir.Append(name, size)
	return &weakLog{l, d}, err
}

type weakLog struct {
	seam.Log
	d *weakDir
}

func (l *weakLog) Write(p []byte) (int, error) {
	if l.d.room -= len(p); l.d.room < 0 {
		return 0, syscall.ENOSPC
	}
	return l.Log.Write(p)
}

func (l *weakLog) Persist() error { return errors.Join(l.d.sync, l.Log.Persist()) }

// A disk that is full ends the keeping, not the download.
func TestFullDiskKeepsNoMore(t *testing.T) {
	base := newDepot(t, 200_000, 3_000, 150_000, 5_000)
	for room := 0; room < 60_000; room += 9_000 {
		s := newSite(t, base.anew())
		s.locator.Deltas = nil
		s.limit = 2000
		s.content.spool = newSpool(&weakDir{Dir: s.u.dir, room: room})
		require.NoError(t, s.fetch(t), "room for %d bytes", room)
		s.whole(t)
		require.Zero(t, s.again)
	}
}

// spoolIn returns a spool over an empty state folder.
func spoolIn(t *testing.T, change func(seam.Dir) seam.Dir) *spool {
	dir, err := durable.OpenDir(t.TempDir() + "/state")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, dir.Close()) })
	return newSpool(change(dir))
}

// What a failed sync leaves is dropped, and ends the step: nobody knows what of it
// is on the disk.
func TestFailedSyncOfSpool(t *testing.T) {
	s := spoolIn(t, func(d seam.Dir) seam.Dir { return &weakDir{Dir: d, room: 1 << 30, sync: syscall.EIO} })
	w := s.appendAt("content/00/x.pack", 0)
	require.NoError(t, s.write(w, make([]byte, spoolSync-1)))
	require.NotNil(t, s.at("content/00/x.pack", 7))
	require.ErrorIs(t, s.write(w, make([]byte, 1)), syscall.EIO)
	require.Nil(t, s.at("content/00/x.pack", 7))
	require.Nil(t, s.appendAt("content/00/x.pack", 0))
	names, err := s.dir.List(spoolFolder)
	require.NoError(t, err)
	require.Empty(t, names)
}

// What was fetched in the place of wrong bytes goes before these, for another
// process too.
func TestSpoolRemembersTheBetter(t *testing.T) {
	const file = "content/00/x.pack"
	s := spoolIn(t, func(d seam.Dir) seam.Dir { return d })
	put := func(offset int64, text string) {
		w := s.appendAt(file, offset)
		require.NoError(t, s.write(w, []byte(text)))
		require.NoError(t, w.Close())
	}
	put(100, "aaaaaaaaaaaaaaaaaaaa")
	s.forget(file, 100, 4)
	s.forget(file, 110, 4)
	require.EqualValues(t, 8, s.missing(file, 100, 20))
	put(100, "bbbb")
	put(110, "cccc")
	s.forget(file, 100, 2)
	put(100, "dd")
	for range 2 {
		require.EqualValues(t, 10, s.missing(file, 95, 30))
		var got []byte
		for at := int64(100); at < 120; at++ {
			have := s.at(file, at)
			r, err := have.open(s.dir, at, 1)
			require.NoError(t, err)
			c := make([]byte, 1)
			_, err = r.Read(c)
			require.NoError(t, err)
			require.NoError(t, r.Close())
			got = append(got, c...)
		}
		require.Equal(t, "ddbbaaaaaaccccaaaaaa", string(got))
		s = newSpool(s.dir) // another process
	}
}
