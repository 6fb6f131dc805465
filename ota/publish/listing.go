package publish

import (
	"bytes"
	"fmt"
	"io"
	"iter"
	"os"

	"github.com/pawl-ota/pawl/ota/compose"
	"github.com/pawl-ota/pawl/ota/release"
)

// listing is what the index of a component lists, whatever its kind.
type listing struct {
	// blobs are those that the component consists of, each once, in the order in
	// which deltas count them: the one in which a device's backend lists them.
	blobs []release.Blob
	// named are all places for blobs, in the same order.
	named []namedBlob
	// lines gives each line of the index the name that it is sorted by. It is nil
	// for an index that is not made of lines.
	lines func(file []byte) iter.Seq2[string, []byte]
}

// namedBlob is a place for a blob. Several may hold the same.
type namedBlob struct {
	path string
	release.Blob
	// drifts says that the place tells little of the content: of two succeeding
	// releases what is alike belongs together.
	drifts bool
}

// readListing reads the index of a component of a kind.
func readListing(kind string, file []byte) (*listing, error) {
	switch kind {
	case kindFiles:
		ix, err := release.ReadIndex(bytes.NewReader(file), 0)
		if err != nil {
			return nil, err
		}
		return filesListing(ix), nil
	case compose.Kind:
		app, err := compose.Parse(file)
		if err != nil {
			return nil, err
		}
		return appListing(app), nil
	}
	return nil, fmt.Errorf("kind %q: only %q and %q are known", kind, kindFiles, compose.Kind)
}

func filesListing(ix *release.Index) *listing {
	c := &listing{blobs: ix.Blobs(), lines: func(file []byte) iter.Seq2[string, []byte] { return lines(ix, file) }}
	for i := range ix.Entries {
		if e := &ix.Entries[i]; e.Type == release.File {
			c.named = append(c.named, namedBlob{path: e.Path, Blob: e.Blob})
		}
	}
	return c
}

// appListing names what an app consists of by the service that first uses it:
// names of images move on from release to release.
func appListing(app *compose.App) *listing {
	c := &listing{blobs: app.Blobs()}
	used := make([]string, len(app.Images))
	for i := len(app.Services) - 1; i >= 0; i-- {
		used[app.Services[i].Image] = app.Services[i].Name
	}
	for i, image := range app.Images {
		c.named = append(c.named, namedBlob{path: "images/" + used[i] + "/config", Blob: image.Config})
		for n, l := range image.Layers {
			c.named = append(c.named, namedBlob{path: fmt.Sprintf("images/%s/layers/%03d", used[i], n), Blob: l, drifts: true})
		}
	}
	for _, f := range app.Files {
		c.named = append(c.named, namedBlob{path: string(f.Kind) + "s/" + f.Name, Blob: f.Blob})
	}
	return c
}

// distinct returns the first place of each blob, in the order of blobs.
func (c *listing) distinct() []namedBlob {
	list := make([]namedBlob, 0, len(c.blobs))
	seen := make(map[release.Digest]bool, len(c.blobs))
	for _, n := range c.named {
		if !seen[n.Digest] {
			seen[n.Digest] = true
			list = append(list, n)
		}
	}
	return list
}

// source is where the content of a component is read from while a release is
// made. It may be used by many goroutines.
type source interface {
	open(at namedBlob) (io.ReadCloser, error)
	Close() error
}

// folder is the source of a component of files.
type folder struct{ *os.Root }

func (f folder) open(at namedBlob) (io.ReadCloser, error) { return openRegular(f.Root, at.path, nil) }
