package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/publish"
)

// TestDeltasAndFull: how many releases deltas are made from, and when a pack
// holds everything, shows in what list says of each device.
func TestDeltasAndFull(t *testing.T) {
	s := newSite(t)
	noise := make([]byte, 100_000)
	_, _ = rand.NewChaCha8([32]byte{3}).Read(noise)
	release := func(i int, more ...string) {
		for j := range 5 {
			if j == 0 || j == i {
				s.write(t, fmt.Sprint("app/", j), fmt.Sprintf("%s%d", noise[j*10_000:][:50_000], i))
			}
		}
		spec := s.write(t, "SPEC.yaml", fmt.Sprintf("version: %d.0.0\ncomponents:\n  - {name: app, kind: files, from: app}\n", i))
		r := call(t, append(append([]string{"release", "-repo", s.repo, "-keys", s.keys}, more...), spec)...)
		require.Equal(t, 0, r.code, r.errs)
	}
	release(1)
	release(2, "-full", "0")
	release(3, "-deltas", "1", "-full", "0")
	by := s.fetches(t)
	require.Positive(t, by[2].Deltas)
	require.Zero(t, by[2].Pieces)
	require.Zero(t, by[1].Deltas, "a delta from the release before the last one was made: %+v", by[1])
	require.Positive(t, by[1].Pieces)
	require.Equal(t, 3, by[0].Packs, "new content alone is in each pack: %+v", by[0])
	release(4, "-deltas", "0", "-full", "2")
	by = s.fetches(t)
	for _, f := range by {
		require.Zero(t, f.Deltas, "%+v", f)
	}
	require.Equal(t, 1, by[0].Packs, "the last pack does not hold everything: %+v", by[0])
	release(5)
	by = s.fetches(t)
	for seq := range uint64(5) {
		require.Equal(t, seq > 1, by[seq].Deltas > 0, "three deltas are usual: %+v", by[seq])
	}
	r := call(t, "release", "-repo", s.repo, "-keys", s.keys, "-full", "-1", "SPEC.yaml")
	require.Equal(t, 2, r.code)
	require.Contains(t, r.errs, "-full")
}

// fetches returns what list says of devices that go to the newest release, by
// the one that they run.
func (s site) fetches(t *testing.T) map[uint64]publish.Fetch {
	t.Helper()
	r := call(t, "list", "-repo", s.repo, "-json")
	require.Equal(t, 0, r.code, r.errs)
	lines := bytes.Split(bytes.TrimSpace([]byte(r.out)), []byte("\n"))
	var newest struct{ Fetches []publish.Fetch }
	require.NoError(t, json.Unmarshal(lines[len(lines)-1], &newest))
	by := map[uint64]publish.Fetch{}
	for _, f := range newest.Fetches {
		by[f.From] = f
	}
	require.Len(t, by, len(lines))
	return by
}
