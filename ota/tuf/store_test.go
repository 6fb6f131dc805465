package tuf

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/seam"
	"github.com/pawl-ota/pawl/ota/durable"
	"github.com/pawl-ota/pawl/ota/release"
)

// FuzzStore: no content of the store's files makes load fail but one of a future
// format, and what comes out is as good as new.
func FuzzStore(f *testing.F) {
	good, err := seal(trust{Marks: marks{Generation: 3}, Roles: map[string][]byte{"timestamp": []byte("{}")}})
	require.NoError(f, err)
	f.Add(good, good)
	f.Add([]byte("pawl-trust/0 \n{}"), []byte{})
	f.Add([]byte("null"), good[:40])
	f.Fuzz(func(t *testing.T, a, b []byte) {
		dir, err := durable.OpenDir(t.TempDir() + "/trust")
		require.NoError(t, err)
		defer dir.Close()
		require.NoError(t, dir.WriteFile(trustFile, a))
		require.NoError(t, dir.WriteFile(marksFile, b))
		st, whole, err := load(dir)
		if err != nil {
			require.ErrorIs(t, err, ErrStore)
			return
		}
		require.NotContains(t, st.Roles, "timestamp", "it is not one that can be read")
		require.NoError(t, st.save(dir, whole))
		again, whole, err := load(dir)
		require.NoError(t, err)
		require.NotNil(t, whole)
		require.Equal(t, st.Marks.Generation, again.Marks.Generation)
	})
}

func FuzzParseTarget(f *testing.F) {
	for _, s := range []string{"releases/p/v/1.json", "releases/p/v/01.json", "9007199254740992.json", "x/+1.json", "/.json", "1.json/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		folder, seq, ok := parseTarget(name)
		if !ok {
			return
		}
		require.True(t, seq > 0 && seq <= release.MaxSeq, name)
		id := release.ID{Product: "p", Variant: "v", Seq: seq}
		require.Equal(t, name, folder+strings.TrimPrefix(targetName(kindRelease, id), "releases/p/v/"))
	})
}

// TestEveryBitCounts: a file with one bit flipped is damaged, and never another
// file, nor one of the future.
func TestEveryBitCounts(t *testing.T) {
	good, err := seal(marks{Generation: 7, Root: 3, Timestamp: 12, Roles: map[string]int64{"targets.json": 4}})
	require.NoError(t, err)
	require.NoError(t, unseal(good, &marks{}))
	for i := range len(good) * 8 {
		bad := bytes.Clone(good)
		bad[i/8] ^= 1 << (i % 8)
		require.ErrorIs(t, unseal(bad, &marks{}), errDamaged, "bit %d", i)
	}
	for n := range good {
		require.ErrorIs(t, unseal(good[:n], &marks{}), errDamaged, "cut at %d", n)
	}
}

// TestSeenIsBounded keeps the releases with the highest seqs in mind.
func TestSeenIsBounded(t *testing.T) {
	m := marks{Seen: map[string]release.Digest{}, Lineage: make([]release.Digest, maxLineage+5)}
	for seq := range uint64(200) {
		m.Seen[targetName(kindRelease, release.ID{Product: "p", Variant: "v", Seq: seq + 1})] = release.Digest{}
	}
	m.trim()
	require.Len(t, m.Seen, maxSeen)
	require.Contains(t, m.Seen, "releases/p/v/200.json")
	require.Contains(t, m.Seen, "releases/p/v/137.json")
	require.Len(t, m.Lineage, maxLineage)
}

func TestLimitsByName(t *testing.T) {
	l := Limits{Root: 1, Timestamp: 2, Snapshot: 3, Targets: 4}
	for name, want := range map[string]int64{
		"metadata/12.root.json": 1, "metadata/timestamp.json": 2, "metadata/7.snapshot.json": 3, "metadata/snapshot.json": 3,
		"metadata/3.targets.json": 4, "metadata/3.team.json": 4, "metadata/3.root.x.json": 4, "metadata/a.root.json": 4,
	} {
		require.Equal(t, want, l.of(name), name)
	}
}

// badSector is a folder of which the drive cannot give some files.
type badSector struct {
	seam.Dir
	bad []string
}

var errDrive = errors.New("input/output error")

func (d badSector) ReadFile(name string, max int64) ([]byte, error) {
	if slices.Contains(d.bad, name) {
		return nil, errDrive
	}
	return d.Dir.ReadFile(name, max)
}

// TestUnreadableFile: the other one has the marks; where it cannot be read either
// nothing is begun anew.
func TestUnreadableFile(t *testing.T) {
	dir, err := durable.OpenDir(t.TempDir() + "/trust")
	require.NoError(t, err)
	defer dir.Close()
	first := trust{Marks: marks{Root: 3, Timestamp: 12}}
	require.NoError(t, first.save(dir, nil))
	for _, bad := range []string{trustFile, marksFile} {
		got, whole, err := load(badSector{dir, []string{bad}})
		require.NoError(t, err)
		require.EqualValues(t, 12, got.Marks.Timestamp)
		require.Nil(t, whole, "to be written anew")
		require.NoError(t, got.save(dir, whole))
		_, whole, err = load(dir)
		require.NoError(t, err)
		require.NotNil(t, whole)
	}
	_, _, err = load(badSector{dir, []string{trustFile, marksFile}})
	require.ErrorIs(t, err, errDrive)
}

// TestStoreIsBounded: what does not fit is left to the repository, the marks never;
// and a file that is longer than any store is no reason to give up.
func TestStoreIsBounded(t *testing.T) {
	big := func() *trust {
		return &trust{
			Marks: marks{Timestamp: 12}, Roots: [][]byte{make([]byte, 10), make([]byte, 20)},
			Roles: map[string][]byte{"timestamp": make([]byte, 5), "a": make([]byte, 30), "b": make([]byte, 40)},
		}
	}
	for max, want := range map[int][2]int{105: {2, 3}, 104: {2, 2}, 75: {2, 2}, 74: {2, 1}, 30: {2, 0}, 29: {0, 0}} {
		b := big()
		b.fit(max)
		require.Equal(t, want, [2]int{len(b.Roots), len(b.Roles)}, "%d bytes", max)
		require.EqualValues(t, 12, b.Marks.Timestamp)
	}
	path := t.TempDir() + "/trust"
	dir, err := durable.OpenDir(path)
	require.NoError(t, err)
	defer dir.Close()
	require.NoError(t, big().save(dir, nil))
	require.NoError(t, os.Truncate(path+"/"+trustFile, maxStore+1))
	got, _, err := load(dir)
	require.NoError(t, err)
	require.EqualValues(t, 12, got.Marks.Timestamp)
}

// TestErrorsOfTheDevice are not the repository's fault.
func TestErrorsOfTheDevice(t *testing.T) {
	_, err := os.ReadFile(t.TempDir() + "/away")
	require.NotErrorIs(t, classify(err), ErrUntrusted)
	require.ErrorIs(t, classify(err), os.ErrNotExist)
}
