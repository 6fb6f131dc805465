package main

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/otatest"
)

var binary string

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "tufclient")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "tufclient")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		panic(string(out))
	}
	return m.Run()
}

const day = 24 * time.Hour

// client is the program with its folders, in front of a repository.
type client struct {
	t                        *testing.T
	repo                     *otatest.TUFRepo
	server                   *otatest.TUFServer
	metadata, downloads, bin string
}

// newClient returns one that was initialized with the first root.
func newClient(t *testing.T) *client {
	c := bareClient(t, otatest.NewTUFRepo(t, time.Now()))
	c.init(c.repo.First)
	return c
}

func bareClient(t *testing.T, repo *otatest.TUFRepo) *client {
	return &client{
		t: t, repo: repo, server: otatest.ServeTUF(t, repo.Dir),
		metadata: t.TempDir(), downloads: t.TempDir(), bin: t.TempDir(),
	}
}

func (c *client) init(root []byte) {
	file := filepath.Join(c.t.TempDir(), "root.json")
	require.NoError(c.t, os.WriteFile(file, root, 0o600))
	require.True(c.t, c.run("--metadata-dir", c.metadata, "init", file))
	require.Empty(c.t, c.server.Requests())
}

// run reports whether the program ended with 0; else it has to be 1.
func (c *client) run(args ...string) bool {
	cmd := exec.Command(binary, args...)
	cmd.Env = append(os.Environ(), "PATH="+c.bin+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		require.Equal(c.t, 1, cmd.ProcessState.ExitCode(), "%s", out)
		c.t.Logf("%s", out)
	}
	return err == nil
}

// clock makes date say that so much has passed.
func (c *client) clock(ahead time.Duration) {
	text := "#!/bin/sh\necho " + strconv.FormatInt(time.Now().Add(ahead).Unix(), 10) + "\n"
	require.NoError(c.t, os.WriteFile(filepath.Join(c.bin, "date"), []byte(text), 0o755))
}

func (c *client) refresh() bool {
	return c.run("--metadata-dir", c.metadata, "--metadata-url", c.server.URL+"/metadata/", "refresh")
}

func (c *client) download(target string) bool {
	return c.run("--metadata-dir", c.metadata, "--metadata-url", c.server.URL+"/metadata", "--target-name", target,
		"--target-base-url", c.server.URL+"/targets", "--target-dir", c.downloads, "download")
}

// trusted returns the versions of the files NAME.json in the metadata folder.
func (c *client) trusted() map[string]int {
	versions := map[string]int{}
	files, err := os.ReadDir(c.metadata)
	require.NoError(c.t, err)
	for _, f := range files {
		name, ok := strings.CutSuffix(f.Name(), ".json")
		if !ok {
			continue
		}
		data, err := os.ReadFile(filepath.Join(c.metadata, f.Name()))
		require.NoError(c.t, err)
		var role struct {
			Signed struct{ Version int }
		}
		require.NoError(c.t, json.Unmarshal(data, &role))
		versions[name] = role.Signed.Version
	}
	return versions
}

// downloaded returns the contents of the files in the download folder.
func (c *client) downloaded() (list []string) {
	files, err := os.ReadDir(c.downloads)
	require.NoError(c.t, err)
	for _, f := range files {
		data, err := os.ReadFile(filepath.Join(c.downloads, f.Name()))
		require.NoError(c.t, err)
		list = append(list, string(data))
	}
	return list
}

// at says versions of the four roles.
func at(root, timestamp, snapshot, targets int) map[string]int {
	return map[string]int{"root": root, "timestamp": timestamp, "snapshot": snapshot, "targets": targets}
}

func TestRefresh(t *testing.T) {
	c := newClient(t)
	require.Equal(t, map[string]int{"root": 1}, c.trusted())
	require.True(t, c.refresh())
	require.Equal(t, []string{"metadata/2.root.json", "metadata/timestamp.json", "metadata/1.snapshot.json", "metadata/1.targets.json"}, c.server.Requests())
	require.Equal(t, at(1, 1, 1, 1), c.trusted())
	require.True(t, c.refresh())
	require.Equal(t, []string{"metadata/2.root.json", "metadata/timestamp.json"}, c.server.Requests(), "nothing is fetched twice")
	for name := range c.trusted() {
		file := name + ".json"
		if name != "timestamp" {
			file = "1." + file
		}
		want, err := os.ReadFile(filepath.Join(c.repo.Dir, "metadata", file))
		require.NoError(t, err)
		got, err := os.ReadFile(filepath.Join(c.metadata, name+".json"))
		require.NoError(t, err)
		require.Equal(t, string(want), string(got), "as it was signed")
	}
}

// TestSteps: what the repository does between two refreshes, how the second one ends,
// and what is trusted then.
func TestSteps(t *testing.T) {
	for name, c := range map[string]struct {
		change func(r *otatest.TUFRepo)
		ok     bool
		want   map[string]int
	}{
		"new versions":    {func(r *otatest.TUFRepo) { r.Publish() }, true, at(1, 3, 3, 3)},
		"timestamp alone": {func(r *otatest.TUFRepo) { r.PublishTimestamp() }, true, at(1, 3, 2, 2)},
		"every key replaced": {func(r *otatest.TUFRepo) {
			for _, role := range []string{"timestamp", "snapshot", "targets", "root"} {
				r.Rotate(func() { r.ReplaceKeys(role) })
			}
			r.Publish()
		}, true, at(5, 3, 3, 3)},
		"root of new keys alone": {func(r *otatest.TUFRepo) { r.ReplaceKeys("root"); r.PublishRoot() }, false, at(1, 2, 2, 2)},
		"root of one key":        {func(r *otatest.TUFRepo) { r.Roles["root"].Keys = r.Roles["root"].Keys[1:]; r.PublishRoot() }, false, at(1, 2, 2, 2)},
		"good root, bad root": {func(r *otatest.TUFRepo) {
			r.Rotate(func() {})
			r.ReplaceKeys("root")
			r.PublishRoot()
		}, false, at(2, 2, 2, 2)},
		"timestamp of another key": {func(r *otatest.TUFRepo) { r.Roles["timestamp"].Keys[0] = otatest.NewTUFKey(); r.Publish() }, false, at(1, 2, 2, 2)},
		"snapshot of another key":  {func(r *otatest.TUFRepo) { r.Roles["snapshot"].Keys[0] = otatest.NewTUFKey(); r.Publish() }, false, at(1, 3, 2, 2)},
		"targets of one key":       {func(r *otatest.TUFRepo) { r.Roles["targets"].Keys = r.Roles["targets"].Keys[1:]; r.Publish() }, false, at(1, 3, 3, 2)},
		"root expired": {func(r *otatest.TUFRepo) {
			r.Roles["root"].Expire(time.Now().Add(-day))
			r.Rotate(func() {})
			r.Publish()
		}, false, at(2, 2, 2, 2)},
		"timestamp expired": {func(r *otatest.TUFRepo) { r.Roles["timestamp"].Expire(time.Now().Add(-day)); r.Publish() }, false, at(1, 2, 2, 2)},
		"snapshot expired":  {func(r *otatest.TUFRepo) { r.Roles["snapshot"].Expire(time.Now().Add(-day)); r.Publish() }, false, at(1, 3, 2, 2)},
		"targets expired":   {func(r *otatest.TUFRepo) { r.Roles["targets"].Expire(time.Now().Add(-day)); r.Publish() }, false, at(1, 3, 3, 2)},
		"timestamp back":    {func(r *otatest.TUFRepo) { r.Roles["timestamp"].SetVersion(0); r.PublishTimestamp() }, false, at(1, 2, 2, 2)},
		"snapshot back":     {func(r *otatest.TUFRepo) { r.Roles["snapshot"].SetVersion(0); r.PublishSnapshot() }, false, at(1, 2, 2, 2)},
		"targets back":      {func(r *otatest.TUFRepo) { r.Roles["targets"].SetVersion(0); r.Publish() }, false, at(1, 3, 2, 2)},
		"same timestamp, other bytes": {func(r *otatest.TUFRepo) {
			r.Roles["timestamp"].SetVersion(1)
			r.Roles["timestamp"].Signed["odd"] = true
			r.PublishTimestamp()
		}, true, at(1, 2, 2, 2)},
		"targets other than in snapshot": {func(r *otatest.TUFRepo) {
			r.Publish()
			r.Roles["targets"].Signed["odd"] = true
			r.WriteRole("targets")
		}, false, at(1, 3, 3, 2)},
		"targets missing": {func(r *otatest.TUFRepo) {
			r.Publish()
			_ = os.Remove(filepath.Join(r.Dir, "metadata", "3.targets.json"))
		}, false, at(1, 3, 3, 2)},
		"fast forward, then new keys": {func(r *otatest.TUFRepo) {
			r.Rotate(func() { r.ReplaceKeys("timestamp"); r.ReplaceKeys("snapshot") })
			for _, role := range []string{"timestamp", "snapshot", "targets"} {
				r.Roles[role].SetVersion(0)
			}
			r.Publish()
		}, true, at(2, 1, 1, 1)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := newClient(t)
			client.repo.Publish()
			require.True(t, client.refresh())
			c.change(client.repo)
			for range 2 {
				require.Equal(t, c.ok, client.refresh())
				require.Equal(t, c.want, client.trusted())
			}
		})
	}
}

// TestFakedClock: date decides what has expired.
func TestFakedClock(t *testing.T) {
	c := newClient(t)
	require.True(t, c.refresh())
	c.clock(91 * day)
	require.False(t, c.refresh())
	c.repo.Issue(time.Now(), 200*day)
	c.repo.Publish()
	require.True(t, c.refresh(), "what is stored has expired, what is there has not")
	c.clock(0)
	require.True(t, c.refresh())
}

func TestFirstRootOfNoSense(t *testing.T) {
	for name, root := range map[string]string{"empty": "", "no root": "{}", "unsigned": `{"signed":{"_type":"root","version":1},"signatures":[]}`} {
		t.Run(name, func(t *testing.T) {
			c := bareClient(t, otatest.NewTUFRepo(t, time.Now()))
			c.init([]byte(root))
			require.False(t, c.refresh())
			require.Empty(t, c.server.Requests())
		})
	}
}

func TestUsage(t *testing.T) {
	c := bareClient(t, otatest.NewTUFRepo(t, time.Now()))
	for _, args := range [][]string{{}, {"refresh"}, {"--metadata-dir", c.metadata}, {"--metadata-dir", c.metadata, "init"}, {"--metadata-dir", c.metadata, "download"}, {"--no-such-flag"}} {
		require.False(t, c.run(args...))
	}
}

func TestDownload(t *testing.T) {
	c := newClient(t)
	c.repo.AddTarget("targets", "file.txt", []byte("one"), nil)
	c.repo.AddTarget("targets", "path/to/a file?.txt", []byte("two"), nil)
	c.repo.Delegate("targets", "A", false, "*.md", "deep/*/*")
	c.repo.Delegate("A", "B", false, "deep/x/*")
	c.repo.AddTarget("A", "notes.md", []byte("three"), nil)
	c.repo.AddTarget("B", "deep/x/y", []byte("four"), nil)
	c.repo.AddTarget("B", "deep/z/y", []byte("not B's to say"), nil)
	c.repo.Publish()
	for _, target := range []string{"file.txt", "notes.md", "deep/x/y"} {
		require.True(t, c.download(target))
	}
	require.Len(t, c.downloaded(), 3)
	require.Subset(t, []string{"one", "three", "four"}, c.downloaded())
	require.Equal(t, map[string]int{"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2, "A": 1, "B": 1}, c.trusted())
	require.False(t, c.download("deep/z/y"))
	require.False(t, c.download("nowhere"))
	c.server.Requests()
	require.True(t, c.download("file.txt"))
	require.Len(t, c.server.Requests(), 2, "it is there already")
	require.Len(t, c.downloaded(), 3)
}

// TestTargetIsReplaced: by its publisher, and by somebody else.
func TestTargetIsReplaced(t *testing.T) {
	c := newClient(t)
	const name = "path/to/file.txt"
	for _, content := range []string{"first", "second"} {
		c.repo.AddTarget("targets", name, []byte(content), nil)
		c.repo.Publish()
		require.True(t, c.download(name))
		require.Equal(t, []string{content}, c.downloaded())
	}
	c.repo.AddTarget("targets", name, []byte("third"), nil)
	c.repo.Publish()
	for _, hostile := range []string{"thief", "a longer thief", "no"} {
		c.server.Tamper(func(file string, w http.ResponseWriter, _ *http.Request) bool {
			if strings.HasPrefix(file, "targets/") {
				_, _ = w.Write([]byte(hostile))
			}
			return strings.HasPrefix(file, "targets/")
		})
		require.False(t, c.download(name))
		require.Equal(t, []string{"second"}, c.downloaded())
	}
}

// TestOddRoleNames are asked for as in a URL, and stay within the folder.
func TestOddRoleNames(t *testing.T) {
	for role, file := range map[string]string{"?": "%3F", "#": "%23", "/delegated": "%2Fdelegated", "../delegated": "..%2Fdelegated", "a b": "a%20b", ".": "."} {
		t.Run(role, func(t *testing.T) {
			c := newClient(t)
			c.repo.Delegate("targets", role, false, "*")
			c.repo.AddTarget(role, "file", []byte("x"), nil)
			c.repo.Publish()
			require.True(t, c.download("file"))
			require.Contains(t, c.server.Requests(), "metadata/1."+file+".json")
			require.Len(t, c.trusted(), 5)
		})
	}
}

// TestPlainRepository has neither versions nor digests in its file names.
func TestPlainRepository(t *testing.T) {
	repo := otatest.NewTUFRepo(t, time.Now())
	repo.Plain = true
	repo.Rotate(func() {})
	repo.AddTarget("targets", "a/b", []byte("x"), nil)
	repo.Publish()
	c := bareClient(t, repo)
	c.init(repo.First)
	require.True(t, c.download("a/b"))
	repo.AddTarget("targets", "a/b", []byte("y"), nil)
	repo.Publish()
	require.True(t, c.download("a/b"))
	require.Equal(t, []string{"y"}, c.downloaded())
	require.Equal(t, at(2, 3, 3, 3), c.trusted())
}
