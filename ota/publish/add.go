package publish

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/pawl-ota/pawl/ota/compose"
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
	LateRollback  release.LateRollback
	// Issued is written into the release, to the second; zero means now. The
	// same tree with the same Issued gives the same documents.
	Issued     time.Time
	Components []Component
	Scripts    []Script // of the transaction as a whole
}

// Component is one part of a release.
type Component struct {
	Name string
	// Kind is "files" or "compose"; empty means "files".
	Kind string
	// From is the folder that holds the tree, or the compose file.
	From string
	Scan ScanOptions // of files; its Progress is not used
	// Compose is for a component of kind "compose".
	Compose ComposeOptions
	// Keep says what stays on the device. The zero value means one earlier
	// release and [release.RepairNone].
	Keep    release.Keep
	Options json.RawMessage
	Scripts []Script // run where the release changes the component
}

// Added is what Release made.
type Added struct {
	release.ID
	Version string
	Release release.Digest // of the release document
	Files   int            // entries in all components
	Scripts int
	Size    int64 // bytes of the content, each blob once
	// NewBlobs were not in the repository yet, of NewSize bytes; Stored bytes
	// were added to the repository's content for them.
	NewBlobs        int
	NewSize, Stored int64
	Issued          time.Time
}

const (
	kindFiles      = "files"
	defaultVariant = "default"
)

// Release scans the trees of s and adds a release of them to the repository.
// The release is there for clients when it returns nil, and not before. Of a
// variant that is delegated the keys of that role sign it, else those of targets.
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
	a := &adding{ctx: ctx, r: r, t: t, now: r.now(), known: map[release.Digest]spot{},
		want: map[release.Digest][]release.Digest{}, packed: map[release.Digest]bool{}, programs: map[release.Digest]string{}}
	defer a.close()
	switch err := a.run(s); {
	case errors.Is(err, ErrWaiting):
		return a.added, fmt.Errorf("cannot publish release: %w", err)
	case err != nil:
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
	edit  *edit
	meta  *targetsMeta // of the role that signs the release, as it will be

	earlier []*listed               // releases of the same product and variant, newest first
	packs   []release.Pack          // of the repository
	known   map[release.Digest]spot // where blobs lie
	// want holds the blobs of this release, with their pieces where they are
	// cut.
	want  map[release.Digest][]release.Digest
	parts []part
	// programs are the paths of what scripts run.
	programs    map[release.Digest]string
	full        bool // the new pack holds everything
	shelf       *shelf
	fresh       int                     // pieces that no earlier pack has
	packed      map[release.Digest]bool // in the new pack
	done, total int64                   // bytes of files that were read, and that are to be
	patches     []release.Patch         // in the new pack
	deltas      []*making
	groups      *os.File // of deltas
	newPack     release.Pack
}

// part is a component with what was scanned for it.
type part struct {
	Component
	*listing
	source
	file    []byte // of the index
	blob    release.Blob
	scripts []release.Script
	from    []*predecessor
}

func (a *adding) run(s Spec) error {
	s, err := a.complete(s)
	if err != nil {
		return err
	}
	if err := a.begin(s); err != nil {
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
	a.full = a.r.opts.Full > 0 && fullIsDue(a.earlier, a.r.opts.Full)
	return nil
}

// fullIsDue reports whether none of the last n-1 releases is in one pack alone.
func fullIsDue(earlier []*listed, n int) bool {
	return len(earlier) >= n-1 && !slices.ContainsFunc(earlier[:n-1], func(l *listed) bool { return len(l.locator.Packs) == 1 })
}

// scan scans the components and makes the release document.
func (a *adding) scan(s Spec) (*release.Release, error) {
	last := lastSeq(a.t, s.Variant)
	if s.Seq == 0 {
		s.Seq = last + 1
	}
	if s.Seq <= last {
		return nil, fmt.Errorf("%w: seq %d, newest %d", ErrSeq, s.Seq, last)
	}
	doc := &release.Release{Format: release.Format, ID: release.ID{Product: s.Product, Variant: s.Variant, Seq: s.Seq},
		Version: s.Version, Attempt: s.Attempt, Hardware: s.Hardware, SecurityFloor: s.SecurityFloor,
		LateRollback: s.LateRollback, Issued: s.Issued}
	var err error
	if doc.Scripts, err = a.scanScripts(s.Scripts); err != nil {
		return nil, err
	}
	for _, c := range s.Components {
		p, err := a.scanPart(c, doc)
		if err != nil {
			return nil, fmt.Errorf("component %q: %w", c.Name, err)
		}
		a.parts = append(a.parts, p)
		doc.Components = append(doc.Components, release.Component{Name: c.Name, Kind: p.Kind, Index: p.blob, Keep: p.Keep,
			Options: c.Options, Scripts: p.scripts})
	}
	return doc, doc.Validate()
}

func (a *adding) scanPart(c Component, doc *release.Release) (part, error) {
	if c.Kind == "" {
		c.Kind = kindFiles
	}
	if c.Keep == (release.Keep{}) {
		c.Keep = defaultKeep
	}
	scripts, err := a.scanScripts(c.Scripts)
	if err != nil {
		return part{}, err
	}
	p := part{Component: c, scripts: scripts}
	switch c.Kind {
	case kindFiles:
		err = a.scanFiles(&p)
	case compose.Kind:
		err = a.scanApp(&p, doc)
	default:
		err = fmt.Errorf("kind %q: only %q and %q can be published", c.Kind, kindFiles, compose.Kind)
	}
	p.blob = blobOf(p.file)
	return p, err
}

// scanFiles lists a tree.
func (a *adding) scanFiles(p *part) error {
	c := &p.Component
	c.Scan.Progress = func(_ string, done int64) {
		a.r.opts.Progress(Progress{Step: "scan", Name: c.Name, Done: done})
	}
	ix, err := Scan(a.ctx, c.From, c.Scan)
	if err != nil {
		return err
	}
	var buf bytes.Buffer
	if err := ix.Encode(&buf); err != nil {
		return err
	}
	root, err := os.OpenRoot(c.From)
	if err != nil {
		return err
	}
	p.listing, p.source, p.file = filesListing(ix), folder{root}, buf.Bytes()
	a.added.Files += len(ix.Entries)
	return nil
}

// scanApp makes the app document and brings the images.
func (a *adding) scanApp(p *part, doc *release.Release) error {
	f, err := a.r.disk.scratch()
	if err != nil {
		return err
	}
	s := newSpool(f)
	p.source = s
	app, err := a.composeApp(p.Component, map[string]string{"PAWL_PRODUCT": doc.Product, "PAWL_VARIANT": doc.Variant,
		"PAWL_VERSION": doc.Version, "PAWL_SEQ": strconv.FormatUint(doc.Seq, 10)}, s)
	if err == nil {
		p.file, err = app.Encode()
	}
	if err != nil {
		return errors.Join(err, s.Close())
	}
	p.listing = appListing(app)
	a.added.Files += len(p.blobs)
	return nil
}

// close lets go of what the content was read from.
func (a *adding) close() {
	for _, p := range a.parts {
		_ = p.source.Close()
	}
}

func blobOf(data []byte) release.Blob {
	return release.Blob{Digest: release.Sum(data), Size: int64(len(data))}
}

// begin finds out before the work is done whether the keys are there.
func (a *adding) begin(s Spec) (err error) {
	role := signerOf(a.t, s.Variant)
	what := fmt.Sprintf("release %s of %s", s.Version, s.Variant)
	if a.edit, err = a.r.begin(a.t, what, role); err != nil {
		return err
	}
	a.meta = a.edit.bump(a.t, role, a.r.expires(a.now, role))
	if a.r.opts.Wait {
		return nil
	}
	needs := map[Role]quorum{role: delegateQuorum(targetsOf(a.t), role),
		Snapshot: rootQuorum(a.t.Root, Snapshot), Timestamp: rootQuorum(a.t.Root, Timestamp)}
	if role == Targets {
		needs[role] = rootQuorum(a.t.Root, Targets)
	}
	for role, q := range needs {
		if n := q.here(a.r.opts.Keys[role]); n < q.threshold {
			return tooFew(role, n, q)
		}
	}
	return nil
}

// defaultKeep is one way back, and nothing held twice.
var defaultKeep = release.Keep{Previous: 1, Repair: release.RepairNone}
