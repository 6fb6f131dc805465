package publish

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/pawl-ota/pawl/ota/compose"
	"github.com/pawl-ota/pawl/ota/release"
)

// ImageSource says where the publisher takes an image from.
type ImageSource struct {
	From ImageFrom
	// Path is the folder or tar file of an OCI layout, the tar file of a docker
	// archive, or the socket of an engine; that is /var/run/docker.sock if it is
	// empty.
	Path string
	// Ref is what the image is called there; empty means as in the compose file.
	Ref string
	// Pull leaves the layers in the registry: devices pull the image from there
	// by its digest. Only with [FromRegistry].
	Pull bool
}

// ImageFrom is a word for a kind of place.
type ImageFrom string

// The values of [ImageFrom].
const (
	FromOCI      ImageFrom = "oci"            // what buildah, skopeo and docker buildx write
	FromArchive  ImageFrom = "docker-archive" // what docker save writes
	FromRegistry ImageFrom = "registry"       // logged in as the docker command of this user is
	FromEngine   ImageFrom = "engine"         // a Docker engine on this machine
)

// maxManifest is the longest manifest or configuration of an image in bytes.
const maxManifest = compose.MaxConfig

// foundImage is an image as its place has it.
type foundImage struct {
	config []byte
	layers []func() (io.ReadCloser, error) // the lowest first, as they are stored
	ref    string                          // of the manifest in a registry
	size   int64                           // of the layers as they are stored there
}

// imageConfig is what the configuration of an image says that matters here.
type imageConfig struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
	Variant      string `json:"variant"`
	RootFS       struct {
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
	Config struct {
		Volumes     map[string]struct{} `json:"Volumes"`
		Healthcheck struct {
			Test []string `json:"Test"`
		} `json:"Healthcheck"`
	} `json:"config"`
}

// platform is what an image runs on.
type platform struct{ os, arch, variant string }

func (p platform) String() string {
	return strings.TrimSuffix(p.os+"/"+p.arch+"/"+p.variant, "/")
}

func parsePlatform(s string) (platform, error) {
	parts := strings.Split(s, "/")
	for _, part := range parts {
		if release.CheckName(part) != nil || len(parts) < 2 || len(parts) > 3 {
			return platform{}, fmt.Errorf("%q is not a platform, such as linux/arm64 or linux/arm/v7", s)
		}
	}
	p := platform{os: parts[0], arch: parts[1]}
	if len(parts) == 3 {
		p.variant = parts[2]
	}
	return p.plain(), nil
}

// plain writes a variant that goes without saying as none.
func (p platform) plain() platform {
	if p.arch == "arm64" && p.variant == "v8" || p.arch == "arm" && p.variant == "v7" || p.arch == "amd64" && p.variant == "v1" {
		p.variant = ""
	}
	return p
}

// runs reports whether an image for other runs on p.
func (p platform) runs(other platform) bool {
	older := p.arch == "arm" && slices.Contains([]string{"v5", "v6"}, other.variant) && (p.variant == "" || other.variant <= p.variant)
	return p.os == other.os && p.arch == other.arch && (p.variant == other.variant || older)
}

// images brings the images of one app.
type images struct {
	ctx      context.Context
	disk     *disk
	platform platform
	spool    *spool
	configs  map[release.Digest]imageConfig
	told     func(n int) // bytes of layers
}

// take brings one image and returns what the document says of it. name is what
// the compose file calls it.
func (s *images) take(name string, from ImageSource) (compose.Image, error) {
	found, closer, err := s.find(name, from)
	if err != nil {
		return compose.Image{}, err
	}
	defer closer()
	image := compose.Image{Name: name}
	c, err := s.takeConfig(found.config)
	if err != nil {
		return image, err
	}
	p := platform{c.OS, c.Architecture, c.Variant}.plain()
	if !s.platform.runs(p) {
		return image, fmt.Errorf("it is for %s, and the app is for %s", p, s.platform)
	}
	image.OS, image.Architecture, image.Variant = p.os, p.arch, p.variant
	image.Config = blobOf(found.config)
	s.configs[image.Config.Digest] = c
	if from.Pull {
		image.Ref, image.Size = found.ref, found.size
		return image, nil
	}
	if len(found.layers) != len(c.RootFS.DiffIDs) {
		return image, fmt.Errorf("its configuration names %d layers, and it has %d", len(c.RootFS.DiffIDs), len(found.layers))
	}
	for i, open := range found.layers {
		b, err := s.takeLayer(c.RootFS.DiffIDs[i], open)
		if err != nil {
			return image, fmt.Errorf("layer %d: %w", i+1, err)
		}
		image.Layers = append(image.Layers, b)
		image.Size += b.Size
	}
	return image, nil
}

func (s *images) takeConfig(data []byte) (c imageConfig, err error) {
	if len(data) > maxManifest {
		return c, fmt.Errorf("its configuration is longer than %d bytes", maxManifest)
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return c, fmt.Errorf("its configuration cannot be read: %w", err)
	}
	_, err = s.spool.add(bytes.NewReader(data))
	return c, err
}

// takeLayer stores a layer as its plain tar, and compares that with what the
// configuration says of it.
func (s *images) takeLayer(diffID string, open func() (io.ReadCloser, error)) (release.Blob, error) {
	text, _ := strings.CutPrefix(diffID, "sha256:")
	want, err := release.ParseDigest(text)
	if err != nil {
		return release.Blob{}, fmt.Errorf("its diff ID %.80q: %w", diffID, err)
	}
	if at, ok := s.spool.at[want]; ok {
		return release.Blob{Digest: want, Size: at.Size()}, nil
	}
	r, err := open()
	if err != nil {
		return release.Blob{}, err
	}
	defer r.Close()
	plain, err := decompress(counted{r, s.told})
	if err != nil {
		return release.Blob{}, err
	}
	defer plain.Close()
	b, err := s.spool.add(ctxReader{s.ctx, plain})
	if err == nil && b.Digest != want {
		err = fmt.Errorf("it is not what its configuration says: diff ID %s, not %s", b.Digest.Short(), want.Short())
	}
	return b, err
}

// ctxReader ends with its context.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// decompress reads what is stored with gzip, with zstd or as it is.
func decompress(r io.Reader) (io.ReadCloser, error) {
	buf := bufio.NewReaderSize(r, 64<<10)
	head, err := buf.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return gzip.NewReader(buf)
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		dec, err := zstd.NewReader(buf, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, err
		}
		return dec.IOReadCloser(), nil
	}
	return io.NopCloser(buf), nil
}

// spool holds content without a name of its own, until the release is made.
type spool struct {
	f  *os.File
	n  int64
	at map[release.Digest]*io.SectionReader
}

func newSpool(f *os.File) *spool { return &spool{f: f, at: map[release.Digest]*io.SectionReader{}} }

// add stores all of r.
func (s *spool) add(r io.Reader) (release.Blob, error) {
	h := sha256.New()
	n, err := io.CopyBuffer(io.MultiWriter(h, io.NewOffsetWriter(s.f, s.n)), onlyReader{io.LimitReader(r, release.MaxBlob+1)}, make([]byte, 256<<10))
	if err != nil {
		return release.Blob{}, err
	}
	b := release.Blob{Digest: release.Digest(h.Sum(nil)), Size: n}
	s.at[b.Digest] = io.NewSectionReader(s.f, s.n, n)
	s.n += n
	return b, nil
}

func (s *spool) open(at namedBlob) (io.ReadCloser, error) {
	r, ok := s.at[at.Digest]
	if !ok {
		return nil, fmt.Errorf("blob %s was not brought", at.Digest.Short())
	}
	return io.NopCloser(io.NewSectionReader(r, 0, r.Size())), nil
}

func (s *spool) Close() error { return s.f.Close() }
