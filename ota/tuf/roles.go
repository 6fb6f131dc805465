package tuf

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/fetch"
	"github.com/pawl-ota/pawl/ota/release"
)

// rolesURL stands for the metadata folder towards go-tuf, which joins names to a
// URL.
const rolesURL = "metadata/"

// statusNotFound is how go-tuf wants to hear that there is no next root.
const statusNotFound = 404

// roleFetcher brings metadata files to go-tuf, each once for a lookup, so
// that all updaters of the lookup see one state of the repository.
type roleFetcher struct {
	ctx    context.Context
	s      *Source
	cached map[string]answer // by name in the repository
	trust  *trust
	tag    *tag // of the timestamp, when it came anew
	ahead  ahead
	early  bool // whether it fetches anything
	// consistent is whether the repository's files have versions in their names.
	consistent bool
}

type answer struct {
	data []byte
	err  error
}

// DownloadFile implements go-tuf's Fetcher.
func (f *roleFetcher) DownloadFile(name string, maxLength int64, _ time.Duration) ([]byte, error) {
	a, ok := f.cached[name]
	if !ok {
		a.data, a.err = f.read(name, maxLength)
		f.cached[name] = a
	}
	if a.err != nil {
		return nil, a.err
	}
	if int64(len(a.data)) > maxLength {
		return nil, &transportError{fmt.Errorf("%w: %s has %d bytes, %d were signed", errLonger, name, len(a.data), maxLength)}
	}
	return a.data, nil
}

// errLonger is what a file is that has more bytes than were signed.
var errLonger = fmt.Errorf("%w: %w", ErrUntrusted, ota.ErrLength)

func (f *roleFetcher) read(name string, signed int64) ([]byte, error) {
	limit, longer := f.s.o.Limits.of(name), ErrTooLarge
	if signed < 1 {
		return nil, &transportError{fmt.Errorf("%w: %s was signed with %d bytes", ErrUntrusted, name, signed)}
	}
	if signed < limit {
		limit, longer = signed, errLonger
	}
	data, err := f.bring(part{name: name, length: -1, max: limit, cause: fetch.Metadata})
	switch {
	case errors.Is(err, fs.ErrNotExist) && roleOf(name) == metadata.ROOT:
		return nil, &metadata.ErrDownloadHTTP{StatusCode: statusNotFound, URL: name}
	case errors.Is(err, fetch.ErrTooLong):
		return nil, &transportError{fmt.Errorf("%w: %w", longer, err)}
	case err != nil:
		return nil, &transportError{err}
	}
	return data, nil
}

// bring reads a file. A timestamp that is still the stored one does not come.
func (f *roleFetcher) bring(p part) ([]byte, error) {
	if roleOf(p.name) != metadata.TIMESTAMP {
		data, _, err := f.ahead.readTagged(f.ctx, p)
		return data, err
	}
	p = f.timestamp()
	data, now, err := f.ahead.readTagged(f.ctx, p)
	if p.unless != (fetch.Tag{}) && errors.Is(err, fetch.ErrNotModified) {
		return f.trust.Roles[metadata.TIMESTAMP], nil
	}
	if err == nil && now != (fetch.Tag{}) {
		f.tag = &tag{Of: release.Sum(data), From: f.s.from(), Tag: now}
	}
	if err == nil && f.early {
		f.ahead.follow(data, f.trust, f.consistent)
	}
	return data, err
}

// timestamp is what is asked for after the roots.
func (f *roleFetcher) timestamp() part {
	unless := f.trust.Timestamp.of(f.s.from(), f.trust.Roles[metadata.TIMESTAMP])
	return part{name: rolesURL + "timestamp.json", length: -1, max: f.s.o.Limits.Timestamp, cause: fetch.Metadata, unless: unless}
}

// readAll reads a small file. What fails but a limit is an ErrUnavailable.
func (s *Source) readAll(ctx context.Context, p part) ([]byte, error) {
	data, _, err := s.readTagged(ctx, p)
	return data, err
}

// readTagged is readAll, and says what the server calls the file.
func (s *Source) readTagged(ctx context.Context, p part) (data []byte, t fetch.Tag, err error) {
	r, err := s.get(ctx, p)
	if err == nil {
		t = r.tag()
		if data, err = io.ReadAll(r); err == nil {
			return data, t, r.Close()
		}
		err = errors.Join(err, r.Close())
	}
	if errors.Is(err, fetch.ErrTooLong) {
		return nil, t, err
	}
	return nil, t, unavailable(err)
}

// of returns the limit for a metadata file, by its name.
func (l Limits) of(name string) int64 {
	switch roleOf(name) {
	case metadata.ROOT:
		return l.Root
	case metadata.TIMESTAMP:
		return l.Timestamp
	case metadata.SNAPSHOT:
		return l.Snapshot
	}
	return l.Targets
}

// roleOf returns the role of a metadata file, by its name.
func roleOf(name string) string {
	role := strings.TrimSuffix(strings.TrimPrefix(name, rolesURL), ".json")
	if version, rest, ok := strings.Cut(role, "."); ok && strings.Trim(version, "0123456789") == "" {
		return rest
	}
	return role
}

func (s *Source) metadataURL() string { return cmp.Or(s.o.MetadataURL, s.o.URL) }

// from stands for the server that metadata comes from; its URL may be secret.
func (s *Source) from() release.Digest {
	return release.Sum([]byte(s.metadataURL()))
}
