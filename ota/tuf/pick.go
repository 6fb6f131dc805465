package tuf

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/fetch"
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

// target is a target file that the repository's keys vouch for.
type target struct {
	name       string
	kind       string
	id         release.ID
	hardware   []string
	info       *metadata.TargetFiles
	consistent bool // the file's name holds its digest
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
		return nil, fmt.Errorf("%s is for %s, this device is %q: %w", t.name, strings.Join(t.hardware, ", "), dev.Hardware, ota.ErrHardware)
	}
	r, err := v.release(t)
	if err != nil {
		return nil, err
	}
	locator, err := v.resolve(targetName(kindLocator, t.id))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	v.s.last = located{t.id, locator, time.Now()}
	return r, nil
}

// newest finds the release with the highest seq that the delegations allow.
func (v *view) newest(dev ota.Device) (target, error) {
	if err := release.CheckID(release.ID{Product: dev.Product, Variant: dev.Variant, Seq: 1}); err != nil {
		return target{}, err
	}
	folder := targetFolder(kindRelease, dev.Product, dev.Variant)
	seqs, err := v.list(folder)
	if err != nil {
		return target{}, err
	}
	for _, seq := range seqs[:min(len(seqs), maxCandidates)] {
		t, err := v.resolve(folder + strconv.FormatUint(seq, 10) + ".json")
		if !errors.Is(err, fs.ErrNotExist) {
			return t, err
		}
	}
	return target{}, fmt.Errorf("%s %s: %w", dev.Product, dev.Variant, ota.ErrNoRelease)
}

// list returns the seqs of all targets in folder, from the highest down. Roles
// that are delegated to by a pattern of paths are asked too; hashed bins
// cannot be, as they do not say what they hold.
func (v *view) list(folder string) ([]uint64, error) {
	set := v.set
	if v.delegates() {
		_, walked, err := v.walk(folder + "0.json") // no release has seq 0: this visits all roles
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if err := v.keep(walked); err != nil {
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

func (v *view) delegates() bool {
	return v.set.Targets[metadata.TARGETS].Signed.Delegations != nil
}

// resolve returns what the role that may speak for a target says of it.
func (v *view) resolve(name string) (target, error) {
	info, err := v.set.Targets[metadata.TARGETS].Signed.Targets[name], error(nil)
	if v.delegates() {
		info, _, err = v.walk(name)
	} else if info == nil {
		err = fmt.Errorf("target %s: %w", name, fs.ErrNotExist)
	}
	if err != nil {
		return target{}, err
	}
	t := target{name: name, info: info, consistent: v.set.Root.Signed.ConsistentSnapshot}
	return t, t.describe()
}

// describe reads the custom data, which has to agree with the name.
func (t *target) describe() error {
	var c custom
	if t.info.Custom == nil || json.Unmarshal(*t.info.Custom, &c) != nil {
		return fmt.Errorf("%w: target %s does not say what it is", ErrUntrusted, t.name)
	}
	t.kind, t.id, t.hardware = c.Pawl.Kind, c.Pawl.ID, c.Pawl.Hardware
	for _, k := range []kind{kindRelease, kindLocator} {
		if k.word == t.kind && targetName(k, t.id) == t.name {
			return nil
		}
	}
	return fmt.Errorf("%w: target %s says that it is %.20q %s %s seq %d", ErrUntrusted, t.name, t.kind, t.id.Product, t.id.Variant, t.id.Seq)
}

// file is where the repository holds the target.
func (t *target) file() (string, error) {
	sum := t.info.Hashes["sha256"]
	if len(sum) != len(release.Digest{}) {
		return "", fmt.Errorf("%w: target %s has no SHA-256 digest", ErrUntrusted, t.name)
	}
	if !t.consistent {
		return "targets/" + t.name, nil
	}
	folder, base := path.Split(t.name)
	return "targets/" + folder + release.Digest(sum).String() + "." + base, nil
}

// read brings a target's bytes and checks them.
func (s *Source) read(ctx context.Context, t target, limit int64) ([]byte, error) {
	file, err := t.file()
	if err != nil {
		return nil, err
	}
	if t.info.Length < 0 || t.info.Length > limit {
		return nil, fmt.Errorf("%w: target %s has %d bytes, %d are allowed", ErrTooLarge, t.name, t.info.Length, limit)
	}
	data, err := s.readAll(ctx, part{name: escape(file), length: -1, max: max(1, t.info.Length), cause: fetch.Metadata})
	switch {
	case errors.Is(err, fetch.ErrTooLong), err == nil && int64(len(data)) != t.info.Length:
		return nil, fmt.Errorf("%w: %w: target %s was signed with %d bytes", ErrUntrusted, ota.ErrLength, t.name, t.info.Length)
	case err != nil:
		return nil, err
	case t.info.VerifyLengthHashes(data) != nil:
		return nil, fmt.Errorf("%w: %w: target %s", ErrUntrusted, ota.ErrDigest, t.name)
	}
	return data, nil
}

// release reads a release document, which has to say the same as the target,
// and as ever before.
func (v *view) release(t target) (*release.Release, error) {
	data, err := v.s.read(v.ctx, t, release.MaxRelease)
	if err != nil {
		return nil, err
	}
	r, err := release.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("target %s: %w", t.name, err)
	}
	if t.kind != kindRelease.word || r.ID != t.id || !slices.Equal(r.Hardware, t.hardware) {
		return nil, fmt.Errorf("%w: target %s holds a release of %s %s seq %d for %q", ErrUntrusted, t.name, r.Product, r.Variant, r.Seq, r.Hardware)
	}
	sum := release.Sum(data)
	seen := v.trust.Marks.Seen
	if old, ok := seen[t.name]; ok && old != sum {
		return nil, fmt.Errorf("%w: target %s was %s, and is %s now", ErrReplaced, t.name, old.Short(), sum.Short())
	}
	if seen == nil {
		v.trust.Marks.Seen = map[string]release.Digest{}
	}
	v.trust.Marks.Seen[t.name] = sum
	return r, nil
}

// locator reads the locator of r.
func (s *Source) locator(ctx context.Context, t target, r *release.Release) (*release.Locator, error) {
	data, err := s.read(ctx, t, release.MaxLocator)
	if err != nil {
		return nil, err
	}
	l, err := release.ParseLocator(data)
	if err != nil {
		return nil, fmt.Errorf("target %s: %w", t.name, err)
	}
	if t.kind != kindLocator.word || l.ID != r.ID || l.Release != r.Digest() {
		return nil, fmt.Errorf("%w: target %s is not the locator of that release", ErrUntrusted, t.name)
	}
	return l, nil
}
