package publish

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/pawl-ota/pawl/ota/release"
)

var (
	// ErrWaiting is returned for a change that was kept and is not published
	// yet: it waits for signatures, see [Repository.Sign].
	ErrWaiting = errors.New("the change waits for signatures")
	// ErrBlocked is returned when an earlier change waits for signatures and
	// stands in the way: sign it, or drop it with [Repository.Cancel].
	ErrBlocked = errors.New("an earlier change waits for signatures")
)

// edit is a change of the metadata in the making: the files that people have
// to sign. Snapshot and timestamp are made when it is published.
type edit struct {
	what   string
	began  time.Time
	drafts []*draft // roots first, oldest first
	fresh  []Role   // of snapshot and timestamp, which to sign anew in any case
	// enclosed are files that the timestamp brings, beside the new metadata. They
	// are lost where the edit has to wait: devices fetch them then.
	enclosed []release.Enclosed
}

// draft is one such file.
type draft struct {
	role    Role
	root    *rootMeta    // one of
	targets *targetsMeta // these two
	needs   []quorum
}

func (d *draft) version() int64 {
	if d.root != nil {
		return d.root.Signed.Version
	}
	return d.targets.Signed.Version
}

func (d *draft) meta() any {
	if d.root != nil {
		return d.root
	}
	return d.targets
}

// signed returns the part that is signed; two drafts of the same change give
// the same bytes.
func (d *draft) signed() ([]byte, error) {
	if d.root != nil {
		return json.Marshal(d.root.Signed)
	}
	return json.Marshal(d.targets.Signed)
}

// same reports whether both are one file, whoever signed them so far.
func (d *draft) same(other *draft) bool {
	a, err := d.signed()
	b, err2 := other.signed()
	return err == nil && err2 == nil && d.role == other.role && bytes.Equal(a, b)
}

func (d *draft) sign(keys Keys) (err error) {
	if d.root != nil {
		err = signFor(d.root, keys[d.role], d.needs)
	} else {
		err = signFor(d.targets, keys[d.role], d.needs)
	}
	if err != nil {
		return fmt.Errorf("cannot sign %s: %w", d.role, err)
	}
	return nil
}

func (e *edit) draft(role Role) *draft {
	for _, d := range e.drafts {
		if d.role == role {
			return d
		}
	}
	return nil
}

// bump adds the next version of targets, or of a role that it delegates to, to
// the drafts, and returns it to be changed.
func (e *edit) bump(t *trusted, role Role, expires time.Time) *targetsMeta {
	if d := e.draft(role); d != nil {
		return d.targets
	}
	next := metadata.Targets()
	if data := t.files[role]; data != nil {
		next, _ = next.FromBytes(data) // it was read from the same bytes before
	}
	next.Signed.Expires = expires
	next.Signed.Version = versionOf(t.Snapshot.Signed.Meta, role) + 1
	next.Signatures = []metadata.Signature{}
	e.drafts = append(e.drafts, &draft{role: role, targets: next})
	return next
}

// above returns the roots of e that the repository does not have yet.
func (e *edit) above(t *trusted) (list []*rootMeta) {
	for _, d := range e.drafts {
		if d.root != nil && d.root.Signed.Version > t.Root.Signed.Version {
			list = append(list, d.root)
		}
	}
	return list
}

// during and after return the roots that count while e is published, and then.
// Of two new roots the first lets the old and the new keys of roles sign.
func (e *edit) during(t *trusted) *rootMeta {
	if list := e.above(t); len(list) > 1 {
		return list[0]
	}
	return t.Root
}

func (e *edit) after(t *trusted) *rootMeta {
	if list := e.above(t); len(list) > 0 {
		return list[len(list)-1]
	}
	return t.Root
}

// root returns the root of that version; nil if nobody has it.
func (e *edit) root(t *trusted, version int64) *rootMeta {
	for _, d := range e.drafts {
		if d.root != nil && d.root.Signed.Version == version {
			return d.root
		}
	}
	for _, root := range t.chain {
		if root.Signed.Version == version {
			return root
		}
	}
	return nil
}

// settle finds out whose signatures each draft needs. A draft that does not
// follow what the repository has is an error.
func (e *edit) settle(t *trusted) error {
	for _, d := range e.drafts {
		switch {
		case d.root != nil:
			last := e.root(t, d.version()-1)
			if last == nil || d.version() <= t.Root.Signed.Version && !d.same(&draft{role: Root, root: (&edit{}).root(t, d.version())}) {
				return fmt.Errorf("root version %d does not follow version %d: the change has to be begun anew", d.version(), t.Root.Signed.Version)
			}
			d.needs = []quorum{rootQuorum(last, Root), rootQuorum(d.root, Root)}
		case d.role == Targets:
			d.needs = []quorum{rootQuorum(e.during(t), Targets), rootQuorum(e.after(t), Targets)}
		default:
			by := targetsOf(t)
			if up := e.draft(Targets); up != nil {
				by = up.targets
			}
			d.needs = []quorum{delegateQuorum(by, d.role)}
		}
		if len(d.needs) == 2 && d.needs[0].same(d.needs[1]) {
			d.needs = d.needs[:1]
		}
	}
	return nil
}

// begin starts a change, unless an earlier one that waits stands in its way.
func (r *Repository) begin(t *trusted, what string, roles ...Role) (*edit, error) {
	waits, err := r.disk.waiting()
	if err != nil {
		return nil, err
	}
	if waits != nil && waits.published(t) {
		waits, err = nil, r.disk.remove(waitingName) // that is what was cut
	}
	if waits != nil {
		for _, d := range waits.drafts {
			if slices.Contains(roles, d.role) {
				return nil, fmt.Errorf("%w: %s", ErrBlocked, waits.what)
			}
		}
	}
	return &edit{what: what, began: r.now()}, err
}

// published reports whether the repository has all of e, and whether nothing
// is left to be signed.
func (e *edit) published(t *trusted) bool {
	if e.settle(t) != nil || len(e.above(t)) > 0 {
		return false
	}
	return !slices.ContainsFunc(e.drafts, func(d *draft) bool { return d.root == nil && !d.applied(t) })
}

// finish signs e and publishes it, or has it wait.
func (r *Repository) finish(t *trusted, e *edit) error {
	if err := e.settle(t); err != nil {
		return err
	}
	for _, d := range e.drafts {
		if err := d.sign(r.opts.Keys); err != nil {
			return err
		}
	}
	file, err := e.encode(t)
	if err != nil {
		return err
	}
	files, err := r.prepare(t, e, r.now())
	if err != nil && !(r.opts.Wait && errors.Is(err, ErrKeys)) {
		return err
	}
	waits := err
	intent := waits != nil || len(e.above(t)) > 0
	if intent {
		// What takes more than one step is finished by Sign when it is cut.
		if other, err := r.disk.waiting(); err != nil || other != nil {
			return errors.Join(err, ErrBlocked)
		}
		if err := r.disk.writeFile(waitingName, file); err != nil {
			return err
		}
	}
	if waits != nil {
		return fmt.Errorf("%w: %w", ErrWaiting, waits)
	}
	if err := r.write(files); err != nil || !intent {
		return err
	}
	return r.disk.remove(waitingName)
}

// prepare signs snapshot and timestamp for e, and returns the files to write,
// in their order. After each of them clients can use the repository: what they
// find is tried out here against the root that they have then.
func (r *Repository) prepare(t *trusted, e *edit, now time.Time) ([]sealed, error) {
	for _, d := range e.drafts {
		if err := lacking(d.role, d.meta(), d.needs); err != nil {
			return nil, err
		}
	}
	during, after := e.during(t), e.after(t)
	var files []sealed
	if during != t.Root {
		if err := accepts(during, t); err != nil {
			return nil, err
		}
		file, _, err := seal(during, roleName(Root, during.Signed.Version), 0)
		if err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	online, err := r.prepareOnline(t, e, []*rootMeta{during, after}, now)
	if err != nil {
		return nil, err
	}
	files = append(files, online...)
	if after != t.Root {
		file, _, err := seal(after, roleName(Root, after.Signed.Version), 0)
		if err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	return files, errors.Join(accepts(during, t), accepts(after, t))
}

// prepareOnline makes the files of all roles but root.
func (r *Repository) prepareOnline(t *trusted, e *edit, roots []*rootMeta, now time.Time) (files []sealed, err error) {
	stamp := quorums(roots, Timestamp)
	snap := quorums(roots, Snapshot)
	if err := checkClock(t, roots, allMet(stamp, t.Timestamp), now); err != nil {
		return nil, err
	}
	snapshot := slices.Contains(e.fresh, Snapshot) || !allMet(snap, t.Snapshot)
	for _, d := range e.drafts {
		if d.root != nil || d.applied(t) {
			continue
		}
		if have := versionOf(t.Snapshot.Signed.Meta, d.role); d.version() != have+1 {
			return nil, fmt.Errorf("%s version %d does not follow version %d: the change has to be begun anew", d.role, d.version(), have)
		}
		file, above, err := seal(d.targets, roleName(d.role, d.version()), d.version())
		if err != nil {
			return nil, err
		}
		t.Targets[string(d.role)] = d.targets
		t.Snapshot.Signed.Meta[string(d.role)+".json"] = above
		files, snapshot = append(files, file), true
	}
	if snapshot {
		m := t.Snapshot
		m.Signed.Version++
		m.Signed.Expires = r.expires(now, Snapshot)
		file, above, err := sealSigned(m, Snapshot, m.Signed.Version, r.opts.Keys, snap)
		if err != nil {
			return nil, err
		}
		t.Timestamp.Signed.Meta["snapshot.json"] = above
		files = append(files, file)
	}
	if !snapshot && !slices.Contains(e.fresh, Timestamp) && allMet(stamp, t.Timestamp) {
		return files, nil
	}
	m := t.Timestamp
	m.Signed.Version++
	m.Signed.Expires = r.expires(now, Timestamp)
	if m.Signed.UnrecognizedFields, err = e.stamp(now.Format(time.RFC3339), files); err != nil {
		return nil, err
	}
	file, _, err := sealSigned(m, Timestamp, m.Signed.Version, r.opts.Keys, stamp)
	file.name = timestampName
	return append(files, file), err
}

// ErrClock is returned where the clock of this machine cannot be right: nothing
// was signed. Devices take the time of a timestamp for sure: one of years ahead
// would have them refuse everything that is signed later, until the timestamp's
// keys are rotated.
var ErrClock = errors.New("the clock of this machine is wrong")

// checkClock holds now against what is signed already. same is whether the keys
// of the timestamp stay; where they are replaced, devices forget its time.
func checkClock(t *trusted, roots []*rootMeta, same bool, now time.Time) error {
	newest := roots[len(roots)-1]
	if now.After(newest.Signed.Expires) {
		return fmt.Errorf("%w: it says %s, and root expires on %s; if it is right, sign root anew first", ErrClock, now.Format(time.DateTime), newest.Signed.Expires.Format(time.DateTime))
	}
	text, _ := t.Timestamp.Signed.UnrecognizedFields["issued"].(string)
	issued, err := time.Parse(time.RFC3339, text)
	if err == nil && same && now.Before(issued.Add(-24*time.Hour)) {
		return fmt.Errorf("%w: it says %s, and the last timestamp was made on %s; if that was wrong, rotate the timestamp's keys", ErrClock, now.Format(time.DateTime), issued.Format(time.DateTime))
	}
	return nil
}

// sealSigned signs meta anew and returns its file.
func sealSigned[T metadata.Roles](meta *metadata.Metadata[T], role Role, version int64, keys Keys, needs []quorum) (sealed, *metadata.MetaFiles, error) {
	meta.Signatures = []metadata.Signature{}
	if err := signFor(meta, keys[role], needs); err != nil {
		return sealed{}, nil, fmt.Errorf("cannot sign %s: %w", role, err)
	}
	if err := lacking(role, meta, needs); err != nil {
		return sealed{}, nil, err
	}
	return seal(meta, roleName(role, version), version)
}

// applied reports whether the repository has the draft already.
func (d *draft) applied(t *trusted) bool {
	now := t.Targets[string(d.role)]
	return now != nil && now != d.targets && d.same(&draft{role: d.role, targets: now})
}

func quorums(roots []*rootMeta, role Role) (list []quorum) {
	for _, root := range roots {
		if q := rootQuorum(root, role); len(list) == 0 || !list[0].same(q) {
			list = append(list, q)
		}
	}
	return list
}

func allMet(list []quorum, meta any) bool {
	return !slices.ContainsFunc(list, func(q quorum) bool { return !q.met(meta) })
}

// accepts checks that a client with that root takes all of t.
func accepts(root *rootMeta, t *trusted) error {
	for role, meta := range map[Role]any{Targets: targetsOf(t), Snapshot: t.Snapshot, Timestamp: t.Timestamp} {
		if err := lacking(role, meta, []quorum{rootQuorum(root, role)}); err != nil {
			return err
		}
	}
	for _, d := range delegations(t) {
		role := Role(d.Name)
		if err := lacking(role, t.Targets[d.Name], []quorum{delegateQuorum(targetsOf(t), role)}); err != nil {
			return err
		}
	}
	return nil
}

// write writes the files one after the other, each durable before the next.
func (r *Repository) write(files []sealed) error {
	for _, f := range files {
		if err := r.disk.writeFile(f.name, f.data); err != nil {
			return err
		}
	}
	return nil
}
