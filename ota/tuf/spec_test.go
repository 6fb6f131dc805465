package tuf_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/otatest"
	"github.com/pawl-ota/pawl/ota/tuf"
)

type (
	repo   = otatest.TUFRepo
	object = otatest.Object
)

// optionsFor are those of a device with a right clock and a new trust store.
func optionsFor(t *testing.T, r *repo, url string) tuf.Options {
	return tuf.Options{
		URL: url, Root: r.First, Dir: filepath.Join(t.TempDir(), "trust"), Client: client(t),
		Now: func() time.Time { return today }, TrustClock: true,
	}
}

func refresh(t *testing.T, o tuf.Options) error { return source(t, o).Refresh(t.Context()) }

// stored returns the versions that the trust store holds.
func stored(t *testing.T, o tuf.Options) map[string]int {
	roles, err := source(t, o).Metadata(t.Context())
	require.NoError(t, err)
	versions := map[string]int{}
	for name, data := range roles {
		var role struct {
			Signed struct{ Version int }
		}
		require.NoError(t, json.Unmarshal(data, &role))
		versions[name] = role.Signed.Version
	}
	return versions
}

// workflow is what a repository does, and what a device says to it that has
// seen it before (warm) or has not (fresh).
type workflow struct {
	change      func(r *repo)
	warm, fresh error
}

func refused(by error, change func(r *repo)) workflow { return workflow{change, by, by} }
func taken(change func(r *repo)) workflow             { return workflow{change, nil, nil} }
func goesBack(change func(r *repo)) workflow          { return workflow{change, tuf.ErrRollback, nil} }

func role(r *repo, name string) object {
	return r.Roles["root"].Signed["roles"].(object)[name].(object)
}

// edited changes what a role says, and signs it as the version that it is.
func edited(r *repo, name string, change func(signed object)) {
	change(r.Roles[name].Signed)
	r.WriteRole(name)
}

func metaOf(r *repo, role, file string) object {
	return r.Roles[role].Signed["meta"].(object)[file].(object)
}

func old(days int) time.Time { return today.Add(-time.Duration(days) * day) }

// workflows are the cases of the TUF specification, section 5, and what test
// suites for clients add to them.
func workflows() map[string]workflow {
	cases := map[string]workflow{
		"new versions":      taken(func(r *repo) { r.Publish() }),
		"a timestamp alone": taken(func(r *repo) { r.PublishTimestamp() }),
		"three roots at once": taken(func(r *repo) {
			for range 3 {
				r.Rotate(func() { r.ReplaceKeys("root") })
			}
			r.Publish()
		}),
		"threshold up":   taken(func(r *repo) { r.Rotate(func() { r.AddKey("root", otatest.NewTUFKey()); r.SetThreshold("root", 3) }) }),
		"threshold down": taken(func(r *repo) { r.Rotate(func() { r.SetThreshold("root", 1) }) }),
		"threshold down by one key": refused(tuf.ErrThreshold, func(r *repo) {
			r.SetThreshold("root", 1)
			r.Roles["root"].Keys = r.Roles["root"].Keys[:1]
			r.PublishRoot()
		}),
		"root of the old keys alone": refused(tuf.ErrThreshold, func(r *repo) {
			before := r.Roles["root"].Keys
			r.ReplaceKeys("root")
			r.Roles["root"].Keys = before
			r.PublishRoot()
		}),
		"root of the new keys alone": refused(tuf.ErrThreshold, func(r *repo) { r.ReplaceKeys("root"); r.PublishRoot() }),
		"root of another version":    refused(tuf.ErrRollback, func(r *repo) { otherRootVersion(r, 7) }),
		"root of the same version":   refused(tuf.ErrRollback, func(r *repo) { otherRootVersion(r, 1) }),
		"root is another role": refused(tuf.ErrUntrusted, func(r *repo) {
			r.Write("metadata/2.root.json", read1(r, "1.targets.json"))
		}),
		"timestamp is another role": refused(tuf.ErrUntrusted, func(r *repo) {
			r.Write("metadata/timestamp.json", read1(r, "1.snapshot.json"))
		}),
		"targets as snapshot": refused(tuf.ErrUntrusted, func(r *repo) {
			r.Publish()
			edited(r, "timestamp", func(object) {
				delete(metaOf(r, "timestamp", "snapshot.json"), "hashes")
				delete(metaOf(r, "timestamp", "snapshot.json"), "length")
			})
			r.Write("metadata/3.snapshot.json", read1(r, "3.targets.json"))
		}),
		"unknown fields": taken(func(r *repo) {
			r.Rotate(func() {
				for _, role := range r.Roles {
					role.Signed["x-odd"] = object{"a": []any{1, "b"}, "": nil}
				}
				role(r, "timestamp")["x-odd"] = true
				for _, k := range r.Roles["root"].Signed["keys"].(object) {
					k.(object)["keyid_hash_algorithms"] = []string{"md5"}
				}
			})
			r.Publish()
		}),
		"no hash or length in meta": taken(func(r *repo) {
			r.Publish()
			edited(r, "timestamp", func(object) {
				delete(metaOf(r, "timestamp", "snapshot.json"), "hashes")
				delete(metaOf(r, "timestamp", "snapshot.json"), "length")
			})
		}),
		"same timestamp version, other bytes": {func(r *repo) { edited(r, "timestamp", func(s object) { s["x-odd"] = 1 }) }, nil, nil},
		"timestamp goes back":                 goesBack(func(r *repo) { r.Roles["timestamp"].SetVersion(0); r.PublishTimestamp() }),
		"snapshot goes back":                  goesBack(func(r *repo) { r.Roles["snapshot"].SetVersion(0); r.PublishSnapshot() }),
		"targets go back":                     goesBack(func(r *repo) { r.Roles["targets"].SetVersion(0); r.Publish() }),
		"delegated role goes back":            goesBack(func(r *repo) { r.Roles["team"].SetVersion(0); r.Publish() }),
		"delegated role leaves the snapshot":  goesBack(func(r *repo) { delete(r.Roles, "team"); r.Publish() }),
		"snapshot of another version": refused(tuf.ErrRollback, func(r *repo) {
			r.Publish()
			edited(r, "timestamp", func(s object) { s["meta"] = object{"snapshot.json": object{"version": 4}} })
			r.Write("metadata/4.snapshot.json", read1(r, "3.snapshot.json"))
		}),
		"snapshot that is not there": refused(tuf.ErrUnavailable, func(r *repo) { r.Publish(); remove(r, "3.snapshot.json") }),
		"targets that are not there": refused(tuf.ErrUnavailable, func(r *repo) { r.Publish(); remove(r, "3.targets.json") }),
		"no timestamp":               refused(tuf.ErrUnavailable, func(r *repo) { remove(r, "timestamp.json") }),
		"keys rotated, versions from 1": taken(func(r *repo) {
			r.Rotate(func() { r.ReplaceKeys("timestamp"); r.ReplaceKeys("snapshot") })
			restart(r, "timestamp", "snapshot", "targets", "team")
		}),
		"timestamp key rotated, timestamp and snapshot from 1": taken(func(r *repo) {
			r.Rotate(func() { r.ReplaceKeys("timestamp") })
			restart(r, "timestamp", "snapshot")
		}),
		"timestamp key rotated, targets from 1": goesBack(func(r *repo) { r.Rotate(func() { r.ReplaceKeys("timestamp") }); restart(r, "targets") }),
		"targets key rotated, targets from 1":   goesBack(func(r *repo) { r.Rotate(func() { r.ReplaceKeys("targets") }); restart(r, "targets") }),
		"a key more, versions from 1": goesBack(func(r *repo) {
			r.Rotate(func() { r.AddKey("timestamp", otatest.NewTUFKey()); r.AddKey("snapshot", otatest.NewTUFKey()) })
			restart(r, "timestamp", "snapshot", "targets")
		}),
	}
	for _, name := range []string{"timestamp", "snapshot", "targets"} {
		cases[name+" key replaced"] = taken(func(r *repo) { r.Rotate(func() { r.ReplaceKeys(name) }); r.Publish() })
		cases[name+" of the revoked key"] = refused(tuf.ErrThreshold, func(r *repo) {
			before := r.Roles[name].Keys
			r.Rotate(func() { r.ReplaceKeys(name) })
			r.Roles[name].Keys = before
			r.Publish()
		})
		cases[name+" is missing in the root"] = refused(tuf.ErrUntrusted, func(r *repo) {
			r.Rotate(func() { delete(r.Roles["root"].Signed["roles"].(object), name) })
			r.Publish()
		})
	}
	for _, name := range []string{"root", "timestamp", "snapshot", "targets"} {
		cases[name+" expired"] = refused(tuf.ErrExpired, func(r *repo) { r.Roles[name].Expire(old(1)); r.Rotate(func() {}); r.Publish() })
	}
	return cases
}

func otherRootVersion(r *repo, version int) {
	r.Roles["root"].SetVersion(version - 1)
	r.Write("metadata/2.root.json", r.PublishRoot())
}

func read1(r *repo, name string) []byte {
	data, err := os.ReadFile(filepath.Join(r.Dir, "metadata", name))
	if err != nil {
		panic(err)
	}
	return data
}

func remove(r *repo, name string) {
	if err := os.Remove(filepath.Join(r.Dir, "metadata", name)); err != nil {
		panic(err)
	}
}

func restart(r *repo, roles ...string) {
	for _, name := range roles {
		r.Roles[name].SetVersion(0)
	}
	r.Publish()
}

// TestClientWorkflow runs all cases over HTTP and from a folder, with a store
// that has seen version 2 of everything, and with none. What was verified before
// stays, the last good repository is taken again, and a device that took the
// change has it.
func TestClientWorkflow(t *testing.T) {
	for name, c := range workflows() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := otatest.NewTUFRepo(t, today)
			r.Delegate("targets", "team", false, "releases/kiosk/arm/*")
			r.Roles["team"].SetVersion(1)
			r.Publish()
			media := media(t, r.Dir)
			seen := map[string]tuf.Options{}
			for _, url := range media {
				seen[url] = optionsFor(t, r, url)
				_, err := source(t, seen[url]).Find(t.Context(), "releases/kiosk/arm/0")
				require.ErrorIs(t, err, os.ErrNotExist)
			}
			c.change(r)
			for _, url := range media {
				c.check(t, seen[url], optionsFor(t, r, url))
			}
		})
	}
}

func (c workflow) check(t *testing.T, warm, fresh tuf.Options) {
	before := stored(t, warm)
	require.Len(t, before, 5)
	for range 2 {
		checkError(t, c.warm, refresh(t, warm))
		checkError(t, c.fresh, refresh(t, fresh))
	}
	if c.warm == nil {
		require.Equal(t, stored(t, fresh)["targets"], stored(t, warm)["targets"])
		return
	}
	for role, version := range before {
		if now := stored(t, warm)[role]; now != 0 {
			require.GreaterOrEqual(t, now, version, role)
		}
	}
}

func checkError(t *testing.T, want, err error) {
	t.Helper()
	if want == nil {
		require.NoError(t, err)
		return
	}
	require.ErrorIs(t, err, want)
}

// TestKeys: which keys count, for a root that a device has to take.
func TestKeys(t *testing.T) {
	for name, c := range map[string]struct {
		change func(r *repo)
		want   error
	}{
		"threshold 0":         {func(r *repo) { r.SetThreshold("snapshot", 0) }, tuf.ErrUntrusted},
		"threshold below 0":   {func(r *repo) { r.SetThreshold("timestamp", -1) }, tuf.ErrUntrusted},
		"root threshold 0":    {func(r *repo) { r.SetThreshold("root", 0) }, tuf.ErrUntrusted},
		"more than there are": {func(r *repo) { r.SetThreshold("targets", 3) }, tuf.ErrThreshold},
		"no keys":             {func(r *repo) { role(r, "snapshot")["keyids"] = []string{} }, tuf.ErrUntrusted},
		"an id without a key": {func(r *repo) { addID(r, "snapshot", strings.Repeat("ab", 32)) }, tuf.ErrUntrusted},
		"an id twice":         {func(r *repo) { addID(r, "snapshot", r.Roles["snapshot"].Keys[0].ID); r.SetThreshold("snapshot", 2) }, tuf.ErrThreshold},
		"a key under two ids": {func(r *repo) {
			r.AddKey("snapshot", renamed(r.Roles["snapshot"].Keys[0], "00"))
			r.SetThreshold("snapshot", 2)
		}, tuf.ErrThreshold},
		"a key of two keytypes": {twoKeytypes, tuf.ErrThreshold},
		"two signatures by one": {func(r *repo) { s := r.Roles["snapshot"]; s.Keys = append(s.Keys, s.Keys[0]) }, tuf.ErrUntrusted},
		"a key of no sense":     {func(r *repo) { breakKey(r, "snapshot", "keyval", object{"public": "zz"}) }, tuf.ErrUntrusted},
		"a short key":           {func(r *repo) { breakKey(r, "snapshot", "keyval", object{"public": "abcd"}) }, tuf.ErrUntrusted},
		"an unknown keytype":    {func(r *repo) { breakKey(r, "snapshot", "keytype", "quantum") }, tuf.ErrUntrusted},
		"a null key":            {func(r *repo) { r.Roles["root"].Signed["keys"].(object)[r.Roles["snapshot"].Keys[0].ID] = nil }, tuf.ErrUntrusted},
		"a null role":           {func(r *repo) { r.Roles["root"].Signed["roles"].(object)["snapshot"] = nil }, tuf.ErrUntrusted},
		"a foreign id":          {func(r *repo) { useKey(r, renamed(otatest.NewTUFKey(), "my own id")) }, nil},
		"ECDSA":                 {func(r *repo) { useKey(r, otatest.NewTUFKeyECDSA("ecdsa")) }, nil},
		"ECDSA of python-tuf":   {func(r *repo) { useKey(r, otatest.NewTUFKeyECDSA("ecdsa-sha2-nistp256")) }, nil},
		"RSA-PSS":               {func(r *repo) { useKey(r, otatest.NewTUFKeyRSA()) }, nil},
		"signatures of others": {func(r *repo) {
			for _, role := range r.Roles {
				role.Keys = append([]otatest.TUFKey{otatest.NewTUFKey()}, role.Keys...)
			}
		}, nil},
		"any 3 of 5": {func(r *repo) {
			for range 4 {
				r.AddKey("snapshot", otatest.NewTUFKey())
			}
			r.SetThreshold("snapshot", 3)
			r.Roles["snapshot"].Keys = r.Roles["snapshot"].Keys[2:]
		}, nil},
		"any 2 of 5 of 3": {func(r *repo) {
			for range 4 {
				r.AddKey("snapshot", otatest.NewTUFKey())
			}
			r.SetThreshold("snapshot", 3)
			r.Roles["snapshot"].Keys = r.Roles["snapshot"].Keys[3:]
		}, tuf.ErrThreshold},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := otatest.NewTUFRepo(t, today)
			warm := optionsFor(t, r, r.Dir)
			require.NoError(t, refresh(t, warm))
			r.Rotate(func() { c.change(r) })
			r.Publish()
			for _, o := range []tuf.Options{warm, optionsFor(t, r, r.Dir)} {
				for range 2 {
					checkError(t, c.want, refresh(t, o))
				}
			}
		})
	}
}

func addID(r *repo, name, id string) {
	role(r, name)["keyids"] = append(role(r, name)["keyids"].([]string), id)
}

func renamed(k otatest.TUFKey, id string) otatest.TUFKey {
	k.ID = id
	return k
}

func useKey(r *repo, k otatest.TUFKey) {
	for _, name := range []string{"timestamp", "snapshot"} {
		role(r, name)["keyids"], r.Roles[name].Keys = []string{}, nil
		r.AddKey(name, k)
	}
	r.AddKey("targets", k)
	r.SetThreshold("targets", 3)
	r.AddKey("root", k)
	r.SetThreshold("root", 3)
}

func breakKey(r *repo, name, field string, value any) {
	r.Roles["root"].Signed["keys"].(object)[r.Roles[name].Keys[0].ID].(object)[field] = value
}

// twoKeytypes registers one ECDSA key under both of its words.
func twoKeytypes(r *repo) {
	k := otatest.NewTUFKeyECDSA("ecdsa")
	other := renamed(k, "other")
	other.Public = object{"keytype": "ecdsa-sha2-nistp256", "scheme": k.Public["scheme"], "keyval": k.Public["keyval"]}
	role(r, "snapshot")["keyids"], r.Roles["snapshot"].Keys = []string{}, nil
	r.AddKey("snapshot", k)
	r.AddKey("snapshot", other)
	r.SetThreshold("snapshot", 2)
}

// TestMetaFiles: what timestamp and snapshot say of the file below them counts.
func TestMetaFiles(t *testing.T) {
	for name, c := range map[string]struct {
		meta object
		want error
	}{
		"wrong digest":       {object{"version": 1, "hashes": object{"sha256": strings.Repeat("00", 32)}}, ota.ErrDigest},
		"one wrong digest":   {object{"version": 1, "hashes": object{"sha512": strings.Repeat("00", 64)}}, ota.ErrDigest},
		"unknown digest":     {object{"version": 1, "hashes": object{"crc32": "00000000"}}, ota.ErrDigest},
		"digest of no sense": {object{"version": 1, "hashes": object{"sha256": "zz"}}, tuf.ErrUntrusted},
		"shorter":            {object{"version": 1, "length": 10}, ota.ErrLength},
		"longer":             {object{"version": 1, "length": 16 << 10}, ota.ErrLength},
		"length below 0":     {object{"version": 1, "length": -1}, tuf.ErrUntrusted},
		"length of no sense": {object{"version": 1, "length": "all"}, tuf.ErrUntrusted},
		"length beyond all":  {object{"version": 1, "length": int64(1 << 62)}, ota.ErrLength},
		"no version":         {object{}, tuf.ErrUntrusted},
		"version 0":          {object{"version": 0}, tuf.ErrUnavailable},
		"null":               {nil, tuf.ErrUntrusted},
	} {
		for _, file := range []string{"timestamp of snapshot", "snapshot of targets"} {
			t.Run(name+" in "+file, func(t *testing.T) {
				t.Parallel()
				r := otatest.NewTUFRepo(t, today)
				upper, lower, _ := strings.Cut(file, " of ")
				meta := r.Roles[upper].Signed["meta"].(object)
				if meta[lower+".json"] = c.meta; c.meta == nil {
					meta[lower+".json"] = nil
				}
				r.WriteRole(upper)
				if upper == "snapshot" {
					r.Roles["timestamp"].Signed["meta"] = object{"snapshot.json": object{"version": 1}}
					r.WriteRole("timestamp")
				}
				for _, url := range media(t, r.Dir) {
					o := optionsFor(t, r, url)
					for range 2 {
						err := refresh(t, o)
						require.ErrorIs(t, err, c.want)
						require.True(t, errors.Is(err, tuf.ErrUntrusted) || c.want == tuf.ErrUnavailable)
					}
				}
			})
		}
	}
}

// TestOtherImplementations: repositories as other programs write them: indented,
// with fields of their own, empty signatures of who has not signed yet, mixed keys,
// ids that are derived by another rule or none, neither lengths nor digests nor
// versions in names.
func TestOtherImplementations(t *testing.T) {
	for _, plain := range []bool{false, true} {
		r := otatest.NewTUFRepo(t, today)
		r.Bare, r.Plain = true, plain
		r.Delegate("targets", "team", true, "releases/*/*/*", "locators/*/*/*", "team/*")
		r.Rotate(func() {
			r.AddKey("root", renamed(otatest.NewTUFKeyECDSA("ecdsa-sha2-nistp256"), "SHA256:abc=="))
			r.AddKey("targets", otatest.NewTUFKeyRSA())
			r.SetThreshold("targets", 3)
			r.AddKey("snapshot", renamed(otatest.NewTUFKeyECDSA("ecdsa"), "x"))
			for _, k := range r.Roles["root"].Signed["keys"].(object) {
				k.(object)["x-keyowner"] = "@somebody"
				k.(object)["keyid_hash_algorithms"] = []string{"sha256", "sha512"}
			}
			r.Roles["root"].Signed["x-expiry-period"] = 7300
			role(r, "timestamp")["x-signing-period"] = 1
		})
		r.AddTarget("team", "team/a file", []byte("x"), nil)
		want := r.AddRelease("team", 1, nil)
		r.Publish()
		files, err := os.ReadDir(filepath.Join(r.Dir, "metadata"))
		require.NoError(t, err)
		for _, f := range files {
			var file object
			require.NoError(t, json.Unmarshal(read1(r, f.Name()), &file))
			file["signatures"] = append(file["signatures"].([]any), object{"keyid": "of somebody who has not signed", "sig": ""})
			data, err := json.MarshalIndent(file, "", " ")
			require.NoError(t, err)
			r.Write("metadata/"+f.Name(), append(data, '\n'))
		}
		for _, url := range media(t, r.Dir) {
			s := source(t, optionsFor(t, r, url))
			for range 2 {
				got, err := s.Latest(t.Context(), device)
				require.NoError(t, err)
				require.Equal(t, want.ID, got.ID)
				found, err := s.Find(t.Context(), "team/a file")
				require.NoError(t, err)
				data, err := s.Read(t.Context(), found)
				require.NoError(t, err)
				require.Equal(t, "x", string(data))
			}
		}
	}
}
