package tuf

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/pawl-ota/pawl/internal/seam"
	"github.com/pawl-ota/pawl/ota/fetch"
	"github.com/pawl-ota/pawl/ota/release"
)

// The trust store is two files, each replaced as a whole in one synced step,
// each with a checksum over all of it:
//
//	marks   what was seen: versions, times, digests; small
//	trust   the same marks, and the metadata files themselves
//
// marks is written first. Generations rise; the newer readable marks count. So
// damage to either file loses no mark, and a power cut between the two leaves
// marks that are at most ahead of the files, which the next lookup makes good. A file
// that is damaged is set aside under NAME.damaged, for people.
const (
	marksFile = "marks"
	trustFile = "trust"

	storeFormat = "pawl-trust/0"
	maxStore    = 64 << 20 // bytes of a file of the store
	maxSeen     = 64       // releases whose digest is remembered
	maxLineage  = 32       // roots whose digest is remembered
	maxDocument = 64 << 10 // bytes of a release document that is kept
)

// trust is the content of the trust store.
type trust struct {
	Marks marks `json:"marks"`
	// Roots are the verified roots from the pinned one on, oldest first.
	Roots [][]byte `json:"roots,omitempty"`
	// Roles are the verified files of the other roles, by role.
	Roles map[string][]byte `json:"roles,omitempty"`
	// Timestamp is what a server calls the file of that role.
	Timestamp *tag `json:"timestampTag,omitempty"`
	// Document is the release document that was read last.
	Document []byte `json:"document,omitempty"`
}

// tag is what a server calls a file, so that it need not send it again. It is
// no evidence of anything: what it stands for is verified as if it had come.
type tag struct {
	Of   release.Digest `json:"of"`   // of the file
	From release.Digest `json:"from"` // of the server's URL
	fetch.Tag
}

// of returns the tag of a stored file, for the server at a URL.
func (t *tag) of(from release.Digest, stored []byte) fetch.Tag {
	if t == nil || t.From != from || stored == nil || t.Of != release.Sum(stored) {
		return fetch.Tag{}
	}
	return t.Tag
}

// note keeps the tag of the timestamp that is stored, once for each: no server
// can have the device write at every lookup.
func (t *trust) note(now *tag) {
	stored := t.Roles[metadata.TIMESTAMP]
	if now != nil && now.of(now.From, stored) != (fetch.Tag{}) && t.Timestamp.of(now.From, stored) == (fetch.Tag{}) {
		t.Timestamp = now
	}
}

// marks are what a device never goes below.
type marks struct {
	Generation uint64 `json:"generation"`
	// Lineage holds the digests of verified roots. Marks count for a pinned
	// root that leads to one of them.
	Lineage []release.Digest `json:"lineage,omitempty"`
	Root    int64            `json:"root,omitempty"` // the highest version
	// Timestamp and Snapshot are the highest versions, and Issued the newest
	// time, that the timestamp role signed, and TimestampKeys the ids of its
	// keys then.
	Timestamp     int64    `json:"timestamp,omitempty"`
	Snapshot      int64    `json:"snapshot,omitempty"`
	Issued        int64    `json:"issued,omitempty"` // Unix time
	TimestampKeys []string `json:"timestampKeys,omitempty"`
	// Roles are the highest versions that the snapshot role signed, by file,
	// and SnapshotKeys the ids of its keys then.
	Roles        map[string]int64 `json:"roles,omitempty"`
	SnapshotKeys []string         `json:"snapshotKeys,omitempty"`
	// Seen are the digests of release documents, by target name.
	Seen map[string]release.Digest `json:"seen,omitempty"`
}

// seal encodes v as a file of the store: "FORMAT DIGEST\nJSON".
func seal(v any) ([]byte, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	head := storeFormat + " " + checksum([]byte(storeFormat), data) + "\n"
	return append([]byte(head), data...), nil
}

// checksum covers the format too: a damaged file must not look like one of the
// future.
func checksum(format, data []byte) string {
	return release.Sum(slices.Concat(format, []byte("\n"), data)).String()
}

var errDamaged = errors.New("the file is damaged")

// unseal is the reverse of seal. A file of another format is an ErrStore.
func unseal(file []byte, v any) error {
	head, data, ok := bytes.Cut(file, []byte("\n"))
	format, sum, ok2 := bytes.Cut(head, []byte(" "))
	if !ok || !ok2 || string(sum) != checksum(format, data) {
		return errDamaged
	}
	if string(format) != storeFormat {
		return fmt.Errorf("%w: format %.40q", ErrStore, format)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return errDamaged
	}
	return nil
}

// load reads the trust store and heals it: what is damaged is set aside, and
// what of it is lost comes back from the repository. whole is what save compares
// with; it is nil when a file has to be written anew in any case. Where both
// files are there and the drive gives neither, nothing is known of what was seen,
// and that is an error.
func load(dir seam.Dir) (t trust, whole []byte, err error) {
	var m marks
	noTrust, noMarks := loadFile(dir, trustFile, &t), loadFile(dir, marksFile, &m)
	for _, err := range []error{noTrust, noMarks} {
		if errors.Is(err, ErrStore) || noTrust != nil && noMarks != nil {
			return trust{}, nil, err
		}
	}
	same := m.Generation == t.Marks.Generation
	if m.Generation > t.Marks.Generation {
		t.Marks = m
	}
	t.dropUnreadable()
	if same {
		whole, err = json.Marshal(t)
	}
	return t, whole, err
}

func loadFile[T any](dir seam.Dir, name string, v *T) error {
	size, err := dir.Size(name)
	if err == nil && size > maxStore {
		return dir.Remove(name) // nobody wrote that on purpose
	}
	var data []byte
	if err == nil {
		data, err = dir.ReadFile(name, maxStore)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot read the trust store: %w", err)
	}
	err = unseal(data, v)
	if !errors.Is(err, errDamaged) {
		return err
	}
	*v = *new(T)
	if err := dir.WriteFile(name+".damaged", data); err != nil {
		return fmt.Errorf("cannot set a damaged file of the trust store aside: %w", err)
	}
	return dir.Remove(name)
}

// dropUnreadable drops role files of another type than go-tuf expects under
// the role's name: it would stumble over them for ever (go-tuf issue 781).
func (t *trust) dropUnreadable() {
	maps.DeleteFunc(t.Roles, func(role string, data []byte) bool {
		var file struct {
			Signed struct {
				Type string `json:"_type"`
			} `json:"signed"`
		}
		want := metadata.TARGETS
		if role == metadata.TIMESTAMP || role == metadata.SNAPSHOT {
			want = role
		}
		return json.Unmarshal(data, &file) != nil || file.Signed.Type != want
	})
}

// forget drops the files of roles that the snapshot does not list any more.
func (t *trust) forget(now *metadata.Metadata[metadata.SnapshotType]) {
	maps.DeleteFunc(t.Roles, func(role string, _ []byte) bool {
		return role != metadata.TIMESTAMP && role != metadata.SNAPSHOT && now.Signed.Meta[role+".json"] == nil
	})
}

// save writes t where it differs from whole, as the next generation.
func (t *trust) save(dir seam.Dir, whole []byte) error {
	t.Marks.trim()
	t.fit(maxStore / 2) // JSON takes four bytes for three
	if now, err := json.Marshal(t); err != nil || bytes.Equal(now, whole) {
		return err
	}
	t.Marks.Generation++
	for _, f := range []struct {
		name  string
		value any
	}{{marksFile, t.Marks}, {trustFile, t}} {
		data, err := seal(f.value)
		if err == nil {
			err = dir.WriteFile(f.name, data)
		}
		if err != nil {
			return fmt.Errorf("cannot write the trust store: %w", err)
		}
	}
	return nil
}

// fit drops files until the rest has at most max bytes: they are in the
// repository too. The marks stay.
func (t *trust) fit(max int) {
	size := 0
	for _, data := range t.Roots {
		size += len(data)
	}
	for _, data := range t.Roles {
		size += len(data)
	}
	for _, role := range slices.Sorted(maps.Keys(t.Roles)) {
		if size > max {
			size -= len(t.Roles[role])
			delete(t.Roles, role)
		}
	}
	if size > max {
		t.Roots = nil
	}
}

// trim keeps the marks small: of releases the ones with the highest seqs.
func (m *marks) trim() {
	if n := len(m.Lineage) - maxLineage; n > 0 {
		m.Lineage = m.Lineage[n:]
	}
	names := slices.SortedFunc(maps.Keys(m.Seen), func(a, b string) int {
		_, x, _ := parseTarget(a)
		_, y, _ := parseTarget(b)
		return cmp.Compare(y, x)
	})
	for i, name := range names {
		if i >= maxSeen {
			delete(m.Seen, name)
		}
	}
}
