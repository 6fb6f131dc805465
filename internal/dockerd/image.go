//go:build linux

package dockerd

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/pawl-ota/pawl/ota/release"
)

// Image is a container image as its parts: the configuration and the layers as
// uncompressed tars, the lowest first.
type Image struct {
	Config []byte
	Layers [][]byte
}

// ID is the digest of the configuration.
func (i Image) ID() release.Digest { return release.Sum(i.Config) }

// Options of the image's configuration that a test may want.
type Options struct {
	Cmd          []string
	Healthcheck  map[string]any // as the image format writes it
	Volumes      []string
	Architecture string // empty: this machine's
}

// NewImage puts an image together from layers. Its entrypoint is /app.
func NewImage(o Options, layers ...[]byte) Image {
	var ids []string
	for _, l := range layers {
		ids = append(ids, "sha256:"+release.Sum(l).String())
	}
	if o.Architecture == "" {
		o.Architecture = runtime.GOARCH
	}
	config := map[string]any{"Entrypoint": []string{"/app"}, "Cmd": o.Cmd}
	if o.Healthcheck != nil {
		config["Healthcheck"] = o.Healthcheck
	}
	if len(o.Volumes) > 0 {
		volumes := map[string]any{}
		for _, v := range o.Volumes {
			volumes[v] = map[string]any{}
		}
		config["Volumes"] = volumes
	}
	data, err := json.Marshal(map[string]any{
		"architecture": o.Architecture, "os": "linux", "config": config,
		"rootfs": map[string]any{"type": "layers", "diff_ids": ids},
	})
	if err != nil {
		panic(err)
	}
	return Image{data, layers}
}

// Layer is a layer with one file.
func Layer(name string, data []byte, mode int64) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(data)), Mode: mode, Format: tar.FormatPAX}); err != nil {
		panic(err)
	}
	_, _ = w.Write(data)
	_ = w.Close()
	return b.Bytes()
}

// Archive writes i as `docker load` takes it, under the tag where that is not
// empty.
func (i Image) Archive(out io.Writer, tag string) error { return Save(out, map[string]Image{tag: i}) }

// Save writes images by their tags as `docker save` does.
func Save(out io.Writer, images map[string]Image) error {
	w := tar.NewWriter(out)
	there := map[string]bool{}
	put := func(name string, data []byte) error {
		if there[name] {
			return nil
		}
		there[name] = true
		if err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(data)), Mode: 0o644}); err != nil {
			return err
		}
		_, err := w.Write(data)
		return err
	}
	var manifest []any
	for tag, i := range images {
		config := i.ID().String() + ".json"
		var names []string
		for _, l := range i.Layers {
			name := release.Sum(l).String() + ".tar"
			names = append(names, name)
			if err := put(name, l); err != nil {
				return err
			}
		}
		if err := put(config, i.Config); err != nil {
			return err
		}
		one := map[string]any{"Config": config, "Layers": names}
		if tag != "" {
			one["RepoTags"] = []string{tag}
		}
		manifest = append(manifest, one)
	}
	text, err := json.Marshal(manifest)
	if err != nil {
		return err
	}
	if err := put("manifest.json", text); err != nil {
		return err
	}
	return w.Close()
}

var program = sync.OnceValues(func() ([]byte, error) {
	_, here, _, _ := runtime.Caller(0)
	dir, err := os.MkdirTemp("", "pawl-app-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	out := filepath.Join(dir, "app")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", out, ".")
	cmd.Dir = filepath.Join(filepath.Dir(here), "testdata", "app")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOFLAGS=")
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, text)
	}
	return os.ReadFile(out)
})

// Program returns a layer with the test program as /app: see testdata/app for
// what it does by its arguments. It skips where [Start] does.
func Program(t testing.TB) []byte {
	t.Helper()
	needs(t)
	data, err := program()
	if err != nil {
		t.Fatal(err)
	}
	return Layer("app", data, 0o755)
}
