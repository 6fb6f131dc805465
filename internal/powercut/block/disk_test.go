package block

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestDisk: the log, done on what the disk began with, is what the program
// saw; nothing of it is lost between the file system and here.
func TestDisk(t *testing.T) {
	for _, fs := range []FS{Ext4(), XFS(), Btrfs()} {
		t.Run(fs.Name, func(t *testing.T) {
			needs(t, fs)
			dir := t.TempDir()
			log := record(t, fs, base(t, fs, dir, func(string) {}), dir, "file", time.Millisecond)
			require.Len(t, log.Marks, replaced)
			assert.Equal(t, Flush, log.Entries[len(log.Entries)-1].Op, "an unmounted disk is flushed")
			s := stand(t, fs, dir)
			require.NoError(t, s.Load(NewBuilder(log).Build(State{Floor: len(log.Entries)})))
			require.NoError(t, s.Mount())
			data, err := os.ReadFile(filepath.Join(deviceOn(dir), "file"))
			require.NoError(t, s.Unmount())
			require.NoError(t, err)
			assert.Equal(t, string(numbered(replaced)), string(data))
			require.NoError(t, s.Check())
		})
	}
}

// TestLost: a state that cannot be mounted is repaired. When it cannot be
// mounted then, that is a failure, and the next one is looked at all the same.
func TestLost(t *testing.T) {
	fs := Ext4()
	needs(t, fs)
	dir := t.TempDir()
	l := &Log{Base: base(t, fs, dir, func(string) {})}
	super := make([]byte, sectorSize)
	l.Base.Read(super, 1024)
	super[0x38]++ // the magic number
	l.Entries = []Entry{{Op: Write, Offset: 1024, Length: sectorSize, Data: super}, {Op: Flush}, {Op: Discard, Length: fs.Size}}
	states, _ := States(l, Choice{Sector: int(fs.Size), All: 8})
	require.Len(t, states, 3)
	r := Replay{Log: l, States: states, Check: 1, Enough: 8, Visitor: func() *exec.Cmd { return program(t.Context(), roleVisit, "file") }}
	outcome, err := r.Run(stand(t, fs, dir))
	require.NoError(t, err)
	require.Len(t, outcome.Failures, 1)
	assert.Equal(t, states[2], outcome.Failures[0].State)
	assert.ErrorContains(t, outcome.Failures[0].Err, "the file system is lost")
	assert.Equal(t, states[1:], outcome.Repaired)
	assert.Equal(t, 2, outcome.Checked)
}

// TestNothingStays: a disk and a stand leave no loop device behind.
func TestNothingStays(t *testing.T) {
	fs := Ext4()
	needs(t, fs)
	before := map[string]unix.LoopInfo64{}
	t.Run("all", func(t *testing.T) {
		dir := t.TempDir()
		first := base(t, fs, dir, func(string) {})
		d, err := Record(fs, first, 0, dir, t.TempDir())
		require.NoError(t, err)
		for _, path := range []string{d.Device, stand(t, fs, dir).Device} {
			before[path], err = attached(path)
			require.NoError(t, err)
		}
		_, err = d.Close()
		require.NoError(t, err)
	})
	for path, was := range before {
		require.Eventually(t, func() bool {
			is, err := attached(path)
			return err != nil || is.Device != was.Device || is.Inode != was.Inode // somebody else has it by now
		}, 10*time.Second, 10*time.Millisecond, "%s is still attached", path)
	}
}

// attached says what is under a loop device.
func attached(path string) (info unix.LoopInfo64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return info, err
	}
	got, err := unix.IoctlLoopGetStatus64(int(f.Fd()))
	if err == nil {
		info = *got
	}
	return info, errors.Join(err, f.Close())
}
