package publish

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"

	"github.com/pawl-ota/pawl/ota/release"
)

// Options say where a repository is and who signs.
type Options struct {
	// Dir is the folder of the repository.
	Dir string
	// Keys sign. List and Verify need none.
	Keys Keys
	// Lifetimes say when metadata expires; zero fields take the defaults.
	Lifetimes Lifetimes
	// Now is the clock; nil means [time.Now].
	Now func() time.Time
	// Wait has a change that lacks signatures wait for them, for [Repository.Sign],
	// instead of failing with [ErrKeys]. It returns [ErrWaiting] then.
	Wait bool
	// Deltas is from how many earlier releases a new one gets deltas and patches
	// of its indexes; 0 means 3, and less than 0 none.
	Deltas int
	// Full is after how many releases of a variant one gets a pack that holds all
	// of its content, so that a new device needs few files; 0 means 16, and less
	// than 0 never.
	Full int
	// Progress is told how far a verb got; it has to return soon.
	Progress func(Progress)

	step func(what string) error // see disk
}

// Lifetimes say how long metadata is good for from when it is signed. A device
// refuses to look for updates when it is older; it keeps running all the same.
type Lifetimes struct {
	Root      time.Duration // 0 means 5 years
	Targets   time.Duration // 0 means 1 year; of delegated roles too
	Snapshot  time.Duration // 0 means 1 year
	Timestamp time.Duration // 0 means 90 days: how often Refresh has to run
}

// Progress is one step of a verb, as it happens.
type Progress struct {
	Step        string // "scan", "pack", "delta", "sign", "verify" or "prune"
	Name        string // of the component or the file
	Done, Total int64  // bytes; Total is 0 where it is not known
}

const day = 24 * time.Hour

func (o Options) withDefaults() (Options, error) {
	if o.Dir == "" {
		return o, errors.New("publish: Options.Dir is empty")
	}
	for _, d := range []struct {
		field string
		value *time.Duration
		zero  time.Duration
	}{
		{"Root", &o.Lifetimes.Root, 5 * 365 * day},
		{"Targets", &o.Lifetimes.Targets, 365 * day},
		{"Snapshot", &o.Lifetimes.Snapshot, 365 * day},
		{"Timestamp", &o.Lifetimes.Timestamp, 90 * day},
	} {
		if *d.value < 0 {
			return o, fmt.Errorf("publish: Options.Lifetimes.%s is negative", d.field)
		}
		if *d.value == 0 {
			*d.value = d.zero
		}
	}
	o.Deltas, o.Full = defaulted(o.Deltas, 3), defaulted(o.Full, 16)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	return o, nil
}

// defaulted returns n, standard for 0, and 0 for less.
func defaulted(n, standard int) int {
	if n == 0 {
		return standard
	}
	return max(0, n)
}

// Repository is a repository that releases are added to. One publisher at a
// time can change it: a second one gets [ErrBusy].
type Repository struct {
	opts Options
	disk disk
}

// Open returns the repository that is, or will be, in o.Dir. It reads nothing
// yet.
func Open(o Options) (*Repository, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Repository{opts: o, disk: disk{dir: o.Dir, step: o.step}}, nil
}

func (r *Repository) now() time.Time { return r.opts.Now().UTC().Truncate(time.Second) }

// Create makes an empty repository for the releases of one product. As many
// of the keys of root and of targets as threshold says have to sign. Called
// again after it was cut short it carries on; for a repository that is whole
// it returns an error that is [fs.ErrExist].
func (r *Repository) Create(ctx context.Context, product string, threshold int) error {
	if err := release.CheckName(product); err != nil {
		return fmt.Errorf("cannot make repository: product: %w", err)
	}
	unlock, err := r.disk.lock()
	if err != nil {
		return fmt.Errorf("cannot make repository: %w", err)
	}
	defer unlock()
	if _, err := os.Stat(r.disk.path(timestampName)); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot make repository: %w: %s", fs.ErrExist, r.disk.path(timestampName))
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := r.create(product, threshold, r.now()); err != nil {
		return fmt.Errorf("cannot make repository: %w", err)
	}
	return nil
}

func (r *Repository) create(product string, threshold int, now time.Time) error {
	root, err := r.newRoot(now, threshold)
	if err != nil {
		return err
	}
	e := &edit{}
	t := &trusted{chain: []*rootMeta{root}, files: map[Role][]byte{}, TrustedMetadata: &trustedmetadata.TrustedMetadata{
		Root: root, Snapshot: metadata.Snapshot(now), Timestamp: metadata.Timestamp(now), Targets: map[string]*targetsMeta{}}}
	t.Snapshot.Signed.Version, t.Timestamp.Signed.Version = 0, 0
	t.Snapshot.Signed.Meta = map[string]*metadata.MetaFiles{}
	ours{Product: product}.set(e.bump(t, Targets, r.expires(now, Targets)))
	first := &draft{role: Root, root: root, needs: []quorum{rootQuorum(root, Root)}}
	if err := e.settle(t); err != nil {
		return err
	}
	for _, d := range append(e.drafts, first) {
		if err := d.sign(r.opts.Keys); err != nil {
			return err
		}
	}
	if err := lacking(Root, root, first.needs); err != nil {
		return err
	}
	files, err := r.prepare(t, e, now)
	if err != nil {
		return err
	}
	file, _, err := seal(root, roleName(Root, 1), 1)
	if err != nil {
		return err
	}
	return r.write(append([]sealed{file}, files...))
}

// expires returns when what is signed now for a role expires.
func (r *Repository) expires(now time.Time, role Role) time.Time {
	l := r.opts.Lifetimes
	switch role {
	case Root:
		return now.Add(l.Root)
	case Snapshot:
		return now.Add(l.Snapshot)
	case Timestamp:
		return now.Add(l.Timestamp)
	}
	return now.Add(l.Targets)
}

func (r *Repository) newRoot(now time.Time, threshold int) (*metadata.Metadata[metadata.RootType], error) {
	root := metadata.Root(now.Add(r.opts.Lifetimes.Root))
	for _, role := range Roles() {
		need := 1
		if role == Root || role == Targets {
			need = threshold
		}
		root.Signed.Roles[string(role)].Threshold = need
		for _, key := range r.opts.Keys[role] {
			k, _, err := tufKey(key.Public())
			if err != nil {
				return nil, fmt.Errorf("%s: %w", role, err)
			}
			if err := root.Signed.AddKey(k, string(role)); err != nil {
				return nil, fmt.Errorf("%s: %w", role, err)
			}
		}
		if n := len(root.Signed.Roles[string(role)].KeyIDs); need < 1 || n < need {
			return nil, fmt.Errorf("%w: %s has %d keys and a threshold of %d", ErrKeys, role, n, need)
		}
	}
	return root, nil
}

// productOf returns what the repository was made for.
func productOf(t *trusted) string { return oursOf(targetsOf(t)).Product }
