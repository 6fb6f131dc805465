package publish

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/pawl-ota/pawl/ota/compose"
	"github.com/pawl-ota/pawl/ota/release"
)

// ErrDamaged is returned by Verify for a repository that devices cannot use as
// it is.
var ErrDamaged = errors.New("the repository is damaged")

// Verified is what Verify found in a good repository.
type Verified struct {
	Releases int
	Blobs    int   // distinct
	Bytes    int64 // of all blobs, as they are on a device
	Stored   int64 // bytes of packs and tables
	Expires  map[Role]time.Time
	// Unused are files in content and targets that no release refers to, such
	// as a publisher left that was killed. Removing them harms nothing.
	Unused []string
	// Ignored are targets that a delegated role lists and may not, as "ROLE:
	// TARGET". Clients do not see them.
	Ignored []string
}

// Verify reads the whole repository as a client does that trusts root, or its
// first root where that is nil: the metadata, which may not have expired, that of
// delegated roles too, every document, every table, every patch, every delta and
// every blob of every pack, and whether the layers of an image are those that its
// configuration names. Patches and deltas are applied where the repository
// lists the release that they start from. Its error wraps [ErrDamaged] where
// content is not as it was signed.
func (r *Repository) Verify(ctx context.Context, root []byte) (Verified, error) {
	t, err := r.disk.load(root, r.now())
	if err != nil {
		return Verified{}, fmt.Errorf("cannot verify repository: %w", err)
	}
	list, err := r.disk.listed(t)
	if err != nil {
		return Verified{}, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	v := &verifying{ctx: ctx, r: r, used: map[string]bool{}, good: map[release.Digest]bool{}, seen: map[release.Digest]bool{},
		indexes: map[release.Digest]indexOf{}}
	v.Expires = expiries(t)
	for _, l := range list {
		if err := v.release(l); err != nil {
			return Verified{}, fmt.Errorf("%w: release %s %d: %w", ErrDamaged, l.Variant, l.Seq, err)
		}
	}
	v.Ignored = ignored(t)
	for name, at := range resolve(t) {
		if tg, d, err := parseTarget(name, at.file); err == nil {
			v.used[tg.file(d)] = true
		}
	}
	if v.Unused, err = r.disk.unused(v.used, "content", "targets"); err != nil {
		return Verified{}, fmt.Errorf("cannot verify repository: %w", err)
	}
	return v.Verified, nil
}

type verifying struct {
	Verified
	ctx  context.Context
	r    *Repository
	used map[string]bool
	// good are blobs that were found good at their places, as placed makes it.
	good map[release.Digest]bool
	seen map[release.Digest]bool
	// indexes are those of the releases until now.
	indexes map[release.Digest]indexOf
}

// indexOf is an index and a release that has it.
type indexOf struct {
	release.Component
	in *listed
}

// placed is the digest of where a blob lies.
func placed(b release.Blob, pieces []release.Piece) release.Digest {
	return release.Sum(fmt.Append(nil, b, pieces))
}

func (v *verifying) release(l *listed) error {
	v.Releases++
	table, err := v.table(l.locator)
	if err != nil {
		return err
	}
	for _, p := range l.locator.Packs {
		if err := v.pack(p); err != nil {
			return err
		}
	}
	for _, b := range l.release.ScriptBlobs() {
		if err := v.blob(b, table); err != nil {
			return fmt.Errorf("scripts: %w", err)
		}
	}
	for _, c := range l.release.Components {
		if err := v.component(c, l, table); err != nil {
			return fmt.Errorf("component %q: %w", c.Name, err)
		}
	}
	return nil
}

func (v *verifying) table(l *release.Locator) (*release.Table, error) {
	if name := release.TableName(l.Table.Digest); !v.used[name] {
		v.used[name] = true
		v.Stored += l.Table.Size
	}
	return v.r.disk.table(l)
}

// pack compares a pack file with the digest in its name.
func (v *verifying) pack(p release.Pack) error {
	if v.used[p.Name] {
		return nil
	}
	v.used[p.Name] = true
	want, err := p.Digest()
	if err != nil {
		return err
	}
	f, err := os.Open(v.r.disk.path(p.Name))
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, counted{f, func(n int) {
		v.Stored += int64(n)
		v.r.opts.Progress(Progress{Step: "verify", Name: p.Name, Done: v.Stored})
	}})
	if err == nil && (n != p.Size || release.Digest(h.Sum(nil)) != want) {
		err = fmt.Errorf("%s is not what was signed", p.Name)
	}
	return errors.Join(err, v.ctx.Err())
}

func (v *verifying) component(c release.Component, l *listed, table *release.Table) error {
	p := &predecessor{seq: l.Seq, kind: c.Kind, index: c.Index, table: table}
	if err := p.read(&v.r.disk); err != nil {
		return fmt.Errorf("index: %w", err)
	}
	v.count(c.Index)
	v.indexes[c.Index.Digest] = indexOf{c, l}
	if err := v.patches(p, l.locator); err != nil {
		return err
	}
	for _, b := range p.blobs {
		if err := v.blob(b, table); err != nil {
			return err
		}
	}
	if c.Kind == compose.Kind {
		if err := v.app(p); err != nil {
			return err
		}
	}
	return v.deltas(c.Name, p, l.locator)
}

// app compares the layers of each image with what its configuration names.
func (v *verifying) app(p *predecessor) error {
	app, err := compose.Parse(p.file)
	if err != nil {
		return err
	}
	for _, image := range app.Images {
		data, err := v.r.disk.readBlob(image.Config, p.table)
		if err != nil {
			return fmt.Errorf("image %s: %w", image.Name, err)
		}
		var c imageConfig
		if err := json.Unmarshal(data, &c); err != nil {
			return fmt.Errorf("image %s: its configuration: %w", image.Name, err)
		}
		if image.Ref != "" {
			continue
		}
		var layers []string
		for _, l := range image.Layers {
			layers = append(layers, "sha256:"+l.Digest.String())
		}
		if !slices.Equal(layers, c.RootFS.DiffIDs) {
			return fmt.Errorf("image %s: its layers are not those of its configuration", image.Name)
		}
	}
	return nil
}

func (v *verifying) count(b release.Blob) {
	if !v.seen[b.Digest] {
		v.seen[b.Digest] = true
		v.Blobs++
		v.Bytes += b.Size
	}
}

// blob reads a blob at its places, once.
func (v *verifying) blob(b release.Blob, table *release.Table) error {
	pieces, ok := table.Pieces(b)
	if !ok {
		return fmt.Errorf("blob %s is in no pack", b.Digest.Short())
	}
	at := placed(b, pieces)
	if v.good[at] {
		return nil
	}
	r := v.r.disk.openPieces(b, pieces)
	if _, err := io.Copy(io.Discard, r); err != nil {
		return errors.Join(err, r.Close())
	}
	v.good[at] = true
	v.count(b)
	return errors.Join(v.ctx.Err(), r.Close())
}
