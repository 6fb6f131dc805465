package tuf_test

import (
	"bytes"
	"testing"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/otatest"
	"github.com/pawl-ota/pawl/ota/release"
)

func TestSourceSuite(t *testing.T) {
	m := newMaker(t)
	m.add(newRelease(3))
	newest := m.add(newRelease(20))
	m.add(newRelease(4))
	m.publish()
	content := map[string][]byte{}
	for _, data := range [][]byte{{}, []byte("x"), bytes.Repeat([]byte("pawl"), 50_000)} {
		name := release.PackName(release.Sum(data))
		content[name] = m.write(name, data)
	}
	for name, url := range media(t, m.dir) {
		t.Run(name, func(t *testing.T) {
			otatest.TestSource(t, otatest.SourceHarness{
				New:    func(t *testing.T) ota.Source { return source(t, m.options(url)) },
				Device: device, Newest: newest, Content: content,
			})
		})
	}
}
