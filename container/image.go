package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/compose"
	"github.com/pawl-ota/pawl/ota/release"
)

// imageConfig is what this package reads in the configuration of an image.
type imageConfig struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
	RootFS       struct {
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
	Config struct {
		Healthcheck *struct{} // there or not
	} `json:"config"`
}

// readConfig reads an image's configuration from the release: from it, and not
// from the engine, comes what the engine should have.
func readConfig(ctx context.Context, image compose.Image, content ota.Content) (imageConfig, error) {
	var config imageConfig
	data, err := readBlob(ctx, image.Config, compose.MaxConfig, content)
	if err != nil {
		return config, fmt.Errorf("the configuration of image %.80q: %w", image.Name, err)
	}
	if err := json.Unmarshal(data, &config); err != nil {
		return config, fmt.Errorf("the configuration of image %.80q: %w: %w", image.Name, release.ErrInvalid, err)
	}
	if image.Ref != "" {
		return config, nil
	}
	named := func(l release.Blob, id string) bool { return "sha256:"+l.Digest.String() == id }
	if !slices.EqualFunc(image.Layers, config.RootFS.DiffIDs, named) {
		return config, fmt.Errorf("image %.80q: %w: its layers are not those of its configuration", image.Name, release.ErrInvalid)
	}
	return config, nil
}

// readBlob reads a small blob, verified.
func readBlob(ctx context.Context, b release.Blob, limit int64, content ota.Content) ([]byte, error) {
	if b.Size > limit {
		return nil, fmt.Errorf("%w: %d bytes are more than %d", release.ErrInvalid, b.Size, limit)
	}
	r, err := content.Open(ctx, b)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r)
	return data, errors.Join(err, r.Close())
}

// provide has the engine hold an image, and returns the engine's id of it. An
// image that is there counts only if an earlier sync made it durable, or if its
// content is right: after a power cut an engine lists images that it cannot run.
func (c *Compose) provide(ctx context.Context, rec *record, image compose.Image, content ota.Content) (string, error) {
	config, err := readConfig(ctx, image, content)
	if err != nil {
		return "", err
	}
	tag := c.tag(image.Config.Digest)
	id, was, err := c.present(ctx, rec, image, config)
	if err != nil {
		return "", err
	}
	if was == whole {
		return id, c.engine.Tag(ctx, id, tag)
	}
	if image.Ref != "" {
		err = c.pull(ctx, image)
	} else {
		err = c.bring(ctx, rec, image, config, tag, content)
	}
	if err != nil {
		return "", err
	}
	if id, err = c.took(ctx, image, config, tag); err != nil || was == missing {
		return id, err
	}
	// What the engine lists and still uses it may not have taken in again.
	wrong, err := c.compare(ctx, id, image, config)
	if err == nil && wrong != "" {
		err = fmt.Errorf("%w: %.80q is broken, and could not be replaced: %s", ErrImage, image.Name, wrong)
	}
	return id, err
}

// condition is how an image is at the engine before it is brought.
type condition int

const (
	missing condition = iota
	broken
	whole
)

func (c *Compose) compare(ctx context.Context, id string, image compose.Image, config imageConfig) (wrong string, err error) {
	layers, err := config.layers()
	if err != nil {
		return "", err
	}
	return c.compareImage(ctx, id, image.Config.Digest, layers)
}

// present looks for an image that need not be brought, under our tag or under
// the name that it has at its registry. One whose content is wrong is removed.
func (c *Compose) present(ctx context.Context, rec *record, image compose.Image, config imageConfig) (id string, was condition, err error) {
	refs := []string{c.tag(image.Config.Digest)}
	if image.Ref != "" {
		refs = append(refs, image.Ref)
	} else {
		refs = append(refs, "sha256:"+image.Config.Digest.String())
	}
	for _, ref := range refs {
		info, err := c.engine.Image(ctx, ref)
		if errors.Is(err, errMissing) {
			continue
		}
		if err != nil {
			return "", missing, err
		}
		if !fits(info, config) {
			continue
		}
		if rec.Images[image.Config.Digest] == info.ID {
			return info.ID, whole, nil
		}
		wrong, err := c.compare(ctx, info.ID, image, config)
		if err != nil {
			return "", missing, err
		}
		if wrong == "" {
			return info.ID, whole, nil
		}
		was = broken
		c.warn(fmt.Errorf("image %.80q is broken at the engine and is brought anew: %s", image.Name, wrong))
		if err := c.engine.Untag(ctx, info.ID, true); err != nil && !errors.Is(err, errTaken) {
			return "", missing, err
		}
	}
	return "", was, nil
}

// fits compares the layers that the engine lists with those that it should have.
// Its id says less: it is the digest of the configuration or of the manifest.
func fits(info imageInfo, config imageConfig) bool {
	return slices.Equal(info.Layers, config.RootFS.DiffIDs)
}

// bring loads an image from the release: first without the layers that the
// engine has, and if it cannot do with that, whole.
func (c *Compose) bring(ctx context.Context, rec *record, image compose.Image, config imageConfig, tag string, content ota.Content) error {
	have, err := c.layersThere(ctx, rec, config)
	if err != nil {
		return err
	}
	err = c.loadImage(ctx, image, tag, have, content)
	if err == nil && len(have) > 0 {
		_, err = c.engine.Image(ctx, tag)
	}
	if err == nil || len(have) == 0 || ctx.Err() != nil || isContent(err) {
		return err
	}
	c.warn(fmt.Errorf("the engine does not take a part of an image: %w", err))
	return c.loadImage(ctx, image, tag, nil, content)
}

// parseID reads a digest as engines write it.
func parseID(id string) (release.Digest, error) {
	return release.ParseDigest(strings.TrimPrefix(id, "sha256:"))
}

func isContent(err error) bool {
	return errors.Is(err, ota.ErrDigest) || errors.Is(err, ota.ErrLength) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, ota.ErrNotLocal)
}

// layersThere returns the lowest layers of an image that the engine's classic
// store has of images that are known to be durable. It knows a layer by all that
// lie below it too.
func (c *Compose) layersThere(ctx context.Context, rec *record, config imageConfig) (map[release.Digest]bool, error) {
	info, err := c.engine.Info(ctx)
	if err != nil || info.Snapshots || info.Podman {
		return nil, err
	}
	most := 0
	for _, id := range rec.Images {
		known, err := c.engine.Image(ctx, id)
		if errors.Is(err, errMissing) {
			continue
		}
		if err != nil {
			return nil, err
		}
		n := 0
		for n < min(len(known.Layers), len(config.RootFS.DiffIDs)) && known.Layers[n] == config.RootFS.DiffIDs[n] {
			n++
		}
		most = max(most, n)
	}
	have := map[release.Digest]bool{}
	for _, id := range config.RootFS.DiffIDs[:most] {
		if d, err := parseID(id); err == nil {
			have[d] = true
		}
	}
	for _, id := range config.RootFS.DiffIDs[most:] { // the same layer again, higher up, is needed
		if d, err := parseID(id); err == nil {
			delete(have, d)
		}
	}
	return have, nil
}

// pull gets an image from its registry, which the digest in its name covers.
func (c *Compose) pull(ctx context.Context, image compose.Image) error {
	var login Login
	if c.opts.Credentials != nil {
		host, _, _ := strings.Cut(image.Ref, "/")
		var err error
		if login, err = c.opts.Credentials(ctx, host); err != nil {
			return fmt.Errorf("cannot get the credentials for %.80s: %w", host, err)
		}
	}
	if err := c.engine.Pull(ctx, image.Ref, login); err != nil {
		return err
	}
	info, err := c.engine.Image(ctx, image.Ref)
	if err != nil {
		return err
	}
	if err := c.engine.Tag(ctx, info.ID, c.tag(image.Config.Digest)); err != nil {
		return err
	}
	return c.engine.Untag(ctx, image.Ref, false) // our tag alone holds it
}

// took checks what the engine made of an image.
func (c *Compose) took(ctx context.Context, image compose.Image, config imageConfig, tag string) (string, error) {
	info, err := c.engine.Image(ctx, tag)
	if err != nil {
		return "", err
	}
	if !fits(info, config) {
		return "", fmt.Errorf("%w: it has %d layers under %s, and they are not those of %.80q", ErrImage, len(info.Layers), info.ID, image.Name)
	}
	return info.ID, nil
}
