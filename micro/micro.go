//go:build linux

// Package micro installs components of kind "files": trees of files, folders
// and symbolic links with their modes, owners and extended attributes.
//
// With the layout [Tree] a release is a whole new folder, built beside the root
// and switched with it by one exchange of names. Files that did not change are
// shared between the two, so that a small change of a large tree is a small
// amount of writing. The old folder stays until the release is committed, and
// until then going back is the same exchange and needs no space.
//
// By Keep.Previous the old folder stays after that too. A later way back to it
// is an update like any other, with a trial: a new folder is built that shares
// the kept one's files, and exchanged. No content has to come from elsewhere.
// Space is needed for the folders, the symbolic links and the records, and,
// where files can be shared neither by their bytes nor by a second name, for
// copies of those: Budget says how much.
//
// With the layout [InPlace] each entry is exchanged by itself, wherever it lies
// below the root, which may be /. What was there before lies in a spool on the
// same file system until the release is committed, and by Keep.Previous after
// that. Entries that were changed on the device are refused, kept, replaced, or
// merged by a script, as the release says: see [ComponentOptions]. An entry that a release installed
// and the next one does not list is removed; anything else that no release
// lists is not touched. A path that no release installed before is replaced
// without a question, and comes back with a Revert. A folder that holds what no
// release installed is never replaced or removed.
//
// Around the switch services are stopped and started, as the release says: see
// [Service] and [Supervisor].
//
// Names are exchanged where kernel and file system can. Elsewhere, and on file
// systems like FAT whose inode numbers do not last, the old file has a second
// name or a copy in the spool, and the new one is renamed over it: no file ever
// lacks its name, but a folder that takes the place of something else, or gives
// it up, does for a moment, and on FAT itself no rename is safe from a power cut.
// What FAT cannot keep (owners, links, attributes, modes that its mount does not
// give) Stage refuses; the spool of the records has to be on another file system.
//
// In the Tree layout the root belongs to the release as a whole. Paths of the app are listed in
// the release as carried ([release.Carry]): they are moved from folder to
// folder, and back. Anything else that lies in the root is refused with
// [ErrUnmanaged] before anything is changed.
//
// Everything below the root is reached by descriptors, one name after the
// other. A symbolic link in the way is never followed.
package micro

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// Kind is the kind of component that this package installs.
const Kind = "files"

// Errors that a caller branches on.
var (
	// ErrUnmanaged is returned by Stage and Activate when the root holds
	// entries that neither the installed release nor the new one lists, and
	// that are not carried. An *UnmanagedError lists them. Nothing was changed.
	ErrUnmanaged = errors.New("the root holds entries that belong to no release")
	// ErrLayout is returned by Stage where the root cannot be exchanged as a
	// whole: a mount point, a mount below it, a folder of a lower layer of an
	// overlay, a kernel or file system without the call. The layout that
	// changes files in place can do it there.
	ErrLayout = errors.New("the tree layout is not possible here; use the in-place layout")
	// ErrReadOnly is returned where the root cannot be changed: a read-only
	// file system, an immutable file, missing rights.
	ErrReadOnly = errors.New("the root cannot be changed")
	// ErrChanged is returned when a file that two trees share was written to
	// in place, and its old content is nowhere on the device. The message
	// names the file.
	ErrChanged = errors.New("a shared file was changed in place")
	// ErrForeign is returned when the root is a folder that is not the one
	// that the transaction found or put there.
	ErrForeign = errors.New("the root was replaced by something else")
)

// Layout is how a component lies on the device. The maker of the device
// chooses it once; it is stored as its word.
type Layout string

// Tree is the layout of a whole folder that is switched by one exchange.
const Tree Layout = "tree"

// InPlace is the layout in which every entry changes by itself, wherever it
// lies below the root, on the terms of the file system that it lies on. What
// no release lists is not touched.
const InPlace Layout = "inplace"

// Options configure a [Files]. Name and Root are needed.
type Options struct {
	// Name is the name of the component.
	Name string
	// Root is the folder that the app finds its files in. It must not be a
	// symbolic link. In the Tree layout it need not be there yet; in the
	// InPlace layout it has to, and may be /.
	Root string
	// Layout is Tree where it is empty.
	Layout Layout
	// Spool is the folder for what is being staged and what is kept, on the
	// same mount as Root's parent. It is made with mode 0700 if it is missing.
	// Empty means .pawl.NAME beside Root, NAME being Root's own name.
	//
	// In the InPlace layout it may be anywhere. Entries on other mounts than
	// its own have theirs where their mount begins, as .pawl.NAME, NAME being
	// the component's; so has the root / its own.
	Spool string
	// Effect says what has to happen after the exchange until the release is
	// in effect: [ota.NeedsRestart] where the tree holds the program that
	// embeds this package. Empty means [ota.Live]. [ota.NeedsReboot] is
	// refused: it is for a backend that arms the next boot and leaves this one
	// as it is, and the exchange shows the new tree at once.
	Effect ota.Effect
	// Supervisor starts and stops the services that releases list. Without one
	// such a release fails to stage with [ErrNoSupervisor].
	Supervisor Supervisor
	// ServiceLimit bounds each action of the Supervisor; 0 means 2 minutes.
	ServiceLimit time.Duration
	// Warn, if set, is told on the way back what was wrong with a service: it
	// is no reason to leave the way.
	Warn func(error)
	// IgnoreOwner leaves everything to the user who runs this process. Without
	// it a release that names another owner fails to stage for a user who may
	// not give files away.
	IgnoreOwner bool
}

// Files is the backend of one component. It implements [ota.Backend] and all
// of its optional interfaces. One goroutine uses it at a time, but Seed may be
// called while Stage runs.
type Files struct {
	layout
	svc    *services
	relied bool // what another process left is durable
}

// layout is how a component lies on the device, as the engine uses it.
type layout interface {
	ota.Backend
	ota.Budgeter
	ota.Lister
	ota.Seeder
	ota.Resembler
	ota.Verifier
	ota.Adopter
	ota.Repairer
	ota.Pruner
	ota.Reverter
	ota.Differ
	ota.Rooter
	// spools returns where other processes may have left something.
	spools() ([]string, error)
}

// base is what the layouts share: the options, and the records and indexes in
// the spool.
type base struct {
	opts Options
	// before, when a test set it, is called before each step that lasts.
	before func(op, path string) error
	// cannot, when a test set it, says that a call is not possible here.
	cannot func(call string) error
	// like is of the component that Similar was asked about last; it is dropped
	// with the seeds.
	like *similar
	// synced is whether a Stage of this process made the whole spool durable.
	synced bool
	// parsed are the indexes of the spool that were read.
	parsed *indexCache
}

// treeFiles is the layout Tree.
type treeFiles struct {
	base

	mu    sync.Mutex
	seeds []*source // opened for Seed, dropped by every verb that moves trees
}

// New returns the backend of one component. It touches nothing on the disk.
func New(o Options) (*Files, error) {
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("micro: %w", err)
	}
	if o.Layout == InPlace {
		f := &inPlaceFiles{base: base{opts: o, parsed: &indexCache{}}}
		return &Files{layout: f, svc: &services{&f.base, f}}, nil
	}
	f := &treeFiles{base: base{opts: o, parsed: &indexCache{}}}
	return &Files{layout: f, svc: &services{&f.base, f}}, nil
}

func (o *Options) validate() error {
	if err := release.CheckName(o.Name); err != nil {
		return fmt.Errorf("option Name: %w", err)
	}
	if o.Root == "" {
		return errors.New("option Root: it is empty")
	}
	root, err := filepath.Abs(o.Root)
	if err != nil {
		return fmt.Errorf("option Root: %w", err)
	}
	if o.Layout == "" {
		o.Layout = Tree
	}
	if o.Root = root; root == "/" && o.Layout != InPlace {
		return fmt.Errorf("option Root: /: %w", ErrLayout)
	}
	if o.Layout != Tree && o.Layout != InPlace {
		return fmt.Errorf("option Layout: %.40q is not known", o.Layout)
	}
	if o.Effect != "" && o.Effect != ota.Live && o.Effect != ota.NeedsRestart {
		return fmt.Errorf("option Effect: %.40q is neither %q nor %q", o.Effect, ota.Live, ota.NeedsRestart)
	}
	if o.ServiceLimit < 0 {
		return fmt.Errorf("option ServiceLimit: %v is negative", o.ServiceLimit)
	}
	o.ServiceLimit = cmp.Or(o.ServiceLimit, serviceLimit)
	return o.validateSpool()
}

func (o *Options) validateSpool() error {
	if o.Spool == "" && o.Root == "/" {
		o.Spool = "/.pawl." + o.Name
	}
	if o.Spool == "" {
		o.Spool = filepath.Join(filepath.Dir(o.Root), ".pawl."+filepath.Base(o.Root))
	}
	spool, err := filepath.Abs(o.Spool)
	if err != nil {
		return fmt.Errorf("option Spool: %w", err)
	}
	if o.Spool = spool; inside(o.Root, spool) && o.Layout != InPlace || inside(spool, o.Root) {
		return fmt.Errorf("option Spool: %s and the root %s lie within each other", spool, o.Root)
	}
	return nil
}

// inside reports whether path is dir or lies below it.
func inside(dir, path string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// tempPrefix begins the names of files that are garbage after a power cut.
const tempPrefix = ".pawl-tmp-"

// The places in the spool.
const (
	dirTx    = "tx"    // of each open transaction
	dirKept  = "kept"  // trees of earlier releases, by component digest
	dirIndex = "index" // the index of each known tree, by component digest
	dirTrash = "trash" // what is being removed
)

// Root returns the folder that the component lies below.
func (f *base) Root(string) string { return f.opts.Root }

func (f *base) path(names ...string) string {
	return filepath.Join(append([]string{f.opts.Spool}, names...)...)
}

func (f *base) txPath(tx ota.TxID, names ...string) string {
	return f.path(append([]string{dirTx, string(tx)}, names...)...)
}

// treePath is the staged tree, and after the exchange the old one.
func (f *treeFiles) treePath(tx ota.TxID) string { return f.txPath(tx, "tree") }

func (f *base) keptPath(d release.Digest) string { return f.path(dirKept, d.String()) }

// step is called before each step that lasts.
func (f *base) step(op, path string) error {
	if f.before == nil {
		return nil
	}
	return f.before(op, path)
}

// check refuses what this backend cannot be meant for.
func (f *base) check(tx ota.TxID, c release.Component) error {
	if c.Kind != Kind {
		return fmt.Errorf("component %.80q is of kind %.40q, not %q", c.Name, c.Kind, Kind)
	}
	return f.checkName(tx, c)
}

// checkName is check for the way back, for which a component whose document
// was lost has its name alone.
func (f *base) checkName(tx ota.TxID, c release.Component) error {
	if c.Name != f.opts.Name {
		return fmt.Errorf("component %.80q came to the backend of %q", c.Name, f.opts.Name)
	}
	if err := release.CheckName(string(tx)); err != nil {
		return fmt.Errorf("transaction: %w", err)
	}
	return nil
}

// explain puts the family in front of errors of the system that callers tell
// apart.
func explain(err error) error {
	switch {
	case err == nil || errors.Is(err, ota.ErrNoSpace) || errors.Is(err, ErrReadOnly):
		return err
	case errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("%w: %w", ota.ErrNoSpace, err)
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("%w: %w", ErrReadOnly, err)
	}
	return err
}

// isGone reports that nothing has the path: it or a folder above it is not
// there, or is no folder.
func isGone(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)
}

func notStaged(what string, err error) error { return fmt.Errorf("cannot stage %s: %w", what, err) }
func notActivated(what string, err error) error {
	return fmt.Errorf("cannot activate %s: %w", what, err)
}
