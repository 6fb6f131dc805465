package publish

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/pawl-ota/pawl/ota/release"
)

// fileStore is a folder or a tar file with the files of an image.
type fileStore interface {
	open(name string) (io.ReadCloser, error)
	Close() error
}

// openStore opens the folder or the tar file at p. A compressed tar is unpacked
// into a file without a name.
func (s *images) openStore(p string) (fileStore, error) {
	info, err := os.Stat(p)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		root, err := os.OpenRoot(p)
		return imageFolder{root}, err
	}
	f, err := os.Open(p)
	if err != nil {
		return nil, err
	}
	head := make([]byte, 4)
	_, _ = f.ReadAt(head, 0)
	if head[0] != 0x1f && head[0] != 0x28 {
		return newTarStore(f)
	}
	defer f.Close()
	plain, err := decompress(f)
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	return s.spoolStore(plain)
}

// spoolStore takes a tar from a stream.
func (s *images) spoolStore(r io.Reader) (fileStore, error) {
	f, err := s.disk.scratch()
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(f, ctxReader{s.ctx, r}); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return newTarStore(f)
}

type imageFolder struct{ *os.Root }

func (f imageFolder) open(name string) (io.ReadCloser, error) { return openRegular(f.Root, name, nil) }

// tarStore knows where the files of a tar lie.
type tarStore struct {
	f     *os.File
	files map[string]*io.SectionReader
	links map[string]string
}

// maxTarFiles bounds what is noted of a tar.
const maxTarFiles = 100_000

// newTarStore reads the headers of the tar f, which is the store's from now on.
func newTarStore(f *os.File) (_ *tarStore, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("cannot read %s as a tar: %w", path.Base(f.Name()), err), f.Close())
		}
	}()
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	t := &tarStore{f: f, files: map[string]*io.SectionReader{}, links: map[string]string{}}
	r := tar.NewReader(f)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return t, nil
		}
		if err != nil {
			return nil, err
		}
		if len(t.files) >= maxTarFiles {
			return nil, fmt.Errorf("more than %d files", maxTarFiles)
		}
		at, err := f.Seek(0, io.SeekCurrent) // the reader takes whole headers and nothing more
		if err != nil {
			return nil, err
		}
		name := path.Clean(h.Name)
		switch h.Typeflag {
		case tar.TypeReg:
			t.files[name] = io.NewSectionReader(f, at, h.Size)
		case tar.TypeSymlink:
			t.links[name] = path.Join(path.Dir(name), h.Linkname)
		case tar.TypeLink:
			t.links[name] = path.Clean(h.Linkname)
		}
	}
}

func (t *tarStore) open(name string) (io.ReadCloser, error) {
	name = path.Clean(name)
	for range 8 {
		to, ok := t.links[name]
		if !ok {
			break
		}
		name = to
	}
	r, ok := t.files[name]
	if !ok {
		return nil, fmt.Errorf("%s: %w", name, os.ErrNotExist)
	}
	return io.NopCloser(io.NewSectionReader(r, 0, r.Size())), nil
}

func (t *tarStore) Close() error { return t.f.Close() }

// readStored reads a small file of a store.
func readStored(s fileStore, name string) ([]byte, error) {
	r, err := s.open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, maxManifest+1))
	if err == nil && len(data) > maxManifest {
		err = fmt.Errorf("%s is longer than %d bytes", name, maxManifest)
	}
	return data, err
}

// archived is one image in the manifest.json of docker save.
type archived struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// fromArchive finds an image in what docker save writes: manifest.json names the
// files, in the older layout and in the one that is an OCI layout too.
func fromArchive(s fileStore, ref string) (foundImage, error) {
	var found foundImage
	data, err := readStored(s, "manifest.json")
	if err != nil {
		return found, fmt.Errorf("it is not what docker save writes: %w", err)
	}
	var list []archived
	if err := json.Unmarshal(data, &list); err != nil {
		return found, fmt.Errorf("manifest.json: %w", err)
	}
	image, err := chooseArchived(list, ref)
	if err != nil {
		return found, err
	}
	if found.config, err = readStored(s, image.Config); err != nil {
		return found, err
	}
	for _, name := range image.Layers {
		found.layers = append(found.layers, func() (io.ReadCloser, error) { return s.open(name) })
	}
	return found, nil
}

// chooseArchived takes the image with the tag ref, or the only one.
func chooseArchived(list []archived, ref string) (archived, error) {
	if len(list) == 1 {
		return list[0], nil
	}
	var tags []string
	for _, image := range list {
		for _, tag := range image.RepoTags {
			if sameRef(tag, ref) {
				return image, nil
			}
			tags = append(tags, tag)
		}
	}
	return archived{}, fmt.Errorf("it holds %d images, none of them tagged %s (%s)", len(list), ref, strings.Join(tags, ", "))
}

// ociDescriptor is what an index or a manifest of the Open Container Initiative
// says of a blob.
type ociDescriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations"`
	Platform    *struct {
		Architecture string `json:"architecture"`
		OS           string `json:"os"`
		Variant      string `json:"variant"`
	} `json:"platform"`
	URLs []string `json:"urls"`
}

// ociManifest is an index, or the manifest of an image.
type ociManifest struct {
	Manifests []ociDescriptor `json:"manifests"`
	Config    ociDescriptor   `json:"config"`
	Layers    []ociDescriptor `json:"layers"`
}

// fromOCI finds an image in an OCI layout.
func fromOCI(s fileStore, ref string, p platform) (foundImage, error) {
	data, err := readStored(s, "index.json")
	if err != nil {
		return foundImage{}, fmt.Errorf("it is not an OCI layout: %w", err)
	}
	named := true
	for range 4 { // an index may name indexes
		var m ociManifest
		if err := json.Unmarshal(data, &m); err != nil {
			return foundImage{}, fmt.Errorf("its manifest: %w", err)
		}
		if len(m.Manifests) == 0 {
			return ociImage(s, m)
		}
		next, err := chooseManifest(m.Manifests, ref, p, named)
		if err != nil {
			return foundImage{}, err
		}
		if data, err = readOCI(s, next); err != nil {
			return foundImage{}, err
		}
		named = false
	}
	return foundImage{}, errors.New("its indexes name each other without an end")
}

func ociImage(s fileStore, m ociManifest) (found foundImage, err error) {
	if found.config, err = readOCI(s, m.Config); err != nil {
		return found, fmt.Errorf("its configuration: %w", err)
	}
	for _, l := range m.Layers {
		name, err := ociPath(l)
		if err != nil {
			return found, err
		}
		found.layers = append(found.layers, func() (io.ReadCloser, error) {
			r, err := s.open(name)
			if errors.Is(err, os.ErrNotExist) && len(l.URLs) > 0 {
				err = fmt.Errorf("it is kept elsewhere (%s): copy the image with all its layers", l.URLs[0])
			}
			return r, err
		})
	}
	return found, nil
}

// ociPath is where a layout has a blob.
func ociPath(d ociDescriptor) (string, error) {
	text, _ := strings.CutPrefix(d.Digest, "sha256:")
	if _, err := release.ParseDigest(text); err != nil {
		return "", fmt.Errorf("digest %.80q: %w", d.Digest, err)
	}
	return "blobs/sha256/" + text, nil
}

// readOCI reads a small blob and compares it with its digest.
func readOCI(s fileStore, d ociDescriptor) ([]byte, error) {
	name, err := ociPath(d)
	if err != nil {
		return nil, err
	}
	data, err := readStored(s, name)
	if err == nil && release.Sum(data).String() != path.Base(name) {
		err = fmt.Errorf("%s is not what its name says", name)
	}
	return data, err
}

// chooseManifest takes the manifest for a platform. In the outermost index, which
// may hold several images, ref says which: an image without a name counts where
// it is the only one.
func chooseManifest(list []ociDescriptor, ref string, p platform, named bool) (ociDescriptor, error) {
	if named {
		if some := withName(list, ref); len(some) > 0 {
			list = some
		}
	}
	var fit, unsaid []ociDescriptor
	var others []string
	for _, d := range list {
		switch {
		case d.Platform == nil || d.Platform.OS == "":
			unsaid = append(unsaid, d)
		case d.Platform.OS == "unknown": // what a build says of itself
		default:
			has := platform{d.Platform.OS, d.Platform.Architecture, d.Platform.Variant}.plain()
			others = append(others, has.String())
			switch {
			case has == p:
				fit = append([]ociDescriptor{d}, fit...)
			case p.runs(has):
				fit = append(fit, d)
			}
		}
	}
	switch {
	case len(fit) > 0 && (!named || len(list) == 1 || len(fit) == 1):
		return fit[0], nil
	case len(fit) == 0 && len(unsaid) == 1:
		return unsaid[0], nil
	case len(fit)+len(unsaid) > 1:
		return ociDescriptor{}, fmt.Errorf("it holds several images, and none of them alone is named %s", ref)
	}
	return ociDescriptor{}, fmt.Errorf("it has no image for %s, only for %s", p, strings.Join(others, ", "))
}

// withName returns what carries the name ref, as the tools write names.
func withName(list []ociDescriptor, ref string) (some []ociDescriptor) {
	_, tag, _ := strings.Cut(path.Base(ref), ":")
	for _, d := range list {
		name, short := d.Annotations["io.containerd.image.name"], d.Annotations["org.opencontainers.image.ref.name"]
		if name != "" && sameRef(name, ref) || name == "" && short != "" && (sameRef(short, ref) || short == tag) {
			some = append(some, d)
		}
	}
	return some
}
