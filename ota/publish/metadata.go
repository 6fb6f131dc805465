package publish

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
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

// trusted is the metadata of a repository, verified from a root.
type trusted = trustedmetadata.TrustedMetadata

func rootName(version int64) string     { return fmt.Sprintf("metadata/%d.root.json", version) }
func targetsName(version int64) string  { return fmt.Sprintf("metadata/%d.targets.json", version) }
func snapshotName(version int64) string { return fmt.Sprintf("metadata/%d.snapshot.json", version) }

const timestampName = "metadata/timestamp.json"

// load reads and verifies the metadata as a client does that trusts root, or
// the repository's first root where that is nil. Nothing may have expired at
// the time at; the zero time lets everything pass.
func (d *disk) load(root []byte, at time.Time) (*trusted, error) {
	if root == nil {
		var err error
		if root, err = d.readFile(rootName(1), maxMetadata); err != nil {
			return nil, fmt.Errorf("%w in %s: %w", ErrNoRepository, d.dir, err)
		}
	}
	t, err := trustedmetadata.New(root)
	if err != nil {
		return nil, fmt.Errorf("cannot trust the root: %w", err)
	}
	t.RefTime = at
	if err := d.loadRoots(t); err != nil {
		return nil, err
	}
	data, err := d.readFile(timestampName, maxMetadata)
	if err != nil {
		return nil, fmt.Errorf("%w in %s: %w", ErrNoRepository, d.dir, err)
	}
	if _, err = t.UpdateTimestamp(data); err != nil {
		return nil, fmt.Errorf("cannot trust %s: %w", timestampName, err)
	}
	name := snapshotName(t.Timestamp.Signed.Meta["snapshot.json"].Version)
	if data, err = d.readFile(name, maxMetadata); err == nil {
		_, err = t.UpdateSnapshot(data, false)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot trust %s: %w", name, err)
	}
	name = targetsName(t.Snapshot.Signed.Meta["targets.json"].Version)
	if data, err = d.readFile(name, maxMetadata); err == nil {
		_, err = t.UpdateTargets(data)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot trust %s: %w", name, err)
	}
	return t, nil
}

func (d *disk) loadRoots(t *trusted) error {
	for range maxRoots {
		name := rootName(t.Root.Signed.Version + 1)
		data, err := d.readFile(name, maxMetadata)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			_, err = t.UpdateRoot(data)
		}
		if err != nil {
			return fmt.Errorf("cannot trust %s: %w", name, err)
		}
	}
	return fmt.Errorf("more than %d roots", maxRoots)
}

func targetsOf(t *trusted) *metadata.Metadata[metadata.TargetsType] {
	return t.Targets[metadata.TARGETS]
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

// seal signs meta and returns its file, and what a role above says about it.
func seal[T metadata.Roles](meta *metadata.Metadata[T], role Role, name string, version int64, t *trusted, keys Keys) (sealed, *metadata.MetaFiles, error) {
	if err := sign(meta, role, &t.Root.Signed, keys); err != nil {
		return sealed{}, nil, err
	}
	data, err := meta.ToBytes(false)
	if err != nil {
		return sealed{}, nil, err
	}
	d := release.Sum(data)
	return sealed{name, data}, &metadata.MetaFiles{Version: version, Length: int64(len(data)), Hashes: metadata.Hashes{"sha256": d[:]}}, nil
}

// resign signs the roles from the given one on upwards to the timestamp, and
// writes them, the timestamp last. Nothing is written when a key is missing.
func (r *Repository) resign(t *trusted, lowest Role, now time.Time) error {
	var files []sealed
	lifetime := r.opts.Lifetimes
	if lowest == Targets {
		m := targetsOf(t)
		m.Signed.Version++
		m.Signed.Expires = now.Add(lifetime.Targets)
		file, meta, err := seal(m, Targets, targetsName(m.Signed.Version), m.Signed.Version, t, r.opts.Keys)
		if err != nil {
			return err
		}
		t.Snapshot.Signed.Meta["targets.json"] = meta
		files = append(files, file)
	}
	if lowest == Targets || lowest == Snapshot {
		m := t.Snapshot
		m.Signed.Version++
		m.Signed.Expires = now.Add(lifetime.Snapshot)
		file, meta, err := seal(m, Snapshot, snapshotName(m.Signed.Version), m.Signed.Version, t, r.opts.Keys)
		if err != nil {
			return err
		}
		t.Timestamp.Signed.Meta["snapshot.json"] = meta
		files = append(files, file)
	}
	m := t.Timestamp
	m.Signed.Version++
	m.Signed.Expires = now.Add(lifetime.Timestamp)
	m.Signed.UnrecognizedFields = map[string]any{"issued": now.Format(time.RFC3339)}
	file, _, err := seal(m, Timestamp, timestampName, m.Signed.Version, t, r.opts.Keys)
	if err != nil {
		return err
	}
	for _, f := range append(files, file) {
		if err := r.disk.writeFile(f.name, f.data); err != nil {
			return err
		}
	}
	return nil
}
