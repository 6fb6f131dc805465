package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/pawl-ota/pawl/examples/bar"
	"github.com/pawl-ota/pawl/ota/publish"
	"github.com/pawl-ota/pawl/ota/release"
)

func (c *command) prune() error {
	if c.last < 0 || c.grace < 0 {
		return fmt.Errorf("%w: -last and -grace are not negative", errUsage)
	}
	steps := newSteps(nil)
	r, err := c.open(steps.show)
	if err != nil {
		return err
	}
	o := publish.PruneOptions{Variant: c.variant, Keep: c.last, Deltas: orNone(c.deltas), Grace: c.grace}
	if o.Grace == 0 {
		o.Grace = -1
	}
	p, err := r.Prune(c.ctx, o)
	steps.end(err == nil)
	if err != nil {
		return c.waits(r, err)
	}
	for _, id := range p.Dropped {
		fmt.Fprintf(c.out, "dropped     %s seq %d\n", id.Variant, id.Seq)
	}
	for _, l := range p.Lost {
		fmt.Fprintf(c.out, "delta lost  %s seq %d, component %s, for devices on %s: they fetch pieces\n", l.Variant, l.Seq, l.Component, versions(l))
	}
	for _, name := range p.Rewritten {
		fmt.Fprintf(c.out, "rewritten   %s\n", name)
	}
	fmt.Fprintf(c.out, "pruned      %d files with %s removed; %d with %s are used no more and stay for now\n",
		len(p.Removed), bar.Size(p.Freed), len(p.Resting), bar.Size(p.RestingSize))
	return nil
}

// versions names the devices that a delta was for.
func versions(l publish.LostDelta) string {
	if len(l.From) == 0 {
		return "a release that was dropped (index " + l.Index.Short() + ")"
	}
	var words []string
	for _, seq := range l.From {
		words = append(words, fmt.Sprint("seq ", seq))
	}
	return strings.Join(words, ", ")
}

// listFetches prints what devices fetch to get to a release.
func (c *command) listFetches(list []publish.Fetch) error {
	var rows [][]string
	for _, f := range list {
		from := "nothing"
		if f.From != 0 {
			from = fmt.Sprint("seq ", f.From)
		}
		rows = append(rows, []string{f.To.Variant, fmt.Sprint(f.To.Seq), from, bar.Size(f.Bytes),
			bar.Size(f.Indexes), bar.Size(f.Table), bar.Size(f.Deltas), bar.Size(f.Pieces), fmt.Sprint(f.Packs)})
	}
	return table(c.out, "VARIANT SEQ DEVICE-ON FETCHES INDEXES TABLE DELTAS PIECES PACKS", rows)
}

// listed is a line of list -json.
type listed struct {
	publish.Listed
	Fetches []publish.Fetch `json:"fetches,omitempty"`
}

func fetchesTo(list []publish.Fetch, id release.ID) (to []publish.Fetch) {
	for _, f := range list {
		if f.To == id {
			to = append(to, f)
		}
	}
	return to
}

// defaultGrace is how long devices may take to fetch a release.
const defaultGrace = 14 * 24 * time.Hour
