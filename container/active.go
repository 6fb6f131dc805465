package container

import (
	"context"
	"fmt"

	"github.com/pawl-ota/pawl/ota"
)

// Active implements [ota.Backend]. A component is whole when the engine has the
// containers of the set in effect, all of them from the right images and started,
// and none of any other set runs. Whether they still run is asked while a verb
// that was cut short has work left; after that one that ended is sick, not gone.
func (c *Compose) Active(ctx context.Context, name string) (ota.Active, error) {
	if name != c.opts.Name {
		return ota.Active{}, fmt.Errorf("component %.80q is not that of this backend, %q", name, c.opts.Name)
	}
	rec, err := c.load(ctx)
	if err != nil {
		return ota.Active{}, err
	}
	w, err := c.look(ctx)
	if err != nil {
		return ota.Active{}, err
	}
	for _, b := range w.others(rec.Current) {
		if b.up() {
			return ota.Active{State: ota.Mixed}, nil
		}
	}
	s := rec.current()
	if s == nil {
		return ota.Active{State: ota.None}, nil
	}
	if !s.Lacks && !s.whole(w, rec.underway()) {
		return ota.Active{State: ota.Mixed}, nil
	}
	return ota.Active{State: ota.Whole, Digest: s.Component}, nil
}

// whole reports whether all containers of s are there and were started; with
// strictly, that each runs or ended well.
func (s *set) whole(w world, strictly bool) bool {
	for service, id := range s.Boxes {
		b, ok := w.box(id)
		if !ok || b.Image != s.Images[service] || b.Started.IsZero() || b.State == created {
			return false
		}
		if strictly && !b.up() && !b.succeeded() {
			return false
		}
	}
	return len(s.Boxes) > 0
}
