//go:build linux

package micro

import (
	"sync"
	"weak"

	"github.com/pawl-ota/pawl/ota/release"
)

// indexCache knows which indexes were read from the spool and are still in use
// somewhere: what needs one at the same time shares it. It keeps none alive.
// Nobody changes an index that was read.
type indexCache struct {
	mu  sync.Mutex
	all map[release.Blob]parsedIndex
}

// parsedIndex is an index and the file that it was read from, as that was then.
type parsedIndex struct {
	ix   weak.Pointer[release.Index]
	file place
}

// find returns the index b out of file, or nil.
func (c *indexCache) find(b release.Blob, file place) *release.Index {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, ok := c.all[b]
	if !ok || !file.there || p.file.info != file.info {
		return nil
	}
	return p.ix.Value()
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
	c.all[b] = parsedIndex{weak.Make(ix), file}
}
