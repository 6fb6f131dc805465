package publish

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/release"
)

// specFolder is a folder with what the SPEC files of these tests name.
func specFolder(t testing.TB) string {
	return tree{
		"app/a": "a", "scripts/stop.sh": stopText, "scripts/start.sh": startText, "scripts/Tell": tellText,
		"scripts/empty.sh": "", "scripts/text.sh": "echo\n", "scripts/dos.sh": "#!/bin/sh\r\nexit 0\r\n",
		"scripts/relative.sh": "#!sh\n", "scripts/elf": "\x7fELF", "scripts/long.sh": "#!/bin/sh\n" + strings.Repeat("#", release.MaxScript),
	}.write(t)
}

func readSpec(t testing.TB, dir, text string) (Spec, error) {
	path := filepath.Join(dir, "SPEC.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	return ReadSpec(path)
}

func TestSpecScripts(t *testing.T) {
	dir := specFolder(t)
	s, err := readSpec(t, dir, `
version: 1.0.0
scripts:
  - {name: migrate, at: after-activate, run: scripts/elf, undo: ./scripts/../scripts/start.sh, limit: 10m}
  - {at: after-revert, run: `+dir+`/scripts/stop.sh}
  - {at: after-commit, run: scripts/stop.sh}
components:
  - name: app
    kind: files
    from: app
    options: {localChanges: keep, paths: [{path: "etc/*", localChanges: merge}], empty: {}}
    services:
      - {name: camera.service, do: restart}
      - name: getty@tty1.service
      - {name: 'dev-disk\x2dby.mount', do: reload}
      - {name: web, do: start}
      - {name: two, do: around}
    scripts:
      - at: on-merge
        name: merge
        run: scripts/Tell
        limit: 3600s
`)
	require.NoError(t, err)
	in := func(name string) string { return filepath.Join(dir, "scripts", name) }
	require.Equal(t, []Script{
		{Name: "migrate", At: release.AfterActivate, Run: in("elf"), Undo: in("start.sh"), Limit: 10 * time.Minute},
		{Name: "stop.sh", At: release.AfterRevert, Run: in("stop.sh")},
		{Name: "stop.sh", At: release.AfterCommit, Run: in("stop.sh")},
	}, s.Scripts)
	require.Equal(t, []Script{{Name: "merge", At: release.OnMerge, Run: in("Tell"), Limit: time.Hour}}, s.Components[0].Scripts)
	require.Equal(t, `{"empty":{},"localChanges":"keep","paths":[{"localChanges":"merge","path":"etc/*"}],`+
		`"services":[{"name":"camera.service","do":"restart"},{"name":"getty@tty1.service","do":"around"},`+
		`{"name":"dev-disk\\x2dby.mount","do":"reload"},{"name":"web","do":"start"},{"name":"two","do":"around"}]}`,
		string(s.Components[0].Options))

	f := newFixture(t)
	a, err := f.Release(t.Context(), s)
	require.NoError(t, err)
	require.Equal(t, 4, a.Scripts)
	require.Equal(t, s.Components[0].Options, f.documents(t).release.Components[0].Options)
}

// TestSpecLateRollback: the word goes into the release, and "allow" is as good as
// no word.
func TestSpecLateRollback(t *testing.T) {
	dir := specFolder(t)
	for word, want := range map[string]release.LateRollback{
		"": release.LateAllowed, "lateRollback: allow\n": release.LateAllowed, "lateRollback: forbid\n": release.LateForbidden,
	} {
		s, err := readSpec(t, dir, "version: 1\n"+word+minimalComponents)
		require.NoError(t, err, word)
		f := newFixture(t)
		_, err = f.Release(t.Context(), s)
		require.NoError(t, err, word)
		require.Equal(t, want, f.documents(t).release.LateRollback, word)
	}
	_, err := readSpec(t, dir, "version: 1\nlateRollback: never\n"+minimalComponents)
	require.ErrorIs(t, err, ErrSpec)
	require.ErrorContains(t, err, `SPEC.yaml:2: not the description of a release: lateRollback "never" is not allow or forbid`)
}

func TestSpecOptions(t *testing.T) {
	dir := specFolder(t)
	head := "version: 1\ncomponents:\n  - name: app\n    kind: files\n    from: app\n"
	for _, tc := range [][2]string{
		{"", ""},
		{"    services: []\n", ""},
		{"    options: {}\n", "{}"},
		{"    options: {a: 1}\n    services: []\n", `{"a":1}`},
		{"    options: {services: [{name: a, do: later}]}\n", `{"services":[{"do":"later","name":"a"}]}`},
		{"    services: [{name: a}]\n", `{"services":[{"name":"a","do":"around"}]}`},
	} {
		s, err := readSpec(t, dir, head+tc[0])
		require.NoError(t, err, tc[0])
		require.Equal(t, tc[1], string(s.Components[0].Options), tc[0])
	}
}

// TestSpecScriptErrors: each error starts with the file and the line.
func TestSpecScriptErrors(t *testing.T) {
	dir := specFolder(t)
	ofRelease := func(text string) string { return "version: 1\nscripts:\n" + text + minimalComponents }
	ofApp := func(text string) string { return "version: 1\n" + minimalComponents + text }
	for name, tc := range map[string]struct {
		spec string
		line int
		want string
	}{
		"unknown key":          {ofRelease("  - at: after-stage\n    runs: scripts/stop.sh\n"), 4, `unknown key "runs"`},
		"unknown key of part":  {ofApp("    scripts:\n      - at: after-stage\n        user: root\n"), 8, `unknown key "user"`},
		"no list":              {ofRelease("  at: after-stage\n"), 3, ""},
		"nothing in it":        {ofRelease("  - {}\n"), 1, "has no run"},
		"nothing in a part":    {ofApp("    scripts: [{}]\n"), 3, `component "app": a script has no run`},
		"no run":               {ofRelease("  - name: stop\n    at: after-stage\n"), 3, "has no run"},
		"no run, other order":  {ofRelease("  - at: after-stage\n    name: stop\n"), 3, "has no run"},
		"no point":             {ofRelease("  - name: stop\n    run: scripts/stop.sh\n"), 3, `"" is not one of before-stage, after-stage`},
		"unknown point":        {ofRelease("  - run: scripts/stop.sh\n    at: before-boot\n"), 4, `"before-boot" is not one of before-stage`},
		"merge of a release":   {ofRelease("  - run: scripts/stop.sh\n    at: on-merge\n"), 4, "only a component"},
		"name":                 {ofRelease("  - run: scripts/stop.sh\n    at: after-stage\n    name: Stop it\n"), 5, "Stop it"},
		"empty name":           {ofRelease("  - run: scripts/stop.sh\n    at: after-stage\n    name: ''\n"), 5, "name"},
		"name of the file":     {ofRelease("  - at: after-stage\n    run: scripts/Tell\n"), 4, `"scripts/Tell" needs a name of its own`},
		"missing":              {ofRelease("  - at: after-stage\n    run: scripts/none.sh\n"), 4, "scripts/none.sh: no such file"},
		"folder":               {ofRelease("  - at: after-stage\n    run: scripts\n"), 4, "is a folder"},
		"empty":                {ofRelease("  - at: after-stage\n    run: scripts/empty.sh\n"), 4, "it is empty"},
		"too long":             {ofRelease("  - at: after-stage\n    run: scripts/long.sh\n"), 4, "16777226 bytes are more than 16777216"},
		"text":                 {ofRelease("  - at: after-stage\n    run: scripts/text.sh\n"), 4, "neither with an interpreter line"},
		"DOS":                  {ofRelease("  - at: after-stage\n    run: scripts/dos.sh\n"), 4, "ends in CR LF"},
		"relative interpreter": {ofRelease("  - at: after-stage\n    run: scripts/relative.sh\n"), 4, `"sh" is not an absolute path`},
		"undo missing":         {ofRelease("  - at: after-stage\n    run: scripts/stop.sh\n    undo: none.sh\n"), 5, "undo: stat"},
		"undo empty":           {ofRelease("  - at: after-stage\n    run: scripts/stop.sh\n    undo: ''\n"), 5, "undo: "},
		"undo of no program":   {ofApp("    scripts:\n      - at: after-stage\n        run: scripts/stop.sh\n        undo: scripts/dos.sh\n"), 9, "ends in CR LF"},
		"undo after commit":    {ofRelease("  - at: after-commit\n    run: scripts/stop.sh\n    undo: scripts/start.sh\n"), 5, "nothing to undo at after-commit"},
		"undo after revert":    {ofRelease("  - at: after-revert\n    run: scripts/stop.sh\n    undo: scripts/start.sh\n"), 5, "nothing to undo at after-revert"},
		"undo of a merge":      {ofApp("    scripts:\n      - at: on-merge\n        run: scripts/stop.sh\n        undo: scripts/start.sh\n"), 9, "nothing to undo at on-merge"},
		"limit without unit":   {ofRelease("  - at: after-stage\n    run: scripts/stop.sh\n    limit: 30\n"), 5, `limit: "30" is not a time in whole seconds from 1s to 1h0m0s`},
		"limit too fine":       {ofRelease("  - at: after-stage\n    run: scripts/stop.sh\n    limit: 1500ms\n"), 5, `"1500ms"`},
		"limit 0":              {ofRelease("  - at: after-stage\n    run: scripts/stop.sh\n    limit: 0s\n"), 5, `"0s"`},
		"limit below 0":        {ofRelease("  - at: after-stage\n    run: scripts/stop.sh\n    limit: -1s\n"), 5, `"-1s"`},
		"limit too long":       {ofRelease("  - at: after-stage\n    run: scripts/stop.sh\n    limit: 3601s\n"), 5, `"3601s"`},
		"twice":                {ofRelease("  - at: after-stage\n    run: scripts/stop.sh\n  - name: stop.sh\n    at: after-stage\n    run: scripts/start.sh\n"), 5, `"stop.sh" stands at after-stage in line 3 already`},
		"twice in a part":      {ofApp("    scripts:\n      - {at: after-stage, run: scripts/stop.sh}\n      - {at: after-stage, run: scripts/stop.sh}\n"), 8, "in line 7 already"},
		"too many":             {ofRelease(manyScripts(release.MaxScripts + 1)), 3 + release.MaxScripts, "more than 64 scripts"},
		"too many by a part":   {ofRelease(manyScripts(release.MaxScripts)) + "    scripts:\n      - {at: after-stage, run: scripts/stop.sh}\n", 3 + release.MaxScripts + 5, "more than 64 scripts"},
		"service key":          {ofApp("    services:\n      - name: a\n        when: now\n"), 8, `unknown key "when"`},
		"service as a word":    {ofApp("    services:\n      - camera.service\n"), 7, ""},
		"service without name": {ofApp("    services:\n      - do: start\n"), 7, `"" is not the name of a service`},
		"nothing of a service": {ofApp("    services: [{}]\n"), 3, `"" is not the name of a service`},
		"service in a folder":  {ofApp("    services:\n      - name: ../camera\n"), 7, `"../camera" is not the name`},
		"service with a dot":   {ofApp("    services:\n      - name: .hidden\n"), 7, `".hidden" is not the name`},
		"service as a flag":    {ofApp("    services:\n      - name: --all\n"), 7, `"--all" is not the name`},
		"service with a space": {ofApp("    services:\n      - name: a b\n"), 7, `"a b" is not the name`},
		"service name, length": {ofApp("    services:\n      - name: " + strings.Repeat("n", 256) + "\n"), 7, "is not the name"},
		"service word":         {ofApp("    services:\n      - name: a\n        do: kill\n"), 8, `a: do: "kill" is not one of around, restart, reload, start`},
		"service twice":        {ofApp("    services:\n      - name: a\n      - {name: a, do: start}\n"), 8, "a stands in line 7 already"},
		"too many services":    {ofApp("    services:\n" + manyServices(65)), 71, "services: more than 64"},
		"services in options":  {ofApp("    options: {services: []}\n    services:\n      - name: a\n"), 6, "services stands here and as a key"},
		"options too long":     {ofApp("    options:\n      a: " + strings.Repeat("x", release.MaxOptions) + "\n"), 7, "are longer than 65536"},
		"options no JSON":      {ofApp("    options: {a: .nan}\n"), 6, "NaN"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := readSpec(t, dir, tc.spec)
			require.ErrorIs(t, err, ErrSpec)
			require.True(t, strings.HasPrefix(err.Error(), fmt.Sprintf("%s:%d: ", filepath.Join(dir, "SPEC.yaml"), tc.line)), err.Error())
			require.ErrorContains(t, err, tc.want)
		})
	}
	s, err := readSpec(t, dir, ofRelease(manyScripts(release.MaxScripts)))
	require.NoError(t, err)
	require.Len(t, s.Scripts, release.MaxScripts)
	_, err = readSpec(t, dir, ofApp("    services:\n"+manyServices(64)))
	require.NoError(t, err)
}

const minimalComponents = "components:\n  - name: app\n    kind: files\n    from: app\n"

func manyScripts(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "  - {name: s%d, at: after-stage, run: scripts/stop.sh}\n", i)
	}
	return b.String()
}

func manyServices(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "      - name: s%d\n", i)
	}
	return b.String()
}

// FuzzReadSpec: whatever stands in a SPEC file, it is refused by name, or what
// it says can be released.
func FuzzReadSpec(f *testing.F) {
	dir := tree{"app/a": "a", "stop.sh": stopText}.write(f)
	f.Add("version: 1\n" + minimalComponents)
	f.Add("product: p\nvariant: v\nversion: 1\nseq: 7\nattempt: 2\nhardware: [a]\nsecurityFloor: 5\nlateRollback: forbid\nissued: 2026-09-01T12:00:00Z\n" + minimalComponents +
		"    carry: [x]\n    absent: [y]\n    partial: true\n    owner: {uid: 0, gid: 1}\n    selinux: true\n    keep: {previous: 1, repair: full}\n    options: {a: [1]}\n")
	f.Add("version: 1\nscripts: [{at: before-stage, run: stop.sh, undo: stop.sh, limit: 30s}]\n" + minimalComponents +
		"    services: [{name: a.service, do: reload}]\n    scripts: [{name: x, at: on-merge, run: stop.sh}]\n")
	f.Add("version: &v 1\nscripts: &s\n- &x {at: after-revert, run: stop.sh}\n- {<<: *x, name: y}\n" + minimalComponents + "    scripts: *s\n")
	path := filepath.Join(dir, "SPEC.yaml")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseSpec(path, []byte(text))
		if err != nil {
			require.ErrorIs(t, err, ErrSpec)
			require.True(t, strings.HasPrefix(err.Error(), path+":"), err.Error())
			return
		}
		a := &adding{ctx: t.Context(), programs: map[release.Digest]string{}}
		doc := &release.Release{Format: release.Format, ID: release.ID{Product: "p", Variant: "v", Seq: max(s.Seq, 1)}, Issued: start.Truncate(time.Second)}
		doc.Scripts, err = a.scanScripts(s.Scripts)
		require.NoError(t, err)
		for _, c := range s.Components {
			scripts, err := a.scanScripts(c.Scripts)
			require.NoError(t, err)
			doc.Components = append(doc.Components, release.Component{Name: c.Name, Kind: c.Kind, Index: blobFrom("x"), Keep: c.Keep,
				Options: c.Options, Scripts: scripts})
		}
		if len(doc.Components) <= release.MaxComponents {
			require.NoError(t, doc.Validate())
		}
	})
}
