// Package tuf is a source of releases for package ota: a repository secured by
// The Update Framework (TUF, specification 1.0), read over HTTP or from a folder.
//
// One lookup is the whole client workflow, online or not: new root versions one by
// one, timestamp, snapshot, targets, delegations. What was verified is kept in
// a trust store on the device that survives power cuts and heals itself; no
// damage to one of its files makes the device accept older metadata than it has
// seen. See [Options] for how time is handled on a device without a clock.
//
// Verifying metadata is go-tuf's work. Its updater is used anew for each lookup
// and for metadata only; fetching, storing, and the choice of a release are done
// here. [Source.Refresh], [Source.Find], [Source.Read] and [Source.Metadata] are the
// same client for repositories of any content; examples/tufclient puts them
// behind the command line that test suites for TUF clients speak.
package tuf

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync/atomic"
	"time"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/fetch"
	"github.com/pawl-ota/pawl/ota/release"
)

// Source is an [ota.Source] over one TUF repository. It is used by one
// goroutine; several processes may share its trust store.
type Source struct {
	o      Options
	anchor anchor
	repo   *folders
	client *fetch.Client // to close; nil when it is the caller's
	bytes  atomic.Int64
	last   located
	parts  []release.Enclosed // of packs, unverified, as the latest lookup of a release found them
	relied bool               // what another process left in the trust store is durable
}

var _ ota.Source = (*Source)(nil)

// located is the locator that the latest lookup of a release found with it.
type located struct {
	id     release.ID
	target document
	// early is the locator, unverified, where it came with the release. It counts
	// once: whoever asks again wants what is there now.
	early []byte
	at    time.Time
}

// fresh is how long what Latest verified can stand for the repository.
const fresh = 10 * time.Minute

// New returns a Source. It reads nothing yet but Options.Root or
// Options.RootFile. An error names the field that is wrong.
func New(o Options) (*Source, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Source{o: o}
	if s.anchor, err = o.anchor(); err != nil {
		return nil, err
	}
	client := o.Client
	if client == nil {
		if client, err = fetch.New(fetch.Options{}); err != nil {
			return nil, err
		}
		s.client = client
	}
	s.repo, err = openFolders(o, client)
	return s, err
}

// Close lets go of idle connections of a client that Options did not give.
func (s *Source) Close() error {
	if s.client == nil {
		return nil
	}
	return s.client.Close()
}

// Bytes returns how many bytes of the repository's files were read so far. It
// may be called from any goroutine.
func (s *Source) Bytes() int64 { return s.bytes.Load() }

// Latest implements [ota.Source]. Besides the errors of [ota.Source] it
// returns those of this package, and those of package fetch when the repository
// cannot be reached.
func (s *Source) Latest(ctx context.Context, dev ota.Device) (*release.Release, error) {
	var found *release.Release
	err := s.lookup(ctx, true, func(v *view) error {
		var err error
		found, err = v.latest(dev)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot look for the newest release: %w", err)
	}
	return found, nil
}

// Locator implements [ota.Source]. Soon after Latest it uses what that verified;
// else it verifies the repository again, and fails as Latest does.
func (s *Source) Locator(ctx context.Context, r *release.Release) (*release.Locator, error) {
	l, err := s.lastLocator(ctx, r)
	if errors.Is(err, fs.ErrNotExist) {
		err = s.lookup(ctx, false, func(v *view) error {
			t, err := v.document(targetName(kindLocator, r.ID))
			if err == nil {
				l, err = v.s.locator(v.ctx, t, r)
			}
			return err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("cannot find the content of %s %s seq %d: %w", r.Product, r.Variant, r.Seq, err)
	}
	return l, nil
}

// lastLocator uses what Latest found; the repository may have replaced it since.
func (s *Source) lastLocator(ctx context.Context, r *release.Release) (*release.Locator, error) {
	if s.last.id != r.ID || s.last.target.info == nil || time.Since(s.last.at) > fresh {
		return nil, fs.ErrNotExist
	}
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	return s.locator(ctx, s.last.target, r)
}

// Open implements [ota.Source], for the repository's content files. What keeps
// one from being read, at once or on the way, is an ErrUnavailable.
func (s *Source) Open(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	if !fs.ValidPath(name) || name == "." {
		return nil, fmt.Errorf("cannot open %.200q: not the name of a file in a repository", name)
	}
	if data := s.enclosed(name, offset, length); data != nil {
		return io.NopCloser(bytes.NewReader(data)), nil
	}
	r, err := s.get(ctx, part{name: escape(name), offset: offset, length: length, cause: fetch.Content})
	if err != nil {
		return nil, unread(err)
	}
	return file{r}, nil
}

// enclosed returns a range of a file that came with the timestamp, or nil. It counts
// once: whoever asks for it again found it to be wrong.
func (s *Source) enclosed(name string, offset, length int64) []byte {
	for i := range s.parts {
		e := &s.parts[i]
		from, size := offset-e.Offset, int64(len(e.Data))
		if e.Name == name && length > 0 && from >= 0 && length <= size-from {
			data := e.Data[from : from+length]
			e.Offset, e.Data = offset+length, e.Data[from+length:]
			return data
		}
	}
	return nil
}

// file is a content file that is being read.
type file struct{ io.ReadCloser }

func (f file) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = unread(err)
	}
	return n, err
}

// unread makes an error an ErrUnavailable, unless somebody wanted no more.
func unread(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	return unavailable(err)
}

// get reads from the repository and counts.
func (s *Source) get(ctx context.Context, p part) (*counted, error) {
	r, err := s.repo.get(ctx, p)
	if err != nil {
		return nil, err
	}
	return &counted{r, &s.bytes}, nil
}

// counted counts what is read.
type counted struct {
	io.ReadCloser
	n *atomic.Int64
}

// tag returns what the server calls the file; nothing for one in a folder.
func (c *counted) tag() (t fetch.Tag) {
	if r, ok := c.ReadCloser.(fetch.Tagged); ok {
		t = r.Tag()
	}
	return t
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.n.Add(int64(n))
	return n, err
}
