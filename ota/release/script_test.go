package release_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/release"
)

// sampleScripts is sampleRelease with a script at every point, and every field
// of one.
func sampleScripts() *release.Release {
	r := sampleRelease()
	r.Scripts = []release.Script{
		{Name: "battery", At: release.BeforeStage, Run: blob("#!/bin/sh\nbattery")},
		{Name: "migrate", At: release.AfterActivate, Run: blob("\x7fELF migrate"), Undo: blob("#!/bin/sh\nback"), Limit: 600},
		{Name: "last-word", At: release.BeforeCommit, Run: blob("#!/bin/sh\nlast")},
		{Name: "tell", At: release.AfterCommit, Run: blob("#!/bin/sh\ntell"), Limit: release.MaxScriptLimit},
		{Name: "tell", At: release.AfterRevert, Run: blob("#!/bin/sh\ntell")},
	}
	r.Components[0].Scripts = []release.Script{
		{Name: "room", At: release.AfterStage, Run: blob("#!/bin/sh\nroom"), Limit: 1},
		{Name: "stop.sh", At: release.BeforeActivate, Run: blob("#!/bin/sh\nstop"), Undo: blob("#!/bin/sh\nstart")},
		{Name: "merge", At: release.OnMerge, Run: blob("#!/bin/sh\nmerge")},
	}
	return r
}

func TestScriptsRoundTrip(t *testing.T) {
	r := sampleScripts()
	data, err := r.Encode()
	require.NoError(t, err)
	got, err := release.Parse(data)
	require.NoError(t, err)
	require.Equal(t, r, got)
	require.Equal(t, release.Sum(data), r.Digest())
}

func TestScriptRules(t *testing.T) {
	for name, broken := range map[string]struct {
		change func(r *release.Release, s *release.Script)
		want   error
	}{
		"no name":            {func(_ *release.Release, s *release.Script) { s.Name = "" }, release.ErrName},
		"name with path":     {func(_ *release.Release, s *release.Script) { s.Name = "../stop" }, release.ErrName},
		"name in capitals":   {func(_ *release.Release, s *release.Script) { s.Name = "Stop" }, release.ErrName},
		"no point":           {func(r *release.Release, _ *release.Script) { r.Scripts[0].At = "" }, release.ErrInvalid},
		"unknown point":      {func(r *release.Release, _ *release.Script) { r.Scripts[0].At = "before-boot" }, release.ErrInvalid},
		"point in capitals":  {func(r *release.Release, _ *release.Script) { r.Scripts[0].At = "Before-Activate" }, release.ErrInvalid},
		"negative limit":     {func(_ *release.Release, s *release.Script) { s.Limit = -1 }, release.ErrInvalid},
		"limit too long":     {func(_ *release.Release, s *release.Script) { s.Limit = release.MaxScriptLimit + 1 }, release.ErrInvalid},
		"no program":         {func(_ *release.Release, s *release.Script) { s.Run = release.Blob{} }, release.ErrInvalid},
		"empty program":      {func(_ *release.Release, s *release.Script) { s.Run.Size = 0 }, release.ErrInvalid},
		"program too long":   {func(_ *release.Release, s *release.Script) { s.Run.Size = release.MaxScript + 1 }, release.ErrInvalid},
		"no digest":          {func(_ *release.Release, s *release.Script) { s.Run.Digest = release.Digest{} }, release.ErrInvalid},
		"empty undo":         {func(_ *release.Release, s *release.Script) { s.Undo.Size = 0 }, release.ErrInvalid},
		"undo without sum":   {func(_ *release.Release, s *release.Script) { s.Undo.Digest = release.Digest{} }, release.ErrInvalid},
		"undo too long":      {func(_ *release.Release, s *release.Script) { s.Undo.Size = release.MaxScript + 1 }, release.ErrInvalid},
		"undo of a merge":    {func(_ *release.Release, s *release.Script) { s.At = release.OnMerge }, release.ErrInvalid},
		"undo of the end":    {func(_ *release.Release, s *release.Script) { s.At = release.AfterCommit }, release.ErrInvalid},
		"undo of the return": {func(_ *release.Release, s *release.Script) { s.At = release.AfterRevert }, release.ErrInvalid},
		"merge of a release": {func(r *release.Release, _ *release.Script) { r.Scripts[0].At = release.OnMerge }, release.ErrInvalid},
		"twice at a point": {func(r *release.Release, s *release.Script) {
			r.Components[0].Scripts = append(r.Components[0].Scripts, *s)
		}, release.ErrInvalid},
		"twice in a release":  {func(r *release.Release, _ *release.Script) { r.Scripts[4].At = release.AfterCommit }, release.ErrInvalid},
		"one too many":        {func(r *release.Release, _ *release.Script) { r.Scripts = numbered(release.MaxScripts - 2) }, release.ErrInvalid},
		"too many by the end": {func(r *release.Release, _ *release.Script) { r.Components[1].Scripts = numbered(57) }, release.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			r := sampleScripts()
			broken.change(r, &r.Components[0].Scripts[1])
			require.ErrorIs(t, r.Validate(), broken.want)
			_, err := r.Encode()
			require.ErrorIs(t, err, broken.want)
		})
	}
}

// TestScriptsAllowed is what lies just inside of the rules.
func TestScriptsAllowed(t *testing.T) {
	for name, change := range map[string]func(r *release.Release, s *release.Script){
		"longest program":          func(_ *release.Release, s *release.Script) { s.Run.Size = release.MaxScript },
		"as many as can be":        func(r *release.Release, _ *release.Script) { r.Scripts = numbered(release.MaxScripts - 3) },
		"same name at two points":  func(r *release.Release, _ *release.Script) { r.Components[0].Scripts[0].Name = "stop.sh" },
		"same in two components":   func(r *release.Release, s *release.Script) { r.Components[1].Scripts = []release.Script{*s} },
		"same in release and part": func(r *release.Release, s *release.Script) { r.Scripts = []release.Script{*s} },
	} {
		r := sampleScripts()
		change(r, &r.Components[0].Scripts[1])
		require.NoError(t, r.Validate(), name)
	}
}

func numbered(n int) (list []release.Script) {
	for i := range n {
		list = append(list, release.Script{Name: fmt.Sprint(i), At: release.BeforeStage, Run: blob("#!/bin/sh\n")})
	}
	return list
}

// TestPoints: the words are stored in documents, so they stay as they are.
func TestPoints(t *testing.T) {
	for i, tc := range []struct {
		point release.Point
		undo  bool
	}{
		{"before-stage", true}, {"after-stage", true}, {"before-activate", true}, {"after-activate", true},
		{"before-commit", true}, {"after-commit", false}, {"after-revert", false}, {"on-merge", false},
	} {
		require.True(t, tc.point.Known(), tc.point)
		require.Equal(t, tc.point, release.Points()[i])
		require.Equal(t, tc.undo, tc.point.HasUndo(), tc.point)
	}
	require.Len(t, release.Points(), 8)
	for _, p := range []release.Point{"", "before", "stage", "on-merge "} {
		require.False(t, p.Known(), p)
		require.False(t, p.HasUndo(), p)
	}
}

// TestOneDocumentWithScripts: scripts have one spelling too.
func TestOneDocumentWithScripts(t *testing.T) {
	data, err := sampleScripts().Encode()
	require.NoError(t, err)
	good := string(data)
	undo := fmt.Sprintf(`,"undo":{"digest":"%s","size":14}`, sum("#!/bin/sh\nback"))
	for name, change := range map[string][2]string{
		"unknown key":       {`"name":"battery"`, `"name":"battery","user":"root"`},
		"key twice":         {`"name":"battery"`, `"name":"battery","name":"battery"`},
		"key in capitals":   {`"at":"before-stage"`, `"At":"before-stage"`},
		"order of keys":     {`"name":"battery","at":"before-stage"`, `"at":"before-stage","name":"battery"`},
		"limit of none":     {`"limit":600`, `"limit":0`},
		"limit as text":     {`"limit":600`, `"limit":"600s"`},
		"limit with point":  {`"limit":600`, `"limit":600.5`},
		"empty undo":        {undo, `,"undo":{}`},
		"no undo":           {undo, `,"undo":null`},
		"undo that is zero": {undo, `,"undo":{"digest":"` + strings.Repeat("0", 64) + `","size":0}`},
		"no scripts":        {`"options":`, `"scripts":[],"options":`},
		"null scripts":      {`"repair":"none"}}`, `"repair":"none"},"scripts":null}`},
	} {
		t.Run(name, func(t *testing.T) {
			bad := strings.Replace(good, change[0], change[1], 1)
			require.NotEqual(t, good, bad)
			_, err := release.Parse([]byte(bad))
			require.ErrorIs(t, err, release.ErrInvalid)
		})
	}
}

func TestScriptBlobs(t *testing.T) {
	require.Empty(t, sampleRelease().ScriptBlobs())
	r := sampleScripts()
	require.Equal(t, []release.Blob{
		blob("#!/bin/sh\nbattery"), blob("\x7fELF migrate"), blob("#!/bin/sh\nback"), blob("#!/bin/sh\nlast"), blob("#!/bin/sh\ntell"),
		blob("#!/bin/sh\nroom"), blob("#!/bin/sh\nstop"), blob("#!/bin/sh\nstart"), blob("#!/bin/sh\nmerge"),
	}, r.ScriptBlobs(), "each once, in the order of the document")
	r.Components[1].Scripts = []release.Script{{Name: "other", At: release.AfterStage, Run: blob("#!/bin/sh\nback"), Undo: blob("more")}}
	require.Len(t, r.ScriptBlobs(), 10)
}

// TestScriptsAreNoPartOfAComponent: other scripts do not make a device switch
// what it has.
func TestScriptsAreNoPartOfAComponent(t *testing.T) {
	require.Equal(t, componentDigest, sampleScripts().Components[0].Digest().String())
	require.NotEqual(t, sampleRelease().Digest(), sampleScripts().Digest(), "but they are part of the release")
}

// TestGoldenScripts reads a document with scripts as it was first written.
func TestGoldenScripts(t *testing.T) {
	data, err := sampleScripts().Encode()
	require.NoError(t, err)
	want := golden(t, "scripts.json", data)
	require.Equal(t, string(want), string(data))
	got, err := release.Parse(want)
	require.NoError(t, err)
	require.Equal(t, sampleScripts(), got)
}
