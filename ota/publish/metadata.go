package publish

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"

	"github.com/pawl-ota/pawl/ota/release"
)

const (
	// maxMetadata is the longest metadata file in bytes.
	maxMetadata = 16 << 20
	// maxRoots bounds the chain of roots.
	maxRoots = 4096
)

// ErrNoRepository is returned for a folder that holds no repository.
var ErrNoRepository = errors.New("no repository")

type (
	rootMeta    = metadata.Metadata[metadata.RootType]
	targetsMeta = metadata.Metadata[metadata.TargetsType]
	targetFile  = metadata.TargetFiles
)

// trusted is the metadata of a repository, verified from a root.
type trusted struct {
	*trustedmetadata.TrustedMetadata
	roots [][]byte        // the files, from the root that was trusted first
	chain []*rootMeta     // what is in them
	files map[Role][]byte // of targets and of the roles that it delegates to
}

const timestampName = "metadata/timestamp.json"

// roleName returns the name of the file of a role but timestamp.
func roleName(role Role, version int64) string {
	return fmt.Sprintf("metadata/%d.%s.json", version, role)
}

// load reads and verifies the metadata as a client does that trusts root, or
// the repository's first root where that is nil, delegated roles included.
// Nothing may have expired at the time at; the zero time lets everything pass.
func (d *disk) load(root []byte, at time.Time) (*trusted, error) {
	if root == nil {
		var err error
		if root, err = d.readFile(roleName(Root, 1), maxMetadata); err != nil {
			return nil, fmt.Errorf("%w in %s: %w", ErrNoRepository, d.dir, err)
		}
	}
	t, err := trustRoot(root)
	if err != nil {
		return nil, err
	}
	t.RefTime = at
	if err := d.loadRoots(t); err != nil {
		return nil, err
	}
	data, err := d.readFile(timestampName, maxMetadata)
	if err != nil {
		return nil, fmt.Errorf("%w in %s: %w", ErrNoRepository, d.dir, err)
	}
	if err = guarded(func() error { _, err := t.UpdateTimestamp(data); return err }); err != nil {
		return nil, fmt.Errorf("cannot trust %s: %w", timestampName, err)
	}
	name := roleName(Snapshot, versionOf(t.Timestamp.Signed.Meta, Snapshot))
	if data, err = d.readFile(name, maxMetadata); err == nil {
		err = guarded(func() error { _, err := t.UpdateSnapshot(data, false); return err })
	}
	if err != nil {
		return nil, fmt.Errorf("cannot trust %s: %w", name, err)
	}
	if err := d.loadTargets(t, Targets, Root); err != nil {
		return nil, err
	}
	for _, role := range delegations(t) {
		if err := d.loadTargets(t, Role(role.Name), Targets); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func trustRoot(data []byte) (*trusted, error) {
	t := &trusted{files: map[Role][]byte{}}
	err := guarded(func() (err error) {
		t.TrustedMetadata, err = trustedmetadata.New(data)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot trust the root: %w", err)
	}
	t.roots, t.chain = [][]byte{data}, []*rootMeta{t.Root}
	return t, nil
}

// follow takes the next root.
func (t *trusted) follow(data []byte) error {
	err := guarded(func() error { _, err := t.UpdateRoot(data); return err })
	if err == nil {
		t.roots, t.chain = append(t.roots, data), append(t.chain, t.Root)
	}
	return err
}

func (d *disk) loadRoots(t *trusted) error {
	for range maxRoots {
		name := roleName(Root, t.Root.Signed.Version+1)
		data, err := d.readFile(name, maxMetadata)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			err = t.follow(data)
		}
		if err != nil {
			return fmt.Errorf("cannot trust %s: %w", name, err)
		}
	}
	return fmt.Errorf("more than %d roots", maxRoots)
}

// loadTargets reads targets, or a role that it delegates to.
func (d *disk) loadTargets(t *trusted, role, by Role) error {
	name := roleName(role, versionOf(t.Snapshot.Signed.Meta, role))
	data, err := d.readFile(name, maxMetadata)
	if err == nil {
		err = guarded(func() error { _, err := t.UpdateDelegatedTargets(data, string(role), string(by)); return err })
	}
	if err != nil {
		return fmt.Errorf("cannot trust %s: %w", name, err)
	}
	t.files[role] = data
	return nil
}

// versionOf returns the version of a role's file that the file above it names;
// 0 for none.
func versionOf(meta map[string]*metadata.MetaFiles, role Role) int64 {
	if f := meta[string(role)+".json"]; f != nil {
		return f.Version
	}
	return 0
}

func targetsOf(t *trusted) *targetsMeta { return t.Targets[metadata.TARGETS] }

// delegations returns the roles that targets delegates to.
func delegations(t *trusted) []metadata.DelegatedRole {
	if d := targetsOf(t).Signed.Delegations; d != nil {
		return d.Roles
	}
	return nil
}

// ours is what this package notes in the signed part of targets and of roles
// that it delegates to.
type ours struct {
	Product string `json:"product,omitempty"` // in targets only
	// Last holds the highest seq of a variant, where the release itself is
	// listed no more: a seq is never given twice.
	Last map[string]uint64 `json:"last,omitempty"`
}

func oursOf(meta *targetsMeta) (o ours) {
	data, err := json.Marshal(meta.Signed.UnrecognizedFields["pawl"])
	if err != nil || json.Unmarshal(data, &o) != nil {
		return ours{}
	}
	return o
}

func (o ours) set(meta *targetsMeta) {
	if meta.Signed.UnrecognizedFields == nil {
		meta.Signed.UnrecognizedFields = map[string]any{}
	}
	meta.Signed.UnrecognizedFields["pawl"] = o
}

// target is what the custom field of a target says.
type target struct {
	Kind     string   `json:"kind"`
	Product  string   `json:"product"`
	Variant  string   `json:"variant"`
	Seq      uint64   `json:"seq"`
	Hardware []string `json:"hardware,omitempty"`
	Version  string   `json:"version"`
	Attempt  uint32   `json:"attempt,omitempty"`
}

// The kinds of target.
const (
	kindRelease = "release"
	kindLocator = "locator"
)

// name returns the name of the target in the metadata.
func (t target) name() string {
	return fmt.Sprintf("%ss/%s/%s/%d.json", t.Kind, t.Product, t.Variant, t.Seq)
}

// file returns the name in the repository of the file with that digest.
func (t target) file(d release.Digest) string {
	return fmt.Sprintf("targets/%ss/%s/%s/%s.%d.json", t.Kind, t.Product, t.Variant, d, t.Seq)
}

func (t target) id() release.ID {
	return release.ID{Product: t.Product, Variant: t.Variant, Seq: t.Seq}
}

// addTo adds the target with that content to the metadata.
func (t target) addTo(meta *metadata.TargetsType, data []byte) error {
	custom, err := json.Marshal(map[string]target{"pawl": t})
	if err != nil {
		return err
	}
	raw, d := json.RawMessage(custom), release.Sum(data)
	meta.Targets[t.name()] = &metadata.TargetFiles{
		Length: int64(len(data)),
		Hashes: metadata.Hashes{"sha256": d[:]},
		Custom: &raw,
		Path:   t.name(),
	}
	return nil
}

// parseTarget reads the custom field of the target name.
func parseTarget(name string, file *metadata.TargetFiles) (target, release.Digest, error) {
	var custom struct {
		Pawl target `json:"pawl"`
	}
	var d release.Digest
	if file.Custom == nil || len(file.Hashes["sha256"]) != len(d) {
		return target{}, d, fmt.Errorf("%s: not a target of pawl", name)
	}
	if err := json.Unmarshal(*file.Custom, &custom); err != nil {
		return target{}, d, fmt.Errorf("%s: %w", name, err)
	}
	if custom.Pawl.name() != name {
		return target{}, d, fmt.Errorf("%s: says of itself that it is %s", name, custom.Pawl.name())
	}
	return custom.Pawl, release.Digest(file.Hashes["sha256"]), nil
}

// sealed is a metadata file that is ready to be written.
type sealed struct {
	name string
	data []byte
}

// longest is what a device takes of a metadata file, in bytes, where its limits
// are those that package tuf sets by itself.
func longest(name string) int {
	switch {
	case name == timestampName:
		return 16 << 10
	case strings.HasSuffix(name, "."+string(Root)+".json"):
		return 128 << 10
	case strings.HasSuffix(name, "."+string(Snapshot)+".json"):
		return 512 << 10
	default:
		return 4 << 20
	}
}

// seal returns the file of meta, and what the file above says about it.
func seal[T metadata.Roles](meta *metadata.Metadata[T], name string, version int64) (sealed, *metadata.MetaFiles, error) {
	data, err := meta.ToBytes(false)
	if err != nil {
		return sealed{}, nil, err
	}
	if most := longest(name); len(data) > most {
		return sealed{}, nil, fmt.Errorf("%s would have %d bytes, and devices take at most %d: drop releases that nobody needs", name, len(data), most)
	}
	d := release.Sum(data)
	return sealed{name, data}, &metadata.MetaFiles{Version: version, Length: int64(len(data)), Hashes: metadata.Hashes{"sha256": d[:]}}, nil
}
