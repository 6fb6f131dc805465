package tuf

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"

	"github.com/pawl-ota/pawl/ota/release"
)

// root is one version of the root role.
type root struct {
	data   []byte
	digest release.Digest
	meta   *metadata.Metadata[metadata.RootType]
}

// anchor is the pinned root.
type anchor struct{ root }

// anchor reads the pinned root.
func (o Options) anchor() (anchor, error) {
	field, data, err := "Root", o.Root, error(nil)
	if o.RootFile != "" {
		field = "RootFile"
		data, err = readRootFile(o.RootFile, o.Limits.Root)
	}
	a := anchor{}
	if err == nil {
		a, err = newAnchor(data)
	}
	if err != nil {
		return a, fmt.Errorf("tuf: Options.%s: %w", field, err)
	}
	return a, nil
}

func readRootFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%w: %s has more than %d bytes", ErrTooLarge, path, limit)
	}
	return data, errors.Join(err, f.Close())
}

func newAnchor(data []byte) (anchor, error) {
	set, err := trustRoot(data)
	if err != nil {
		return anchor{}, err
	}
	return anchor{root{data, release.Sum(data), set.Root}}, nil
}

func trustRoot(data []byte) (set *trustedmetadata.TrustedMetadata, err error) {
	err = failClosed(func() error {
		set, err = trustedmetadata.New(data)
		return err
	})
	return set, classify(err)
}

// chain is the pinned root and its successors, each signed by the one before.
type chain struct {
	set   *trustedmetadata.TrustedMetadata
	roots []root
}

// chain verifies stored roots anew from the pinned one on: a store from another
// device, or of before the firmware brought another root, has no hold on it.
func (a anchor) chain(stored [][]byte) (*chain, error) {
	set, err := trustRoot(a.data)
	if err != nil {
		return nil, err
	}
	c := &chain{set: set, roots: []root{a.root}}
	for _, data := range stored {
		meta, err := parseRoot(data)
		if err != nil || meta.Signed.Version != c.newest().Signed.Version+1 {
			continue
		}
		if c.add(data) != nil {
			break
		}
	}
	return c, nil
}

func parseRoot(data []byte) (meta *metadata.Metadata[metadata.RootType], err error) {
	err = failClosed(func() error {
		meta, err = metadata.Root().FromBytes(data)
		return err
	})
	return meta, err
}

func (c *chain) newest() *metadata.Metadata[metadata.RootType] { return c.set.Root }

// add verifies the next root.
func (c *chain) add(data []byte) error {
	err := failClosed(func() error {
		_, err := c.set.UpdateRoot(data)
		return err
	})
	if err == nil {
		c.roots = append(c.roots, root{data, release.Sum(data), c.set.Root})
	}
	return err
}

// extend brings the roots after the newest one, until the repository has no more
// (TUF specification, section 5.3). Those up to the version seen are not counted:
// a device that lost them gets no further without.
func (c *chain) extend(f *roleFetcher, seen int64) error {
	from := max(seen, c.newest().Signed.Version)
	for c.newest().Signed.Version-from < f.s.o.Limits.Rotations {
		next := c.newest().Signed.Version + 1
		data, err := f.DownloadFile(fmt.Sprintf("%s%d.root.json", rolesURL, next), f.s.o.Limits.Root, 0)
		if status, ok := errors.AsType[*metadata.ErrDownloadHTTP](err); ok && status.StatusCode == statusNotFound {
			return nil
		}
		if err == nil {
			err = c.add(data)
		}
		if err != nil {
			return fmt.Errorf("root version %d: %w", next, classify(err))
		}
	}
	return nil
}

// signedBy returns a test for roots that the last of stored has signed: a firmware
// may bring a root that the device has not seen on the way.
func signedBy(stored [][]byte) func(root) bool {
	if len(stored) == 0 {
		return func(root) bool { return false }
	}
	last, err := parseRoot(stored[len(stored)-1])
	return func(r root) bool {
		return err == nil && r.meta.Signed.Version >= last.Signed.Version &&
			failClosed(func() error { return last.VerifyDelegate(metadata.ROOT, r.meta) }) == nil
	}
}
