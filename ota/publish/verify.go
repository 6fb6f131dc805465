package publish

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

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
// delegated roles too, every document, every table, every patch and every blob of every pack. Its error
// wraps [ErrDamaged] where content is not as it was signed.
func (r *Repository) Verify(ctx context.Context, root []byte) (Verified, error) {
	t, err := r.disk.load(root, r.now())
	if err != nil {
		return Verified{}, fmt.Errorf("cannot verify repository: %w", err)
	}
	list, err := r.disk.listed(t)
	if err != nil {
		return Verified{}, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	v := &verifying{ctx: ctx, r: r, used: map[string]bool{}, good: map[checkedBlob]bool{}, seen: map[release.Digest]bool{},
		indexes: map[release.Digest]checkedBlob{}}
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
	if v.Unused, err = r.disk.unused(v.used); err != nil {
		return Verified{}, fmt.Errorf("cannot verify repository: %w", err)
	}
	return v.Verified, nil
}

type verifying struct {
	Verified
	ctx  context.Context
	r    *Repository
	used map[string]bool
	good map[checkedBlob]bool
	seen map[release.Digest]bool
	// indexes are those of the releases until now.
	indexes map[release.Digest]checkedBlob
}

// checkedBlob is a blob that was found good at a place.
type checkedBlob struct {
	release.Blob
	release.Place
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
		if err := v.component(c, l.locator, table); err != nil {
			return fmt.Errorf("component %q: %w", c.Name, err)
		}
	}
	return nil
}

func (v *verifying) table(l *release.Locator) (*release.Table, error) {
	name := release.TableName(l.Table.Digest)
	data, err := v.r.disk.readFile(name, release.MaxTable)
	if err != nil {
		return nil, err
	}
	if !v.used[name] {
		v.used[name] = true
		v.Stored += int64(len(data))
	}
	return release.ParseTable(data, l)
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

func (v *verifying) component(c release.Component, l *release.Locator, table *release.Table) error {
	r, err := v.open(c.Index, table)
	if err != nil {
		return fmt.Errorf("index: %w", err)
	}
	defer r.Close()
	ix, err := release.ReadIndex(r, 0)
	if err != nil {
		return fmt.Errorf("index: %w", err)
	}
	v.count(c.Index)
	at, _ := table.Find(c.Index)
	v.indexes[c.Index.Digest] = checkedBlob{c.Index, at}
	if err := v.patches(c.Index, l); err != nil {
		return err
	}
	for _, b := range ix.Blobs() {
		if err := v.blob(b, table); err != nil {
			return err
		}
	}
	return nil
}

// patches makes the index of each patch whose other index the repository has.
func (v *verifying) patches(index release.Blob, l *release.Locator) error {
	for _, p := range l.Patches {
		from, ok := v.indexes[p.From]
		if p.To.Digest != index.Digest || !ok {
			continue
		}
		if p.To != index {
			return fmt.Errorf("patch: %d bytes are to come of it, not %d", p.To.Size, index.Size)
		}
		if err := v.patch(p, from, l.Place(p)); err != nil {
			return fmt.Errorf("patch from index %s: %w", p.From.Short(), err)
		}
	}
	return nil
}

func (v *verifying) patch(p release.Patch, from checkedBlob, at release.Place) error {
	r, err := v.r.disk.openPlace(from.Blob, from.Place, nil)
	if err != nil {
		return err
	}
	defer r.Close()
	old, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	made, err := v.r.disk.openPlace(p.To, at, old)
	if err != nil {
		return err
	}
	defer made.Close()
	_, err = io.Copy(io.Discard, made)
	return err
}

func (v *verifying) count(b release.Blob) {
	if !v.seen[b.Digest] {
		v.seen[b.Digest] = true
		v.Blobs++
		v.Bytes += b.Size
	}
}

func (v *verifying) open(b release.Blob, table *release.Table) (io.ReadCloser, error) {
	p, ok := table.Find(b)
	if !ok {
		return nil, fmt.Errorf("blob %s is in no pack", b.Digest.Short())
	}
	return v.r.disk.openPlace(b, p, nil)
}

// blob reads a blob at its place, once.
func (v *verifying) blob(b release.Blob, table *release.Table) error {
	p, _ := table.Find(b)
	if v.good[checkedBlob{b, p}] {
		return nil
	}
	r, err := v.open(b, table)
	if err != nil {
		return err
	}
	defer r.Close()
	if _, err := io.Copy(io.Discard, r); err != nil {
		return err
	}
	v.good[checkedBlob{b, p}] = true
	v.count(b)
	return v.ctx.Err()
}

// unused lists the files of content and targets that are not used.
func (d *disk) unused(used map[string]bool) ([]string, error) {
	var list []string
	for _, top := range []string{"content", "targets"} {
		err := filepath.WalkDir(d.path(top), func(path string, e fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) || err == nil && e.IsDir() {
				return nil
			}
			if err != nil {
				return err
			}
			name := strings.TrimPrefix(filepath.ToSlash(strings.TrimPrefix(path, d.dir)), "/")
			if !used[name] {
				list = append(list, name)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	slices.Sort(list)
	return list, nil
}
