package otatest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// Backend is the backend of all parts of a [Device], as one process has it.
// It keeps to the contract of [ota.Backend] at every step, and notes it as a
// broken rule when the engine does not.
type Backend struct{ *process }

var (
	_ ota.Backend  = Backend{}
	_ ota.Budgeter = Backend{}
	_ ota.Lister   = Backend{}
	_ ota.Seeder   = Backend{}
	_ ota.Verifier = Backend{}
	_ ota.Repairer = Backend{}
	_ ota.Pruner   = Backend{}
	_ ota.Reverter = Backend{}
)

// enter begins a verb, which takes its time.
func (b Backend) enter(ctx context.Context, verb, name string) (p part, err error) {
	if err := ctx.Err(); err != nil {
		return part{}, err
	}
	if err := b.spend(verbTime); err != nil {
		return part{}, err
	}
	dead := b.look(func(s *state) {
		b.d.note("%s %s", verb, name)
		if s.parts[name] == nil {
			err = fmt.Errorf("otatest: the device has no part %q", name)
			return
		}
		s.parts[name].touched++
		if s.failing[verb+" "+name] > 0 {
			s.failing[verb+" "+name]--
			err = fmt.Errorf("otatest: %s of %s fails, as asked for", verb, name)
		}
		p = *s.parts[name].clone()
	})
	if dead != nil {
		return part{}, dead
	}
	return p, err
}

// change makes one durable change of a part.
func (b Backend) change(what, name string, f func(s *state, p *part)) error {
	return b.step(what+" "+name, func(s *state) { f(s, s.parts[name]) })
}

// readIndex returns the two blobs of a component.
func readIndex(ctx context.Context, c release.Component, content ota.Content) ([]release.Blob, error) {
	r, err := content.Open(ctx, c.Index)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r)
	if err == nil {
		err = r.Close()
	}
	if err != nil {
		return nil, err
	}
	var blobs []release.Blob
	if err := json.Unmarshal(data, &blobs); err != nil || len(blobs) != len(image{}) {
		return nil, fmt.Errorf("otatest: the index of %s is none: %w", c.Name, err)
	}
	return blobs, nil
}

// Stage implements [ota.Backend].
func (b Backend) Stage(ctx context.Context, tx ota.TxID, c release.Component, content ota.Content) (ota.Effect, error) {
	p, err := b.enter(ctx, "Stage", c.Name)
	if err != nil {
		return "", err
	}
	w, d := p.works[tx], c.Digest()
	if w.whole && w.of == d {
		return p.Effect, nil
	}
	if w.of != d {
		w = work{of: d}
		if err := b.change("begin staging", c.Name, func(_ *state, p *part) { p.works[tx] = w }); err != nil {
			return "", err
		}
	}
	if err := b.fetch(ctx, tx, c, w, content); err != nil {
		return "", err
	}
	return p.Effect, b.change("end staging", c.Name, func(_ *state, p *part) {
		w := p.works[tx]
		w.whole = true
		p.works[tx] = w
	})
}

// fetch brings the files that an earlier try did not bring.
func (b Backend) fetch(ctx context.Context, tx ota.TxID, c release.Component, w work, content ota.Content) error {
	blobs, err := readIndex(ctx, c, content)
	if err != nil {
		return err
	}
	var missing []release.Blob
	for i, blob := range blobs {
		if w.staged[i].of != w.of {
			missing = append(missing, blob)
		}
	}
	return content.Each(ctx, missing, func(blob release.Blob, r io.Reader) error {
		data, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		i := slices.Index(blobs, blob)
		return b.change(fmt.Sprintf("stage file %d of", i), c.Name, func(_ *state, p *part) {
			w := p.works[tx]
			w.staged[i] = half{w.of, string(data)}
			p.works[tx] = w
		})
	})
}

// Activate implements [ota.Backend].
func (b Backend) Activate(ctx context.Context, tx ota.TxID, c release.Component) error {
	p, err := b.enter(ctx, "Activate", c.Name)
	if err != nil {
		return err
	}
	w := p.works[tx]
	if !w.whole || w.of != c.Digest() {
		if p.active().Is(c.Digest()) {
			return b.started(c.Name)
		}
		return fmt.Errorf("otatest: %s was not staged for %s", c.Name, tx)
	}
	if err := b.look(func(s *state) { s.checkOrder(tx, c.Name) }); err != nil {
		return err
	}
	if !w.undo {
		if err := b.change("note what is there of", c.Name, func(_ *state, p *part) {
			w := p.works[tx]
			w.undo, w.before = true, p.installed()
			p.works[tx] = w
		}); err != nil {
			return err
		}
	}
	if p.reboots() {
		if p.active().Is(w.of) || p.armed == w.staged {
			return nil
		}
		return b.change("arm", c.Name, func(_ *state, p *part) { p.armed = w.staged })
	}
	if err := b.put(c.Name, p.live, w.staged); err != nil {
		return err
	}
	return b.started(c.Name)
}

// checkOrder notes when an app is activated before the system below it came
// up.
func (s *state) checkOrder(tx ota.TxID, name string) {
	if s.parts[name].reboots() {
		return
	}
	for _, q := range s.parts {
		if w, ok := q.works[tx]; ok && q.reboots() && !presence(q.booted).Is(w.of) {
			s.breaks("%s was activated before %s had booted", name, q.Name)
		}
	}
}

// put switches the files of a part one by one.
func (b Backend) put(name string, from, to image) error {
	for i := range to {
		if from[i] == to[i] {
			continue
		}
		if err := b.change(fmt.Sprintf("switch file %d of", i), name, func(_ *state, p *part) { p.live[i] = to[i] }); err != nil {
			return err
		}
	}
	return nil
}

func (b Backend) started(name string) error {
	return b.look(func(s *state) { s.parts[name].stopped = false })
}

// Commit implements [ota.Backend].
func (b Backend) Commit(ctx context.Context, tx ota.TxID, c release.Component) error {
	p, err := b.enter(ctx, "Commit", c.Name)
	if err != nil {
		return err
	}
	if err := b.look(func(s *state) { s.checkCommit(p, c, b.d.repo) }); err != nil {
		return err
	}
	if !p.active().Is(c.Digest()) {
		return fmt.Errorf("otatest: %s is not in effect", c.Name)
	}
	w, ok := p.works[tx]
	if !ok {
		return b.started(c.Name)
	}
	if w.undo {
		if err := b.change("make permanent", c.Name, func(s *state, p *part) {
			s.begun[tx] = true
			p.permanent, p.armed = p.booted, image{}
			p.kept = append(p.kept, w.before)
			w.undo = false
			p.works[tx] = w
		}); err != nil {
			return err
		}
	}
	if err := b.change("drop the staged", c.Name, func(_ *state, p *part) { delete(p.works, tx) }); err != nil {
		return err
	}
	return b.started(c.Name)
}

// checkCommit notes a commit of what must not be kept, or of what does not
// run.
func (s *state) checkCommit(p part, c release.Component, repo *Repo) {
	d := c.Digest()
	if repo.health[d].Bad {
		s.breaks("%s was committed although its release is bad", c.Name)
	}
	if !p.active().Is(d) {
		s.breaks("%s was committed but is not in effect", c.Name)
	}
	if p.Effect == ota.NeedsRestart && !presence(p.loaded).Is(d) {
		s.breaks("%s was committed by a process that it was to replace", c.Name)
	}
}

// Revert implements [ota.Backend].
func (b Backend) Revert(ctx context.Context, tx ota.TxID, c release.Component) error {
	p, err := b.enter(ctx, "Revert", c.Name)
	if err != nil {
		return err
	}
	if err := b.look(func(s *state) { s.checkRevert(tx, c.Name) }); err != nil {
		return err
	}
	w, ok := p.works[tx]
	if !ok {
		return b.started(c.Name)
	}
	if w.undo {
		if err := b.undo(tx, p, w); err != nil {
			return err
		}
	}
	if err := b.change("drop the staged", c.Name, func(_ *state, p *part) { delete(p.works, tx) }); err != nil {
		return err
	}
	return b.started(c.Name)
}

// undo puts back what was there, and only then forgets it.
func (b Backend) undo(tx ota.TxID, p part, w work) error {
	var err error
	switch {
	case !p.reboots():
		err = b.put(p.Name, p.live, w.before)
	case p.permanent != w.before || !p.armed.empty():
		err = b.change("disarm", p.Name, func(_ *state, p *part) { p.permanent, p.armed = w.before, image{} })
	}
	if err != nil {
		return err
	}
	return b.change("forget what was there of", p.Name, func(_ *state, p *part) {
		w.undo = false
		p.works[tx] = w
	})
}

// checkRevert notes a way back after the commit point, and one that leaves an
// app on a system that is older than itself.
func (s *state) checkRevert(tx ota.TxID, name string) {
	if s.begun[tx] {
		s.breaks("%s was reverted after %s had begun to commit", name, tx)
	}
	for _, q := range s.parts {
		if s.parts[name].reboots() && !q.reboots() && q.works[tx].undo {
			s.breaks("%s was reverted before %s", name, q.Name)
		}
	}
}

// Active implements [ota.Backend].
func (b Backend) Active(_ context.Context, name string) (a ota.Active, err error) {
	dead := b.look(func(s *state) {
		if s.parts[name] == nil {
			err = fmt.Errorf("otatest: the device has no part %q", name)
			return
		}
		a = s.parts[name].active()
	})
	if dead != nil {
		return ota.Active{}, dead
	}
	return a, err
}

// Budget implements [ota.Budgeter].
func (b Backend) Budget(ctx context.Context, c release.Component, content ota.Content) ([]ota.Need, error) {
	blobs, err := readIndex(ctx, c, content)
	need := ota.Need{Path: "/", Inodes: int64(len(blobs))}
	for _, blob := range blobs {
		need.Bytes += blob.Size
	}
	return []ota.Need{need}, err
}

// Blobs implements [ota.Lister].
func (b Backend) Blobs(ctx context.Context, c release.Component, content ota.Content) ([]release.Blob, error) {
	return readIndex(ctx, c, content)
}

// Seed implements [ota.Seeder].
func (b Backend) Seed(_ context.Context, name string, blob release.Blob) (r io.ReadCloser, ok bool, err error) {
	err = b.look(func(s *state) {
		var data string
		if data, ok = s.parts[name].find(blob.Digest); ok {
			r = io.NopCloser(strings.NewReader(data))
		}
	})
	return r, ok, err
}

// Verify implements [ota.Verifier].
func (b Backend) Verify(ctx context.Context, c release.Component, content ota.Content) (found []ota.Damage, err error) {
	blobs, err := readIndex(ctx, c, content)
	if err != nil {
		return nil, err
	}
	err = b.look(func(s *state) {
		for i, text := range s.parts[c.Name].installed().text() {
			if blobOf([]byte(text)) != blobs[i] {
				found = append(found, ota.Damage{Component: c.Name, Path: fmt.Sprint("file ", i), Reason: "other content"})
			}
		}
	})
	return found, err
}

// Repair implements [ota.Repairer].
func (b Backend) Repair(ctx context.Context, c release.Component, content ota.Content) ([]ota.Damage, error) {
	blobs, err := readIndex(ctx, c, content)
	if err != nil {
		return nil, err
	}
	err = content.Each(ctx, blobs, func(blob release.Blob, r io.Reader) error {
		data, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		i := slices.Index(blobs, blob)
		return b.change(fmt.Sprintf("repair file %d of", i), c.Name, func(_ *state, p *part) {
			for _, img := range []*image{&p.live, &p.permanent, &p.booted} {
				if img[i].of == c.Digest() {
					img[i].data = string(data)
				}
			}
		})
	})
	if err != nil {
		return nil, err
	}
	return b.Verify(ctx, c, content)
}

// Prune implements [ota.Pruner].
func (b Backend) Prune(_ context.Context, name string, keep []release.Digest, open []ota.TxID) error {
	dropTx := func(tx ota.TxID, _ work) bool { return !slices.Contains(open, tx) }
	dropImage := func(i image) bool {
		d, whole := i.digest()
		return !whole || !slices.Contains(keep, d)
	}
	owed := false
	if err := b.look(func(s *state) {
		p := s.parts[name]
		for tx, w := range p.works {
			owed = owed || dropTx(tx, w)
		}
		owed = owed || slices.ContainsFunc(p.kept, dropImage)
	}); err != nil || !owed {
		return err
	}
	return b.change("prune", name, func(_ *state, p *part) {
		maps.DeleteFunc(p.works, dropTx)
		p.kept = slices.DeleteFunc(p.kept, dropImage)
	})
}

// CanRevert implements [ota.Reverter].
func (b Backend) CanRevert(_ context.Context, tx ota.TxID, c release.Component) (can bool, err error) {
	err = b.look(func(s *state) {
		p := s.parts[c.Name]
		w, begun := p.works[tx]
		can = w.undo || begun && !p.active().Is(w.of) || c.Kind != "" && !p.active().Is(c.Digest())
	})
	return can, err
}
