package tuf_test

import (
	"crypto/ed25519"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/stretchr/testify/require"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/fetch"
	"github.com/pawl-ota/pawl/ota/release"
	"github.com/pawl-ota/pawl/ota/tuf"
)

var (
	today  = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	device = ota.Device{ID: "7", Product: "kiosk", Variant: "arm", Hardware: "rev-b"}
)

const day = 24 * time.Hour

// maker is a publisher who can also make every mistake.
type maker struct {
	t    testing.TB
	dir  string
	keys map[string][]signature.Signer

	root      *metadata.Metadata[metadata.RootType]
	targets   *metadata.Metadata[metadata.TargetsType]
	snapshot  *metadata.Metadata[metadata.SnapshotType]
	timestamp *metadata.Metadata[metadata.TimestampType]
	delegated map[string]*metadata.Metadata[metadata.TargetsType]
	pinned    []byte
	issued    time.Time
	enclosed  []release.Enclosed // by the timestamp
}

func newMaker(t testing.TB) *maker {
	m := &maker{
		t: t, dir: t.TempDir(), keys: map[string][]signature.Signer{}, issued: today,
		root: metadata.Root(today.Add(1000 * day)), targets: metadata.Targets(today.Add(300 * day)),
		snapshot: metadata.Snapshot(today.Add(90 * day)), timestamp: metadata.Timestamp(today.Add(90 * day)),
		delegated: map[string]*metadata.Metadata[metadata.TargetsType]{},
	}
	for _, role := range metadata.TOP_LEVEL_ROLE_NAMES {
		m.addKey(role)
	}
	m.addKey(metadata.ROOT)
	m.root.Signed.Roles[metadata.ROOT].Threshold = 2
	m.pinned = m.writeRoot()
	m.publish()
	return m
}

func newKey(t testing.TB) (signature.Signer, *metadata.Key) {
	public, private, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	signer, err := signature.LoadED25519Signer(private)
	require.NoError(t, err)
	key, err := metadata.KeyFromPublicKey(public)
	require.NoError(t, err)
	return signer, key
}

func (m *maker) addKey(role string) {
	signer, key := newKey(m.t)
	m.keys[role] = append(m.keys[role], signer)
	require.NoError(m.t, m.root.Signed.AddKey(key, role))
}

// replaceKeys gives a role a new key instead of its old ones.
func (m *maker) replaceKeys(role string) {
	for _, id := range slices.Clone(m.root.Signed.Roles[role].KeyIDs) {
		require.NoError(m.t, m.root.Signed.RevokeKey(id, role))
	}
	m.keys[role] = nil
	m.addKey(role)
}

func encodeSigned[T metadata.Roles](m *maker, meta *metadata.Metadata[T], signers ...signature.Signer) []byte {
	meta.ClearSignatures()
	for _, s := range signers {
		_, err := meta.Sign(s)
		require.NoError(m.t, err)
	}
	data, err := meta.ToBytes(false)
	require.NoError(m.t, err)
	return data
}

func (m *maker) write(name string, data []byte) []byte {
	file := filepath.Join(m.dir, filepath.FromSlash(name))
	require.NoError(m.t, os.MkdirAll(filepath.Dir(file), 0o755))
	require.NoError(m.t, os.WriteFile(file, data, 0o644))
	return data
}

func (m *maker) writeRoot(also ...signature.Signer) []byte {
	data := encodeSigned(m, m.root, append(also, m.keys[metadata.ROOT]...)...)
	return m.write("metadata/"+strconv.FormatInt(m.root.Signed.Version, 10)+".root.json", data)
}

// rotate writes the next root, signed by the keys of the present one too.
func (m *maker) rotate(change func()) {
	old := slices.Clone(m.keys[metadata.ROOT])
	change()
	m.root.Signed.Version++
	m.writeRoot(slices.DeleteFunc(old, func(s signature.Signer) bool { return slices.Contains(m.keys[metadata.ROOT], s) })...)
}

// publish writes new versions of targets, snapshot and timestamp.
func (m *maker) publish() {
	meta := map[string]*metadata.MetaFiles{}
	for name, role := range m.delegated {
		role.Signed.Version++
		m.writeTargets(name, role)
		meta[name+".json"] = metadata.MetaFile(role.Signed.Version)
	}
	m.targets.Signed.Version++
	m.writeTargets(metadata.TARGETS, m.targets)
	meta["targets.json"] = metadata.MetaFile(m.targets.Signed.Version)
	m.snapshot.Signed.Meta = meta
	m.snapshot.Signed.Version++
	m.writeSnapshot()
	m.refresh()
}

func (m *maker) writeTargets(name string, role *metadata.Metadata[metadata.TargetsType]) {
	data := encodeSigned(m, role, m.keys[name]...)
	m.write("metadata/"+strconv.FormatInt(role.Signed.Version, 10)+"."+name+".json", data)
}

func (m *maker) writeSnapshot() {
	data := encodeSigned(m, m.snapshot, m.keys[metadata.SNAPSHOT]...)
	m.write("metadata/"+strconv.FormatInt(m.snapshot.Signed.Version, 10)+".snapshot.json", data)
}

// refresh writes a new timestamp.
func (m *maker) refresh() {
	m.timestamp.Signed.Version++
	m.timestamp.Signed.Meta["snapshot.json"] = metadata.MetaFile(m.snapshot.Signed.Version)
	m.writeTimestamp()
}

func (m *maker) writeTimestamp() {
	stored, err := release.EncodeEnclosed(m.enclosed)
	require.NoError(m.t, err)
	m.timestamp.Signed.UnrecognizedFields = map[string]any{"issued": m.issued.Format(time.RFC3339), "enclosed": stored}
	m.write("metadata/timestamp.json", encodeSigned(m, m.timestamp, m.keys[metadata.TIMESTAMP]...))
}

// age makes everything but the root expire d after it was issued.
func (m *maker) age(issued time.Time, d time.Duration) {
	m.issued = issued
	m.targets.Signed.Expires = issued.Add(d)
	m.snapshot.Signed.Expires = issued.Add(d)
	m.timestamp.Signed.Expires = issued.Add(d)
}

// newRelease makes release seq for the device, with content at its locator.
func newRelease(seq uint64) *release.Release {
	return &release.Release{
		Format: release.Format, ID: release.ID{Product: device.Product, Variant: device.Variant, Seq: seq},
		Version: "1." + strconv.FormatUint(seq, 10), Hardware: []string{"rev-a", "rev-b"}, Issued: today,
		Components: []release.Component{{
			Name: "app", Kind: "files", Index: release.Blob{Digest: release.Sum([]byte("index")), Size: 5},
			Keep: release.Keep{Previous: 1, Repair: release.RepairNone},
		}},
	}
}

// add puts a release and its locator among the targets.
func (m *maker) add(r *release.Release) *release.Release {
	m.addTo(m.targets, r)
	return r
}

func (m *maker) addTo(role *metadata.Metadata[metadata.TargetsType], r *release.Release) {
	doc, err := r.Encode()
	require.NoError(m.t, err)
	pack, table := []byte("stored blobs of "+r.Version), []byte("table")
	l := &release.Locator{
		Format: release.LocatorFormat, ID: r.ID, Release: r.Digest(),
		Packs: []release.Pack{{Name: release.PackName(release.Sum(pack)), Size: int64(len(pack))}},
		Table: release.Blob{Digest: release.Sum(table), Size: int64(len(table))},
	}
	m.write(l.Packs[0].Name, pack)
	locator, err := l.Encode()
	require.NoError(m.t, err)
	m.put(role, "release", "releases", r, doc)
	m.put(role, "locator", "locators", r, locator)
}

func (m *maker) put(role *metadata.Metadata[metadata.TargetsType], kind, folder string, r *release.Release, data []byte) {
	m.target(role, path.Join(folder, r.Product, r.Variant, strconv.FormatUint(r.Seq, 10)+".json"), data, map[string]any{
		"kind": kind, "product": r.Product, "variant": r.Variant, "seq": r.Seq, "hardware": r.Hardware, "version": r.Version,
	})
}

// target signs any bytes under any name, with any custom data.
func (m *maker) target(role *metadata.Metadata[metadata.TargetsType], name string, data []byte, pawl map[string]any) {
	info, err := metadata.TargetFile().FromBytes(name, data, "sha256")
	require.NoError(m.t, err)
	raw, err := json.Marshal(map[string]any{"pawl": pawl})
	require.NoError(m.t, err)
	info.Custom = (*json.RawMessage)(&raw)
	role.Signed.Targets[name] = info
	folder, base := path.Split(name)
	m.write("targets/"+folder+release.Sum(data).String()+"."+base, data)
}

// delegate gives paths to another role with a key of its own.
func (m *maker) delegate(name string, terminating bool, paths ...string) *metadata.Metadata[metadata.TargetsType] {
	signer, key := newKey(m.t)
	id, err := key.ID()
	require.NoError(m.t, err)
	d := m.targets.Signed.Delegations
	if d == nil {
		d = &metadata.Delegations{Keys: map[string]*metadata.Key{}}
		m.targets.Signed.Delegations = d
	}
	d.Keys[id] = key
	d.Roles = append(d.Roles, metadata.DelegatedRole{Name: name, KeyIDs: []string{id}, Threshold: 1, Terminating: terminating, Paths: paths})
	m.keys[name] = []signature.Signer{signer}
	m.delegated[name] = metadata.Targets(today.Add(300 * day))
	return m.delegated[name]
}

// copyDir is the repository as it is now, as a mirror could keep it.
func (m *maker) copyDir() string {
	dir := m.t.TempDir()
	require.NoError(m.t, os.CopyFS(dir, os.DirFS(m.dir)))
	return dir
}

// serve serves a folder over HTTP.
func serve(t *testing.T, dir string) string {
	s := httptest.NewServer(http.FileServer(http.Dir(dir)))
	t.Cleanup(s.Close)
	return s.URL
}

func client(t testing.TB) *fetch.Client {
	c, err := fetch.New(fetch.Options{
		Stall: 200 * time.Millisecond, RetryMin: time.Millisecond, RetryMax: 2 * time.Millisecond, Proxy: http.ProxyURL(nil),
	})
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// options are those of the device, with a new trust store.
func (m *maker) options(url string) tuf.Options {
	return tuf.Options{
		URL: url, Root: m.pinned, Dir: filepath.Join(m.t.TempDir(), "trust"), Client: client(m.t),
		Now: func() time.Time { return today },
	}
}

func source(t *testing.T, o tuf.Options) *tuf.Source {
	s, err := tuf.New(o)
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// latest looks with a new Source, as a new process does.
func latest(t *testing.T, o tuf.Options) (uint64, error) {
	t.Helper()
	r, err := source(t, o).Latest(t.Context(), device)
	if err != nil {
		return 0, err
	}
	return r.Seq, nil
}

// media are the ways to reach a folder.
func media(t *testing.T, dir string) map[string]string {
	return maps.Collect(func(yield func(string, string) bool) {
		_ = yield("http", serve(t, dir)) && yield("folder", dir)
	})
}
