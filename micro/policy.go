//go:build linux

package micro

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
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
)

// suffixNew ends the name of the release's version of what was kept.
const suffixNew = ".pawl-new"

// ComponentOptions is what the options of a component say to this package, as
// JSON with these keys and no others. LocalChanges and Paths are for the
// in-place layout: the tree layout has no use for them.
type ComponentOptions struct {
	// LocalChanges is for every entry that Paths says nothing of.
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
	if !o.LocalChanges.known() && o.LocalChanges != "" {
		return o, fmt.Errorf("option localChanges: %.40q is not known", o.LocalChanges)
	}
	for i, p := range o.Paths {
		if _, err := path.Match(p.Path, ""); err != nil || p.Path == "" || path.IsAbs(p.Path) {
			return o, fmt.Errorf("option paths[%d].path: %.80q is not a pattern of relative paths", i, p.Path)
		}
		if !p.LocalChanges.known() {
			return o, fmt.Errorf("option paths[%d].localChanges: %.40q is not known", i, p.LocalChanges)
		}
	}
	return o, checkServices(o.Services)
}

func (p Policy) known() bool { return p == Refuse || p == Keep || p == Overwrite }

// of returns the policy of the entry p.
func (o *ComponentOptions) of(p string) Policy {
	for _, pp := range o.Paths {
		for q := p; q != "."; q = path.Dir(q) {
			if ok, err := path.Match(pp.Path, q); ok && err == nil {
				return pp.LocalChanges
			}
		}
	}
	if o.LocalChanges == "" {
		return Refuse
	}
	return o.LocalChanges
}

// ErrLocalChange is returned by Stage and Activate when managed entries were
// changed on the device and their policy is [Refuse]. A *LocalChangeError
// lists them. Nothing was changed.
var ErrLocalChange = errors.New("managed files were changed on this device")

// ErrNoExchange is returned where a file system cannot exchange two names.
var ErrNoExchange = errors.New("the in-place layout is not possible here")

// LocalChangeError lists what was changed on the device. It is an
// [ErrLocalChange].
type LocalChangeError struct {
	Root    string
	Changes []LocalChange // the first ones, by path
	More    int           // how many there are besides
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

// Unwrap returns ErrLocalChange.
func (e *LocalChangeError) Unwrap() error { return ErrLocalChange }

// sameEntry reports whether two releases list the same at a path.
func sameEntry(a, b *release.Entry) bool {
	return a.Type == b.Type && a.Mode == b.Mode && a.UID == b.UID && a.GID == b.GID &&
		a.Blob == b.Blob && a.Target == b.Target && at.SameXattrs(a.Xattrs, b.Xattrs)
}
