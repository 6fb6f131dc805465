package publish

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/pawl-ota/pawl/ota/durable"
)

// A change that waits lies in one file at the top of the repository. It can be
// carried to the people who sign, on paths that nobody has to trust: with it
// are the roots and the roles that it changes, so that what it does is worked
// out from signed files wherever it is looked at.
const (
	waitingName   = "waiting.json"
	waitingFormat = "pawl-waiting/0"
	maxWaiting    = 64 << 20
)

// waitingFile is the file of a change that waits.
type waitingFile struct {
	Format  string                   `json:"format"`
	What    string                   `json:"what"`
	Began   time.Time                `json:"began"`
	Roots   []json.RawMessage        `json:"roots"` // from the first to the one that counts
	Roles   map[Role]json.RawMessage `json:"roles"` // those that change, and targets, as they are
	Changes []waitingDraft           `json:"changes"`
}

type waitingDraft struct {
	Role Role            `json:"role"`
	File json.RawMessage `json:"file"`
}

func (e *edit) encode(t *trusted) ([]byte, error) {
	w := waitingFile{Format: waitingFormat, What: e.what, Began: e.began, Roles: map[Role]json.RawMessage{}}
	for _, data := range t.roots {
		w.Roots = append(w.Roots, data)
	}
	w.Roles[Targets] = t.files[Targets]
	for _, d := range e.drafts {
		if data := t.files[d.role]; data != nil {
			w.Roles[d.role] = data
		}
		data, err := json.Marshal(d.meta())
		if err != nil {
			return nil, err
		}
		w.Changes = append(w.Changes, waitingDraft{d.role, data})
	}
	return json.Marshal(w)
}

// parseWaiting reads the file of a change that waits. Nothing in it is trusted
// yet.
func parseWaiting(data []byte) (*waitingFile, *edit, error) {
	var w waitingFile
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&w); err != nil {
		return nil, nil, fmt.Errorf("cannot read the change that waits: %w", err)
	}
	if w.Format != waitingFormat {
		return nil, nil, fmt.Errorf("cannot read the change that waits: its format is %.40q", w.Format)
	}
	e := &edit{what: w.What, began: w.Began}
	for _, c := range w.Changes {
		d := &draft{role: c.Role}
		err := guarded(func() (err error) {
			kind := ""
			if c.Role == Root {
				d.root, err = metadata.Root().FromBytes(c.File)
				kind = metadata.ROOT
			} else {
				d.targets, err = metadata.Targets().FromBytes(c.File)
				kind = metadata.TARGETS
			}
			if err == nil && kindOf(d) != kind {
				err = fmt.Errorf("it is a file of %q", kindOf(d))
			}
			return err
		})
		if err != nil {
			return nil, nil, fmt.Errorf("cannot read the change of %s that waits: %w", c.Role, err)
		}
		e.drafts = append(e.drafts, d)
	}
	return &w, e, nil
}

func kindOf(d *draft) string {
	if d.root != nil {
		return d.root.Signed.Type
	}
	return d.targets.Signed.Type
}

// waiting returns the change that waits in the repository, or nil.
func (d *disk) waiting() (*edit, error) {
	data, err := d.readFile(waitingName, maxWaiting)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	_, e, err := parseWaiting(data)
	return e, err
}

// trusted verifies the roots and the roles that came with a change, from root
// on, or from their first root where that is nil.
func (w *waitingFile) trusted(root []byte) (*trusted, error) {
	if len(w.Roots) == 0 {
		return nil, errors.New("the change names no root")
	}
	t, err := trustRoot(w.Roots[0])
	if err != nil {
		return nil, err
	}
	for _, data := range w.Roots[1:] {
		if err := t.follow(data); err != nil {
			return nil, fmt.Errorf("cannot trust root version %d: %w", t.Root.Signed.Version+1, err)
		}
	}
	if root != nil && !slices.ContainsFunc(t.roots, func(data []byte) bool { return sameRoot(data, root) }) {
		return nil, errors.New("the change is not of the repository of that root")
	}
	t.Snapshot, t.Timestamp = metadata.Snapshot(), metadata.Timestamp()
	t.Snapshot.Signed.Meta = map[string]*metadata.MetaFiles{}
	if err := w.take(t, Targets); err != nil {
		return nil, err
	}
	for role := range w.Roles {
		if role != Targets {
			if err := w.take(t, role); err != nil {
				return nil, err
			}
		}
	}
	return t, nil
}

// take verifies the file of a role that came with a change.
func (w *waitingFile) take(t *trusted, role Role) error {
	var meta *targetsMeta
	err := guarded(func() (err error) {
		meta, err = metadata.Targets().FromBytes(w.Roles[role])
		return err
	})
	if err != nil {
		return fmt.Errorf("cannot read %s: %w", role, err)
	}
	q := rootQuorum(t.Root, Targets)
	if role != Targets {
		q = delegateQuorum(targetsOf(t), role)
	}
	if !q.met(meta) {
		return fmt.Errorf("cannot trust %s: %w", role, ErrKeys)
	}
	t.Targets[string(role)], t.files[role] = meta, w.Roles[role]
	return nil
}

// sameRoot compares what is signed in two roots.
func sameRoot(a, b []byte) bool {
	x, err := trustRoot(a)
	y, err2 := trustRoot(b)
	return err == nil && err2 == nil && (&draft{root: x.Root}).same(&draft{root: y.Root})
}

// SignFile signs a change that waits in the file path, where there may be no
// repository: the file is carried to each of the people who sign, and back to
// [Repository.Sign]. With root the change has to be of the repository that has
// that root, whatever the file says. Without keys it only tells what the file
// holds; so does everything that it returns. The signatures are durable in the
// file when it returns nil.
func SignFile(path string, root []byte, keys Keys) (Waiting, error) {
	d := disk{}
	data, err := d.readFile(path, maxWaiting)
	if err != nil {
		return Waiting{}, fmt.Errorf("cannot sign: %w", err)
	}
	w, e, err := parseWaiting(data)
	if err != nil {
		return Waiting{}, fmt.Errorf("cannot sign: %w", err)
	}
	t, err := w.trusted(root)
	if err == nil {
		err = e.settle(t)
	}
	if err != nil {
		return Waiting{}, fmt.Errorf("cannot sign %s: %w", path, err)
	}
	for _, draft := range e.drafts {
		if err := draft.sign(keys); err != nil {
			return Waiting{}, err
		}
	}
	after, err := e.encode(t)
	if err == nil && !bytes.Equal(after, data) {
		err = durable.WriteFile(path, after, 0o644)
	}
	if err != nil {
		return Waiting{}, fmt.Errorf("cannot sign %s: %w", path, err)
	}
	return e.public(t), nil
}

// Sign adds the signatures of Options.Keys to the change that waits, and those
// that copies of its file bring back. When all are there it publishes the
// change and returns nil; until then the error is [ErrWaiting]. It finishes a
// change too that was cut while it was published. Where nothing waits the error
// is [fs.ErrNotExist].
func (r *Repository) Sign(ctx context.Context, copies ...[]byte) (Waiting, error) {
	unlock, err := r.disk.lock()
	if err != nil {
		return Waiting{}, fmt.Errorf("cannot sign: %w", err)
	}
	defer unlock()
	w, err := r.sign(ctx, copies)
	if err != nil {
		return w, fmt.Errorf("cannot publish the change: %w", err)
	}
	return w, nil
}

func (r *Repository) sign(ctx context.Context, copies [][]byte) (Waiting, error) {
	t, err := r.disk.load(nil, time.Time{})
	if err != nil {
		return Waiting{}, err
	}
	e, err := r.disk.waiting()
	if err != nil {
		return Waiting{}, err
	}
	if e == nil {
		return Waiting{}, fmt.Errorf("nothing waits for signatures: %w", fs.ErrNotExist)
	}
	if err := e.settle(t); err != nil {
		return Waiting{}, err
	}
	for _, data := range copies {
		if err := e.merge(data); err != nil {
			return Waiting{}, err
		}
	}
	for _, d := range e.drafts {
		if err := d.sign(r.opts.Keys); err != nil {
			return Waiting{}, err
		}
	}
	if err := ctx.Err(); err != nil {
		return Waiting{}, err
	}
	file, err := e.encode(t)
	if err != nil {
		return Waiting{}, err
	}
	if err := r.disk.writeFile(waitingName, file); err != nil {
		return Waiting{}, err
	}
	public := e.public(t)
	files, err := r.prepare(t, e, r.now())
	if errors.Is(err, ErrKeys) {
		err = fmt.Errorf("%w: %w", ErrWaiting, err)
	}
	if err == nil {
		err = r.write(files)
	}
	if err == nil {
		err = r.disk.remove(waitingName)
	}
	return public, err
}

// merge takes the signatures that a copy of the change has and that count.
func (e *edit) merge(data []byte) error {
	_, other, err := parseWaiting(data)
	if err != nil {
		return err
	}
	if len(other.drafts) != len(e.drafts) {
		return errors.New("the file that came back holds another change")
	}
	for i, d := range e.drafts {
		from := other.drafts[i]
		if !d.same(from) {
			return errors.New("the file that came back holds another change")
		}
		have, more := d.signatures(), *from.signatures()
		for _, q := range d.needs {
			was := q.signed(d.meta())
			for _, id := range q.signed(from.meta()) {
				if slices.Contains(was, id) {
					continue
				}
				*have = slices.DeleteFunc(*have, func(s metadata.Signature) bool { return s.KeyID == id })
				*have = append(*have, more[slices.IndexFunc(more, func(s metadata.Signature) bool { return s.KeyID == id })])
			}
		}
	}
	return nil
}

func (d *draft) signatures() *[]metadata.Signature {
	if d.root != nil {
		return &d.root.Signatures
	}
	return &d.targets.Signatures
}

// Cancel drops the change that waits for signatures. One that was cut while it
// was published is not undone: what of it is published stays. Where nothing waits
// the error is [fs.ErrNotExist].
func (r *Repository) Cancel(ctx context.Context) error {
	unlock, err := r.disk.lock()
	if err != nil {
		return fmt.Errorf("cannot drop the change: %w", err)
	}
	defer unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if _, err := os.Stat(r.disk.path(waitingName)); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot drop the change: nothing waits for signatures: %w", fs.ErrNotExist)
	}
	return r.disk.remove(waitingName)
}
