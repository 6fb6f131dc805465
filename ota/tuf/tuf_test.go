package tuf_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
	"github.com/pawl-ota/pawl/ota/tuf"
)

func TestWholeWorkflow(t *testing.T) {
	m := newMaker(t)
	m.add(newRelease(1))
	want := m.add(newRelease(12))
	m.add(newRelease(3))
	m.publish()
	for name, url := range media(t, m.dir) {
		t.Run(name, func(t *testing.T) {
			o := m.options(url)
			for range 2 { // with a fresh and with a warm store
				s := source(t, o)
				got, err := s.Latest(t.Context(), device)
				require.NoError(t, err)
				require.Equal(t, want, got)
				l, err := s.Locator(t.Context(), got)
				require.NoError(t, err)
				require.Equal(t, want.Digest(), l.Release)
				require.Positive(t, s.Bytes())
			}
			entries, err := os.ReadDir(o.Dir)
			require.NoError(t, err)
			var names []string
			for _, e := range entries {
				names = append(names, e.Name())
			}
			require.Subset(t, names, []string{"marks", "trust"})
			require.NotContains(t, names, "scratch")
		})
	}
}

func TestLocatorWithoutLatest(t *testing.T) {
	m := newMaker(t)
	r := m.add(newRelease(1))
	m.add(newRelease(2))
	m.publish()
	o := m.options(serve(t, m.dir))
	l, err := source(t, o).Locator(t.Context(), r)
	require.NoError(t, err)
	require.Equal(t, r.ID, l.ID)

	changed := newRelease(1)
	changed.Version = "other"
	_, err = source(t, o).Locator(t.Context(), changed)
	require.ErrorIs(t, err, tuf.ErrUntrusted)
	_, err = source(t, o).Locator(t.Context(), newRelease(9))
	require.ErrorIs(t, err, os.ErrNotExist)
}

// TestLocatorIsReplaced: a publisher may prune between Latest and Locator.
func TestLocatorIsReplaced(t *testing.T) {
	m := newMaker(t)
	r := m.add(newRelease(1))
	m.publish()
	s := source(t, m.options(m.dir))
	_, err := s.Latest(t.Context(), device)
	require.NoError(t, err)
	require.NoError(t, os.RemoveAll(filepath.Join(m.dir, "targets", "locators")))
	l := &release.Locator{Format: release.LocatorFormat, ID: r.ID, Release: r.Digest(), Packs: []release.Pack{},
		Table: release.Blob{Digest: release.Sum([]byte("new")), Size: 3}}
	data, err := l.Encode()
	require.NoError(t, err)
	m.put(m.targets, "locator", "locators", r, data)
	m.publish()
	got, err := s.Locator(t.Context(), r)
	require.NoError(t, err)
	require.Equal(t, l.Table, got.Table)
}

func TestNoReleaseAndOtherHardware(t *testing.T) {
	m := newMaker(t)
	o := m.options(m.dir)
	_, err := latest(t, o)
	require.ErrorIs(t, err, ota.ErrNoRelease)

	other := newRelease(5)
	other.Product = "gateway"
	m.add(other)
	m.publish()
	_, err = latest(t, o)
	require.ErrorIs(t, err, ota.ErrNoRelease)

	elsewhere := newRelease(6)
	elsewhere.Hardware = []string{"rev-a"}
	m.add(newRelease(5))
	m.add(elsewhere)
	m.publish()
	_, err = latest(t, o)
	require.ErrorIs(t, err, ota.ErrHardware)

	everywhere := newRelease(7)
	everywhere.Hardware = nil
	m.add(everywhere)
	m.publish()
	seq, err := latest(t, o)
	require.NoError(t, err)
	require.EqualValues(t, 7, seq)
}

// TestTargetsThatDisagree: name, custom data and document have to say the
// same, and the bytes have to be the signed ones.
func TestTargetsThatDisagree(t *testing.T) {
	doc := func(t *testing.T, r *release.Release) []byte {
		data, err := r.Encode()
		require.NoError(t, err)
		return data
	}
	say := func(seq any, change ...string) map[string]any {
		c := map[string]any{"kind": "release", "product": "kiosk", "variant": "arm", "seq": seq, "hardware": []string{"rev-a", "rev-b"}}
		for i := 0; i < len(change); i += 2 {
			c[change[i]] = change[i+1]
		}
		return c
	}
	const name = "releases/kiosk/arm/8.json"
	for what, mistake := range map[string]func(m *maker){
		"seq of custom":      func(m *maker) { m.target(m.targets, name, doc(t, newRelease(8)), say(9)) },
		"product of custom":  func(m *maker) { m.target(m.targets, name, doc(t, newRelease(8)), say(8, "product", "other")) },
		"kind":               func(m *maker) { m.target(m.targets, name, doc(t, newRelease(8)), say(8, "kind", "locator")) },
		"custom of no sense": func(m *maker) { m.target(m.targets, name, doc(t, newRelease(8)), say("eight")) },
		"name":               func(m *maker) { m.target(m.targets, name, doc(t, newRelease(9)), say(9)) },
		"other digest": func(m *maker) {
			m.add(newRelease(8))
			m.targets.Signed.Targets[name].Hashes = metadata.Hashes{"sha512": make([]byte, 64)}
		},
		"seq of document": func(m *maker) { m.target(m.targets, name, doc(t, newRelease(9)), say(8)) },
		"hardware": func(m *maker) {
			r := newRelease(8)
			r.Hardware = nil
			m.target(m.targets, name, doc(t, r), say(8))
		},
		"no custom": func(m *maker) { m.add(newRelease(8)); m.targets.Signed.Targets[name].Custom = nil },
		"no digest": func(m *maker) { m.add(newRelease(8)); m.targets.Signed.Targets[name].Hashes = nil },
		"too large": func(m *maker) { m.add(newRelease(8)); m.targets.Signed.Targets[name].Length = 2 << 20 },
		"length":    func(m *maker) { m.add(newRelease(8)); m.targets.Signed.Targets[name].Length++ },
		"shorter":   func(m *maker) { m.add(newRelease(8)); m.targets.Signed.Targets[name].Length-- },
		"null":      func(m *maker) { m.add(newRelease(8)); m.targets.Signed.Targets[name] = nil },
		"other bytes": func(m *maker) {
			r := m.add(newRelease(8))
			m.write("targets/releases/kiosk/arm/"+r.Digest().String()+".8.json", append(doc(t, r)[1:], '{'))
		},
	} {
		t.Run(what, func(t *testing.T) {
			m := newMaker(t)
			m.add(newRelease(7))
			mistake(m)
			m.publish()
			for name, url := range media(t, m.dir) {
				_, err := latest(t, m.options(url))
				require.ErrorIs(t, err, tuf.ErrUntrusted, name)
			}
		})
	}
}

// TestSameSeqOtherBytes: the publisher's keys do not suffice to give a release
// that was seen another content.
func TestSameSeqOtherBytes(t *testing.T) {
	m := newMaker(t)
	m.add(newRelease(1))
	m.publish()
	o := m.options(m.dir)
	_, err := latest(t, o)
	require.NoError(t, err)
	again := newRelease(1)
	again.Version = "1.0-fixed"
	m.add(again)
	m.publish()
	for range 2 {
		_, err = latest(t, o)
		require.ErrorIs(t, err, tuf.ErrReplaced)
		require.ErrorIs(t, err, tuf.ErrUntrusted)
	}
	m.add(newRelease(2))
	m.publish()
	seq, err := latest(t, o)
	require.NoError(t, err)
	require.EqualValues(t, 2, seq)
}

func TestDelegations(t *testing.T) {
	m := newMaker(t)
	m.add(newRelease(1))
	team := m.delegate("team", false, "releases/kiosk/arm/*", "locators/kiosk/arm/*")
	thief := m.delegate("thief", false, "releases/other/*/*")
	m.addTo(team, newRelease(2))
	m.addTo(thief, newRelease(99)) // lists what it may not
	m.publish()
	for name, url := range media(t, m.dir) {
		o := m.options(url)
		for range 2 {
			s := source(t, o)
			r, err := s.Latest(t.Context(), device)
			require.NoError(t, err, name)
			require.EqualValues(t, 2, r.Seq)
			_, err = s.Locator(t.Context(), r)
			require.NoError(t, err)
		}
	}
	// Two delegations of one path: the first one counts.
	rival := m.delegate("rival", false, "releases/kiosk/arm/*")
	other := newRelease(2)
	other.Version = "rival"
	m.addTo(rival, other)
	m.addTo(rival, newRelease(1))
	m.publish()
	r, err := source(t, m.options(m.dir)).Latest(t.Context(), device)
	require.NoError(t, err)
	require.Equal(t, "1.2", r.Version)
}

func TestOptionsNameTheField(t *testing.T) {
	m := newMaker(t)
	for _, c := range []struct {
		field string
		o     tuf.Options
	}{
		{"URL", tuf.Options{Root: m.pinned, Dir: "d"}},
		{"URL", tuf.Options{URL: "ftp://h/", Root: m.pinned, Dir: "d"}},
		{"Root", tuf.Options{URL: "u", Dir: "d"}},
		{"Root", tuf.Options{URL: "u", Root: []byte("{}"), Dir: "d"}},
		{"Dir", tuf.Options{URL: "u", Root: m.pinned}},
		{"MaxStale", tuf.Options{URL: "u", Root: m.pinned, Dir: "d", MaxStale: -1}},
		{"Limits.Snapshot", tuf.Options{URL: "u", Root: m.pinned, Dir: "d", Limits: tuf.Limits{Snapshot: -1}}},
	} {
		_, err := tuf.New(c.o)
		require.ErrorContains(t, err, "Options."+c.field)
	}
}
