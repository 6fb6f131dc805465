package tuf

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// kind is what a target is. Names of targets are "FOLDER/PRODUCT/VARIANT/SEQ.json".
type kind struct{ word, folder string }

var (
	kindRelease = kind{"release", "releases"}
	kindLocator = kind{"locator", "locators"}
)

// maxCandidates bounds how many releases are looked at that some role lists but
// may not.
const maxCandidates = 32

// document is a target that says of itself what it is.
type document struct {
	*Target
	kind     string
	id       release.ID
	hardware []string
}

// custom is what a publisher says of a target besides digest and length.
type custom struct {
	Pawl struct {
		Kind string `json:"kind"`
		release.ID
		Hardware []string `json:"hardware"`
	} `json:"pawl"`
}

func targetFolder(k kind, product, variant string) string {
	return k.folder + "/" + product + "/" + variant + "/"
}

func targetName(k kind, id release.ID) string {
	return targetFolder(k, id.Product, id.Variant) + strconv.FormatUint(id.Seq, 10) + ".json"
}

// parseTarget takes the name of a target apart. A seq has one spelling.
func parseTarget(name string) (folder string, seq uint64, ok bool) {
	folder, base := path.Split(name)
	text, ok := strings.CutSuffix(base, ".json")
	seq, err := strconv.ParseUint(text, 10, 53)
	return folder, seq, ok && err == nil && seq > 0 && strconv.FormatUint(seq, 10) == text
}

// latest returns the newest release for dev, and remembers its locator.
func (v *view) latest(dev ota.Device) (*release.Release, error) {
	t, err := v.newest(dev)
	if err != nil {
		return nil, err
	}
	if len(t.hardware) > 0 && !slices.Contains(t.hardware, dev.Hardware) {
		return nil, fmt.Errorf("%s is for %s, this device is %q: %w", t.Name, strings.Join(t.hardware, ", "), dev.Hardware, ota.ErrHardware)
	}
	locator, lost := v.document(targetName(kindLocator, t.id))
	var beside part
	if lost == nil {
		beside = v.besideRelease(t, locator)
	}
	r, err := v.release(t)
	if err != nil {
		return nil, err
	}
	if lost != nil && !isNoTarget(lost) {
		return nil, lost
	}
	v.s.last = located{t.id, locator, v.roles.ahead.linger(beside, v.begin), time.Now()}
	return r, nil
}

// besideRelease has a locator come while its release is read. Of a release that
// was read before it does not: the device has decided about that one.
func (v *view) besideRelease(t, locator document) part {
	p, err := locator.part()
	if v.roles.early && err == nil && locator.Length <= maxDocument && !v.has(t) {
		v.roles.ahead.fetch(p)
	}
	return p
}

// has reports whether the release document that came last is t.
func (v *view) has(t document) bool {
	data := v.trust.Document
	return int64(len(data)) == t.Length && t.Check(data) == nil
}

// newest finds the release with the highest seq that the delegations allow.
func (v *view) newest(dev ota.Device) (document, error) {
	if err := release.CheckID(release.ID{Product: dev.Product, Variant: dev.Variant, Seq: 1}); err != nil {
		return document{}, err
	}
	folder := targetFolder(kindRelease, dev.Product, dev.Variant)
	seqs, err := v.list(folder)
	if err != nil {
		return document{}, err
	}
	for _, seq := range seqs[:min(len(seqs), maxCandidates)] {
		t, err := v.document(folder + strconv.FormatUint(seq, 10) + ".json")
		if !isNoTarget(err) {
			return t, err
		}
	}
	return document{}, fmt.Errorf("%s %s: %w", dev.Product, dev.Variant, ota.ErrNoRelease)
}

// list returns the seqs of all targets in folder, from the highest down. Roles
// that are delegated to by a pattern of paths are asked too; hashed bins
// cannot be, as they do not say what they hold.
func (v *view) list(folder string) ([]uint64, error) {
	set := v.set
	if v.delegates() {
		_, walked, err := v.walk(folder + "0.json") // no release has seq 0: this visits all roles
		if err != nil && !isNoTarget(err) {
			return nil, err
		}
		set = walked
	}
	var seqs []uint64
	for _, role := range set.Targets {
		for name := range role.Signed.Targets {
			if f, seq, ok := parseTarget(name); ok && f == folder {
				seqs = append(seqs, seq)
			}
		}
	}
	slices.Sort(seqs)
	seqs = slices.Compact(seqs)
	slices.Reverse(seqs)
	return seqs, nil
}

// document returns the target of that name as what it says it is.
func (v *view) document(name string) (document, error) {
	t, err := v.resolve(name)
	if err != nil {
		return document{}, err
	}
	d := document{Target: t}
	return d, d.describe()
}

// describe reads the custom data, which has to agree with the name.
func (d *document) describe() error {
	if len(d.info.Hashes["sha256"]) != len(release.Digest{}) {
		return fmt.Errorf("%w: target %s has no SHA-256 digest", ErrUntrusted, d.Name)
	}
	var c custom
	if d.info.Custom == nil || json.Unmarshal(*d.info.Custom, &c) != nil {
		return fmt.Errorf("%w: target %s does not say what it is", ErrUntrusted, d.Name)
	}
	d.kind, d.id, d.hardware = c.Pawl.Kind, c.Pawl.ID, c.Pawl.Hardware
	for _, k := range []kind{kindRelease, kindLocator} {
		if k.word == d.kind && targetName(k, d.id) == d.Name {
			return nil
		}
	}
	return fmt.Errorf("%w: target %s says that it is %.20q %s %s seq %d", ErrUntrusted, d.Name, d.kind, d.id.Product, d.id.Variant, d.id.Seq)
}

// release reads a release document, which has to say the same as the target,
// and as ever before.
func (v *view) release(t document) (*release.Release, error) {
	data, err := v.stored(t)
	if err != nil {
		return nil, err
	}
	r, err := release.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("target %s: %w", t.Name, err)
	}
	if t.kind != kindRelease.word || r.ID != t.id || !slices.Equal(r.Hardware, t.hardware) {
		return nil, fmt.Errorf("%w: target %s holds a release of %s %s seq %d for %q", ErrUntrusted, t.Name, r.Product, r.Variant, r.Seq, r.Hardware)
	}
	sum := r.Identity() // the same release may come with a raised attempt
	seen := v.trust.Marks.Seen
	if old, ok := seen[t.Name]; ok && old != sum {
		return nil, fmt.Errorf("%w: target %s was %s, and is %s now", ErrReplaced, t.Name, old.Short(), sum.Short())
	}
	if seen == nil {
		v.trust.Marks.Seen = map[string]release.Digest{}
	}
	v.trust.Marks.Seen[t.Name] = sum
	return r, nil
}

// stored brings a release document, unless it is the one that came last.
func (v *view) stored(t document) ([]byte, error) {
	if v.has(t) {
		return v.trust.Document, nil
	}
	v.s.last.early = nil
	if p, err := t.part(); err == nil {
		if e := v.roles.ahead.wait(p); e != nil {
			v.s.last.early = e.data
		}
	}
	data, err := v.s.read(v.ctx, t.Target, release.MaxRelease)
	if err == nil && len(data) <= maxDocument {
		v.trust.Document = data
	}
	return data, err
}

// locator reads the locator of r.
func (s *Source) locator(ctx context.Context, t document, r *release.Release) (*release.Locator, error) {
	data, err := s.read(ctx, t.Target, release.MaxLocator)
	if err != nil {
		return nil, err
	}
	l, err := release.ParseLocator(data)
	if err != nil {
		return nil, fmt.Errorf("target %s: %w", t.Name, err)
	}
	if t.kind != kindLocator.word || l.ID != r.ID || l.Release != r.Digest() {
		return nil, fmt.Errorf("%w: target %s is not the locator of that release", ErrUntrusted, t.Name)
	}
	return l, nil
}
