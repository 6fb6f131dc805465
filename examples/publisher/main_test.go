package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/publish"
)

// asProgram makes the test binary the program itself.
const asProgram = "PAWL_TEST_PUBLISHER"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

func program(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	return cmd
}

// result is what one call came to.
type result struct {
	code      int
	out, errs string
}

func call(t *testing.T, args ...string) result {
	t.Helper()
	cmd := program(args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = nil
		require.Positive(t, exit.ExitCode())
	}
	require.NoError(t, err)
	return result{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// site is a folder with a repository, its keys and a tree.
type site struct{ dir, repo, keys string }

func newSite(t *testing.T) site {
	dir := t.TempDir()
	s := site{dir, filepath.Join(dir, "repo"), filepath.Join(dir, "keys")}
	require.NoError(t, os.Mkdir(filepath.Join(dir, "app"), 0o755))
	s.write(t, "app/hello", "hello")
	r := call(t, "init", "-repo", s.repo, "-keys", s.keys, "-product", "gateway")
	require.Equal(t, 0, r.code, r.errs)
	require.Contains(t, r.out, "1.root.json")
	return s
}

func (s site) write(t *testing.T, name, content string) string {
	path := filepath.Join(s.dir, name)
	require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
	return path
}

func (s site) release(t *testing.T, spec string) result {
	return call(t, "release", "-repo", s.repo, "-keys", s.keys, s.write(t, "SPEC.yaml", spec))
}

const minimal = "version: 1.0.0\ncomponents:\n  - {name: app, kind: files, from: app}\n"

func TestWholeWay(t *testing.T) {
	s := newSite(t)
	r := s.release(t, minimal)
	require.Equal(t, 0, r.code, r.errs)
	require.Empty(t, r.errs, "no bar where there is no terminal")
	lines := strings.Split(strings.TrimSpace(r.out), "\n")
	require.Len(t, lines, 4, r.out)
	for i, word := range []string{"scanned", "packed", "signed", "released    1.0.0 seq 1 for gateway/default"} {
		require.True(t, strings.HasPrefix(lines[i], word), lines[i])
	}
	s.write(t, "app/hello", "hello again")
	r = s.release(t, `
product: gateway
version: 1.1.0
seq: 12
attempt: 2
variant: default
hardware: [rev-a, rev-b]
securityFloor: 1
lateRollback: forbid
issued: 2026-09-01T12:00:00Z
components:
  - name: app
    kind: files
    from: ./app
    carry: [data]
    owner: {uid: 0, gid: 5}
    keep: {previous: 2, repair: full}
    options: {restart: true}
`)
	require.Equal(t, 0, r.code, r.errs)
	r = call(t, "list", "-repo", s.repo)
	require.Equal(t, 0, r.code, r.errs)
	require.Contains(t, r.out, "1.1.0    2026-09-01T12:00:00Z  rev-a,rev-b  app")
	r = call(t, "list", "-repo", s.repo, "-json")
	var second struct {
		Seq     uint64
		Version string
	}
	require.NoError(t, json.Unmarshal([]byte(strings.Split(r.out, "\n")[1]), &second))
	require.Equal(t, uint64(12), second.Seq)
	r = call(t, "refresh", "-repo", s.repo, "-keys", s.keys)
	require.Equal(t, 0, r.code, r.errs)
	require.Contains(t, r.out, "refreshed   timestamp; good until")
	r = call(t, "verify", "-repo", s.repo, "-root", filepath.Join(s.repo, "metadata", "1.root.json"))
	require.Equal(t, 0, r.code, r.errs)
	require.Contains(t, r.out, "2 releases")
}

func TestUsage(t *testing.T) {
	s := newSite(t)
	for _, args := range [][]string{
		{},
		{"publish"},
		{"init"},
		{"init", "-repo", s.repo},
		{"init", "-repo", s.repo + "2", "-keys", s.keys, "-product", "Big Name"},
		{"init", "-repo", s.repo + "2", "-keys", s.keys, "-product", "p", "-threshold", "0"},
		{"init", "-repo", s.repo + "2", "-keys", s.keys, "-product", "p", "more"},
		{"release", "-repo", s.repo, "-keys", s.keys},
		{"release", "-repo", s.repo, "-keys", s.keys, "a", "b"},
		{"release", "-repo", s.repo, "-keys", s.keys, filepath.Join(s.dir, "none.yaml")},
		{"list", "-keys", s.keys},
		{"drop", "-repo", s.repo, "-keys", s.keys, "-seq", "1", "x", "-variant", "arm"},
		{"retry", "-repo", s.repo, "-keys", s.keys, "-seq", "1", "x"},
		{"renew", "-repo", s.repo, "-keys", s.keys, "x"},
		{"delegate", "-repo", s.repo, "-keys", s.keys, "-name", "a", "-variant", "b", "c"},
		{"revoke", "-repo", s.repo, "-keys", s.keys, "-name", "a", "x"},
		{"cancel", "-repo", s.repo, "x"}, {"status", "-repo", s.repo, "x"},
		{"verify", "-repo", s.repo, "-root", filepath.Join(s.dir, "none")},
	} {
		r := call(t, args...)
		require.Equal(t, 2, r.code, "%v: %s", args, r.errs)
		require.NotEmpty(t, r.errs)
	}
	require.NoDirExists(t, s.repo+"2")
	require.Equal(t, 0, call(t, "list", "-help").code)
}

func TestFailures(t *testing.T) {
	s := newSite(t)
	r := call(t, "init", "-repo", s.repo, "-keys", s.keys+"2", "-product", "gateway")
	require.Equal(t, 1, r.code)
	require.Contains(t, r.errs, "holds a repository already")
	require.NoDirExists(t, s.keys+"2")
	r = call(t, "list", "-repo", s.dir)
	require.Equal(t, 1, r.code)
	require.Equal(t, 1, call(t, "verify", "-repo", s.dir).code, "there is nothing to verify")
	require.Equal(t, 1, call(t, "refresh", "-repo", s.repo, "-keys", s.dir).code, "no keys")
	require.Equal(t, 0, s.release(t, minimal+"seq: 3\n").code)
	r = s.release(t, minimal+"seq: 3\n")
	require.Equal(t, 1, r.code)
	require.Contains(t, r.errs, "seq 3, newest 3")
	s.damage(t)
	r = call(t, "verify", "-repo", s.repo)
	require.Equal(t, 3, r.code)
	require.Contains(t, r.errs, "damaged")
}

// damage changes a byte of the first pack.
func (s site) damage(t *testing.T) {
	packs, err := filepath.Glob(filepath.Join(s.repo, "content", "*", "*.pack"))
	require.NoError(t, err)
	data, err := os.ReadFile(packs[0])
	require.NoError(t, err)
	data[0] ^= 1
	require.NoError(t, os.WriteFile(packs[0], data, 0o644))
}

// TestSpecErrors: what is wrong in SPEC.yaml is named by file and line.
func TestSpecErrors(t *testing.T) {
	s := newSite(t)
	for name, tc := range map[string]struct {
		spec string
		line int
		want string
	}{
		"unknown key":      {"version: 1\ncolour: red\n", 2, `unknown key "colour"`},
		"unknown key deep": {"version: 1\ncomponents:\n  - name: app\n    form: app\n", 4, `unknown key "form"`},
		"key twice":        {"version: 1\nversion: 2\n", 2, "already defined"},
		"wrong type":       {"version: 1\nseq: many\n", 2, "many"},
		"not YAML":         {"version: 1\ncomponents: [\n", 2, ""},
		"seq 0":            {"version: 1\nseq: 0\n", 2, "seq 0"},
		"product":          {"product: Big Name\nversion: 1\n", 1, "Big Name"},
		"variant":          {"version: 1\nvariant: ../x\n", 2, "../x"},
		"component name":   {"version: 1\ncomponents:\n  - kind: files\n    name: ''\n", 4, "name"},
		"kind":             {"version: 1\ncomponents:\n  - name: app\n    kind: image\n", 4, "image"},
		"from":             {"version: 1\ncomponents:\n  - name: app\n    kind: files\n    from: nowhere\n", 5, "nowhere"},
		"from a file":      {"version: 1\ncomponents:\n  - name: app\n    kind: files\n    from: SPEC.yaml\n", 5, "not a folder"},
		"absent":           {"version: 1\ncomponents:\n  - name: app\n    kind: files\n    from: app\n    absent:\n      - a\n      - ../b\n", 8, "../b"},
		"carry":            {"version: 1\ncomponents:\n  - name: app\n    kind: files\n    from: app\n    carry:\n      - a\n      - ../b\n", 8, "../b"},
		"keep":             {"version: 1\ncomponents:\n  - name: app\n    kind: files\n    from: app\n    keep:\n      repair: some\n", 7, "some"},
		"keep many":        {"version: 1\ncomponents:\n  - name: app\n    kind: files\n    from: app\n    keep: {previous: 99}\n", 6, "99"},
		"twice":            {minimal + "  - {name: app, kind: files, from: app}\n", 4, "line 3 already"},
		"no components":    {"version: 1\n", 0, "components is missing"},
		"no version":       {"seq: 1\n", 0, "version is missing"},
		"empty":            {"", 0, "empty"},
		"two documents":    {minimal + "---\n" + minimal, 0, "more than one document"},
	} {
		t.Run(name, func(t *testing.T) {
			r := s.release(t, tc.spec)
			require.Equal(t, 2, r.code, r.errs)
			where := filepath.Join(s.dir, "SPEC.yaml")
			if tc.line > 0 {
				where = fmt.Sprintf("%s:%d", where, tc.line)
			}
			require.Contains(t, r.errs, where+": ")
			require.Contains(t, r.errs, tc.want)
		})
	}
}

func TestEncryptedKeys(t *testing.T) {
	s := newSite(t)
	s.repo, s.keys = s.repo+"2", s.keys+"2"
	secret := s.write(t, "secret", "open sesame\n")
	// Keys that take no time to open, but for one that init has to make.
	cheap := publish.KeyDir{Path: s.keys, WorkFactor: 10, Passphrase: func(string) (string, error) { return "open sesame", nil }}
	_, err := cheap.Make(1, true)
	require.NoError(t, err)
	require.NoError(t, os.Remove(filepath.Join(s.keys, "root.1.pem.age")))
	r := call(t, "init", "-repo", s.repo, "-keys", s.keys, "-product", "gateway", "-passphrase-file", secret)
	require.Equal(t, 0, r.code, r.errs)
	require.FileExists(t, filepath.Join(s.keys, "root.1.pem.age"))
	r = s.release(t, minimal)
	require.Equal(t, 1, r.code)
	require.Contains(t, r.errs, "-passphrase-file")
	spec := filepath.Join(s.dir, "SPEC.yaml")
	r = call(t, "release", "-repo", s.repo, "-keys", s.keys, "-passphrase-file", s.write(t, "other", "wrong"), spec)
	require.Equal(t, 1, r.code)
	r = call(t, "release", "-repo", s.repo, "-keys", s.keys, "-passphrase-file", secret, spec)
	require.Equal(t, 0, r.code, r.errs)
	require.Equal(t, 0, call(t, "verify", "-repo", s.repo).code)
}

func TestThreshold(t *testing.T) {
	s := newSite(t)
	s.repo, s.keys = s.repo+"2", s.keys+"2"
	r := call(t, "init", "-repo", s.repo, "-keys", s.keys, "-product", "gateway", "-threshold", "2")
	require.Equal(t, 0, r.code, r.errs)
	require.Equal(t, 0, s.release(t, minimal).code)
	require.NoError(t, os.Remove(filepath.Join(s.keys, "targets.2.pem")))
	r = s.release(t, minimal)
	require.Equal(t, 1, r.code)
	require.Contains(t, r.errs, "1 of the repository's keys for it are there, 2 have to sign")
}

// TestKilled kills the publisher in the middle of its work, later each time:
// clients can use what it leaves, and the next publisher carries on.
func TestKilled(t *testing.T) {
	s := newSite(t)
	for i := range 300 {
		s.write(t, fmt.Sprintf("app/%d", i), strings.Repeat(fmt.Sprintf("line %d\n", i), 3000))
	}
	spec := s.write(t, "SPEC.yaml", minimal)
	killed := 0
	for delay := time.Millisecond; ; delay += delay / 2 {
		cmd := program("release", "-repo", s.repo, "-keys", s.keys, spec)
		require.NoError(t, cmd.Start())
		timer := time.AfterFunc(delay, func() { _ = cmd.Process.Kill() })
		err := cmd.Wait()
		timer.Stop()
		r := call(t, "verify", "-repo", s.repo)
		require.Equal(t, 0, r.code, r.errs)
		if err == nil {
			break
		}
		killed++
		s.write(t, "app/0", fmt.Sprint(killed))
	}
	t.Logf("killed %d times", killed)
	require.Positive(t, killed)
	left, err := filepath.Glob(filepath.Join(s.repo, "content", ".pawl-tmp-*"))
	require.NoError(t, err)
	require.Empty(t, left)
	require.Equal(t, 0, s.release(t, minimal).code)
}

// TestPrune: old releases go, and list says what devices fetch.
func TestPrune(t *testing.T) {
	s := newSite(t)
	for i := range 4 {
		s.write(t, "app/hello", strings.Repeat(fmt.Sprint("hello for the ", i, "th time\n"), 50))
		require.Equal(t, 0, s.release(t, minimal).code)
	}
	r := call(t, "list", "-repo", s.repo)
	require.Equal(t, 0, r.code, r.errs)
	require.Contains(t, r.out, "DEVICE-ON")
	require.Regexp(t, `default +4 +nothing +[0-9]`, r.out)
	require.Regexp(t, `default +4 +seq 3 +[0-9]`, r.out)
	require.NotRegexp(t, `default +3 +nothing`, r.out)
	r = call(t, "list", "-repo", s.repo, "-all", "-json")
	var second struct{ Fetches []publish.Fetch }
	require.NoError(t, json.Unmarshal([]byte(strings.Split(r.out, "\n")[1]), &second))
	require.Len(t, second.Fetches, 2)
	require.Positive(t, second.Fetches[1].Bytes)

	r = s.call(t, "prune", "-last", "2")
	require.Equal(t, 0, r.code, r.errs)
	require.Contains(t, r.out, "dropped     default seq 1")
	require.Contains(t, r.out, "pruned      0 files")
	r = s.call(t, "prune", "-grace", "0")
	require.Equal(t, 0, r.code, r.errs)
	require.NotContains(t, r.out, "pruned      0 files")
	r = call(t, "verify", "-repo", s.repo)
	require.Equal(t, 0, r.code, r.errs)
	require.Contains(t, r.out, "2 releases")
	require.NotContains(t, r.out, "unused")
	require.Equal(t, 2, s.call(t, "prune", "-last", "-1").code)
	require.Equal(t, 1, s.call(t, "prune", "-repo", t.TempDir()).code)
}
