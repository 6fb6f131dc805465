package publish

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

const composeHead = "version: 1\ncomponents:\n  - name: gateway\n    kind: compose\n    from: compose.yaml\n"

func TestSpecCompose(t *testing.T) {
	dir := tree{"compose.yaml": "", "oci/index.json": "", "db.tar": "", "prod.env": "A=1\n"}.write(t)
	t.Setenv("PUBLISHER_HAS", "it")
	s, err := readSpec(t, dir, composeHead+`
    platform: linux/arm/v7
    profiles: [a, b]
    env: {TAG: 7, PUBLISHER_HAS: , EMPTY: ""}
    env-file: [prod.env]
    images:
      acme/app: oci:./oci
      acme/db: docker-archive:db.tar
      acme/job: engine
      acme/old: engine:other:1
      acme/far: {from: registry, pull: true}
      acme/rootless: {from: engine, path: /run/user/1/docker.sock, ref: x}
      "*": registry
    keep: {previous: 2, repair: full}
    options: {a: 1}
`)
	require.NoError(t, err)
	c := s.Components[0]
	require.Equal(t, filepath.Join(dir, "compose.yaml"), c.From)
	require.Equal(t, 2, c.Keep.Previous)
	require.Equal(t, `{"a":1}`, string(c.Options))
	require.Equal(t, ComposeOptions{
		Platform: "linux/arm/v7", Profiles: []string{"a", "b"}, Env: map[string]string{"TAG": "7", "PUBLISHER_HAS": "it", "EMPTY": ""},
		EnvFiles: []string{filepath.Join(dir, "prod.env")},
		Images: map[string]ImageSource{
			"acme/app": {From: FromOCI, Path: filepath.Join(dir, "oci")}, "acme/db": {From: FromArchive, Path: filepath.Join(dir, "db.tar")},
			"acme/job": {From: FromEngine}, "acme/old": {From: FromEngine, Ref: "other:1"}, "acme/far": {From: FromRegistry, Pull: true},
			"acme/rootless": {From: FromEngine, Path: "/run/user/1/docker.sock", Ref: "x"}, "*": {From: FromRegistry},
		},
	}, c.Compose)
}

func TestSpecComposeErrors(t *testing.T) {
	dir := tree{"compose.yaml": "", "app/a": ""}.write(t)
	for _, c := range []struct {
		text string
		line int
		want string
	}{
		{"", 3, `platform: "" is not a platform`},
		{"    platform: arm64\n", 6, `"arm64" is not a platform, such as linux/arm64`},
		{"    platform: linux/arm64\n    carry: [a]\n", 7, `are for kind "files"`},
		{"    platform: linux/arm64\n    services: [{name: x}]\n", 7, `are for kind "files"`},
		{"    platform: linux/arm64\n    env: {NOBODY_HAS_THIS: }\n", 7, "NOBODY_HAS_THIS has no value"},
		{"    platform: linux/arm64\n    images:\n      a: cloud\n", 8, `images: a: "cloud" is not oci:PATH`},
		{"    platform: linux/arm64\n    images:\n      b: registry\n      a: oci\n", 9, "images: a: oci needs a path"},
		{"    platform: linux/arm64\n    images:\n      a: oci:none\n", 8, "no such file"},
		{"    platform: linux/arm64\n    images:\n      a: {from: engine, pull: true}\n", 8, "only an image from a registry"},
		{"    platform: linux/arm64\n    images:\n      a: {from: registry, path: x}\n", 8, "a registry has no path"},
		{"    platform: linux/arm64\n    images:\n      a: {form: registry}\n", 8, `unknown key "form"`},
		{"    platform: linux/arm64\n    imagse: {}\n", 7, `unknown key "imagse"`},
	} {
		_, err := readSpec(t, dir, composeHead+c.text)
		require.ErrorIs(t, err, ErrSpec)
		require.ErrorContains(t, err, fmt.Sprintf("SPEC.yaml:%d: ", c.line), c.text)
		require.ErrorContains(t, err, c.want)
	}
	_, err := readSpec(t, dir, "version: 1\ncomponents:\n  - name: app\n    kind: files\n    from: app\n    platform: linux/arm64\n")
	require.ErrorContains(t, err, `SPEC.yaml:6: not the description of a release: component "app": platform, profiles, env, env-file and images are for kind "compose"`)
	_, err = readSpec(t, dir, "version: 1\ncomponents:\n  - {name: app, kind: compose, from: app, platform: linux/arm64}\n")
	require.ErrorContains(t, err, "is not a file")
}
