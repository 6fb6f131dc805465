package container

import (
	"archive/tar"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/compose"
	"github.com/pawl-ota/pawl/ota/release"
)

// load hands an image to the engine as an archive that is put together while it
// is read, without the layers in have. The bytes are on their way before they are
// verified; until the archive has ended well the engine makes no image of them,
// and it checks each layer against the configuration by itself.
func (c *Compose) loadImage(ctx context.Context, image compose.Image, tag string, have map[release.Digest]bool, content ota.Content) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := c.engine.Load(ctx, r)
		_ = r.CloseWithError(errLoadEnded) // what is still being written has no reader
		ended <- err
	}()
	a := &archive{tar: tar.NewWriter(w), names: map[release.Digest]string{}}
	err := a.write(ctx, image, tag, have, content)
	_ = w.CloseWithError(err) // nil is the end of the archive
	if err != nil && !errors.Is(err, errLoadEnded) {
		cancel()
		<-ended
		return err
	}
	if err := <-ended; err != nil {
		return fmt.Errorf("cannot load image %.80q: %w", image.Name, err)
	}
	return nil
}

var errLoadEnded = errors.New("the engine stopped reading")

// archive is a docker-archive being written.
type archive struct {
	tar   *tar.Writer
	names map[release.Digest]string // of the entry with the whole blob
	tries int
}

func (a *archive) write(ctx context.Context, image compose.Image, tag string, have map[release.Digest]bool, content ota.Content) error {
	blobs := []release.Blob{image.Config}
	for _, l := range image.Layers {
		if !have[l.Digest] {
			blobs = append(blobs, l)
		}
	}
	if err := content.Each(ctx, blobs, a.put); err != nil {
		return err
	}
	manifest := struct {
		Config   string
		RepoTags []string
		Layers   []string
	}{Config: a.names[image.Config.Digest], RepoTags: []string{tag}}
	for _, l := range image.Layers {
		name := a.names[l.Digest]
		if name == "" {
			name = l.Digest.String() + ".tar" // not there: the engine has it
		}
		manifest.Layers = append(manifest.Layers, name)
	}
	text, err := json.Marshal([]any{manifest})
	if err != nil {
		return err
	}
	if err := a.header("manifest.json", int64(len(text))); err != nil {
		return err
	}
	if _, err := a.tar.Write(text); err != nil {
		return err
	}
	return a.tar.Close()
}

// put writes one blob. Where its reader breaks off, its entry is filled up and
// left to itself: another try has another name, and the manifest names the good
// one.
func (a *archive) put(b release.Blob, r io.Reader) error {
	a.tries++
	name := fmt.Sprintf("%s-%d.tar", b.Digest, a.tries)
	if err := a.header(name, b.Size); err != nil {
		return err
	}
	in := &source{r: r}
	n, err := io.CopyN(a.tar, in, b.Size)
	if err == nil {
		_, err = io.Copy(io.Discard, in) // the verdict stands at the end
	}
	if in.err == nil && err == nil {
		a.names[b.Digest] = name
		return nil
	}
	if in.err == nil && !errors.Is(err, io.EOF) {
		return err // of the archive, not of the blob
	}
	if _, fill := io.CopyN(a.tar, zeros{}, b.Size-n); fill != nil {
		return fill
	}
	return cmp.Or(in.err, ota.ErrLength)
}

func (a *archive) header(name string, size int64) error {
	return a.tar.WriteHeader(&tar.Header{Name: name, Size: size, Mode: 0o600})
}

// source remembers what its reader said beside io.EOF.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
