package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/compose"
	"github.com/pawl-ota/pawl/ota/release"
)

// Repair implements [ota.Repairer]. It goes in steps, and asks after each: a
// container is made anew; an image is loaded again; an image is removed with its
// containers, and loaded; where Options.Restart allows it, the engine is started
// anew; and where Options.Wipe allows it, its store is wiped and everything loaded.
// An image that is left in a registry comes from there only by a Stage: Repair uses
// no network.
func (c *Compose) Repair(ctx context.Context, comp release.Component, content ota.Content) ([]ota.Damage, error) {
	c.revived = false
	left, err := c.mend(ctx, comp, content)
	for _, step := range []struct {
		what  string
		do    func() error
		helps bool
	}{
		{"started anew", func() error { return c.opts.Restart(ctx) }, c.opts.Restart != nil},
		{"wiped", func() error { return c.wipe(ctx, comp, content) }, c.opts.Wipe != nil},
	} {
		mended := err == nil && (len(left.all()) == 0 || step.what == "wiped" && !left.broken())
		if !step.helps || mended || ctx.Err() != nil || err != nil && !errors.Is(err, ErrEngine) {
			continue
		}
		if bad := step.do(); bad != nil {
			c.warn(fmt.Errorf("the engine is not %s: %w", step.what, bad))
			continue
		}
		left, err = c.mend(ctx, comp, content)
	}
	return left.all(), err
}

// wipe empties the engine's store, if all that is to come back is on the device.
func (c *Compose) wipe(ctx context.Context, comp release.Component, content ota.Content) error {
	app, err := document(ctx, comp, content)
	if err != nil {
		return err
	}
	for _, image := range app.Images {
		if image.Ref != "" {
			return fmt.Errorf("image %.80q is left in a registry", image.Name)
		}
	}
	read := func(_ release.Blob, r io.Reader) error {
		_, err := io.Copy(io.Discard, r)
		return err
	}
	if err := content.Each(ctx, app.Blobs(), read); err != nil {
		return fmt.Errorf("the local copy is not whole: %w", err)
	}
	if err := c.opts.Wipe(ctx); err != nil {
		return err
	}
	rec, err := c.load(ctx)
	if err != nil {
		return err
	}
	clear(rec.Images)
	return c.save(rec)
}

// mend does all but the last step of Repair, and returns what is left.
func (c *Compose) mend(ctx context.Context, comp release.Component, content ota.Content) (*findings, error) {
	f, err := c.inspect(ctx, comp, content)
	if err != nil || f.set == nil || len(f.damage) == 0 && !f.set.Lacks {
		return f, err
	}
	if err := f.mendImages(ctx, content); err != nil {
		return nil, err
	}
	if err := c.writeFiles(ctx, f.app, content); err != nil {
		c.warn(err)
	}
	if err := f.mendBoxes(ctx); err != nil {
		c.warn(err) // what it left shows below
		if ctx.Err() != nil {
			return nil, err
		}
	}
	if err := c.sync(ctx); err != nil {
		return nil, err
	}
	f.set.Lacks = false
	if err := c.save(f.rec); err != nil {
		return nil, err
	}
	return c.inspect(ctx, comp, content)
}

func (f *findings) all() []ota.Damage {
	if f == nil {
		return nil
	}
	return f.damage
}

// broken reports whether the engine could not be brought to hold what it should.
func (f *findings) broken() bool { return f != nil && f.set != nil && len(f.images)+len(f.boxes) > 0 }

// mendImages mends the images that are broken, and those that go meanwhile.
func (f *findings) mendImages(ctx context.Context, content ota.Content) error {
	for mended := map[int]bool{}; ; {
		next := slices.IndexFunc(slices.Sorted(maps.Keys(f.images)), func(i int) bool { return !mended[i] })
		if next < 0 {
			return nil
		}
		i := slices.Sorted(maps.Keys(f.images))[next]
		mended[i] = true
		if err := f.mendImage(ctx, f.app.Images[i], mended, content); err != nil {
			return err
		}
	}
}

// mendImage brings one image from the local copy. What it cannot do the next
// inspection finds.
func (f *findings) mendImage(ctx context.Context, image compose.Image, mended map[int]bool, content ota.Content) error {
	tag := f.c.tag(image.Config.Digest)
	delete(f.rec.Images, image.Config.Digest)
	if image.Ref != "" {
		return nil
	}
	config, err := readConfig(ctx, image, content)
	if err != nil {
		f.c.warn(err)
		return nil
	}
	for _, step := range []func() error{
		func() error { return nil },
		func() error { return f.dropImage(ctx, image, tag) },
		func() error {
			return errors.Join(f.dropRelated(ctx, config, mended), f.dropImage(ctx, image, tag))
		},
	} {
		if err := step(); err != nil {
			return err
		}
		err := f.c.loadImage(ctx, image, tag, nil, content)
		if ctx.Err() != nil || errors.Is(err, ErrEngine) {
			return err
		}
		f.c.warn(err)
		if good, err := f.good(ctx, image, config, tag); err != nil || good {
			return err
		}
	}
	return nil
}

// good reports whether the engine has the image now, and notes its id.
func (f *findings) good(ctx context.Context, image compose.Image, config imageConfig, tag string) (bool, error) {
	layers, err := config.layers()
	if err != nil {
		return false, err
	}
	wrong, err := f.c.compareImage(ctx, tag, image.Config.Digest, layers)
	if err != nil || wrong != "" {
		f.c.warn(fmt.Errorf("image %.80q is still broken: %s", image.Name, wrong))
		return false, err
	}
	info, err := f.c.engine.Image(ctx, tag)
	if err != nil {
		return false, err
	}
	f.rec.Images[image.Config.Digest] = info.ID
	for _, v := range f.app.Services {
		if f.app.Images[v.Image].Config == image.Config {
			if f.set.Images[v.Name] != info.ID {
				f.boxes[v.Name] = true
			}
			f.set.Images[v.Name] = info.ID
		}
	}
	return true, nil
}

// dropImage removes an image and our containers of it, so that the engine takes
// it in anew: what it lists it does not load again.
func (f *findings) dropImage(ctx context.Context, image compose.Image, tag string) error {
	w, err := f.c.look(ctx)
	if err != nil {
		return err
	}
	for _, b := range w {
		if b.Image != f.rec.Images[image.Config.Digest] && b.Image != f.set.Images[b.Labels[labelService]] {
			continue
		}
		v, ok := f.app.Service(b.Labels[labelService])
		if !ok || f.app.Images[v.Image].Config != image.Config {
			continue
		}
		f.boxes[v.Name] = true
		if err := f.c.engine.Remove(ctx, b.ID); err != nil {
			return err
		}
	}
	if err := f.c.engine.Untag(ctx, tag, true); err != nil && !errors.Is(err, errTaken) && !errors.Is(err, errMissing) {
		f.c.warn(err)
	}
	return nil
}

// dropRelated removes the images that have a layer in common with one that is broken,
// which the engine would keep for them: those of this app, to be brought anew, and
// those of releases that are kept, which a way back brings from the local copy.
func (f *findings) dropRelated(ctx context.Context, broken imageConfig, mended map[int]bool) error {
	for d, id := range maps.Clone(f.rec.Images) {
		info, err := f.c.engine.Image(ctx, id)
		if err != nil && !errors.Is(err, errMissing) {
			return err
		}
		if !slices.ContainsFunc(info.Layers, func(l string) bool { return slices.Contains(broken.RootFS.DiffIDs, l) }) {
			continue
		}
		i := slices.IndexFunc(f.app.Images, func(i compose.Image) bool { return i.Config.Digest == d })
		if i >= 0 && mended[i] {
			continue
		}
		if i >= 0 {
			f.images[i] = true
			err = f.dropImage(ctx, f.app.Images[i], f.c.tag(d))
		} else {
			err = f.c.engine.Untag(ctx, f.c.tag(d), true)
		}
		if err != nil && !errors.Is(err, errTaken) && !errors.Is(err, errMissing) {
			return err
		}
		delete(f.rec.Images, d)
	}
	return nil
}

// mendBoxes makes the containers anew that are not as they should be, with those
// that share their namespaces, and starts what does not run.
func (f *findings) mendBoxes(ctx context.Context) error {
	for _, v := range f.app.Services {
		for _, mode := range []string{v.NetworkMode, v.PID, v.IPC} {
			for bad := range f.boxes {
				if mode == "service:"+bad {
					f.boxes[v.Name] = true
				}
			}
		}
	}
	for name := range f.boxes {
		if err := f.c.engine.Remove(ctx, f.set.Boxes[name]); err != nil {
			return err
		}
	}
	w, err := f.c.look(ctx)
	if err != nil {
		return err
	}
	if err := f.c.remake(ctx, f.rec, f.set, f.app, w); err != nil {
		return err
	}
	if err := f.c.start(ctx, f.app, f.set, lenient); err != nil {
		f.c.warn(err)
	}
	return f.c.restore(ctx, f.set)
}

// layers returns the digests of the layers, the lowest first.
func (i imageConfig) layers() ([]release.Digest, error) {
	var all []release.Digest
	for _, id := range i.RootFS.DiffIDs {
		d, err := parseID(id)
		if err != nil {
			return nil, err
		}
		all = append(all, d)
	}
	return all, nil
}
