package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/compose"
	"github.com/pawl-ota/pawl/ota/release"
)

// Verify implements [ota.Verifier]. It reads every byte of every image as the
// engine gives it out, and compares the containers with the app document.
func (c *Compose) Verify(ctx context.Context, comp release.Component, content ota.Content) ([]ota.Damage, error) {
	v, err := c.inspect(ctx, comp, content)
	if err != nil {
		return nil, err
	}
	return v.damage, nil
}

// findings are what an inspection found: damage for people, and what Repair goes
// by.
type findings struct {
	c      *Compose
	rec    *record
	set    *set // nil: another component is in effect, or none
	app    *compose.App
	damage []ota.Damage
	images map[int]bool    // broken, by their index
	boxes  map[string]bool // of services, to be made anew
}

func (f *findings) found(path, reason string) {
	f.damage = append(f.damage, ota.Damage{Component: f.c.opts.Name, Path: path, Reason: reason})
}

func (c *Compose) inspect(ctx context.Context, comp release.Component, content ota.Content) (*findings, error) {
	if err := c.check("inspect", comp); err != nil {
		return nil, err
	}
	app, err := document(ctx, comp, content)
	if err != nil {
		return nil, err
	}
	rec, err := c.load(ctx)
	if err != nil {
		return nil, err
	}
	f := &findings{c: c, rec: rec, app: app, images: map[int]bool{}, boxes: map[string]bool{}}
	s := rec.current()
	if s == nil || s.Component != comp.Digest() {
		f.found(".", "another release is in effect, or none")
		return f, nil
	}
	f.set = s
	if err := f.inspectImages(ctx, content); err != nil {
		return nil, err
	}
	f.inspectFiles()
	return f, f.inspectBoxes(ctx)
}

func (f *findings) inspectImages(ctx context.Context, content ota.Content) error {
	for i, image := range f.app.Images {
		layers, err := layersOf(ctx, image, content)
		if err != nil {
			return err
		}
		wrong, err := f.c.compareImage(ctx, f.c.tag(image.Config.Digest), image.Config.Digest, layers)
		if err != nil {
			return err
		}
		if wrong != "" {
			f.images[i] = true
			f.found("image "+image.Name, wrong)
		}
	}
	return nil
}

// layersOf returns the digests of an image's layers. Of one that is left in a
// registry they stand in its configuration; where the device has not kept that,
// the configuration itself, which the engine holds them to, has to be right.
func layersOf(ctx context.Context, image compose.Image, content ota.Content) ([]release.Digest, error) {
	var all []release.Digest
	for _, l := range image.Layers {
		all = append(all, l.Digest)
	}
	if image.Ref == "" {
		return all, nil
	}
	config, err := readConfig(ctx, image, content)
	if errors.Is(err, ota.ErrNotLocal) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return config.layers()
}

// inspectFiles compares the configs and secrets that containers mount.
func (f *findings) inspectFiles() {
	for _, s := range f.app.Services {
		for _, m := range s.Files {
			file, _ := fileOf(f.app, m)
			data, err := os.ReadFile(f.c.filePath(f.app, m))
			if err == nil && release.Sum(data) != file.Blob.Digest {
				err = errors.New("it was changed")
			}
			if err != nil {
				f.boxes[s.Name] = true
				f.found(fmt.Sprintf("%s %s", m.Kind, m.Name), err.Error())
			}
		}
	}
}

func (f *findings) inspectBoxes(ctx context.Context) error {
	w, err := f.c.look(ctx)
	if err != nil {
		return err
	}
	there, err := f.c.engine.Networks(ctx)
	if err != nil {
		return err
	}
	for _, v := range f.app.Services {
		b, ok := w.box(f.set.Boxes[v.Name])
		wrong := "its container is gone"
		if ok {
			wrong = f.compareBox(b, v, there)
		}
		if wrong == "" && !b.up() && !(v.OneShot && b.succeeded()) {
			f.found("service "+v.Name, "its container "+b.describe())
			continue
		}
		if wrong != "" {
			f.boxes[v.Name] = true
			f.found("service "+v.Name, wrong)
		}
	}
	return nil
}

// compareBox compares what can be changed at a container that exists.
func (f *findings) compareBox(b box, v compose.Service, there []network) string {
	switch {
	case b.Broken != "":
		return "the engine cannot describe its container: " + b.Broken
	case b.Image != f.set.Images[v.Name]:
		return "its container is made from another image"
	case f.set.State == committed && b.Restart != normal(v.Restart):
		return fmt.Sprintf("its restart policy is %q", b.Restart.Policy)
	case !sameLimits(b.Limits, v.Limits):
		return "its limits were changed"
	}
	for _, a := range v.Networks {
		i := slices.IndexFunc(f.app.Networks, func(n compose.Network) bool { return n.Name == a.Network })
		n, ok := f.c.findNetwork(there, f.app.Networks[i])
		if ok && b.up() && !slices.Contains(b.Networks, n.ID) && !slices.Contains(b.Networks, n.Name) {
			return "its container was taken out of a network"
		}
	}
	return ""
}

func normal(r compose.Restart) compose.Restart {
	if r.Policy == "" {
		r.Policy = compose.RestartNo
	}
	return r
}

// sameLimits compares those limits that a running container can be given. What
// the document leaves open the engine fills in.
func sameLimits(is, want compose.Limits) bool {
	same := func(is, want int64) bool { return want == 0 && is <= 0 || is == want }
	if want.CPUPeriod > 0 && want.NanoCPUs == 0 && is.NanoCPUs == want.CPUQuota*1e9/want.CPUPeriod {
		is.NanoCPUs = 0 // which Podman works out
	}
	return same(is.Memory, want.Memory) && same(is.NanoCPUs, want.NanoCPUs) && same(is.Pids, want.Pids) && same(is.CPUShares, want.CPUShares)
}

// findNetwork returns the network of a document at the engine.
func (c *Compose) findNetwork(there []network, n compose.Network) (network, bool) {
	definition, err := digestOf(n)
	for _, t := range there {
		if err == nil && (n.External && t.Name == n.Engine || !n.External && c.ownsNetwork(t, definition)) {
			return t, true
		}
	}
	return network{}, false
}
