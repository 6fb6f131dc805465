//go:build linux

package micro

import (
	"sync"
	"weak"

	"github.com/pawl-ota/pawl/ota/release"
)

// indexCache knows which indexes were read and are still in use somewhere: what
// needs one at the same time shares it. It keeps the two alive that were asked for
// last, which are those of an update, until it is told to let go of them. Nobody
// changes an index that was read.
type indexCache struct {
	mu   sync.Mutex
	all  map[release.Blob]parsedIndex
	held [2]*release.Index
}

// parsedIndex is an index and the file of the spool that it was read from, as that
// was then; of one that came from elsewhere the file is not there.
type parsedIndex struct {
	ix   weak.Pointer[release.Index]
	file place
}

// find returns the index b out of file, or nil.
func (c *indexCache) find(b release.Blob, file place) *release.Index {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, ok := c.all[b]
	if !ok || !file.there || p.file != file {
		return nil
	}
	return c.hold(p.ix.Value())
}

// any returns the index b, wherever it was read from, or nil.
func (c *indexCache) any(b release.Blob) *release.Index {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hold(c.all[b].ix.Value())
}

// hold keeps ix alive, which may be nil.
func (c *indexCache) hold(ix *release.Index) *release.Index {
	if ix != nil && ix != c.held[0] {
		c.held = [2]*release.Index{ix, c.held[0]}
	}
	return ix
}

// letGo keeps nothing alive any more.
func (c *indexCache) letGo() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = [2]*release.Index{}
}

// add remembers an index that was read and verified.
func (c *indexCache) add(b release.Blob, file place, ix *release.Index) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for other, p := range c.all {
		if p.ix.Value() == nil {
			delete(c.all, other)
		}
	}
	if c.all == nil {
		c.all = map[release.Blob]parsedIndex{}
	}
	c.all[b] = parsedIndex{weak.Make(c.hold(ix)), file}
}
