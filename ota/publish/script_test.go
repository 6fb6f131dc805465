package publish

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/codec"
	"github.com/pawl-ota/pawl/ota/release"
)

const (
	stopText  = "#!/bin/sh\nexec systemctl stop camera\n"
	startText = "#! /usr/bin/env bash\nsystemctl start camera\n"
	tellText  = "#!/bin/sh\necho \"$PAWL_POINT\"\n"
)

// scripted is a release with scripts of its own and of its component.
func scripted(t testing.TB) Spec {
	dir := tree{"stop.sh": stopText, "start": startText, "tell": tellText, "migrate": "\x7fELF and so on"}.write(t)
	s := spec("1.0.0", tree{"a": "a", "same": stopText}.write(t))
	s.Issued = start
	s.Scripts = []Script{
		{Name: "migrate", At: release.AfterActivate, Run: filepath.Join(dir, "migrate"), Undo: filepath.Join(dir, "tell"), Limit: 10 * time.Minute},
		{At: release.AfterRevert, Run: filepath.Join(dir, "tell")},
	}
	s.Components[0].Scripts = []Script{
		{At: release.BeforeActivate, Run: filepath.Join(dir, "stop.sh"), Undo: filepath.Join(dir, "start"), Limit: 5 * time.Second},
	}
	return s
}

// documents returns those of the newest release in f.
func (f *fixture) documents(t testing.TB) *listed {
	state, err := f.disk.load(nil, f.now)
	require.NoError(t, err)
	all, err := f.disk.listed(state)
	require.NoError(t, err)
	return all[len(all)-1]
}

func blobFrom(text string) release.Blob { return blobOf([]byte(text)) }

func TestScripts(t *testing.T) {
	f := newFixture(t)
	a, err := f.Release(t.Context(), scripted(t))
	require.NoError(t, err)
	require.Equal(t, 3, a.Scripts)
	require.Equal(t, 5, a.NewBlobs, "a, and four programs of which one is a file too")
	require.EqualValues(t, 1+len(stopText)+len(startText)+len(tellText)+len("\x7fELF and so on"), a.Size)
	require.Equal(t, a.Size, a.NewSize)

	doc := f.documents(t).release
	require.Equal(t, []release.Script{
		{Name: "migrate", At: release.AfterActivate, Run: blobFrom("\x7fELF and so on"), Undo: blobFrom(tellText), Limit: 600},
		{Name: "tell", At: release.AfterRevert, Run: blobFrom(tellText)},
	}, doc.Scripts)
	require.Equal(t, []release.Script{
		{Name: "stop.sh", At: release.BeforeActivate, Run: blobFrom(stopText), Undo: blobFrom(startText), Limit: 5},
	}, doc.Components[0].Scripts)

	v, err := f.Verify(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, 6, v.Blobs, "with the index")
	require.Equal(t, a.Size+doc.Components[0].Index.Size, v.Bytes)
	require.Empty(t, v.Unused)

	again := scripted(t)
	again.Scripts[1].Limit = time.Second
	b, err := f.Release(t.Context(), again)
	require.NoError(t, err)
	require.Zero(t, b.NewBlobs, "programs of earlier releases are there")
	require.Equal(t, a.Size, b.Size)
	require.NotEqual(t, a.Release, b.Release)
	require.Equal(t, doc.Components[0].Digest(), f.documents(t).release.Components[0].Digest())
}

// TestScriptsAsDevicesRead finds each program by the locator and the table
// alone, as a device does, and reads it from where they say it lies.
func TestScriptsAsDevicesRead(t *testing.T) {
	f := newFixture(t)
	_, err := f.Release(t.Context(), scripted(t))
	require.NoError(t, err)
	read := func(pattern string) []byte {
		names, err := filepath.Glob(filepath.Join(f.dir, pattern))
		require.NoError(t, err)
		require.Len(t, names, 1)
		data, err := os.ReadFile(names[0])
		require.NoError(t, err)
		return data
	}
	doc, err := release.Parse(read("targets/releases/gateway/default/*.1.json"))
	require.NoError(t, err)
	loc, err := release.ParseLocator(read("targets/locators/gateway/default/*.1.json"))
	require.NoError(t, err)
	require.Equal(t, doc.Digest(), loc.Release)
	table, err := release.ParseTable(read(release.TableName(loc.Table.Digest)), loc)
	require.NoError(t, err)
	var got []string
	last := release.Place{}
	for _, b := range append([]release.Blob{doc.Components[0].Index}, doc.ScriptBlobs()...) {
		p, ok := table.Find(b)
		require.True(t, ok, b)
		pack := read(p.Pack)
		r, err := codec.NewReader(p.Codec, strings.NewReader(string(pack[p.Offset:p.Offset+p.Length])), nil)
		require.NoError(t, err)
		data, err := io.ReadAll(r)
		require.NoError(t, err)
		require.Equal(t, b, blobOf(data))
		require.Equal(t, last.Offset+last.Length, p.Offset, "behind the indexes, before the files")
		got, last = append(got, string(data)), p
	}
	require.Equal(t, []string{"\x7fELF and so on", tellText, stopText, startText}, got[1:])
}

func TestScriptsDeterministic(t *testing.T) {
	one, two := newFixture(t), newFixture(t)
	a, err := one.Release(t.Context(), scripted(t))
	require.NoError(t, err)
	b, err := two.Release(t.Context(), scripted(t))
	require.NoError(t, err)
	require.Equal(t, a.Release, b.Release)
	require.Equal(t, contents(t, one.dir), contents(t, two.dir))
}

func TestScriptRefused(t *testing.T) {
	f := newFixture(t)
	dir := tree{"empty": "", "text": "echo\n", "folder/": "", "Capitals": tellText,
		"long line": "#!/bin/" + strings.Repeat("s", maxInterpreter) + "\n"}.write(t)
	require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600))
	require.NoError(t, os.Symlink("missing", filepath.Join(dir, "dangling")))
	long, err := os.Create(filepath.Join(dir, "long"))
	require.NoError(t, err)
	_, err = long.WriteString("#!/bin/sh\n")
	require.NoError(t, err)
	require.NoError(t, long.Truncate(release.MaxScript+1))
	require.NoError(t, long.Close())
	for name, tc := range map[string]struct {
		change func(s *Script)
		want   string
	}{
		"no path":          {func(s *Script) { s.Run = "" }, "run: "},
		"missing":          {func(s *Script) { s.Run = filepath.Join(dir, "missing") }, "no such file"},
		"dangling link":    {func(s *Script) { s.Run = filepath.Join(dir, "dangling") }, "no such file"},
		"missing undo":     {func(s *Script) { s.Undo = filepath.Join(dir, "missing") }, "undo: "},
		"folder":           {func(s *Script) { s.Run = filepath.Join(dir, "folder") }, "is a folder"},
		"pipe":             {func(s *Script) { s.Run = filepath.Join(dir, "pipe") }, "special file"},
		"empty":            {func(s *Script) { s.Undo = filepath.Join(dir, "empty") }, "it is empty"},
		"text":             {func(s *Script) { s.Run = filepath.Join(dir, "text") }, "neither with an interpreter line"},
		"long line":        {func(s *Script) { s.Run = filepath.Join(dir, "long line") }, "longer than 127 bytes"},
		"too long":         {func(s *Script) { s.Run = filepath.Join(dir, "long") }, "16777217 bytes are more than 16777216"},
		"name of the file": {func(s *Script) { s.Name, s.Run = "", filepath.Join(dir, "Capitals") }, "not a name"},
		"unknown point":    {func(s *Script) { s.At = "before-boot" }, "no point"},
		"half a second":    {func(s *Script) { s.Limit = time.Second / 2 }, "whole seconds"},
		"negative limit":   {func(s *Script) { s.Limit = -time.Second }, "limit -1"},
		"undo of no way":   {func(s *Script) { s.At = release.AfterCommit }, "nothing to undo"},
	} {
		for _, of := range []func(s *Spec) *Script{func(s *Spec) *Script { return &s.Scripts[0] }, func(s *Spec) *Script { return &s.Components[0].Scripts[0] }} {
			s := scripted(t)
			tc.change(of(&s))
			_, err := f.Release(t.Context(), s)
			require.ErrorContains(t, err, tc.want, name)
		}
	}
	s := scripted(t)
	s.Scripts = append(s.Scripts, s.Scripts[0])
	_, err = f.Release(t.Context(), s)
	require.ErrorContains(t, err, "stands twice")
	v, err := f.Verify(t.Context(), nil)
	require.NoError(t, err)
	require.Zero(t, v.Releases)
	require.Empty(t, v.Unused)
}

// TestScriptChanges: a program that changes while it is released is never
// signed for another.
func TestScriptChanges(t *testing.T) {
	f := newFixture(t)
	s := scripted(t)
	f.open(t, func(what string) error {
		if what == "after shelf" { // scanned, and not yet packed
			return os.WriteFile(s.Scripts[1].Run, []byte(tellText+"more"), 0o644)
		}
		return nil
	})
	_, err := f.Release(t.Context(), s)
	require.ErrorIs(t, err, ErrChanged)
	require.ErrorContains(t, err, s.Scripts[1].Run)
}

// TestVerifyReadsScripts has Verify look at a release whose scripts are not in
// its table, or other than they were signed.
func TestVerifyReadsScripts(t *testing.T) {
	f := newFixture(t)
	_, err := f.Release(t.Context(), scripted(t))
	require.NoError(t, err)
	check := func(change func(r *release.Release)) error {
		l := f.documents(t)
		change(l.release)
		v := &verifying{ctx: t.Context(), r: f.Repository, used: map[string]bool{}, good: map[release.Digest]bool{},
			seen: map[release.Digest]bool{}, indexes: map[release.Digest]indexOf{}}
		return v.release(l)
	}
	require.NoError(t, check(func(*release.Release) {}))
	err = check(func(r *release.Release) { r.Scripts[0].Undo = blobFrom("#!/bin/sh\nanother") })
	require.ErrorContains(t, err, "scripts: blob")
	require.ErrorContains(t, err, "in no pack")
	require.ErrorIs(t, check(func(r *release.Release) { r.Components[0].Scripts[0].Run.Size-- }), errBlob)
}

func TestListScripts(t *testing.T) {
	f := newFixture(t)
	s := scripted(t)
	s.Components[0].Options = []byte(`{"localChanges":"keep","services":[{"name":"camera.service","do":"restart"},{"name":"web"}]}`)
	other := s.Components[0]
	other.Name, other.Options, other.Scripts = "other", []byte(`{"services":"none"}`), nil
	s.Components = append(s.Components, other)
	_, err := f.Release(t.Context(), s)
	require.NoError(t, err)
	list, err := f.List(t.Context())
	require.NoError(t, err)
	var names []string
	for _, l := range list[0].Scripts {
		names = append(names, fmt.Sprintf("%s/%s %s %d", l.Component, l.Name, l.At, l.Limit))
	}
	require.Equal(t, []string{"/migrate after-activate 600", "/tell after-revert 0", "app/stop.sh before-activate 5"}, names)
	require.Equal(t, []ListedService{{"app", "camera.service", "restart"}, {"app", "web", ""}}, list[0].Services)
	l := Listed{}
	l.addServices(release.Component{Kind: "compose", Options: s.Components[0].Options})
	require.Empty(t, l.Services, "what another kind has there is its own")
}

// TestScriptProgress: what was packed rises to all that there is to pack, of
// which programs are a part, and content that is there already is none.
func TestScriptProgress(t *testing.T) {
	f := newFixture(t)
	_, err := f.Release(t.Context(), spec("0", tree{"old": tellText}.write(t)))
	require.NoError(t, err)
	var steps []Progress
	r, err := Open(Options{Dir: f.dir, Keys: f.keys, Now: func() time.Time { return f.now }, Progress: func(p Progress) {
		if p.Step == "pack" {
			steps = append(steps, p)
		}
	}})
	require.NoError(t, err)
	a, err := r.Release(t.Context(), scripted(t))
	require.NoError(t, err)
	require.Equal(t, 4, a.NewBlobs)
	done := int64(0)
	for _, p := range steps {
		require.GreaterOrEqual(t, p.Done, done)
		require.Equal(t, a.NewSize, p.Total)
		done = p.Done
	}
	require.Equal(t, a.NewSize, done)
	require.Equal(t, "scripts", steps[0].Name)
	require.Equal(t, "app", steps[len(steps)-1].Name)
}

func TestCheckHead(t *testing.T) {
	full := func(n int) string { return "#!/bin/" + strings.Repeat("s", n-len("#!/bin/")) }
	for name, text := range map[string]string{
		"shell":          "#!/bin/sh\nexit 0\n",
		"space":          "#! \t/bin/sh -e\n",
		"argument":       "#!/usr/bin/env -S python3 -u\n",
		"no line end":    "#!/bin/true",
		"CR further on":  "#!/bin/sh\necho\r\n",
		"ELF":            "\x7fELF\x02\x01\x01",
		"longest line":   full(maxInterpreter) + "\n#",
		"longest of all": full(maxInterpreter),
	} {
		require.NoError(t, checkHead([]byte(text)), name)
	}
	for name, tc := range map[string][2]string{
		"text":           {"echo hello\n", "neither"},
		"one byte":       {"#", "neither"},
		"blank first":    {" #!/bin/sh\n", "neither"},
		"other magic":    {"\x7fELG", "neither"},
		"mark":           {"\xef\xbb\xbf#!/bin/sh\n", "byte order mark"},
		"UTF-16":         {"\xff\xfe#\x00!\x00", "neither"},
		"DOS":            {"#!/bin/sh\r\nexit\r\n", "CR LF"},
		"DOS, argument":  {"#!/usr/bin/env bash\r\n", "CR LF"},
		"DOS, nothing":   {"#!\r\n", "CR LF"},
		"Mac":            {"#!/bin/sh\rexit\r", "CR LF"},
		"no interpreter": {"#!\n", "names no interpreter"},
		"blanks":         {"#! \t\n/bin/sh", "names no interpreter"},
		"relative":       {"#!bin/sh\n", `"bin/sh" is not an absolute path`},
		"by name":        {"#!sh -e\n", `"sh" is not an absolute path`},
		"long":           {full(maxInterpreter+1) + "\n", "longer than 127 bytes"},
		"long for ever":  {full(maxInterpreter + 2), "longer than 127 bytes"},
	} {
		require.ErrorContains(t, checkHead([]byte(tc[0])), tc[1], name)
	}
}

// TestScriptOfAnyMode: what can be read can be released; the device gives it
// the mode to run.
func TestScriptOfAnyMode(t *testing.T) {
	f := newFixture(t)
	s := scripted(t)
	require.NoError(t, os.Chmod(s.Scripts[0].Run, 0o400))
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(s.Scripts[0].Run, link))
	s.Scripts[0].Run = link
	_, err := f.Release(t.Context(), s)
	require.NoError(t, err)
	require.True(t, slices.Contains(f.documents(t).release.ScriptBlobs(), blobFrom("\x7fELF and so on")))
}
