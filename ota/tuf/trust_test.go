package tuf_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/pawl-ota/pawl/ota/tuf"
)

func TestRootRotation(t *testing.T) {
	m := newMaker(t)
	m.add(newRelease(1))
	m.publish()
	o := m.options(serve(t, m.dir))
	_, err := latest(t, o)
	require.NoError(t, err)

	for i, role := range []string{metadata.TIMESTAMP, metadata.SNAPSHOT, metadata.TARGETS, metadata.ROOT} {
		m.rotate(func() {
			if role == metadata.ROOT {
				m.replaceKeys(role)
				m.addKey(role)
			} else {
				m.replaceKeys(role)
			}
		})
		m.add(newRelease(uint64(i + 2)))
		m.publish()
		seq, err := latest(t, o)
		require.NoError(t, err, role)
		require.EqualValues(t, i+2, seq)
	}
	fresh := m.options(m.dir)
	_, err = latest(t, fresh)
	require.NoError(t, err, "from the pinned root through all rotations")

	// A device that has seen the newest root takes nothing from before it.
	past := m.copyDir()
	require.NoError(t, os.Remove(filepath.Join(past, "metadata", "5.root.json")))
	o.URL = past
	seq, err := latest(t, o)
	require.NoError(t, err, "its own copy of the root stands")
	require.EqualValues(t, 5, seq)
}

// TestRootThatNobodySigned: one key of two is not enough, nor are the new keys
// alone, nor a version that is not the next one.
func TestRootThatNobodySigned(t *testing.T) {
	for name, c := range map[string]struct {
		change func(m *maker)
		want   error
	}{
		"one key": {func(m *maker) { m.keys[metadata.ROOT] = m.keys[metadata.ROOT][:1] }, tuf.ErrThreshold},
		"new keys": {func(m *maker) {
			m.keys[metadata.ROOT] = nil
			m.addKey(metadata.ROOT)
			m.addKey(metadata.ROOT)
		}, tuf.ErrThreshold},
		"threshold 0": {func(m *maker) { m.root.Signed.Roles[metadata.ROOT].Threshold = 0 }, tuf.ErrUntrusted},
		"version":     {func(m *maker) { m.root.Signed.Version = 7 }, tuf.ErrRollback},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMaker(t)
			m.add(newRelease(1))
			m.publish()
			o := m.options(m.dir)
			_, err := latest(t, o)
			require.NoError(t, err)
			m.root.Signed.Version++
			c.change(m)
			data := encodeSigned(m, m.root, m.keys[metadata.ROOT]...)
			m.write("metadata/2.root.json", data)
			_, err = latest(t, o)
			require.ErrorIs(t, err, c.want)
			require.NoError(t, os.Remove(filepath.Join(m.dir, "metadata", "2.root.json")))
			_, err = latest(t, o)
			require.NoError(t, err, "the next good repository is fine again")
		})
	}
}

// TestRollbackAndMixing: what a mirror can do with files that were good once.
func TestRollbackAndMixing(t *testing.T) {
	m := newMaker(t)
	m.add(newRelease(1))
	m.publish()
	old := m.copyDir()
	m.add(newRelease(2))
	m.publish()
	for name, url := range media(t, old) {
		o := m.options(m.dir)
		_, err := latest(t, o)
		require.NoError(t, err)
		o.URL = url
		_, err = latest(t, o)
		require.ErrorIs(t, err, tuf.ErrRollback, name)
		require.ErrorIs(t, err, tuf.ErrUntrusted, name)
	}
	for _, file := range []string{"4.snapshot.json", "4.targets.json"} {
		mixed := m.copyDir()
		data, err := os.ReadFile(filepath.Join(m.dir, "metadata", "3"+file[1:]))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(mixed, "metadata", file), data, 0o600))
		_, err = latest(t, m.options(mixed))
		require.ErrorIs(t, err, tuf.ErrUntrusted, file)
	}
	// The keys of the timestamp alone cannot go back either.
	o := m.options(m.dir)
	_, err := latest(t, o)
	require.NoError(t, err)
	m.snapshot.Signed.Version = 2
	m.refresh()
	_, err = latest(t, o)
	require.ErrorIs(t, err, tuf.ErrRollback)
}

func TestFewSignatures(t *testing.T) {
	for _, role := range []string{metadata.TIMESTAMP, metadata.SNAPSHOT, metadata.TARGETS} {
		m := newMaker(t)
		m.add(newRelease(1))
		m.publish()
		o := m.options(m.dir)
		_, err := latest(t, o)
		require.NoError(t, err)
		signer, _ := newKey(t)
		m.keys[role][0] = signer
		m.publish()
		_, err = latest(t, o)
		require.ErrorIs(t, err, tuf.ErrThreshold, role)
	}
}

// TestOddMetadata: signed, but of a shape that go-tuf does not expect.
func TestOddMetadata(t *testing.T) {
	for name, c := range map[string]struct {
		change func(m *maker)
		file   string
	}{
		"no snapshot in timestamp": {func(m *maker) { delete(m.timestamp.Signed.Meta, "snapshot.json"); m.writeTimestamp() }, ""},
		"null in timestamp":        {func(m *maker) { m.timestamp.Signed.Meta["snapshot.json"] = nil; m.writeTimestamp() }, ""},
		"no targets in snapshot":   {func(m *maker) { m.snapshot.Signed.Meta = nil; m.writeSnapshot() }, ""},
		"not JSON":                 {nil, "timestamp.json"},
		"not JSON either":          {nil, "3.targets.json"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMaker(t)
			m.add(newRelease(1))
			m.publish()
			if c.change != nil {
				c.change(m)
			} else {
				m.write("metadata/"+c.file, []byte("<html>captive portal</html>"))
			}
			_, err := latest(t, m.options(m.dir))
			require.ErrorIs(t, err, tuf.ErrUntrusted)
		})
	}
}

// TestFastForward: a thief of the online keys raised the versions and the time
// as far as they go; new keys from the root heal every device.
func TestFastForward(t *testing.T) {
	m := newMaker(t)
	m.add(newRelease(1))
	m.publish()
	good := [...]int64{m.targets.Signed.Version, m.snapshot.Signed.Version, m.timestamp.Signed.Version}
	m.targets.Signed.Version, m.snapshot.Signed.Version, m.timestamp.Signed.Version = 1<<40, 1<<40, 1<<40
	m.age(today.Add(10000*day), 20000*day)
	m.root.Signed.Expires = today.Add(100000 * day)
	m.rotate(func() {})
	m.publish()
	devices := []tuf.Options{m.options(m.dir), m.options(m.dir)}
	for _, o := range devices {
		_, err := latest(t, o)
		require.NoError(t, err)
	}
	require.NoError(t, os.Remove(filepath.Join(devices[1].Dir, "trust"))) // with the marks alone

	m.rotate(func() { m.replaceKeys(metadata.TIMESTAMP); m.replaceKeys(metadata.SNAPSHOT) })
	m.targets.Signed.Version, m.snapshot.Signed.Version, m.timestamp.Signed.Version = good[0], good[1], good[2]
	m.age(today.Add(day), 90*day)
	m.add(newRelease(2))
	m.publish()
	for _, o := range devices {
		for range 2 {
			seq, err := latest(t, o)
			require.NoError(t, err)
			require.EqualValues(t, 2, seq)
		}
	}
}

// TestFirmwareBringsAnotherRoot: newer firmware may pin a newer root, and older
// firmware an older one; neither makes the device forget.
func TestFirmwareBringsAnotherRoot(t *testing.T) {
	m := newMaker(t)
	m.add(newRelease(1))
	m.publish()
	old := m.copyDir()
	m.publish()
	o := m.options(m.dir)
	_, err := latest(t, o)
	require.NoError(t, err)
	first := m.pinned

	m.rotate(func() {})
	m.rotate(func() {})
	third, err := os.ReadFile(filepath.Join(m.dir, "metadata", "3.root.json"))
	require.NoError(t, err)
	unseen := o
	unseen.Root, unseen.URL = third, old
	_, err = latest(t, unseen)
	require.ErrorIs(t, err, tuf.ErrRollback, "the keys that it knew signed the new root")
	m.add(newRelease(2))
	m.publish()
	for _, pinned := range [][]byte{third, first, third} {
		o.Root = pinned
		seq, err := latest(t, o)
		require.NoError(t, err)
		require.EqualValues(t, 2, seq)
		back := o
		back.URL = old
		_, err = latest(t, back)
		require.ErrorIs(t, err, tuf.ErrRollback)
	}
}

// TestStoreOfAnotherRepository: a device that is given to another product, or
// whose store was cloned, is not locked out by foreign marks.
func TestStoreOfAnotherRepository(t *testing.T) {
	far := newMaker(t)
	far.timestamp.Signed.Version = 5000
	far.age(today.Add(900*day), 90*day)
	far.root.Signed.Expires = today.Add(9000 * day)
	far.rotate(func() {})
	far.add(newRelease(7))
	far.publish()
	m := newMaker(t)
	m.add(newRelease(7)).Version = "ours"
	m.publish()
	o := far.options(far.dir)
	_, err := latest(t, o)
	require.NoError(t, err)
	o.URL, o.Root = m.dir, m.pinned
	for range 2 {
		seq, err := latest(t, o)
		require.NoError(t, err)
		require.EqualValues(t, 7, seq)
	}
}

func TestExpiry(t *testing.T) {
	m := newMaker(t)
	m.add(newRelease(1))
	m.age(today, 90*day)
	m.publish()
	at := func(o tuf.Options, now time.Time) tuf.Options {
		o.Now = func() time.Time { return now }
		return o
	}
	late := today.Add(91 * day)
	for name, url := range media(t, m.dir) {
		t.Run(name, func(t *testing.T) {
			o := m.options(url)
			for _, now := range []time.Time{time.Unix(0, 0), today.Add(-10 * 365 * day), today.Add(89 * day)} {
				_, err := latest(t, at(o, now))
				require.NoError(t, err, now)
			}
			for range 2 {
				_, err := latest(t, at(o, late))
				require.ErrorIs(t, err, tuf.ErrClockUntrusted, "only the clock says so")
				require.NotErrorIs(t, err, tuf.ErrExpired)
			}
			_, err := latest(t, at(o, today))
			require.NoError(t, err, "the wrong clock locks nothing out")

			sure := at(o, late)
			sure.TrustClock = true
			_, err = latest(t, sure)
			require.ErrorIs(t, err, tuf.ErrExpired)
			built := at(o, time.Unix(0, 0))
			built.BuildTime = late
			_, err = latest(t, built)
			require.ErrorIs(t, err, tuf.ErrExpired, "older than the program")
			built.Now = func() time.Time { return late.Add(day) }
			_, err = latest(t, built)
			require.ErrorIs(t, err, tuf.ErrExpired, "by the clock, and older than the program")

			_, err = source(t, at(o, late)).Locator(t.Context(), newRelease(1))
			require.ErrorIs(t, err, tuf.ErrClockUntrusted)
		})
	}
	o := at(m.options(m.dir), late)
	o.MaxStale = 2 * day
	_, err := latest(t, o)
	require.NoError(t, err, "a medium may be stale for a while")
	o.URL = serve(t, m.dir)
	_, err = latest(t, o)
	require.ErrorIs(t, err, tuf.ErrClockUntrusted, "a server may not")
	o.URL = m.dir
	o.Now = func() time.Time { return late.Add(2 * day) }
	_, err = latest(t, o)
	require.ErrorIs(t, err, tuf.ErrClockUntrusted)
}

// TestFreeze: on a device without a clock the newest signed time ends a freeze.
func TestFreeze(t *testing.T) {
	m := newMaker(t)
	m.add(newRelease(1))
	m.age(today, 30*day)
	m.publish()
	frozen := m.copyDir()
	m.age(today.Add(40*day), 30*day)
	m.publish()
	o := m.options(m.dir)
	o.Now = func() time.Time { return time.Unix(0, 0) }
	_, err := latest(t, o)
	require.NoError(t, err)

	// The timestamp is fresh, what it points to has expired by then.
	m.targets.Signed.Expires = today.Add(50 * day)
	m.publish()
	m.issued, m.timestamp.Signed.Expires = today.Add(60*day), today.Add(90*day)
	m.refresh()
	_, err = latest(t, m.options(m.dir))
	require.ErrorIs(t, err, tuf.ErrExpired, "at once, and with a fresh store too")
	_, err = latest(t, o)
	require.ErrorIs(t, err, tuf.ErrExpired)

	o.URL = frozen
	_, err = latest(t, o)
	require.Error(t, err)
}

// TestIssuedOfNoSense moves no floor.
func TestIssuedOfNoSense(t *testing.T) {
	m := newMaker(t)
	m.add(newRelease(1))
	m.publish()
	o := m.options(m.dir)
	m.issued = m.timestamp.Signed.Expires.Add(time.Second)
	m.refresh()
	for range 2 {
		_, err := latest(t, o)
		require.NoError(t, err)
	}
}

// TestManyRotations: a device whose copy of the roots was damaged gets all of them
// again, however few it takes in one lookup; and a mirror that hides all that the
// device remembers in particular does not make it forget.
func TestManyRotations(t *testing.T) {
	m := newMaker(t)
	m.add(newRelease(1))
	m.publish()
	hidden := m.copyDir()
	for range 40 {
		m.rotate(func() {})
	}
	m.add(newRelease(2))
	m.publish()
	o := m.options(m.dir)
	_, err := latest(t, o)
	require.NoError(t, err)
	damaged, few := m.options(hidden), m.options(m.dir)
	for _, dir := range []string{damaged.Dir, few.Dir} {
		require.NoError(t, os.CopyFS(dir, os.DirFS(o.Dir)))
		require.NoError(t, os.Remove(filepath.Join(dir, "trust")))
	}
	marks := fileText(t, filepath.Join(o.Dir, "marks"))
	for range 3 {
		_, err = latest(t, o)
		require.NoError(t, err)
	}
	assert.Equal(t, marks, fileText(t, filepath.Join(o.Dir, "marks")), "nothing new is written")

	for range 2 {
		_, err = latest(t, damaged)
		assert.ErrorIs(t, err, tuf.ErrRollback)
	}
	few.Limits.Rotations = 4
	seq, err := latest(t, few)
	require.NoError(t, err)
	require.EqualValues(t, 2, seq)
}

func fileText(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	return string(data)
}
