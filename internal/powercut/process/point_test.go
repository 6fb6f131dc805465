package process

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"sync"

	"github.com/pawl-ota/pawl/internal/trace"
)

// point is one moment in a program.
type point struct {
	call, class string
	ordinal     int // among those of the same call and class, from 1
}

func (p point) String() string { return fmt.Sprintf("%s %s #%d", p.call, p.class, p.ordinal) }

// random are the parts of names that differ from run to run.
var random = []struct {
	what *regexp.Regexp
	word string
}{
	{regexp.MustCompile(`\.pawl-tmp-[^/]*`), "TMP"},
	{regexp.MustCompile(`tx/[^/]+`), "tx/TX"},
	{regexp.MustCompile(`trash/[^/]+`), "trash/TX"},
	{regexp.MustCompile(`[0-9a-f]{16,}`), "DIGEST"},
	{regexp.MustCompile(`[A-Z2-7]{20,}`), "ID"},
	{regexp.MustCompile(`#[0-9]+`), "#INODE"},
	{regexp.MustCompile(`tuf_tmp[0-9]+`), "tuf_tmpN"},
	{regexp.MustCompile(`journal\.[ab]`), "journal"},
}

// classOf is what a path of the device in dir is called in all runs.
func classOf(dir, path string) string {
	rel, err := filepath.Rel(dir, path)
	if err != nil || strings.HasPrefix(rel, "..") {
		return "OUTSIDE"
	}
	for _, r := range random {
		rel = r.what.ReplaceAllString(rel, r.word)
	}
	return rel
}

// counter numbers the calls of one run.
type counter struct {
	dir  string
	seen map[point]int // by call and class, with ordinal 0
	all  []point
}

func newCounter(dir string) *counter { return &counter{dir: dir, seen: map[point]int{}} }

func (c *counter) next(call *trace.Call) point {
	p := point{call: call.Name, class: classOf(c.dir, call.Path)}
	c.seen[p]++
	p.ordinal = c.seen[p]
	c.all = append(c.all, p)
	return p
}

// known are the points of one segment that any run has met.
type known struct {
	mu  sync.Mutex
	has map[point]bool
}

// add returns those that nobody knew.
func (k *known) add(all []point) (fresh []point) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range all {
		if !k.has[p] {
			k.has[p] = true
			fresh = append(fresh, p)
		}
	}
	return fresh
}
