//go:build linux

package micro

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/pawl-ota/pawl/micro/internal/at"
	"github.com/pawl-ota/pawl/ota/release"
)

// Policy says what happens to a managed entry that was changed on the device
// since a release put it there. It is stored as its word.
type Policy string

// The values of [Policy]. The empty one is Refuse.
const (
	// Refuse has Stage fail with [ErrLocalChange].
	Refuse Policy = "refuse"
	// Keep leaves the entry as it is. Where the release changes it, the
	// release's version of a file or symbolic link lies beside it, its name
	// followed by ".pawl-new".
	Keep Policy = "keep"
	// Overwrite installs the release's version. What was there comes back
	// with a Revert.
	Overwrite Policy = "overwrite"
	// Merge has a script of the component, one with the point
	// [release.OnMerge], make one file out of a file that was changed on the
	// device and that the release changes too. Stage runs it, with these in
	// its environment:
	//
	//	PAWL_MERGE_PATH   the path, relative to the root
	//	PAWL_MERGE_BASE   a file: the version of the installed release; empty where the device does not have it any more
	//	PAWL_MERGE_LOCAL  a file: what is there
	//	PAWL_MERGE_NEW    a file: the version of the new release
	//	PAWL_MERGE_OUT    where the script puts the result, a regular file of at most 16 MiB
	//
	// The result is installed with the mode, the owner and the attributes that
	// the release gives the file. It counts as a local change that was kept:
	// Verify and Repair leave it alone, it is what is there at the next merge,
	// and a Revert brings back what it was made of.
	//
	// With exit code 75 Stage fails with [ota.ErrLater]. With any other that is
	// not 0, and without a result, it fails with [ErrLocalChange]; nothing was
	// changed.
	//
	// No script runs for a file that only one side changed. Where the release
	// does not change the entry, it stays as it is. Where the device changed
	// no content, the release's version is installed. Where the release changes
	// no content, the file keeps its own and gets the mode, the owner and the
	// attributes of the release.
	//
	// So it is on a way back to an earlier release, with that one as the new
	// one. The device keeps a release's own version of such files until it
	// keeps nothing else of that release, so that there is a base.
	//
	// What is no regular file on all sides (one that was removed, or became a
	// link or a folder), what the release removes, and a file of more than
	// 16 MiB, is kept as with Keep.
	Merge Policy = "merge"
)

// suffixNew ends the name of the release's version of what was kept.
const suffixNew = ".pawl-new"

// ComponentOptions is what the options of a component say to this package, as
// JSON with these keys and no others. LocalChanges and Paths are for the
// in-place layout: the tree layout has no use for them.
type ComponentOptions struct {
	// LocalChanges is for every entry that Paths says nothing of. It cannot be
	// Merge, which needs a script.
	LocalChanges Policy `json:"localChanges,omitempty"`
	// Paths are asked in their order; the first one that fits decides.
	Paths []PathPolicy `json:"paths,omitempty"`
	// Services are stopped and started around the switch, in both layouts.
	Services []Service `json:"services,omitempty"`
}

// PathPolicy is the policy of the paths that fit a pattern.
type PathPolicy struct {
	// Path is a pattern as in [path.Match], relative to the root. It fits a
	// path, and all that lies below one that it fits.
	Path         string `json:"path"`
	LocalChanges Policy `json:"localChanges"`
	// Script names the component's script that merges; for Merge, and needed
	// there.
	Script string `json:"script,omitempty"`
}

// ParseOptions reads the options of a component; nil are none.
func ParseOptions(raw json.RawMessage) (ComponentOptions, error) {
	var o ComponentOptions
	if raw == nil {
		return o, nil
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&o); err != nil {
		return o, fmt.Errorf("cannot read the options: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return o, errors.New("cannot read the options: something stands behind them")
	}
	if o.LocalChanges == Merge || !o.LocalChanges.known() && o.LocalChanges != "" {
		return o, fmt.Errorf("option localChanges: %.40q is not known", o.LocalChanges)
	}
	for i, p := range o.Paths {
		if _, err := path.Match(p.Path, ""); err != nil || p.Path == "" || path.IsAbs(p.Path) {
			return o, fmt.Errorf("option paths[%d].path: %.80q is not a pattern of relative paths", i, p.Path)
		}
		if !p.LocalChanges.known() {
			return o, fmt.Errorf("option paths[%d].localChanges: %.40q is not known", i, p.LocalChanges)
		}
		if (p.LocalChanges == Merge) != (p.Script != "") {
			return o, fmt.Errorf("option paths[%d].script: %q needs one, and nothing else may have one", i, Merge)
		}
	}
	return o, checkServices(o.Services)
}

func (p Policy) known() bool { return p == Refuse || p == Keep || p == Overwrite || p == Merge }

// rule returns what is said of the entry p.
func (o *ComponentOptions) rule(p string) PathPolicy {
	for _, pp := range o.Paths {
		for q := p; q != "."; q = path.Dir(q) {
			if ok, err := path.Match(pp.Path, q); ok && err == nil {
				return pp
			}
		}
	}
	return PathPolicy{LocalChanges: cmp.Or(o.LocalChanges, Refuse)}
}

// of returns the policy of the entry p.
func (o *ComponentOptions) of(p string) Policy { return o.rule(p).LocalChanges }

// ErrLocalChange is returned by Stage and Activate when managed entries were
// changed on the device and their policy is [Refuse], or is [Merge] and the
// script did not merge them. A *LocalChangeError lists them. Nothing was
// changed.
var ErrLocalChange = errors.New("managed files were changed on this device")

// ErrNoExchange is returned by Stage where an entry cannot be switched, or not be
// kept as the release has it: a mount point, a folder of a lower layer of an
// overlay, owners and links on FAT, a spool on a file system whose inode numbers
// do not last.
var ErrNoExchange = errors.New("the in-place layout is not possible here")

// LocalChangeError lists what was changed on the device. It is an
// [ErrLocalChange].
type LocalChangeError struct {
	Root    string
	Changes []LocalChange // the first ones, by path
	More    int           // how many there are besides

	cause error // of a script
}

// LocalChange is one managed entry that was changed.
type LocalChange struct {
	Path   string // relative to the root
	Reason string // what differs
}

func (e *LocalChangeError) add(p, why string) {
	if len(e.Changes) < maxUnmanaged {
		e.Changes = append(e.Changes, LocalChange{p, why})
		return
	}
	e.More++
}

func (e *LocalChangeError) Error() string {
	var all []string
	for _, c := range e.Changes {
		all = append(all, c.Path+" ("+c.Reason+")")
	}
	text := fmt.Sprintf("%v: in %s: %s", ErrLocalChange, e.Root, strings.Join(all, ", "))
	if e.More > 0 {
		text += fmt.Sprintf(", and %d more", e.More)
	}
	return text + "; undo the changes, or let the release keep or overwrite them"
}

// Unwrap returns ErrLocalChange, and the error of the script that did not merge.
func (e *LocalChangeError) Unwrap() []error {
	if e.cause == nil {
		return []error{ErrLocalChange}
	}
	return []error{ErrLocalChange, e.cause}
}

// sameEntry reports whether two releases list the same at a path.
func sameEntry(a, b *release.Entry) bool {
	return a.Type == b.Type && a.Mode == b.Mode && a.UID == b.UID && a.GID == b.GID &&
		a.Blob == b.Blob && a.Target == b.Target && at.SameXattrs(a.Xattrs, b.Xattrs)
}
