package otatest_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/otatest"
	"github.com/pawl-ota/pawl/ota/release"
)

func TestMemory(t *testing.T) {
	content := bytes.Repeat([]byte("pawl"), 1000)
	r := &release.Release{
		Format: release.Format, ID: release.ID{Product: "camera", Variant: "arm", Seq: 3}, Version: "3.0.0", Issued: time.Unix(0, 0).UTC(),
		Hardware:   []string{"rev-a"},
		Components: []release.Component{{Name: "app", Kind: "files", Index: release.Blob{Digest: release.Sum(content), Size: int64(len(content))}, Keep: release.Keep{Repair: release.RepairNone}}},
	}
	otatest.TestSource(t, otatest.SourceHarness{
		New: func(*testing.T) ota.Source {
			m := otatest.NewMemory()
			m.Put(r, content)
			m.Offer(r)
			return m
		},
		Device:  ota.Device{ID: "d", Product: "camera", Variant: "arm", Hardware: "rev-a"},
		Newest:  r,
		Content: map[string][]byte{release.PackName(release.Sum(content)): content},
	})
}
