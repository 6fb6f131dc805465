package container

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/compose"
	"github.com/pawl-ota/pawl/ota/release"
)

// group is what the engine says of one transaction's containers.
type group struct {
	*set
	started  time.Time // the last start of one of them
	policies bool      // the engine keeps them running
}

// rebuild makes a record of what the labels at the engine say. Containers with
// restart policies are those of a commit; without any, those that started last
// are on trial, and those before them are the way back. What images are durable
// is not known any more: they are read before they are used.
func (c *Compose) rebuild(ctx context.Context) (*record, error) {
	w, err := c.look(ctx)
	if err != nil {
		return nil, err
	}
	rec := &record{Sets: map[ota.TxID]*set{}, Images: map[release.Digest]string{}}
	groups := c.groups(w)
	for _, g := range groups {
		rec.Sets[g.Tx] = g.set
	}
	ran := slices.DeleteFunc(slices.Clone(groups), func(g *group) bool { return g.started.IsZero() })
	if len(ran) == 0 {
		return rec, c.save(rec)
	}
	rec.Current = ran[0].Tx
	ran[0].State = committed
	if !ran[0].policies && len(ran) > 1 {
		ran[0].State, ran[0].Switched, ran[0].Prev = trial, true, ran[1].Tx
		ran[1].State = committed
	}
	return rec, c.save(rec)
}

// groups returns the sets that containers belong to: first those that the engine
// keeps running, then those that started last.
func (c *Compose) groups(w world) []*group {
	byTx := map[ota.TxID]*group{}
	for _, b := range w {
		component, err := release.ParseDigest(b.Labels[labelRelease])
		app, err2 := release.ParseDigest(b.Labels[labelApp])
		tx := ota.TxID(b.Labels[labelTx])
		if cmp.Or(err, err2) != nil || tx == "" {
			continue
		}
		g := byTx[tx]
		if g == nil {
			g = &group{set: &set{Tx: tx, State: staged, Component: component, App: app, Values: c.opts.Values, Boxes: map[string]string{}, Images: map[string]string{}}}
			byTx[tx] = g
		}
		service := b.Labels[labelService]
		g.Boxes[service], g.Images[service] = b.ID, b.Image
		g.policies = g.policies || normal(b.Restart).Policy != compose.RestartNo
		if b.Started.After(g.started) {
			g.started = b.Started
		}
	}
	return slices.SortedFunc(maps.Values(byTx), func(a, b *group) int {
		if a.policies != b.policies {
			if a.policies {
				return -1
			}
			return 1
		}
		return b.started.Compare(a.started)
	})
}
