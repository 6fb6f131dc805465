//go:build linux

package micro

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/seam"
	"github.com/pawl-ota/pawl/micro/internal/at"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

const bulk = "bin/same"

// bulky makes releases that differ in one small file, beside a large one.
func bulky(t *testing.T, n int) []*shop {
	all := make([]*shop, n)
	for i := range all {
		all[i] = newShop(t, files(t, t.TempDir(), map[string]string{"bin/a": fmt.Sprint(i), bulk: strings.Repeat("x", 4<<20)}))
	}
	return all
}

// longInstalled is a device with the first release, whose files were written long
// ago.
func longInstalled(t *testing.T, s *shop) *device {
	d := newDevice(t)
	d.install("t0", s)
	then := time.Now().Add(-time.Hour)
	require.NoError(t, os.Chtimes(filepath.Join(d.root, bulk), then, then))
	return d
}

// update takes a release all the way, and keeps the one before if that is asked for.
func (d *rig[F]) update(i int, all []*shop, previous int) {
	d.t.Helper()
	tx, s := ota.TxID(fmt.Sprint("t", i)), *all[i]
	s.c.Keep.Previous = previous
	d.install(tx, &s)
	var keep []release.Digest
	if previous > 0 {
		keep = append(keep, all[i-1].c.Digest())
	}
	require.NoError(d.t, d.f.Prune(d.t.Context(), "app", keep, nil))
	d.restart()
}

// isKnown reports whether the large file of the root would not be read by Stage.
func isKnown(t *testing.T, d *device, s *shop) bool {
	t.Helper()
	info, err := at.Lstat(filepath.Join(d.root, bulk))
	require.NoError(t, err)
	seen := d.f.readSeen(s.c.Digest(), s.ix)
	i, _ := s.ix.Search(bulk)
	return seen != nil && seen[i].is(info)
}

// bytesRead is what this process has read so far.
func bytesRead(t *testing.T) int {
	t.Helper()
	data, err := os.ReadFile("/proc/self/io")
	require.NoError(t, err)
	n, err := strconv.Atoi(strings.Fields(string(data))[1])
	require.NoError(t, err)
	return n
}

// TestSeenOutlivesDrops has five updates follow each other: but for the first, which
// finds another time of a write, none reads what did not change.
func TestSeenOutlivesDrops(t *testing.T) {
	for previous := range 2 {
		all := bulky(t, 6)
		d := longInstalled(t, all[0])
		for i := 1; i < len(all); i++ {
			before := bytesRead(t)
			d.update(i, all, previous)
			n := bytesRead(t) - before
			require.Equal(t, i == 1, n >= 4<<20, "update %d reads %d bytes", i, n)
			require.True(t, isKnown(t, d, all[i]), "after update %d", i)
		}
	}
}

// TestDropForgetsWhatChanged has a file of the root be changed before or while the
// tree is dropped that shares it.
func TestDropForgetsWhatChanged(t *testing.T) {
	for name, change := range map[string]func(d *device, p string){
		"before": func(d *device, p string) { writeUnseen(t, p, strings.Repeat("y", 4<<20)) },
		"its mode, before": func(d *device, p string) {
			require.NoError(t, os.Chmod(p, 0o600))
			require.NoError(t, os.Chmod(p, 0o644))
		},
		"between the looks": func(d *device, p string) {
			info, err := at.Lstat(p)
			require.NoError(t, err)
			hook := func(id *seam.Ident) {
				if id.Ino == info.Ino { // the first look
					seam.Inode.Store(nil)
					write(t, p, strings.Repeat("y", 4<<20))
				}
			}
			seam.Inode.Store(&hook)
		},
	} {
		t.Run(name, func(t *testing.T) {
			all := bulky(t, 3)
			d := longInstalled(t, all[0])
			d.update(1, all, 1)
			s := *all[2]
			s.c.Keep.Previous = 1
			d.install("t2", &s)
			require.True(t, isKnown(t, d, all[2]))
			change(d, filepath.Join(d.root, bulk))
			require.NoError(t, d.f.Prune(t.Context(), "app", []release.Digest{all[1].c.Digest()}, nil))
			require.Nil(t, seam.Inode.Load())
			require.False(t, isKnown(t, d, all[2]))
		})
	}
}

// TestTornSeen has every byte of what is known be lost, and be another one.
func TestTornSeen(t *testing.T) {
	all := bulky(t, 2)
	d := longInstalled(t, all[0])
	d.update(1, all, 1)
	p := d.f.seenPath(all[1].c.Digest())
	data, err := os.ReadFile(p)
	require.NoError(t, err)
	require.NotNil(t, d.f.readSeen(all[1].c.Digest(), all[1].ix))
	for i := range data {
		torn := append(append([]byte{}, data[:i]...), make([]byte, len(data)-i)...)
		if string(torn) != string(data) {
			require.NoError(t, os.WriteFile(p, torn, 0o600))
			require.Nil(t, d.f.readSeen(all[1].c.Digest(), all[1].ix), "zeros from byte %d on", i)
		}
		require.NoError(t, os.WriteFile(p, data[:i], 0o600))
		require.Nil(t, d.f.readSeen(all[1].c.Digest(), all[1].ix), "%d bytes", i)
		other := append([]byte{}, data...)
		other[i] ^= 1
		require.NoError(t, os.WriteFile(p, other, 0o600))
		require.Nil(t, d.f.readSeen(all[1].c.Digest(), all[1].ix), "byte %d", i)
	}
}
