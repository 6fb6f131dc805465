package tuf_test

import (
	"crypto/sha256"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/otatest"
	"github.com/pawl-ota/pawl/ota/tuf"
)

// edge is a delegation, to all paths if none is given.
type edge struct {
	from, to    string
	terminating bool
	path        string
}

func delegate(r *repo, edges ...edge) {
	for _, e := range edges {
		if e.path == "" {
			e.path = "*"
		}
		r.Delegate(e.from, e.to, e.terminating, e.path)
	}
}

// asked returns the delegated roles that a server was asked for, in order.
func asked(s *otatest.TUFServer) (roles []string) {
	for _, name := range s.Requests() {
		name = strings.TrimSuffix(strings.TrimPrefix(name, "metadata/"), ".json")
		if _, role, ok := strings.Cut(name, "."); ok && role != "root" && role != "snapshot" && role != "targets" {
			roles = append(roles, role)
		}
	}
	return roles
}

// TestDelegationGraphs: roles are asked in the order of the specification, section 5.6.7:
// depth first, in order of appearance, each once, and none after a terminating one.
func TestDelegationGraphs(t *testing.T) {
	const no, yes = false, true
	for name, c := range map[string]struct {
		edges []edge
		want  string
	}{
		"none":                    {nil, ""},
		"one":                     {[]edge{{"targets", "A", no, ""}}, "A"},
		"two":                     {[]edge{{"targets", "A", no, ""}, {"targets", "B", no, ""}}, "A B"},
		"order of appearance":     {[]edge{{"targets", "B", no, ""}, {"targets", "A", no, ""}}, "B A"},
		"depth first":             {[]edge{{"targets", "A", no, ""}, {"targets", "B", no, ""}, {"A", "C", no, ""}, {"A", "D", no, ""}, {"C", "E", no, ""}}, "A C E D B"},
		"terminating":             {[]edge{{"targets", "A", yes, ""}, {"targets", "B", no, ""}, {"A", "C", no, ""}}, "A C"},
		"terminating below":       {[]edge{{"targets", "A", no, ""}, {"targets", "B", no, ""}, {"A", "C", yes, ""}, {"A", "D", no, ""}}, "A C"},
		"terminating elsewhere":   {[]edge{{"targets", "A", yes, "*.md"}, {"targets", "B", no, ""}}, "B"},
		"other paths":             {[]edge{{"targets", "A", no, "*.md"}, {"targets", "B", no, ""}, {"A", "C", no, ""}}, "B"},
		"paths narrow on the way": {[]edge{{"targets", "A", no, ""}, {"A", "C", no, "*.md"}, {"C", "D", no, ""}, {"targets", "B", no, ""}}, "A B"},
		"star is not of folders":  {[]edge{{"targets", "A", no, "*/*"}, {"targets", "B", no, "file"}}, "B"},
		"cycle":                   {[]edge{{"targets", "A", no, ""}, {"A", "B", no, ""}, {"B", "A", no, ""}, {"B", "C", no, ""}}, "A B C"},
		"cycle to itself":         {[]edge{{"targets", "A", no, ""}, {"A", "A", no, ""}}, "A"},
		"cycle to the top":        {[]edge{{"targets", "A", no, ""}, {"A", "targets", no, ""}, {"targets", "B", no, ""}}, "A B"},
		"diamond":                 {[]edge{{"targets", "A", no, ""}, {"targets", "B", no, ""}, {"A", "C", no, ""}, {"B", "C", no, ""}}, "A C B"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := otatest.NewTUFRepo(t, today)
			delegate(r, c.edges...)
			r.Publish()
			server := otatest.ServeTUF(t, r.Dir)
			o := optionsFor(t, r, server.URL)
			_, err := source(t, o).Find(t.Context(), "file")
			require.ErrorIs(t, err, fs.ErrNotExist)
			require.Equal(t, strings.Fields(c.want), append([]string{}, asked(server)...))
			_, err = source(t, o).Find(t.Context(), "file")
			require.ErrorIs(t, err, fs.ErrNotExist)
			require.Empty(t, asked(server), "they are in the store")
		})
	}
}

// TestWhoSpeaksFor: the first role in that order counts.
func TestWhoSpeaksFor(t *testing.T) {
	r := otatest.NewTUFRepo(t, today)
	delegate(r, edge{"targets", "A", false, "a/*"}, edge{"targets", "D", true, "d/*"}, edge{"targets", "B", false, "*/*"}, edge{"A", "C", false, "a/c*"})
	for role, names := range map[string][]string{
		"targets": {"top"}, "A": {"a/1", "b/1"}, "B": {"a/1", "b/1", "a/c1", "d/1", "top", "b/2"}, "C": {"a/c1", "a/d"},
	} {
		for _, name := range names {
			r.AddTarget(role, name, []byte(role+" says "+name), nil)
		}
	}
	r.Publish()
	for _, url := range media(t, r.Dir) {
		s := source(t, optionsFor(t, r, url))
		for name, want := range map[string]string{"top": "targets", "a/1": "A", "b/1": "B", "b/2": "B", "a/c1": "C"} {
			found, err := s.Find(t.Context(), name)
			require.NoError(t, err, name)
			data, err := s.Read(t.Context(), found)
			require.NoError(t, err)
			require.Equal(t, want+" says "+name, string(data))
		}
		for _, name := range []string{"d/1", "a/d", "nowhere", "", "a", "/", "a/1/", "../top"} {
			_, err := s.Find(t.Context(), name)
			require.ErrorIs(t, err, fs.ErrNotExist, name)
		}
	}
}

// TestTooManyRoles is said, and not taken for a target that is not there.
func TestTooManyRoles(t *testing.T) {
	r := otatest.NewTUFRepo(t, today)
	for i := range 6 {
		delegate(r, edge{"targets", "role" + strconv.Itoa(i), false, "releases/kiosk/arm/*"})
	}
	r.AddRelease("role4", 1, nil)
	r.Publish()
	o := optionsFor(t, r, r.Dir)
	for roles, want := range map[int]error{2: tuf.ErrTooLarge, 5: tuf.ErrTooLarge, 6: nil, 32: nil} {
		o.Limits.Roles = roles
		_, err := latest(t, o)
		checkError(t, want, err)
	}
	chain := otatest.NewTUFRepo(t, today)
	delegate(chain, edge{"targets", "role0", false, ""})
	for i := range 40 {
		delegate(chain, edge{"role" + strconv.Itoa(i), "role" + strconv.Itoa(i+1), false, ""})
	}
	chain.Publish()
	server := otatest.ServeTUF(t, chain.Dir)
	_, err := source(t, optionsFor(t, chain, server.URL)).Find(t.Context(), "file")
	require.ErrorIs(t, err, tuf.ErrTooLarge)
	require.LessOrEqual(t, len(asked(server)), 34)
}

// TestDelegatedKeys: a delegation's keys and threshold count as the root's do.
func TestDelegatedKeys(t *testing.T) {
	for name, c := range map[string]struct {
		change func(d object)
		want   error
	}{
		"as it is":              {func(object) {}, nil},
		"threshold 0":           {func(d object) { d["threshold"] = 0 }, tuf.ErrUntrusted},
		"threshold below 0":     {func(d object) { d["threshold"] = -2 }, tuf.ErrUntrusted},
		"more than there are":   {func(d object) { d["threshold"] = 2 }, tuf.ErrThreshold},
		"an id twice":           {func(d object) { id := d["keyids"].([]string)[0]; d["keyids"], d["threshold"] = []string{id, id}, 2 }, tuf.ErrThreshold},
		"no keys":               {func(d object) { d["keyids"] = []string{} }, tuf.ErrUntrusted},
		"an id without a key":   {func(d object) { d["keyids"] = []string{"ab"} }, tuf.ErrUntrusted},
		"paths of no sense":     {func(d object) { d["paths"] = []string{"[", "releases/kiosk/arm/*"} }, nil},
		"paths and prefixes":    {func(d object) { d["path_hash_prefixes"] = []string{"ab"} }, tuf.ErrUntrusted},
		"fields of others, too": {func(d object) { d["x-odd"] = object{"a": 1} }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := otatest.NewTUFRepo(t, today)
			r.AddRelease("targets", 1, nil)
			r.Publish()
			warm := optionsFor(t, r, r.Dir)
			_, err := latest(t, warm)
			require.NoError(t, err)
			r.Delegate("targets", "team", false, "releases/kiosk/arm/*", "locators/kiosk/arm/*")
			c.change(r.Roles["targets"].Signed["delegations"].(object)["roles"].([]any)[0].(object))
			r.AddRelease("team", 2, nil)
			r.Publish()
			for _, o := range []tuf.Options{warm, optionsFor(t, r, r.Dir)} {
				for range 2 {
					_, err := latest(t, o)
					checkError(t, c.want, err)
				}
			}
		})
	}
}

// TestStoredRoleOfAnotherDelegator (go-tuf issue 759): what the device has of a role
// is checked against the keys of who delegates to it now.
func TestStoredRoleOfAnotherDelegator(t *testing.T) {
	r := otatest.NewTUFRepo(t, today)
	delegate(r, edge{"targets", "A", false, "a/*"}, edge{"targets", "B", false, "b/*"}, edge{"A", "shared", false, ""}, edge{"B", "shared", false, ""})
	r.Roles["shared"].Keys = append(r.Roles["shared"].Keys, otatest.NewTUFKey())
	other := r.Roles["shared"].Keys[1]
	r.Roles["B"].Signed["delegations"] = object{
		"keys":  object{other.ID: other.Public},
		"roles": []any{object{"name": "shared", "keyids": []string{other.ID}, "threshold": 1, "terminating": false, "paths": []string{"b/*"}}},
	}
	r.Roles["A"].Signed["delegations"].(object)["roles"].([]any)[0].(object)["paths"] = []string{"a/*"}
	r.Roles["shared"].Keys = r.Roles["shared"].Keys[:1] // as A wants it, and not B
	r.AddTarget("shared", "a/x", []byte("x"), nil)
	r.AddTarget("shared", "b/x", []byte("x"), nil)
	r.Publish()
	s := source(t, optionsFor(t, r, r.Dir))
	for range 2 {
		_, err := s.Find(t.Context(), "a/x")
		require.NoError(t, err)
		_, err = s.Find(t.Context(), "b/x")
		require.ErrorIs(t, err, tuf.ErrThreshold)
	}
}

// TestStoredRoleOfARevokedKey: the same file of a delegated role does not count
// once its delegator has replaced the key.
func TestStoredRoleOfARevokedKey(t *testing.T) {
	r := otatest.NewTUFRepo(t, today)
	r.Delegate("targets", "team", false, "releases/kiosk/arm/*", "locators/kiosk/arm/*")
	r.AddRelease("team", 1, nil)
	r.Publish()
	o := optionsFor(t, r, r.Dir)
	_, err := latest(t, o)
	require.NoError(t, err)
	key := otatest.NewTUFKey()
	d := r.Roles["targets"].Signed["delegations"].(object)
	d["keys"].(object)[key.ID] = key.Public
	d["roles"].([]any)[0].(object)["keyids"] = []string{key.ID}
	r.Roles["targets"].SetVersion(r.Roles["targets"].Version() + 1)
	r.PublishSnapshot()
	_, err = latest(t, o)
	require.ErrorIs(t, err, tuf.ErrThreshold)
	r.Roles["team"].Keys = []otatest.TUFKey{key}
	r.Publish()
	_, err = latest(t, o)
	require.NoError(t, err)
}

// TestDelegatedRoleExpires, is missing, and comes back.
func TestDelegatedRoleExpires(t *testing.T) {
	r := otatest.NewTUFRepo(t, today)
	r.Delegate("targets", "team", false, "releases/kiosk/arm/*", "locators/kiosk/arm/*")
	r.AddRelease("team", 1, nil)
	r.Publish()
	server := otatest.ServeTUF(t, r.Dir)
	for _, url := range []string{server.URL, r.Dir} {
		o := optionsFor(t, r, url)
		_, err := latest(t, o)
		require.NoError(t, err)
		r.Roles["team"].Expire(old(1))
		r.Publish()
		_, err = latest(t, o)
		require.ErrorIs(t, err, tuf.ErrExpired)
		r.Roles["team"].Expire(today.Add(day))
		r.Publish()
		file := filepath.Join(r.Dir, r.RoleFile("team", r.Roles["team"].Version()))
		require.NoError(t, os.Rename(file, file+".away"))
		_, err = latest(t, o)
		require.ErrorIs(t, err, tuf.ErrUnavailable)
		require.ErrorIs(t, err, fs.ErrNotExist)
		require.NoError(t, os.Rename(file+".away", file))
		_, err = latest(t, o)
		require.NoError(t, err)
	}
}

// TestNamesOfRoles: no name of a role leads out of the store, or into another role's
// file.
func TestNamesOfRoles(t *testing.T) {
	for name, want := range map[string]error{
		"?": nil, "#": nil, "/delegated": nil, "../delegated": nil, "../marks": nil, ".": nil, "..": nil, "a b": nil, "a%2Fb": nil, "ä": nil,
		"timestamp": tuf.ErrUntrusted, "snapshot": tuf.ErrUntrusted, "root": tuf.ErrUntrusted, strings.Repeat("x", 300): tuf.ErrUnavailable,
	} {
		t.Run(name[:min(len(name), 20)], func(t *testing.T) {
			t.Parallel()
			r := otatest.NewTUFRepo(t, today)
			good := r.Copy()
			role := "stand-in"
			r.Delegate("targets", role, false, "*")
			r.AddTarget(role, "file", []byte("x"), nil)
			r.Roles[role].SetVersion(1)
			data := r.WriteRole(role)
			r.Roles["targets"].Signed["delegations"].(object)["roles"].([]any)[0].(object)["name"] = name
			r.Roles["snapshot"].Signed["meta"].(object)[name+".json"] = object{"version": 1}
			r.Roles["targets"].SetVersion(2)
			r.WriteRole("targets")
			r.Roles["snapshot"].SetVersion(2)
			r.Roles["snapshot"].Signed["meta"].(object)["targets.json"] = object{"version": 2}
			r.PublishTimestamp()
			server := otatest.ServeTUF(t, r.Dir)
			server.Tamper(func(file string, w http.ResponseWriter, _ *http.Request) bool {
				mine := file == r.RoleFile(name, 1)
				if mine && len(name) < 200 {
					_, _ = w.Write(data)
				}
				return mine && len(name) < 200
			})
			o := optionsFor(t, r, good.Dir)
			require.NoError(t, refresh(t, o))
			o.URL = server.URL
			for range 2 {
				_, err := source(t, o).Find(t.Context(), "file")
				checkError(t, want, err)
			}
			files, err := os.ReadDir(filepath.Dir(o.Dir))
			require.NoError(t, err)
			require.Len(t, files, 1, "nothing beside the store")
			server.Tamper(nil)
			delete(r.Roles["targets"].Signed, "delegations")
			r.Roles = map[string]*otatest.TUFRole{"root": r.Roles["root"], "timestamp": r.Roles["timestamp"], "snapshot": r.Roles["snapshot"], "targets": r.Roles["targets"]}
			r.Rotate(func() { r.ReplaceKeys("timestamp"); r.ReplaceKeys("snapshot") })
			r.Publish()
			require.NoError(t, refresh(t, o), "the device is not locked out")
			require.Len(t, stored(t, o), 4, "roles that are gone leave the store")
		})
	}
}

// TestHashedBins: a target is found in the bin that its name's hash says (TAP 15).
// Delegations by path_hash_prefixes lead nowhere, as go-tuf takes the prefixes for
// another spelling than the specification's: no target is found rather than a
// wrong one.
func TestHashedBins(t *testing.T) {
	r := otatest.NewTUFRepo(t, today)
	r.Delegate("targets", "bin-0", false, "*")
	d := r.Roles["targets"].Signed["delegations"].(object)
	ids := d["roles"].([]any)[0].(object)["keyids"]
	delete(d, "roles")
	d["succinct_roles"] = object{"keyids": ids, "threshold": 1, "bit_length": 1, "name_prefix": "bin"}
	r.Roles["bin-1"] = &otatest.TUFRole{Signed: object{"_type": "targets", "spec_version": "1.0.31", "version": 0, "targets": object{}}, Keys: r.Roles["bin-0"].Keys}
	r.Roles["bin-1"].Expire(today.Add(day))
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		first := sha256.Sum256([]byte(name))
		r.AddTarget("bin-"+strconv.Itoa(int(first[0]>>7)), name, []byte(name), nil)
		r.AddTarget("bin-"+strconv.Itoa(1-int(first[0]>>7)), name, []byte("wrong bin"), nil)
	}
	r.Publish()
	s := source(t, optionsFor(t, r, r.Dir))
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		found, err := s.Find(t.Context(), name)
		require.NoError(t, err)
		data, err := s.Read(t.Context(), found)
		require.NoError(t, err)
		require.Equal(t, name, string(data))
	}

	r = otatest.NewTUFRepo(t, today)
	r.Delegate("targets", "A", false, "*")
	in := r.Roles["targets"].Signed["delegations"].(object)["roles"].([]any)[0].(object)
	delete(in, "paths")
	in["path_hash_prefixes"] = []string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "a", "b", "c", "d", "e", "f"}
	r.AddTarget("A", "z", []byte("z"), nil)
	r.Publish()
	found, err := source(t, optionsFor(t, r, r.Dir)).Find(t.Context(), "z")
	if err == nil {
		require.Equal(t, "z", found.Name)
	} else {
		require.ErrorIs(t, err, fs.ErrNotExist)
	}
}
