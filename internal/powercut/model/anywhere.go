//go:build linux && (amd64 || arm64)

package model

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

// Anywhere records the workload again and again, with its first process killed
// after another call each time and one of Next after it, and looks at the crashes
// of what that one does. Of all calls it takes each every-th, those of another
// seed from another one on. Options.States is of each of them.
func (w *Workload) Anywhere(ctx context.Context, s *Stand, every int, o Options) (*Report, error) {
	began := time.Now()
	whole, err := w.recordIn(ctx, s, o, func(_ string, h *History) error { return nil })
	if err != nil {
		return nil, err
	}
	r := &Report{Workload: w.Name + ", killed anywhere", Calls: len(whole.ops), Effects: len(whole.effects)}
	calls := rand.New(rand.NewPCG(o.Seed, 7)).Perm((len(whole.ops) - int(o.Seed)%every + every - 1) / every)
	for _, n := range calls {
		k := w.KilledAfter(max(1, n*every+int(o.Seed)%every))
		c := &campaign{w: &k, o: o, r: r, after: true, told: time.Now(), looks: r.States}
		c.o.Seed = o.Seed + uint64(n)<<16
		if _, err := k.recordIn(ctx, s, o, func(base string, h *History) error { return c.afterKill(ctx, s, base, h) }); err != nil {
			return nil, fmt.Errorf("%s: %w", k.Name, err)
		}
		r.Kills++
		if len(r.Violations) >= maxViolations || !o.Until.IsZero() && time.Now().After(o.Until) {
			break
		}
		if o.Progress != nil && r.Kills%100 == 0 {
			o.Progress(r)
		}
	}
	r.Took = time.Since(began)
	return r, nil
}

// recordIn records the workload in a folder of its own, in which look is called.
func (w *Workload) recordIn(ctx context.Context, s *Stand, o Options, look func(base string, h *History) error) (*History, error) {
	base, err := os.MkdirTemp(s.dir, "recorded-")
	if err == nil {
		err = os.Chmod(base, 0o755)
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = removeAll(base) }()
	h, err := w.Record(ctx, base, o.Env...)
	if err != nil {
		return nil, err
	}
	return h, look(base, h)
}

// afterKill looks at the crashes of one recording.
func (c *campaign) afterKill(ctx context.Context, s *Stand, base string, h *History) error {
	for _, order := range c.o.Orders {
		if err := order.check(h); err != nil {
			c.r.Violations = append(c.r.Violations, Violation{Err: fmt.Errorf("%s: %w", c.w.Name, err), Calls: len(h.ops)})
		}
	}
	c.l = newLayout(filepath.Join(base, diskName), s.x)
	defer c.l.forget()
	defer c.l.follow()()
	if err := c.crashes(ctx, h, c.o.States, nil, &c.r.States); err != nil {
		return err
	}
	for i := range c.bad {
		c.bad[i].err = fmt.Errorf("%s: %w", c.w.Name, c.bad[i].err)
	}
	c.tell(ctx, nil)
	return nil
}
