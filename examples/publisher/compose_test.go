package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// archiveOf is a tar of files by name.
func archiveOf(t *testing.T, files map[string]string) string {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for name, text := range files {
		require.NoError(t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text)), Typeflag: tar.TypeReg}))
		_, err := w.Write([]byte(text))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return buf.String()
}

func sum(text string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(text))) }

// imageConfig is the configuration of an image with one layer.
func imageConfig(layer string) string {
	return `{"architecture":"arm64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:` + sum(layer) + `"]}}`
}

// newGateway is a site with what the second SPEC of the README names.
func newGateway(t *testing.T) (site, string) {
	s := newSite(t)
	data, err := os.ReadFile("README.md")
	require.NoError(t, err)
	blocks := strings.Split(string(data), "```yaml\n")
	require.Len(t, blocks, 3)
	spec, _, _ := strings.Cut(blocks[2], "```\n")

	require.NoError(t, os.Mkdir(filepath.Join(s.dir, "build"), 0o755))
	layer := archiveOf(t, map[string]string{"bin/app": "the app"})
	config := imageConfig(layer)
	manifest := fmt.Sprintf(`{"schemaVersion":2,"config":{"digest":"sha256:%s","size":%d},"layers":[{"digest":"sha256:%s","size":%d}]}`, sum(config), len(config), sum(layer), len(layer))
	s.write(t, "build/app.tar", archiveOf(t, map[string]string{"blobs/sha256/" + sum(config): config, "blobs/sha256/" + sum(layer): layer,
		"blobs/sha256/" + sum(manifest): manifest, "oci-layout": `{"imageLayoutVersion":"1.0.0"}`,
		"index.json": fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"digest":"sha256:%s","size":%d}]}`, sum(manifest), len(manifest))}))
	side := archiveOf(t, map[string]string{"bin/side": "another"})
	s.write(t, "build/rest.tar", archiveOf(t, map[string]string{"c.json": imageConfig(side), "l/layer.tar": side,
		"manifest.json": `[{"Config":"c.json","RepoTags":["acme/side:1"],"Layers":["l/layer.tar"]}]`}))
	s.write(t, "field.env", "SITE=hall\n")
	s.write(t, "compose.yaml", `
services:
  web:
    image: acme/app:$TAG
    environment: {SITE: $SITE, COMMIT: $CI_COMMIT, ID: $PAWL_DEVICE_ID}
    x-pawl: {strategy: handover}
  side: {image: "acme/side:1", profiles: [field]}
  lab: {image: "acme/lab:1", profiles: [lab]}
`)
	return s, spec
}

// TestSampleContainers releases the app of the README, lists it and verifies it.
func TestSampleContainers(t *testing.T) {
	s, spec := newGateway(t)
	t.Setenv("CI_COMMIT", "0123abc")
	r := s.release(t, spec)
	require.Equal(t, 0, r.code, r.errs)
	require.Contains(t, r.out, "brought     gateway, ")
	require.Contains(t, r.out, "2.4.0 seq 1")

	r = call(t, "list", "-repo", s.repo)
	require.Equal(t, 0, r.code, r.errs)
	words := strings.Join(strings.Fields(r.out), " ")
	require.Contains(t, words, "COMPONENT CONTAINER IMAGE STRATEGY default 1 gateway side acme/side:1 recreate default 1 gateway web acme/app:7 handover")
	r = call(t, "verify", "-repo", s.repo)
	require.Equal(t, 0, r.code, r.errs)
	require.Contains(t, r.out, "1 releases, 5 blobs")
}

// TestComposeErrors: what is wrong in a compose file is named by file and line,
// and ends with the code of a wrong SPEC.
func TestComposeErrors(t *testing.T) {
	s, spec := newGateway(t)
	r := s.release(t, spec)
	require.Equal(t, 2, r.code)
	require.Contains(t, r.errs, "CI_COMMIT has no value, and none in the environment either")
	t.Setenv("CI_COMMIT", "0123abc")
	s.write(t, "compose.yaml", "services:\n  web:\n    image: acme/app:7\n    build: .\n")
	r = s.release(t, spec)
	require.Equal(t, 2, r.code, r.errs)
	require.Contains(t, r.errs, filepath.Join(s.dir, "compose.yaml")+`:4: not the description of a release: services.web.build: the key "build" is not supported`)
}
