package publish

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/compose"
	"github.com/pawl-ota/pawl/ota/release"
)

// layer is a tar with one file, and with what deletes another.
func layer(name, content string) []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	_ = w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(content)), Typeflag: tar.TypeReg})
	_, _ = io.WriteString(w, content)
	_ = w.WriteHeader(&tar.Header{Name: "etc/.wh.gone", Mode: 0o644, Typeflag: tar.TypeReg})
	_ = w.Close()
	return buf.Bytes()
}

func zipped(data []byte) []byte {
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	_, _ = w.Write(data)
	_ = w.Close()
	return buf.Bytes()
}

// testImage is an image of go-containerregistry's with these layers.
func testImage(t testing.TB, p string, layers ...[]byte) v1.Image {
	at, err := v1.ParsePlatform(p)
	require.NoError(t, err)
	image := mutate.MediaType(empty.Image, "application/vnd.docker.distribution.manifest.v2+json")
	for _, data := range layers {
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(zipped(data))), nil })
		require.NoError(t, err)
		image, err = mutate.AppendLayers(image, l)
		require.NoError(t, err)
	}
	file, err := image.ConfigFile()
	require.NoError(t, err)
	file.OS, file.Architecture, file.Variant = at.OS, at.Architecture, at.Variant
	file.Config.Volumes = map[string]struct{}{"/data": {}}
	image, err = mutate.ConfigFile(image, file)
	require.NoError(t, err)
	return image
}

// archive writes what docker save writes: with the names of today, or those of
// old.
func archive(t testing.TB, today bool, images map[string]v1.Image) string {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	put := func(name string, data []byte) {
		require.NoError(t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data)), Typeflag: tar.TypeReg}))
		_, err := w.Write(data)
		require.NoError(t, err)
	}
	var list []archived
	seen := map[string]string{}
	for tag, image := range images {
		config, err := image.RawConfigFile()
		require.NoError(t, err)
		one := archived{Config: release.Sum(config).String() + ".json", RepoTags: []string{tag}}
		if today {
			one.Config = "blobs/sha256/" + release.Sum(config).String()
		}
		put(one.Config, config)
		layers, err := image.Layers()
		require.NoError(t, err)
		for _, l := range layers {
			r, err := l.Uncompressed()
			require.NoError(t, err)
			data, err := io.ReadAll(r)
			require.NoError(t, err)
			sum := release.Sum(data).String()
			name := sum + "/layer.tar"
			if today {
				name = "blobs/sha256/" + sum
			}
			switch at, twice := seen[sum]; {
			case twice && !today: // a link to the other one
				name = "again-" + sum + "/layer.tar"
				require.NoError(t, w.WriteHeader(&tar.Header{Name: name, Linkname: "../" + at, Typeflag: tar.TypeSymlink}))
			case !twice:
				put(name, data)
			}
			seen[sum] = name
			one.Layers = append(one.Layers, name)
		}
		list = append(list, one)
	}
	data, err := json.Marshal(list)
	require.NoError(t, err)
	put("manifest.json", data)
	require.NoError(t, w.Close())
	path := filepath.Join(t.TempDir(), "images.tar")
	require.NoError(t, os.WriteFile(path, buf.Bytes(), 0o644))
	return path
}

// taking brings images for a platform.
func taking(t testing.TB, p string) *images {
	at, err := parsePlatform(p)
	require.NoError(t, err)
	d := &disk{dir: t.TempDir()}
	f, err := d.scratch()
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return &images{ctx: t.Context(), disk: d, platform: at, spool: newSpool(f), configs: map[release.Digest]imageConfig{}, told: func(int) {}}
}

// checkImage compares an image with the one that it was made of.
func checkImage(t *testing.T, s *images, want v1.Image, got compose.Image) {
	config, err := want.RawConfigFile()
	require.NoError(t, err)
	require.Equal(t, blobOf(config), got.Config)
	layers, err := want.Layers()
	require.NoError(t, err)
	require.Len(t, got.Layers, len(layers))
	size := int64(0)
	for i, l := range layers {
		id, err := l.DiffID()
		require.NoError(t, err)
		require.Equal(t, id.Hex, got.Layers[i].Digest.String())
		r, err := l.Uncompressed()
		require.NoError(t, err)
		data, err := io.ReadAll(r)
		require.NoError(t, err)
		stored, err := s.spool.open(namedBlob{Blob: got.Layers[i]})
		require.NoError(t, err)
		have, err := io.ReadAll(stored)
		require.NoError(t, err)
		require.Equal(t, data, have, "whiteouts and all")
		size += int64(len(data))
	}
	require.Equal(t, size, got.Size)
}

// TestImageSources has the same image come out of every place.
func TestImageSources(t *testing.T) {
	arm := testImage(t, "linux/arm64/v8", layer("bin/app", strings.Repeat("arm", 1000)), layer("etc/conf", "a"))
	amd := testImage(t, "linux/amd64", layer("bin/app", strings.Repeat("amd", 1000)), layer("etc/conf", "a"))
	index := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: amd, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}},
		mutate.IndexAddendum{Add: arm, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}}})

	oci := t.TempDir()
	at, err := layout.Write(oci, empty.Index)
	require.NoError(t, err)
	require.NoError(t, at.AppendIndex(index, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "7"})))
	require.NoError(t, at.AppendImage(testImage(t, "linux/arm64"), layout.WithAnnotations(map[string]string{"io.containerd.image.name": "docker.io/acme/other:1"})))
	ociTar := filepath.Join(t.TempDir(), "oci.tar.gz")
	writeTar(t, oci, ociTar)

	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	text := strings.TrimPrefix(server.URL, "http://") + "/acme/app:7"
	ref, err := name.ParseReference(text)
	require.NoError(t, err)
	require.NoError(t, remote.WriteIndex(ref, index))

	both := map[string]v1.Image{"acme/app:7": arm, "acme/other:1": amd}
	saved := archive(t, false, both)
	socket := engine(t, "acme/app:7", archive(t, true, map[string]v1.Image{"acme/app:7": arm}))
	for word, from := range map[string]ImageSource{
		"layout":           {From: FromOCI, Path: oci},
		"layout in a tar":  {From: FromOCI, Path: ociTar},
		"docker save, old": {From: FromArchive, Path: saved},
		"docker save":      {From: FromArchive, Path: archive(t, true, both)},
		"registry":         {From: FromRegistry, Ref: text},
		"engine":           {From: FromEngine, Path: socket},
	} {
		t.Run(word, func(t *testing.T) {
			s := taking(t, "linux/arm64")
			got, err := s.take("acme/app:7", from)
			require.NoError(t, err)
			checkImage(t, s, arm, got)
			require.Equal(t, [3]string{"linux", "arm64", ""}, [3]string{got.OS, got.Architecture, got.Variant})
		})
	}

	s := taking(t, "linux/amd64")
	got, err := s.take(text, ImageSource{From: FromRegistry, Pull: true})
	require.NoError(t, err)
	digest, err := amd.Digest()
	require.NoError(t, err)
	require.Equal(t, strings.TrimSuffix(text, ":7")+"@"+digest.String(), got.Ref)
	require.Empty(t, got.Layers)
	require.Positive(t, got.Size)
}

func writeTar(t *testing.T, dir, path string) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	require.NoError(t, w.AddFS(os.DirFS(dir)))
	require.NoError(t, w.Close())
	require.NoError(t, os.WriteFile(path, zipped(buf.Bytes()), 0o644))
}

// engine answers as a Docker engine that has one image does, and returns its
// socket.
func engine(t *testing.T, ref, file string) string {
	dir, err := os.MkdirTemp("", "engine")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "sock"))
	require.NoError(t, err)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/images/"+ref+"/get" {
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"message":"No such image"}`)
			return
		}
		http.ServeFile(w, r, file)
	}))
	server.Listener = l
	server.Start()
	t.Cleanup(server.Close)
	return filepath.Join(dir, "sock")
}

func TestImageRefused(t *testing.T) {
	amd := testImage(t, "linux/amd64", layer("bin/app", "the app"))
	saved := archive(t, true, map[string]v1.Image{"acme/app:7": amd, "acme/other:1": amd})
	one := archive(t, true, map[string]v1.Image{"acme/app:7": amd})
	data, err := os.ReadFile(one)
	require.NoError(t, err)
	damaged := filepath.Join(t.TempDir(), "damaged.tar")
	require.NoError(t, os.WriteFile(damaged, bytes.Replace(data, []byte("the app"), []byte("the apq"), 1), 0o644))
	oci := t.TempDir()
	at, err := layout.Write(oci, empty.Index)
	require.NoError(t, err)
	arm := testImage(t, "linux/arm64", layer("bin/app", "arm"))
	for _, image := range []v1.Image{amd, arm} {
		file, err := image.ConfigFile()
		require.NoError(t, err)
		require.NoError(t, at.AppendImage(image, layout.WithPlatform(v1.Platform{OS: file.OS, Architecture: file.Architecture})))
	}
	socket := engine(t, "acme/app:7", one)
	for _, c := range []struct {
		from ImageSource
		on   string
		want string
	}{
		{ImageSource{From: FromArchive, Path: one}, "linux/arm64", "it is for linux/amd64, and the app is for linux/arm64"},
		{ImageSource{From: FromArchive, Path: saved, Ref: "acme/none"}, "linux/amd64", "holds 2 images, none of them tagged acme/none"},
		{ImageSource{From: FromArchive, Path: damaged}, "linux/amd64", "layer 1: it is not what its configuration says"},
		{ImageSource{From: FromArchive, Path: oci}, "linux/amd64", "not what docker save writes"},
		{ImageSource{From: FromOCI, Path: one}, "linux/amd64", "not an OCI layout"},
		{ImageSource{From: FromOCI, Path: oci}, "linux/riscv64", "no image for linux/riscv64, only for linux/amd64, linux/arm64"},
		{ImageSource{From: FromEngine, Path: socket, Ref: "other"}, "linux/amd64", "404 Not Found: No such image"},
		{ImageSource{From: FromEngine, Path: filepath.Join(t.TempDir(), "none")}, "linux/amd64", "cannot ask the engine"},
		{ImageSource{From: FromEngine, Pull: true}, "linux/amd64", "only an image from a registry"},
		{ImageSource{From: "cloud"}, "linux/amd64", `"cloud" is no place for images`},
	} {
		_, err := taking(t, c.on).take("acme/app:7", c.from)
		require.ErrorContains(t, err, c.want)
	}
}

// TestRegistryNeedsTLS has no plain HTTP leave the machine; nothing is dialled.
func TestRegistryNeedsTLS(t *testing.T) {
	for _, url := range []string{"http://192.168.254.254:5000/v2/", "http://registry.example/v2/", "http://localhost.example/v2/"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		require.NoError(t, err)
		_, err = registryTransport().RoundTrip(req)
		require.ErrorContains(t, err, "is not asked without TLS")
	}
}

func TestPlatforms(t *testing.T) {
	for on, runs := range map[string]map[string]bool{
		"linux/arm64":  {"linux/arm64/v8": true, "linux/arm64": true, "linux/arm/v7": false, "linux/amd64": false},
		"linux/arm/v7": {"linux/arm": true, "linux/arm/v6": true, "linux/arm/v5": true, "linux/arm64": false},
		"linux/arm/v6": {"linux/arm/v7": false, "linux/arm/v6": true, "linux/arm/v5": true},
	} {
		p, err := parsePlatform(on)
		require.NoError(t, err)
		for other, want := range runs {
			o, err := parsePlatform(other)
			require.NoError(t, err)
			require.Equal(t, want, p.runs(o), "%s on %s", other, on)
		}
	}
	for _, bad := range []string{"", "linux", "linux/", "Linux/amd64", "linux/arm/v7/x"} {
		_, err := parsePlatform(bad)
		require.Error(t, err, bad)
	}
}
