package tuf_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/pawl-ota/pawl/ota/durable"
	"github.com/pawl-ota/pawl/ota/release"
	"github.com/pawl-ota/pawl/ota/tuf"
)

// damages are what can become of a file of the trust store; nil takes it away.
var damages = map[string]func(whole, older []byte) []byte{
	"whole":    func(whole, _ []byte) []byte { return whole },
	"older":    func(_, older []byte) []byte { return older },
	"missing":  func(_, _ []byte) []byte { return nil },
	"empty":    func(_, _ []byte) []byte { return []byte{} },
	"zeroed":   func(whole, _ []byte) []byte { return make([]byte, len(whole)) },
	"cut":      func(whole, _ []byte) []byte { return whole[:len(whole)/2] },
	"flipped":  func(whole, _ []byte) []byte { w := bytes.Clone(whole); w[len(w)*2/3] ^= 1; return w },
	"longer":   func(whole, _ []byte) []byte { return append(bytes.Clone(whole), 'x') },
	"garbage":  func(_, _ []byte) []byte { return bytes.Repeat([]byte("garbage\n"), 99) },
	"torn mix": func(whole, older []byte) []byte { return append(bytes.Clone(older[:70]), whole[70:]...) },
}

// TestStoreHeals: whatever happens to the store's files, and after a power cut
// between their two writes, the next lookup succeeds and leaves them whole; and as
// long as one of them is whole nothing older than what was seen is taken.
func TestStoreHeals(t *testing.T) {
	m := newMaker(t)
	m.add(newRelease(1))
	m.publish()
	old := m.copyDir()
	o := m.options(m.dir)
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(o.Dir, name))
		require.NoError(t, err)
		return data
	}
	_, err := latest(t, o)
	require.NoError(t, err)
	olderMarks, olderTrust := read("marks"), read("trust")
	m.rotate(func() {})
	m.add(newRelease(2))
	m.publish()
	_, err = latest(t, o)
	require.NoError(t, err)
	marks, trust := read("marks"), read("trust")

	place := func(t *testing.T, file string, data []byte) {
		if data != nil {
			require.NoError(t, os.WriteFile(file, data, 0o600))
		}
	}
	for onMarks, harmMarks := range damages {
		for onTrust, harmTrust := range damages {
			t.Run("marks "+onMarks+" trust "+onTrust, func(t *testing.T) {
				t.Parallel()
				o, back := o, o
				back.URL = old
				harmed := func() string {
					dir := t.TempDir()
					require.NoError(t, os.Chmod(dir, 0o700))
					place(t, filepath.Join(dir, "marks"), harmMarks(marks, olderMarks))
					place(t, filepath.Join(dir, "trust"), harmTrust(trust, olderTrust))
					return dir
				}
				if onMarks == "whole" || onTrust == "whole" {
					back.Dir = harmed()
					_, err := latest(t, back)
					require.ErrorIs(t, err, tuf.ErrRollback)
				}
				o.Dir = harmed()
				seq, err := latest(t, o)
				require.NoError(t, err)
				require.EqualValues(t, 2, seq)
				back.Dir = o.Dir
				_, err = latest(t, back)
				require.ErrorIs(t, err, tuf.ErrRollback, "healed")
			})
		}
	}
}

// TestDamageIsSetAside keeps what was damaged for people to look at.
func TestDamageIsSetAside(t *testing.T) {
	m := newMaker(t)
	m.add(newRelease(1))
	m.publish()
	o := m.options(m.dir)
	_, err := latest(t, o)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(o.Dir, "trust"), []byte("torn"), 0o600))
	unreachable := o
	unreachable.URL = filepath.Join(m.dir, "not there")
	_, err = latest(t, unreachable)
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = latest(t, o)
	require.NoError(t, err)
	data, err := os.ReadFile(filepath.Join(o.Dir, "trust.damaged"))
	require.NoError(t, err)
	require.Equal(t, "torn", string(data))
}

// TestStoreOfTheFuture is refused, and kept.
func TestStoreOfTheFuture(t *testing.T) {
	m := newMaker(t)
	m.add(newRelease(1))
	m.publish()
	for _, name := range []string{"marks", "trust"} {
		o := m.options(m.dir)
		_, err := latest(t, o)
		require.NoError(t, err)
		const format, body = "pawl-trust/9", `{"new":true}`
		future := []byte(format + " " + release.Sum([]byte(format+"\n"+body)).String() + "\n" + body)
		file := filepath.Join(o.Dir, name)
		require.NoError(t, os.WriteFile(file, future, 0o600))
		_, err = latest(t, o)
		require.ErrorIs(t, err, tuf.ErrStore)
		got, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Equal(t, future, got)
	}
}

// TestNothingNewWritesNothing spares the flash.
func TestNothingNewWritesNothing(t *testing.T) {
	m := newMaker(t)
	m.add(newRelease(1))
	m.publish()
	o := m.options(m.dir)
	inode := func(name string) uint64 {
		info, err := os.Stat(filepath.Join(o.Dir, name))
		require.NoError(t, err)
		return info.Sys().(*syscall.Stat_t).Ino
	}
	_, err := latest(t, o)
	require.NoError(t, err)
	marks, trust := inode("marks"), inode("trust")
	for range 3 {
		_, err = latest(t, o)
		require.NoError(t, err)
	}
	require.Equal(t, marks, inode("marks"))
	require.Equal(t, trust, inode("trust"))
}

// TestSharedStore: several processes may look at once; none waits for ever.
func TestSharedStore(t *testing.T) {
	m := newMaker(t)
	m.add(newRelease(1))
	m.publish()
	o := m.options(m.dir)
	errs := make([]error, 4)
	var all sync.WaitGroup
	for i := range errs {
		s := source(t, o)
		all.Go(func() { _, errs[i] = s.Latest(context.Background(), device) })
	}
	all.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
	dir, err := durable.OpenDir(o.Dir)
	require.NoError(t, err)
	defer dir.Close()
	unlock, err := dir.Lock(t.Context(), time.Second)
	require.NoError(t, err)
	o.LockWait = time.Millisecond
	_, err = latest(t, o)
	require.ErrorIs(t, err, durable.ErrLocked)
	require.NoError(t, unlock())
}

// TestMarksAlone: without the files that go-tuf compares with, each version
// alone cannot go back, whoever of the online keys signs it, nor can the root.
func TestMarksAlone(t *testing.T) {
	for name, back := range map[string]func(m *maker){
		"root":         func(m *maker) { require.NoError(m.t, os.Remove(filepath.Join(m.dir, "metadata", "2.root.json"))) },
		"timestamp":    func(m *maker) { m.timestamp.Signed.Version--; m.writeTimestamp() },
		"snapshot":     func(m *maker) { m.snapshot.Signed.Version--; m.writeSnapshot(); m.refresh() },
		"targets":      func(m *maker) { m.targets.Signed.Version -= 2; m.publish() },
		"team":         func(m *maker) { m.delegated["team"].Signed.Version -= 2; m.publish() },
		"team is gone": func(m *maker) { delete(m.delegated, "team"); m.publish() },
	} {
		t.Run(name, func(t *testing.T) {
			m := newMaker(t)
			m.rotate(func() {})
			m.delegate("team", false, "releases/kiosk/arm/*")
			m.add(newRelease(1))
			m.publish()
			m.publish()
			o := m.options(m.dir)
			_, err := latest(t, o)
			require.NoError(t, err)
			require.NoError(t, os.Remove(filepath.Join(o.Dir, "trust")))
			back(m)
			for range 2 {
				_, err = latest(t, o)
				require.ErrorIs(t, err, tuf.ErrRollback)
			}
			m.writeRoot()
			m.delegated["team"] = metadata.Targets(today.Add(300 * day))
			m.delegated["team"].Signed.Version = 50
			m.targets.Signed.Version, m.snapshot.Signed.Version, m.timestamp.Signed.Version = 50, 50, 50
			m.publish()
			_, err = latest(t, o)
			require.NoError(t, err, "the next good state is taken")
		})
	}
}
