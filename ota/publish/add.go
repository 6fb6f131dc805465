package publish

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/pawl-ota/pawl/ota/release"
)

// ErrSeq is returned for a release whose seq is not above those that are there.
var ErrSeq = errors.New("not above the newest release")

// Spec says what a release is made of.
type Spec struct {
	Product string // empty means the product of the repository
	Variant string // empty means "default"
	Version string
	// Seq orders the releases of one product and variant; 0 means the last
	// one and 1.
	Seq           uint64
	Attempt       uint32
	Hardware      []string
	SecurityFloor uint64
	// Issued is written into the release, to the second; zero means now. The
	// same tree with the same Issued gives the same documents.
	Issued     time.Time
	Components []Component
}

// Component is one part of a release.
type Component struct {
	Name string
	// Kind is "files"; empty means that.
	Kind string
	// From is the folder that holds the tree.
	From string
	Scan ScanOptions // its Progress is not used
	// Keep says what stays on the device. The zero value means one earlier
	// release and [release.RepairNone].
	Keep    release.Keep
	Options json.RawMessage
}

// Added is what Release made.
type Added struct {
	release.ID
	Version string
	Release release.Digest // of the release document
	Files   int            // entries in all components
	Size    int64          // bytes of the content, each blob once
	// NewBlobs were not in the repository yet, of NewSize bytes; Stored bytes
	// were added to the repository's content for them.
	NewBlobs        int
	NewSize, Stored int64
	Issued          time.Time
}

const (
	kindFiles      = "files"
	defaultVariant = "default"
	// patchesFrom is how many earlier releases get a patch of each index.
	patchesFrom = 3
)

// Release scans the trees of s and adds a release of them to the repository.
// The release is there for clients when it returns nil, and not before.
func (r *Repository) Release(ctx context.Context, s Spec) (Added, error) {
	unlock, err := r.disk.lock()
	if err != nil {
		return Added{}, fmt.Errorf("cannot add release: %w", err)
	}
	defer unlock()
	t, err := r.disk.load(nil, time.Time{})
	if err != nil {
		return Added{}, fmt.Errorf("cannot add release: %w", err)
	}
	a := &adding{ctx: ctx, r: r, t: t, now: r.now(), known: map[release.Digest]spot{}, want: map[release.Digest]bool{}}
	if err := a.run(s); err != nil {
		return Added{}, fmt.Errorf("cannot add release: %w", err)
	}
	return a.added, nil
}

// adding is one run of Release.
type adding struct {
	ctx   context.Context
	r     *Repository
	t     *trusted
	now   time.Time
	added Added

	earlier []*listed               // releases of the same product and variant, newest first
	packs   []release.Pack          // of the repository
	known   map[release.Digest]spot // where blobs lie
	want    map[release.Digest]bool // blobs of this release
	parts   []part
	packer  *packer
	patches []release.Patch // in the new pack
}

// part is a component with what was scanned for it.
type part struct {
	Component
	index *release.Index
	file  []byte // of the index
	blob  release.Blob
}

func (a *adding) run(s Spec) error {
	if err := a.tryKeys(); err != nil {
		return err
	}
	s, err := a.complete(s)
	if err != nil {
		return err
	}
	if err := a.readRepository(s); err != nil {
		return err
	}
	doc, err := a.scan(s)
	if err != nil {
		return err
	}
	loc, table, err := a.store(doc)
	if err != nil {
		return err
	}
	return a.publish(doc, loc, table)
}

// complete fills in what s leaves to the repository.
func (a *adding) complete(s Spec) (Spec, error) {
	product := productOf(a.t)
	if s.Product == "" {
		s.Product = product
	}
	if s.Product != product {
		return s, fmt.Errorf("product %q: the repository is for %q", s.Product, product)
	}
	if s.Variant == "" {
		s.Variant = defaultVariant
	}
	if s.Issued.IsZero() {
		s.Issued = a.now
	}
	s.Issued = s.Issued.UTC().Truncate(time.Second)
	return s, nil
}

// readRepository finds the earlier releases and all content.
func (a *adding) readRepository(s Spec) error {
	list, err := a.r.disk.listed(a.t)
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, l := range list {
		if l.Product == s.Product && l.Variant == s.Variant {
			a.earlier = append(a.earlier, l)
		}
		for _, p := range l.locator.Packs {
			if seen[p.Name] {
				continue
			}
			seen[p.Name] = true
			a.packs = append(a.packs, p)
			if err := a.r.disk.readPack(p, func(d release.Digest, s spot) { a.known[d] = s }); err != nil {
				return err
			}
		}
	}
	slices.SortFunc(a.earlier, func(x, y *listed) int { return -compareSeq(x.Seq, y.Seq) })
	return nil
}

// scan scans the components and makes the release document.
func (a *adding) scan(s Spec) (*release.Release, error) {
	last := uint64(0)
	if len(a.earlier) > 0 {
		last = a.earlier[0].Seq
	}
	if s.Seq == 0 {
		s.Seq = last + 1
	}
	if s.Seq <= last {
		return nil, fmt.Errorf("%w: seq %d, newest %d", ErrSeq, s.Seq, last)
	}
	doc := &release.Release{Format: release.Format, ID: release.ID{Product: s.Product, Variant: s.Variant, Seq: s.Seq},
		Version: s.Version, Attempt: s.Attempt, Hardware: s.Hardware, SecurityFloor: s.SecurityFloor, Issued: s.Issued}
	for _, c := range s.Components {
		p, err := a.scanPart(c)
		if err != nil {
			return nil, fmt.Errorf("component %q: %w", c.Name, err)
		}
		a.parts = append(a.parts, p)
		doc.Components = append(doc.Components, release.Component{Name: c.Name, Kind: p.Kind, Index: p.blob, Keep: p.Keep, Options: c.Options})
	}
	return doc, doc.Validate()
}

func (a *adding) scanPart(c Component) (part, error) {
	if c.Kind == "" {
		c.Kind = kindFiles
	}
	if c.Kind != kindFiles {
		return part{}, fmt.Errorf("kind %q: only %q can be published", c.Kind, kindFiles)
	}
	if c.Keep == (release.Keep{}) {
		c.Keep = defaultKeep
	}
	c.Scan.Progress = func(_ string, done int64) {
		a.r.opts.Progress(Progress{Step: "scan", Name: c.Name, Done: done})
	}
	ix, err := Scan(a.ctx, c.From, c.Scan)
	if err != nil {
		return part{}, err
	}
	var buf bytes.Buffer
	if err := ix.Encode(&buf); err != nil {
		return part{}, err
	}
	a.added.Files += len(ix.Entries)
	return part{Component: c, index: ix, file: buf.Bytes(), blob: blobOf(buf.Bytes())}, nil
}

func blobOf(data []byte) release.Blob {
	return release.Blob{Digest: release.Sum(data), Size: int64(len(data))}
}

// tryKeys finds out before the work is done whether the keys are there.
func (a *adding) tryKeys() error {
	for _, role := range []Role{Targets, Snapshot, Timestamp} {
		if _, err := signers(role, &a.t.Root.Signed, a.r.opts.Keys); err != nil {
			return err
		}
	}
	return nil
}

// store writes the pack and the table, and returns the locator.
func (a *adding) store(doc *release.Release) (*release.Locator, []byte, error) {
	f, err := a.r.disk.createTemp()
	if err != nil {
		return nil, nil, err
	}
	defer a.r.disk.drop(f)
	if a.packer, err = newPacker(f); err != nil {
		return nil, nil, err
	}
	if err := a.fill(); err != nil {
		return nil, nil, err
	}
	fresh := release.Pack{}
	if a.packer.n > 0 {
		b, err := a.packer.finish()
		if err != nil {
			return nil, nil, fmt.Errorf("cannot write content: %w", err)
		}
		if err := a.r.disk.place(f, release.PackName(b.Digest)); err != nil {
			return nil, nil, err
		}
		fresh = release.Pack{Name: release.PackName(b.Digest), Size: b.Size}
		a.added.Stored = b.Size
	}
	return a.locate(doc, fresh)
}

// fill packs what is new: the indexes, which a device wants first, patches of
// them last.
func (a *adding) fill() error {
	total := a.newBytes()
	done := int64(0)
	for i := range a.parts {
		p := &a.parts[i]
		open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(p.file)), nil }
		if err := a.put(p.blob, open); err != nil {
			return fmt.Errorf("component %q: index: %w", p.Name, err)
		}
	}
	for i := range a.parts {
		if err := a.fillPart(&a.parts[i], &done, total); err != nil {
			return fmt.Errorf("component %q: %w", a.parts[i].Name, err)
		}
	}
	for i := range a.parts {
		if err := a.addPatches(&a.parts[i]); err != nil {
			return fmt.Errorf("component %q: %w", a.parts[i].Name, err)
		}
	}
	return nil
}

// newBytes sums up what fill will read of files.
func (a *adding) newBytes() (total int64) {
	seen := map[release.Digest]bool{}
	for _, p := range a.parts {
		for _, b := range p.index.Blobs() {
			if seen[b.Digest] {
				continue
			}
			seen[b.Digest] = true
			a.added.Size += b.Size
			if _, ok := a.known[b.Digest]; !ok {
				total += b.Size
				a.added.NewBlobs++
			}
		}
	}
	a.added.NewSize = total
	return total
}

// fillPart packs the files of p. done of total bytes were packed before.
func (a *adding) fillPart(p *part, done *int64, total int64) error {
	root, err := os.OpenRoot(p.From)
	if err != nil {
		return err
	}
	defer root.Close()
	for i := range p.index.Entries {
		e := &p.index.Entries[i]
		if e.Type != release.File || a.want[e.Digest] {
			continue
		}
		_, old := a.known[e.Digest]
		err := a.put(e.Blob, func() (io.ReadCloser, error) {
			f, err := openRegular(root, e.Path, nil)
			read := *done
			return countedFile{counted{f, func(n int) {
				read += int64(n)
				a.r.opts.Progress(Progress{Step: "pack", Name: p.Name, Done: read, Total: total})
			}}, f}, err
		})
		if err != nil {
			return fmt.Errorf("%q: %w", e.Path, err)
		}
		if !old {
			*done += e.Size
		}
	}
	return nil
}

// countedFile is a file that tells how much of it was read.
type countedFile struct {
	counted
	io.Closer
}

// put stores b unless it is in the repository.
func (a *adding) put(b release.Blob, open func() (io.ReadCloser, error)) error {
	if err := a.ctx.Err(); err != nil {
		return err
	}
	a.want[b.Digest] = true
	if _, ok := a.known[b.Digest]; ok {
		return nil
	}
	s, err := a.packer.add(b, open)
	if err == nil {
		a.known[b.Digest] = s
	}
	return err
}

// locate makes the locator and the table.
func (a *adding) locate(doc *release.Release, fresh release.Pack) (*release.Locator, []byte, error) {
	loc := &release.Locator{Format: release.LocatorFormat, ID: doc.ID, Release: doc.Digest()}
	number := map[release.Digest]int{}
	used := map[release.Digest]bool{}
	for d := range a.want {
		used[a.known[d].pack] = true
	}
	for _, p := range a.packs {
		if d, err := p.Digest(); err == nil && used[d] {
			number[d] = len(loc.Packs)
			loc.Packs = append(loc.Packs, p)
		}
	}
	if fresh.Name != "" {
		number[release.Digest{}] = len(loc.Packs)
		loc.Packs = append(loc.Packs, fresh)
	}
	rows := make([]release.TableRow, 0, len(a.want))
	for d := range a.want {
		s := a.known[d]
		rows = append(rows, release.TableRow{Digest: d, Pack: number[s.pack], Offset: s.offset, Length: s.length, Codec: s.codec})
	}
	table, err := release.EncodeTable(rows, len(loc.Packs))
	if err != nil {
		return nil, nil, err
	}
	loc.Table = blobOf(table)
	for _, p := range a.patches {
		p.Pack = number[release.Digest{}]
		loc.Patches = append(loc.Patches, p)
	}
	return loc, table, loc.Validate()
}

// publish writes the documents and signs.
func (a *adding) publish(doc *release.Release, loc *release.Locator, table []byte) error {
	data, err := doc.Encode()
	if err != nil {
		return err
	}
	locData, err := loc.Encode()
	if err != nil {
		return err
	}
	if err := a.r.disk.writeFile(release.TableName(loc.Table.Digest), table); err != nil {
		return err
	}
	a.added.Stored += int64(len(table))
	t := target{Kind: kindRelease, Product: doc.Product, Variant: doc.Variant, Seq: doc.Seq,
		Hardware: doc.Hardware, Version: doc.Version, Attempt: doc.Attempt}
	for _, doc := range []struct {
		kind string
		data []byte
	}{{kindRelease, data}, {kindLocator, locData}} {
		t.Kind = doc.kind
		if err := t.addTo(&targetsOf(a.t).Signed, doc.data); err != nil {
			return err
		}
		if err := a.r.disk.writeFile(t.file(release.Sum(doc.data)), doc.data); err != nil {
			return err
		}
	}
	if err := a.ctx.Err(); err != nil {
		return err
	}
	a.r.opts.Progress(Progress{Step: "sign"})
	if err := a.r.resign(a.t, Targets, a.now); err != nil {
		return err
	}
	a.added.ID, a.added.Version, a.added.Release, a.added.Issued = doc.ID, doc.Version, doc.Digest(), doc.Issued
	return nil
}

// readBlob reads a blob of the repository into memory.
func (a *adding) readBlob(b release.Blob) ([]byte, error) {
	s, ok := a.known[b.Digest]
	if !ok || s.pack.IsZero() {
		return nil, fs.ErrNotExist
	}
	r, err := a.r.disk.openPlace(b, release.Place{Pack: release.PackName(s.pack), Offset: s.offset, Length: s.length, Codec: s.codec}, nil)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// defaultKeep is one way back, and nothing held twice.
var defaultKeep = release.Keep{Previous: 1, Repair: release.RepairNone}
