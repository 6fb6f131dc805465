package publish

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/pawl-ota/pawl/ota/release"
)

// ErrDelegation is returned for a delegation that cannot be made, or is not
// there.
var ErrDelegation = errors.New("not a delegation that can be")

// maxDelegations bounds how many roles there are: a device reads one for its
// variant, but people have to keep the overview.
const maxDelegations = 256

// Delegation gives the releases of some variants to the keys of another role: a
// team's, or those of a machine that builds a channel. Nobody else's releases
// are in reach of these keys.
type Delegation struct {
	// Name of the role: a name like that of a variant, without dots.
	Name string
	// Variants whose releases the role signs, and nobody but it from then on.
	// Releases that are there stay.
	Variants []string
	// Keys of the role. The first one to sign is needed at once: an empty list
	// of releases is signed with them.
	Keys []crypto.PublicKey
	// Threshold is how many of them have to sign; 0 means 1.
	Threshold int
}

// Delegate gives variants to another role. The keys of targets and of the new
// role have to sign.
func (r *Repository) Delegate(ctx context.Context, d Delegation) error {
	what := "delegate " + strings.Join(d.Variants, ", ") + " to " + d.Name
	return r.change(ctx, what, func(t *trusted, now time.Time) (*edit, error) {
		role, keys, err := newDelegation(t, d)
		if err != nil {
			return nil, err
		}
		e, err := r.begin(t, what, Targets, Role(d.Name))
		if err != nil {
			return nil, err
		}
		targets := e.bump(t, Targets, r.expires(now, Targets))
		if targets.Signed.Delegations == nil {
			targets.Signed.Delegations = &metadata.Delegations{Keys: map[string]*metadata.Key{}}
		}
		maps.Copy(targets.Signed.Delegations.Keys, keys)
		targets.Signed.Delegations.Roles = append(targets.Signed.Delegations.Roles, role)
		e.bump(t, Role(d.Name), r.expires(now, Role(d.Name)))
		return e, nil
	})
}

// newDelegation checks d and makes the role of it.
func newDelegation(t *trusted, d Delegation) (metadata.DelegatedRole, map[string]*metadata.Key, error) {
	fail := func(format string, args ...any) (metadata.DelegatedRole, map[string]*metadata.Key, error) {
		return metadata.DelegatedRole{}, nil, fmt.Errorf("%w: %s", ErrDelegation, fmt.Sprintf(format, args...))
	}
	if err := release.CheckName(d.Name); err != nil || strings.Contains(d.Name, ".") || isTop(Role(d.Name)) {
		return fail("%.80q cannot be the name of a role", d.Name)
	}
	if len(d.Variants) == 0 {
		return fail("no variant is named")
	}
	list := delegations(t)
	if len(list) >= maxDelegations {
		return fail("there are %d already", len(list))
	}
	role := metadata.DelegatedRole{Name: d.Name, Terminating: true}
	for _, v := range d.Variants {
		if err := release.CheckName(v); err != nil {
			return fail("variant: %v", err)
		}
		for _, other := range list {
			if slices.Contains(variantsOf(other), v) {
				return fail("variant %s is delegated to %s already", v, other.Name)
			}
		}
		if role.Paths = append(role.Paths, pathsOf(productOf(t), v)...); len(role.Paths) != len(slices.Compact(slices.Sorted(slices.Values(role.Paths)))) {
			return fail("variant %s is named twice", v)
		}
	}
	if slices.ContainsFunc(list, func(other metadata.DelegatedRole) bool { return other.Name == d.Name }) {
		return fail("%s is there already", d.Name)
	}
	q, err := quorum{threshold: 1}.change(RoleChange{Role: Role(d.Name), Add: d.Keys, Threshold: d.Threshold})
	role.KeyIDs, role.Threshold = q.ids, q.threshold
	return role, q.keys, err
}

// pathsOf are the targets of a variant.
func pathsOf(product, variant string) []string {
	return []string{"releases/" + product + "/" + variant + "/*", "locators/" + product + "/" + variant + "/*"}
}

// Revoke takes the variants of a delegated role back: targets signs their
// releases again. With adopt it takes over the releases that the role has
// signed; without, they are gone for devices that have not installed them yet. The
// keys of targets have to sign.
func (r *Repository) Revoke(ctx context.Context, name string, adopt bool) error {
	what := "revoke " + name
	return r.change(ctx, what, func(t *trusted, now time.Time) (*edit, error) {
		e, err := r.begin(t, what, Targets, Role(name))
		if err != nil {
			return nil, err
		}
		targets := e.bump(t, Targets, r.expires(now, Targets))
		i := delegationIndex(targets, Role(name))
		if i < 0 {
			return nil, fmt.Errorf("%w: there is no %s", ErrDelegation, name)
		}
		note := oursOf(targets)
		for target, at := range resolve(t) {
			if at.role != Role(name) {
				continue
			}
			tg, _, err := parseTarget(target, at.file)
			if err != nil {
				return nil, err
			}
			note.remember(tg.Variant, tg.Seq)
			if adopt {
				targets.Signed.Targets[target] = at.file
			}
		}
		for variant, seq := range oursOf(t.Targets[name]).Last {
			note.remember(variant, seq)
		}
		note.set(targets)
		d := targets.Signed.Delegations
		d.Roles = slices.Delete(d.Roles, i, i+1)
		tidyDelegations(targets)
		return e, nil
	})
}

func delegationIndex(targets *targetsMeta, role Role) int {
	if targets.Signed.Delegations == nil {
		return -1
	}
	return slices.IndexFunc(targets.Signed.Delegations.Roles, func(d metadata.DelegatedRole) bool { return d.Name == string(role) })
}

// tidyDelegations drops keys that no role has.
func tidyDelegations(targets *targetsMeta) {
	d := targets.Signed.Delegations
	maps.DeleteFunc(d.Keys, func(id string, _ *metadata.Key) bool {
		return !slices.ContainsFunc(d.Roles, func(r metadata.DelegatedRole) bool { return slices.Contains(r.KeyIDs, id) })
	})
	if len(d.Roles) == 0 {
		targets.Signed.Delegations = nil
	}
}

// rotateDelegated changes the keys of a delegated role, which has to sign its
// releases anew where the old signatures do not do.
func (r *Repository) rotateDelegated(t *trusted, e *edit, c RoleChange, now time.Time) error {
	targets := e.bump(t, Targets, r.expires(now, Targets))
	i := delegationIndex(targets, c.Role)
	if i < 0 {
		return fmt.Errorf("%w: there is no %s", ErrDelegation, c.Role)
	}
	q, err := delegateQuorum(targets, c.Role).change(c)
	if err != nil {
		return err
	}
	d := targets.Signed.Delegations
	d.Keys = q.keys
	d.Roles[i].KeyIDs, d.Roles[i].Threshold = q.ids, q.threshold
	tidyDelegations(targets)
	if !q.met(t.Targets[string(c.Role)]) {
		e.bump(t, c.Role, r.expires(now, c.Role))
	}
	return nil
}

// signerOf returns the role that signs releases of a variant.
func signerOf(t *trusted, variant string) Role {
	for _, d := range delegations(t) {
		if slices.Contains(variantsOf(d), variant) {
			return Role(d.Name)
		}
	}
	return Targets
}

// resolved is a target as clients see it: what the role says that may speak for
// it.
type resolved struct {
	file *metadata.TargetFiles
	role Role
}

// resolve returns the targets that clients see.
func resolve(t *trusted) map[string]resolved {
	all := map[string]resolved{}
	for name, file := range targetsOf(t).Signed.Targets {
		all[name] = resolved{file, Targets}
	}
	for _, d := range delegations(t) {
		for name, file := range t.Targets[d.Name].Signed.Targets {
			if _, ok := all[name]; !ok && speaksFor(t, d.Name, name) {
				all[name] = resolved{file, Role(d.Name)}
			}
		}
	}
	return all
}

// speaksFor reports whether the delegated role is the first that is asked for
// a target that it has.
func speaksFor(t *trusted, role, target string) bool {
	for _, r := range targetsOf(t).Signed.Delegations.GetRolesForTarget(target) {
		if r.Name == role {
			return true
		}
		if _, has := t.Targets[r.Name].Signed.Targets[target]; has || r.Terminating {
			return false
		}
	}
	return false
}

// ignored returns what delegated roles list and may not: clients do not see it.
func ignored(t *trusted) (list []string) {
	seen := resolve(t)
	for _, d := range delegations(t) {
		for name := range t.Targets[d.Name].Signed.Targets {
			if seen[name].role != Role(d.Name) {
				list = append(list, d.Name+": "+name)
			}
		}
	}
	slices.Sort(list)
	return list
}

// remember notes that a seq was given.
func (o *ours) remember(variant string, seq uint64) {
	if o.Last == nil {
		o.Last = map[string]uint64{}
	}
	o.Last[variant] = max(o.Last[variant], seq)
}

// lastSeq returns the highest seq that a variant ever had.
func lastSeq(t *trusted, variant string) (last uint64) {
	for _, meta := range t.Targets {
		last = max(last, oursOf(meta).Last[variant])
	}
	for name, at := range resolve(t) {
		if tg, _, err := parseTarget(name, at.file); err == nil && tg.Variant == variant {
			last = max(last, tg.Seq)
		}
	}
	return last
}
