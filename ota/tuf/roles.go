package tuf

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/pawl-ota/pawl/ota/fetch"
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
}

type answer struct {
	data []byte
	err  error
}

// DownloadFile implements go-tuf's Fetcher.
func (f *roleFetcher) DownloadFile(name string, maxLength int64, _ time.Duration) ([]byte, error) {
	a, ok := f.cached[name]
	if !ok {
		a.data, a.err = f.read(name, min(maxLength, f.s.o.Limits.of(name)))
		f.cached[name] = a
	}
	if a.err != nil {
		return nil, a.err
	}
	if int64(len(a.data)) > maxLength {
		return nil, fmt.Errorf("%w: %s has %d bytes, %d were signed", ErrTooLarge, name, len(a.data), maxLength)
	}
	return a.data, nil
}

func (f *roleFetcher) read(name string, limit int64) ([]byte, error) {
	data, err := f.s.readAll(f.ctx, part{name: name, length: -1, max: limit, cause: fetch.Metadata})
	switch {
	case errors.Is(err, fs.ErrNotExist) && strings.HasSuffix(name, ".root.json"):
		return nil, &metadata.ErrDownloadHTTP{StatusCode: statusNotFound, URL: name}
	case errors.Is(err, fetch.ErrTooLong):
		return nil, &transportError{fmt.Errorf("%w: %w", ErrTooLarge, err)}
	case err != nil:
		return nil, &transportError{err}
	}
	return data, nil
}

// readAll reads a small file.
func (s *Source) readAll(ctx context.Context, p part) ([]byte, error) {
	r, err := s.get(ctx, p)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r)
	return data, errors.Join(err, r.Close())
}

// of returns the limit for a metadata file, by its name.
func (l Limits) of(name string) int64 {
	role := strings.TrimSuffix(strings.TrimPrefix(name, rolesURL), ".json")
	if version, rest, ok := strings.Cut(role, "."); ok && strings.Trim(version, "0123456789") == "" {
		role = rest
	}
	switch role {
	case metadata.ROOT:
		return l.Root
	case metadata.TIMESTAMP:
		return l.Timestamp
	case metadata.SNAPSHOT:
		return l.Snapshot
	}
	return l.Targets
}
