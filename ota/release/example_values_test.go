package release_test

import (
	"encoding/json"
	"time"

	"github.com/pawl-ota/pawl/ota/release"
)

func sum(s string) release.Digest { return release.Sum([]byte(s)) }

func blob(s string) release.Blob {
	return release.Blob{Digest: sum(s), Size: int64(len(s))}
}

// sampleRelease uses every field.
func sampleRelease() *release.Release {
	return &release.Release{
		Format:        release.Format,
		ID:            release.ID{Product: "gateway", Variant: "arm64", Seq: 7},
		Version:       "1.7.0-ü<&>",
		Attempt:       2,
		Hardware:      []string{"rev A", "rev-b"},
		SecurityFloor: 5,
		Issued:        time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC),
		Components: []release.Component{
			{Name: "app", Kind: "files", Index: blob("index"), Keep: release.Keep{Previous: 1, Repair: release.RepairChanged},
				Options: json.RawMessage(`{"a":[1,{"b":null}],"c":{"a":"a"}}`)},
			{Name: "models", Kind: "files", Index: blob("other"), Keep: release.Keep{Previous: 0, Repair: release.RepairNone}},
		},
	}
}

// sampleIndex uses every type of entry and every field.
func sampleIndex() *release.Index {
	return &release.Index{Entries: []release.Entry{
		{Path: ".", Type: release.Dir, Mode: 0o755},
		{Path: "-dash", Type: release.File, Mode: 0o600, Blob: release.Blob{Digest: release.Sum(nil)}},
		{Path: "bin", Type: release.Dir, Mode: 0o1777, UID: 1, GID: 2},
		{Path: "bin-old", Type: release.Symlink, Mode: 0o777, Target: "../outside/<&>"},
		{Path: "bin/app", Type: release.File, Mode: 0o4755, UID: 4294967295, Blob: blob("app"),
			Xattrs: []release.Xattr{{Name: "security.capability", Value: []byte{1, 0, 0, 2}}, {Name: "user.empty"}}},
		{Path: "data", Type: release.Carry},
		{Path: "é\u2028 \n\"", Type: release.File, Blob: blob("app")},
	}}
}

// samplePartial lists single entries of a system, without their folders.
func samplePartial() *release.Index {
	return &release.Index{Entries: []release.Entry{
		{Path: "etc/app.conf", Type: release.File, Mode: 0o644, Blob: blob("conf")},
		{Path: "etc/old.conf", Type: release.Absent},
		{Path: "usr/bin/app", Type: release.File, Mode: 0o755, Blob: blob("app")},
		{Path: "var/lib/app", Type: release.Dir, Mode: 0o700, UID: 1, GID: 2},
	}}
}

func sampleRows() []release.TableRow {
	return []release.TableRow{
		{Digest: sum("index"), Pack: 1, Offset: 0, Length: 90, Codec: release.Zstd},
		{Digest: sum("app"), Pack: 0, Offset: 10, Length: 3, Codec: release.Raw},
		{Digest: sum("empty"), Pack: 1, Offset: 100, Length: 0, Codec: release.Raw},
		{Digest: sum("other"), Pack: 0, Offset: 1 << 33, Length: 1<<32 + 1, Codec: release.Zstd},
	}
}

// sampleCut shares a piece with itself, with another and with a whole blob.
func sampleCut() []release.TableCut {
	piece := func(s string, offset, length int64) release.TableRow {
		return release.TableRow{Digest: sum(s), Pack: 1, Offset: offset, Length: length, Codec: release.Zstd, Size: int64(len(s))}
	}
	one, two, three := piece("piece one", 110, 5), piece("piece two", 115, 6), piece("three", 121, 4)
	app := release.TableRow{Digest: sum("app"), Pack: 0, Offset: 10, Length: 3, Codec: release.Raw, Size: 3}
	return []release.TableCut{
		{Digest: sum("piece onepiece twopiece onethree"), Pieces: []release.TableRow{one, two, one, three}},
		{Digest: sum("apppiece two"), Pieces: []release.TableRow{app, two}},
	}
}

// sampleDelta has every kind of patch.
func sampleDelta() *release.DeltaDirectory {
	return &release.DeltaDirectory{Groups: []release.DeltaGroup{
		{Offset: 0, Length: 30, Patches: []release.DeltaPatch{{To: 4, From: 2}, {To: 5, From: 3}, {To: 0, From: 9}}},
		{Offset: 30, Length: 0, Patches: []release.DeltaPatch{}},
		{Offset: 30, Length: 10, Patches: []release.DeltaPatch{{To: 1, From: -1}, {To: 9, From: 0}}},
	}}
}

func sampleLocator(table []byte) *release.Locator {
	return &release.Locator{
		Format:  release.LocatorFormat,
		ID:      release.ID{Product: "gateway", Variant: "arm64", Seq: 7},
		Release: sum("release"),
		Packs: []release.Pack{
			{Name: release.PackName(sum("pack 0")), Size: 1 << 34},
			{Name: release.PackName(sum("pack 1")), Size: 200},
		},
		Table: release.Blob{Digest: release.Sum(table), Size: int64(len(table))},
		Patches: []release.Patch{
			{To: blob("index"), From: sum("index 6"), Pack: 1, Offset: 100, Length: 50, Codec: release.Splice},
			{To: blob("index"), From: sum("index 5"), Pack: 1, Offset: 150, Length: 40, Codec: release.Splice},
		},
		Deltas: []release.Delta{
			{Component: "app", From: sum("index 6"), To: sum("index"), Pack: 1, Offset: 10, Length: 10,
				Directory: sum("directory"), Start: 20, Groups: 40},
			{Component: "app", From: sum("index 5"), To: sum("index"), Pack: 0, Offset: 1 << 33, Length: 20,
				Directory: sum("directory 2"), Start: 1, Groups: 1 << 32},
		},
	}
}
