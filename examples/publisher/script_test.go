package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// sampleSpec returns the SPEC of the README.
func sampleSpec(t *testing.T) string {
	data, err := os.ReadFile("README.md")
	require.NoError(t, err)
	_, rest, ok := strings.Cut(string(data), "```yaml\n")
	require.True(t, ok)
	spec, _, ok := strings.Cut(rest, "```\n")
	require.True(t, ok)
	return spec
}

// newCamera is a site with what the SPEC of the README names.
func newCamera(t *testing.T) site {
	s := newSite(t)
	require.NoError(t, os.MkdirAll(filepath.Join(s.dir, "build", "camera"), 0o755))
	require.NoError(t, os.Mkdir(filepath.Join(s.dir, "scripts"), 0o755))
	s.write(t, "build/camera/app", "the app")
	for _, name := range []string{"park", "unpark", "battery", "tell"} {
		s.write(t, "scripts/"+name+".sh", "#!/bin/sh\n: "+name+"\n")
	}
	s.write(t, "build/migrate", "\x7fELF forth")
	s.write(t, "build/migrate-back", "\x7fELF back")
	return s
}

// TestSampleSpec releases what stands in the README, and lists it.
func TestSampleSpec(t *testing.T) {
	s := newCamera(t)
	r := s.release(t, sampleSpec(t))
	require.Equal(t, 0, r.code, r.errs)
	require.Contains(t, r.out, "3 entries and 4 scripts with")
	require.Contains(t, r.out, "of which 7 new")

	r = call(t, "list", "-repo", s.repo)
	require.Equal(t, 0, r.code, r.errs)
	var got []string
	for line := range strings.Lines(r.out) {
		if words := strings.Fields(line); len(words) == 8 {
			got = append(got, strings.Join(words[2:6], " "))
		} else if len(words) == 5 {
			got = append(got, strings.Join(words[2:], " "))
		}
	}
	require.Equal(t, []string{
		"COMPONENT AT SCRIPT LIMIT",
		"- before-stage battery.sh -",
		"- after-activate migrate 10m0s",
		"- after-revert tell.sh -",
		"camera before-activate park-lens 30s",
		"COMPONENT SERVICE DO",
		"camera camera.service around",
		"camera web.service reload",
	}, got, r.out)

	r = call(t, "list", "-repo", s.repo, "-json")
	require.Equal(t, 0, r.code, r.errs)
	var listed struct {
		Scripts []struct {
			Component, Name, At string
			Limit               int
			Run, Undo           struct{ Size int64 }
		}
		Services []struct{ Component, Name, Do string }
	}
	require.NoError(t, json.Unmarshal([]byte(r.out), &listed))
	require.Len(t, listed.Scripts, 4)
	require.Equal(t, "migrate", listed.Scripts[1].Name)
	require.EqualValues(t, len("\x7fELF forth"), listed.Scripts[1].Run.Size)
	require.EqualValues(t, len("\x7fELF back"), listed.Scripts[1].Undo.Size)
	require.Equal(t, 600, listed.Scripts[1].Limit)
	require.Len(t, listed.Services, 2)

	r = call(t, "verify", "-repo", s.repo)
	require.Equal(t, 0, r.code, r.errs)
	require.Contains(t, r.out, "1 releases, 8 blobs")
	require.NotContains(t, r.out, "unused")
}

// TestWindowsScript: a script that an editor on Windows saved is refused with
// the line of the SPEC that names it, and nothing is released.
func TestWindowsScript(t *testing.T) {
	s := newCamera(t)
	s.write(t, "scripts/unpark.sh", "#!/bin/sh\r\nexit 0\r\n")
	r := s.release(t, sampleSpec(t))
	require.Equal(t, 2, r.code)
	before, _, _ := strings.Cut(sampleSpec(t), "undo: scripts/unpark.sh")
	require.Contains(t, r.errs, fmt.Sprintf("%s:%d: ", filepath.Join(s.dir, "SPEC.yaml"), strings.Count(before, "\n")+1))
	require.Contains(t, r.errs, `component "camera": script "park-lens": undo: `)
	require.Contains(t, r.errs, "ends in CR LF")
	require.Empty(t, r.out)
	r = call(t, "list", "-repo", s.repo)
	require.Equal(t, 0, r.code)
	list, _, _ := strings.Cut(r.out, "\n\n")
	require.NotContains(t, list, "\n", "the head alone")
}
