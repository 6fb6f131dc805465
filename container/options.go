package container

import (
	"context"
	"maps"
	"slices"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/compose"
	"github.com/pawl-ota/pawl/ota/release"
)

// document reads and parses the app document of a component.
func document(ctx context.Context, comp release.Component, content ota.Content) (*compose.App, error) {
	data, err := readBlob(ctx, comp.Index, compose.MaxApp, content)
	if err != nil {
		return nil, err
	}
	return compose.Parse(data)
}

// Blobs implements [ota.Lister]. The layers of an image that is left in a registry
// are none of them.
func (c *Compose) Blobs(ctx context.Context, comp release.Component, content ota.Content) ([]release.Blob, error) {
	app, err := document(ctx, comp, content)
	if err != nil {
		return nil, err
	}
	return app.Blobs(), nil
}

// Budget implements [ota.Budgeter]: what the engine's store takes for the layers
// that it lacks, twice, because an engine unpacks an archive beside the layer that
// it makes of it.
func (c *Compose) Budget(ctx context.Context, comp release.Component, content ota.Content) ([]ota.Need, error) {
	app, err := document(ctx, comp, content)
	if err != nil {
		return nil, err
	}
	rec, err := c.load(ctx)
	if err != nil {
		return nil, err
	}
	info, err := c.engine.Info(ctx)
	if err != nil {
		return nil, err
	}
	root := c.opts.DataRoot
	if root == "" {
		root = info.Root
	}
	need := ota.Need{Path: root}
	seen := map[release.Digest]bool{}
	for _, image := range app.Images {
		if rec.Images[image.Config.Digest] != "" {
			continue
		}
		if image.Ref != "" {
			need.Bytes += 2 * image.Size
			continue
		}
		config, err := readConfig(ctx, image, content)
		if err != nil {
			return nil, err
		}
		have, err := c.layersThere(ctx, rec, config)
		if err != nil {
			return nil, err
		}
		for _, l := range image.Layers {
			if !have[l.Digest] && !seen[l.Digest] {
				seen[l.Digest] = true
				need.Bytes += 2 * l.Size
			}
		}
	}
	return []ota.Need{need}, nil
}

// Prune implements [ota.Pruner]. Of a release that is kept the images stay.
func (c *Compose) Prune(ctx context.Context, name string, keep []release.Digest, open []ota.TxID) error {
	if err := c.checkName("prune", release.Component{Name: name}); err != nil {
		return err
	}
	rec, err := c.load(ctx)
	if err != nil {
		return err
	}
	line := rec.line()
	maps.DeleteFunc(rec.Sets, func(tx ota.TxID, s *set) bool {
		return !line[tx] && !slices.Contains(open, tx) && !(s.State == kept && slices.Contains(keep, s.Component))
	})
	return c.collect(ctx, rec)
}
