package otatest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// TUFRole is one role of a [TUFRepo]: what it says, and who signs it.
type TUFRole struct {
	Signed Object
	Keys   []TUFKey
}

// Version returns the role's version.
func (r *TUFRole) Version() int { return r.Signed["version"].(int) }

// SetVersion sets it.
func (r *TUFRole) SetVersion(n int) { r.Signed["version"] = n }

// Expire sets when the role expires.
func (r *TUFRole) Expire(at time.Time) { r.Signed["expires"] = at.UTC().Format(time.RFC3339) }

// TUFRepo is a TUF repository in a folder. The test holds all keys and may
// change anything before it is signed, so that the repository can be that of a
// publisher who errs, or of a thief. It shares no code with the publisher. It
// panics where the test misuses it.
type TUFRepo struct {
	Dir string // holds metadata, targets and content
	// First is the first root, for devices to trust.
	First []byte
	// Roles are root, timestamp, snapshot, targets, and those delegated to.
	Roles map[string]*TUFRole
	// Plain leaves versions and digests out of file names
	// (consistent_snapshot is false).
	Plain bool
	// Bare leaves lengths and digests out of timestamp and snapshot.
	Bare bool

	t   testing.TB
	now time.Time
}

// tufDevice is for whom releases of a TUFRepo are.
var tufDevice = ota.Device{ID: "serial-4711", Product: "kiosk", Variant: "arm", Hardware: "rev-b"}

// NewTUFRepo makes a repository of no releases that is fresh at now: root
// and targets of two keys that both have to sign, the others of one.
func NewTUFRepo(t testing.TB, now time.Time) *TUFRepo {
	r := &TUFRepo{Dir: t.TempDir(), Roles: map[string]*TUFRole{}, t: t, now: now}
	roles := Object{}
	for _, name := range []string{"root", "timestamp", "snapshot", "targets"} {
		r.Roles[name] = &TUFRole{Signed: Object{"_type": name, "spec_version": "1.0.31", "version": 0}}
		r.Roles[name].Expire(now.AddDate(1, 0, 0))
		roles[name] = Object{"keyids": []string{}, "threshold": 1}
	}
	root := r.Roles["root"].Signed
	root["keys"], root["roles"], root["consistent_snapshot"] = Object{}, roles, true
	r.Roles["targets"].Signed["targets"] = Object{}
	for name, n := range map[string]int{"root": 2, "targets": 2, "timestamp": 1, "snapshot": 1} {
		for range n {
			r.AddKey(name, NewTUFKey())
		}
		r.SetThreshold(name, n)
	}
	r.Issue(now, 90*24*time.Hour)
	r.First = r.PublishRoot()
	r.Publish()
	return r
}

// AddKey gives one of the four roles a key, in the root and to sign with.
func (r *TUFRepo) AddKey(role string, k TUFKey) {
	root := r.Roles["root"].Signed
	root["keys"].(Object)[k.ID] = k.Public
	in := root["roles"].(Object)[role].(Object)
	in["keyids"] = append(in["keyids"].([]string), k.ID)
	r.Roles[role].Keys = append(r.Roles[role].Keys, k)
}

// ReplaceKeys gives one of the four roles as many new keys instead of its own.
func (r *TUFRepo) ReplaceKeys(role string) {
	in := r.Roles["root"].Signed["roles"].(Object)[role].(Object)
	n := len(in["keyids"].([]string))
	in["keyids"], r.Roles[role].Keys = []string{}, nil
	for range n {
		r.AddKey(role, NewTUFKey())
	}
}

// SetThreshold sets how many keys of one of the four roles have to sign.
func (r *TUFRepo) SetThreshold(role string, n int) {
	r.Roles["root"].Signed["roles"].(Object)[role].(Object)["threshold"] = n
}

// Issue sets when everything but the root is said to be made, and how long it
// lasts.
func (r *TUFRepo) Issue(at time.Time, lasts time.Duration) {
	r.now = at
	for name, role := range r.Roles {
		if name != "root" {
			role.Expire(at.Add(lasts))
		}
	}
}

// PublishRoot signs the next root, also with the keys that are given: those that
// the root before knew.
func (r *TUFRepo) PublishRoot(also ...TUFKey) []byte {
	root := r.Roles["root"]
	root.SetVersion(root.Version() + 1)
	root.Signed["consistent_snapshot"] = !r.Plain
	keys := slices.Clone(root.Keys)
	for _, k := range also {
		if !slices.ContainsFunc(keys, func(o TUFKey) bool { return o.ID == k.ID }) {
			keys = append(keys, k)
		}
	}
	return r.Write(fmt.Sprintf("metadata/%d.root.json", root.Version()), sign(root.Signed, keys))
}

// Rotate changes the root and publishes it, signed by its old keys too.
func (r *TUFRepo) Rotate(change func()) {
	old := slices.Clone(r.Roles["root"].Keys)
	change()
	r.PublishRoot(old...)
}

// Publish signs the next version of all roles but the root.
func (r *TUFRepo) Publish() {
	for name, role := range r.Roles {
		if name != "root" && name != "timestamp" && name != "snapshot" {
			role.SetVersion(role.Version() + 1)
		}
	}
	r.PublishSnapshot()
}

// PublishSnapshot signs all roles of targets as they are, and the next versions
// of snapshot and timestamp.
func (r *TUFRepo) PublishSnapshot() {
	meta := Object{}
	for name := range r.Roles {
		if name != "root" && name != "timestamp" && name != "snapshot" {
			meta[name+".json"] = r.metaFile(r.Roles[name].Version(), r.WriteRole(name))
		}
	}
	snapshot := r.Roles["snapshot"]
	snapshot.Signed["meta"] = meta
	snapshot.SetVersion(snapshot.Version() + 1)
	r.PublishTimestamp()
}

// PublishTimestamp signs the snapshot as it is, and the next timestamp.
func (r *TUFRepo) PublishTimestamp() {
	timestamp := r.Roles["timestamp"]
	timestamp.SetVersion(timestamp.Version() + 1)
	timestamp.Signed["issued"] = r.now.UTC().Format(time.RFC3339)
	timestamp.Signed["meta"] = Object{"snapshot.json": r.metaFile(r.Roles["snapshot"].Version(), r.WriteRole("snapshot"))}
	r.WriteRole("timestamp")
}

func (r *TUFRepo) metaFile(version int, data []byte) Object {
	if r.Bare {
		return Object{"version": version}
	}
	return Object{"version": version, "length": len(data), "hashes": Object{"sha256": digestOf(data)}}
}

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// WriteRole signs a role as it is.
func (r *TUFRepo) WriteRole(name string) []byte {
	role := r.Roles[name]
	return r.Write(r.RoleFile(name, role.Version()), sign(role.Signed, role.Keys))
}

// RoleFile returns the name of the file of a role's version.
func (r *TUFRepo) RoleFile(role string, version int) string {
	if role == "timestamp" || r.Plain && role != "root" {
		return "metadata/" + url.PathEscape(role) + ".json"
	}
	return fmt.Sprintf("metadata/%d.%s.json", version, url.PathEscape(role))
}

// Write writes a file of the repository.
func (r *TUFRepo) Write(name string, data []byte) []byte {
	file := filepath.Join(r.Dir, filepath.FromSlash(name))
	must(os.MkdirAll(filepath.Dir(file), 0o755))
	must(os.WriteFile(file, data, 0o644))
	return data
}

// Copy returns the repository as it is now, as a mirror keeps it. It shares
// the roles.
func (r *TUFRepo) Copy() *TUFRepo {
	c := *r
	c.Dir = r.t.TempDir()
	c.Roles = maps.Clone(r.Roles)
	must(os.CopyFS(c.Dir, os.DirFS(r.Dir)))
	return &c
}

// AddTarget lets a role list a target, and writes its file. custom may be nil.
func (r *TUFRepo) AddTarget(role, name string, data []byte, custom any) {
	info := Object{"length": len(data), "hashes": Object{"sha256": digestOf(data)}}
	if custom != nil {
		info["custom"] = custom
	}
	r.Roles[role].Signed["targets"].(Object)[name] = info
	r.Write(r.TargetFile(name, data), data)
}

// TargetFile returns the name of the file of a target.
func (r *TUFRepo) TargetFile(name string, data []byte) string {
	folder, base := path.Split(name)
	if r.Plain {
		return "targets/" + folder + base
	}
	return "targets/" + folder + digestOf(data) + "." + base
}

// Delegate lets a role give paths to another one, which has one key of its own
// and may be there already.
func (r *TUFRepo) Delegate(from, to string, terminating bool, paths ...string) {
	role := r.Roles[to]
	if role == nil {
		role = &TUFRole{Signed: Object{"_type": "targets", "spec_version": "1.0.31", "version": 0, "targets": Object{}}, Keys: []TUFKey{NewTUFKey()}}
		role.Expire(r.now.AddDate(1, 0, 0))
		r.Roles[to] = role
	}
	d, ok := r.Roles[from].Signed["delegations"].(Object)
	if !ok {
		d = Object{"keys": Object{}, "roles": []any{}}
		r.Roles[from].Signed["delegations"] = d
	}
	var ids []string
	for _, k := range role.Keys {
		d["keys"].(Object)[k.ID] = k.Public
		ids = append(ids, k.ID)
	}
	d["roles"] = append(d["roles"].([]any), Object{"name": to, "keyids": ids, "threshold": len(ids), "terminating": terminating, "paths": paths})
}

// AddRelease makes a release for the device, which change may change, with a
// locator, and lets a role list both.
func (r *TUFRepo) AddRelease(role string, seq uint64, change func(*release.Release)) *release.Release {
	rel := &release.Release{
		Format: release.Format, ID: release.ID{Product: tufDevice.Product, Variant: tufDevice.Variant, Seq: seq},
		Version: fmt.Sprintf("1.%d", seq), Hardware: []string{"rev-a", "rev-b"}, Issued: r.now,
		Components: []release.Component{{Name: "app", Kind: "files", Index: blobOf([]byte("index")), Keep: release.Keep{Repair: release.RepairNone}}},
	}
	if change != nil {
		change(rel)
	}
	doc, err := rel.Encode()
	must(err)
	pack, table := []byte("content of "+rel.Version), []byte("table")
	locator, err := (&release.Locator{
		Format: release.LocatorFormat, ID: rel.ID, Release: rel.Digest(), Table: blobOf(table),
		Packs: []release.Pack{{Name: release.PackName(release.Sum(pack)), Size: int64(len(pack))}},
	}).Encode()
	must(err)
	r.Write(release.PackName(release.Sum(pack)), pack)
	for kind, data := range map[string][]byte{"release": doc, "locator": locator} {
		custom := Object{"kind": kind, "product": rel.Product, "variant": rel.Variant, "seq": rel.Seq, "hardware": rel.Hardware}
		r.AddTarget(role, releaseTarget(kind, rel.ID), data, Object{"pawl": custom})
	}
	return rel
}

func releaseTarget(kind string, id release.ID) string {
	return fmt.Sprintf("%ss/%s/%s/%d.json", kind, id.Product, id.Variant, id.Seq)
}

// parseSigned reads a metadata file as a test may change it.
func parseSigned(data []byte) Object {
	var file Object
	must(json.Unmarshal(data, &file))
	return file
}
