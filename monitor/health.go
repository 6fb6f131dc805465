package monitor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// Part is what a check is made of: a [Probe], or what [All], [Any], [AtLeast]
// and [Advisory] make of several.
type Part interface {
	build(h *Health, advisory bool) (*node, error)
}

// All is well when every part is.
func All(parts ...Part) Part { return group{need: len(parts), parts: parts} }

// Any is well when one of the parts is.
func Any(parts ...Part) Part { return group{need: 1, parts: parts} }

// AtLeast is well when n of the parts are.
func AtLeast(n int, parts ...Part) Part { return group{need: n, parts: parts} }

// Advisory has the parts asked and reported, and never decide anything.
func Advisory(parts ...Part) Part { return group{parts: parts, advisory: true} }

type group struct {
	need     int
	parts    []Part
	advisory bool
}

// node is a Part of one Health: a probe, or a group.
type node struct {
	probe    *running
	advisory bool
	need     int
	parts    []*node
}

func (p Probe) build(h *Health, advisory bool) (*node, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	for _, other := range h.probes {
		if other.Name == p.Name {
			return nil, fmt.Errorf("two probes have the name %s", p.Name)
		}
	}
	r := &running{Probe: p.withDefaults(), advisory: advisory}
	r.last = Answer{Probe: p.Name, State: Unknown, Advisory: advisory}
	h.probes = append(h.probes, r)
	return &node{probe: r, advisory: advisory}, nil
}

func (g group) build(h *Health, advisory bool) (*node, error) {
	n := &node{need: g.need, advisory: advisory || g.advisory}
	counting := 0
	for _, p := range g.parts {
		if p == nil {
			return nil, errors.New("a part is nil")
		}
		part, err := p.build(h, n.advisory)
		if err != nil {
			return nil, err
		}
		if !part.advisory {
			counting++
		}
		n.parts = append(n.parts, part)
	}
	switch {
	case n.advisory:
		n.need = 0
	case g.need == len(g.parts): // all of them
		n.need = counting
	case g.need < 1 || g.need > counting:
		return nil, fmt.Errorf("%d of %d parts cannot be well", g.need, counting)
	}
	return n, nil
}

func (n *node) well() bool {
	if n.probe != nil {
		return n.probe.last.State == Well
	}
	well := 0
	for _, p := range n.parts {
		if !p.advisory && p.well() {
			well++
		}
	}
	return well >= n.need
}

// ailing appends the answers of those that keep n from being well.
func (n *node) ailing(to []string) []string {
	switch {
	case n.advisory || n.well():
	case n.probe != nil:
		to = append(to, n.probe.last.String())
	default:
		for _, p := range n.parts {
			to = p.ailing(to)
		}
	}
	return to
}

// HealthOptions configure a [Health]. The zero value is useful.
type HealthOptions struct {
	// Changed is told of an answer after which a probe is well or sick and was
	// not before, from the goroutine of the check; it has to return soon.
	Changed func(Answer)
}

// Health asks probes, and remembers their answers from check to check. It is
// safe for concurrent use; checks wait for each other.
type Health struct {
	changed func(Answer)
	root    *node
	probes  []*running

	turn chan struct{} // held by the check that runs

	mu      sync.Mutex
	answers []Answer
}

// maxReason bounds what a check returns, in bytes.
const maxReason = 480

// NewHealth returns a Health of root, or an error that says which part of it is
// not one.
func NewHealth(o HealthOptions, root Part) (*Health, error) {
	h := &Health{changed: o.Changed, turn: make(chan struct{}, 1)}
	err := errors.New("it is nil")
	if root != nil {
		h.root, err = root.build(h, false)
	}
	if err != nil {
		return nil, fmt.Errorf("monitor: health: %w", err)
	}
	h.publish()
	return h, nil
}

// Check asks every probe that is due, all at once, and returns nil when the
// whole is well: else an error of at most 480 bytes that names each part that
// is not, and what it saw. It is an ota.Check. When ctx is cancelled it returns
// its error, and nothing counts; when ctx has a deadline the answers are there
// before it.
func (h *Health) Check(ctx context.Context) error {
	select {
	case h.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-h.turn }()
	changed, cancelled := h.ask(ctx)
	h.publish()
	for _, a := range changed {
		h.tell(a)
	}
	if cancelled {
		return context.Cause(ctx)
	}
	if h.root.well() {
		return nil
	}
	return errors.New(line(strings.Join(h.root.ailing(nil), "; "), maxReason))
}

// ask asks what is due, and returns the answers that changed something.
func (h *Health) ask(ctx context.Context) (changed []Answer, cancelled bool) {
	now := time.Now()
	answers := make([]*asked, len(h.probes))
	var all sync.WaitGroup
	for i, p := range h.probes {
		if !p.due(now) {
			continue
		}
		all.Go(func() {
			if a, ok := p.ask(ctx, now); ok {
				answers[i] = &a
			}
		})
	}
	all.Wait()
	if errors.Is(ctx.Err(), context.Canceled) {
		return nil, true
	}
	for i, a := range answers {
		if a != nil && h.probes[i].take(*a) {
			changed = append(changed, h.probes[i].last)
		}
	}
	return changed, false
}

// tell reports a change; what the listener does must not make a check fail.
func (h *Health) tell(a Answer) {
	if h.changed == nil {
		return
	}
	defer func() { _ = recover() }()
	h.changed(a)
}

func (h *Health) publish() {
	all := make([]Answer, len(h.probes))
	for i, p := range h.probes {
		all[i] = p.last
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answers = all
}

// Answers returns the last answer of every probe, in the order in which they
// were given to NewHealth. It waits for no check.
func (h *Health) Answers() []Answer {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]Answer(nil), h.answers...)
}
