package tuf

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"syscall"

	"github.com/pawl-ota/pawl/ota/fetch"
)

// part is a piece of one file of a repository.
type part struct {
	name           string // as in a URL, escaped
	offset, length int64  // length -1: to the end of the file
	max            int64  // refuse more bytes; 0: no limit
	cause          fetch.Cause
	unless         fetch.Tag // fetch.ErrNotModified for the same file
	once           bool      // the first failure stands
}

// repo reads the files of a repository. A file that is not there is an
// fs.ErrNotExist.
type repo interface {
	get(ctx context.Context, p part) (io.ReadCloser, error)
}

// escape makes a part's name from a file's name.
func escape(name string) string { return (&url.URL{Path: name}).EscapedPath() }

// localPath returns the folder that u names, if it names one.
func localPath(u string) (string, bool) {
	if path, ok := strings.CutPrefix(u, "file://"); ok {
		return path, true
	}
	return u, !strings.Contains(u, "://")
}

// folders is a repository whose folders metadata and targets may lie
// elsewhere.
type folders struct{ base, metadata, targets repo }

// openFolders opens what o names, with client for what is to be had over HTTP.
func openFolders(o Options, client *fetch.Client) (*folders, error) {
	r := &folders{}
	for _, f := range []struct {
		field, url string
		to         *repo
	}{{"URL", o.URL, &r.base}, {"MetadataURL", o.MetadataURL, &r.metadata}, {"TargetsURL", o.TargetsURL, &r.targets}} {
		if f.url == "" {
			continue
		}
		var err error
		if *f.to, err = openRepo(f.url, client); err != nil {
			return nil, fmt.Errorf("tuf: Options.%s: %w", f.field, err)
		}
	}
	return r, nil
}

func openRepo(u string, client *fetch.Client) (repo, error) {
	if folder, ok := localPath(u); ok {
		return folderRepo(folder), nil
	}
	return newHTTPRepo(client, u)
}

func (f *folders) get(ctx context.Context, p part) (io.ReadCloser, error) {
	for _, in := range []struct {
		folder string
		repo   repo
	}{{"metadata/", f.metadata}, {"targets/", f.targets}} {
		if rest, ok := strings.CutPrefix(p.name, in.folder); ok && in.repo != nil {
			p.name = rest
			return in.repo.get(ctx, p)
		}
	}
	return f.base.get(ctx, p)
}

// onMedium reports whether the metadata lies in a folder.
func (f *folders) onMedium() bool {
	from := f.base
	if f.metadata != nil {
		from = f.metadata
	}
	_, ok := from.(folderRepo)
	return ok
}

type httpRepo struct {
	client *fetch.Client
	base   string // ends in a slash
	query  string // goes with every request: a signature, say
}

func newHTTPRepo(c *fetch.Client, base string) (*httpRepo, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, errors.New("neither an http or https URL nor a folder")
	}
	r := &httpRepo{client: c}
	if u.RawQuery != "" {
		r.query = "?" + u.RawQuery
	}
	u.RawQuery, u.Fragment = "", ""
	r.base = strings.TrimSuffix(u.String(), "/") + "/"
	return r, nil
}

func (r *httpRepo) get(ctx context.Context, p part) (io.ReadCloser, error) {
	return r.client.Get(ctx, fetch.Request{
		URL: r.base + p.name + r.query, Offset: p.offset, Length: p.length, Cause: p.cause, MaxBytes: p.max, Unless: p.unless, Once: p.once,
	})
}

// folderRepo is the path of a folder. It is opened for each file: a medium may
// come and go.
type folderRepo string

func (r folderRepo) get(ctx context.Context, p part) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	name, err := url.PathUnescape(p.name)
	if err != nil {
		return nil, fmt.Errorf("cannot read from the repository: %w", err)
	}
	root, err := os.OpenRoot(string(r))
	if err != nil {
		return nil, fmt.Errorf("cannot open the repository: %w", err)
	}
	defer func() { _ = root.Close() }()
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot read from the repository: %w", err)
	}
	body, err := section(ctx, f, p)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot read %s from the repository: %w", name, err), f.Close())
	}
	return body, nil
}

// section gives the part p of f.
func section(ctx context.Context, f *os.File, p part) (io.ReadCloser, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("not a regular file but %v", info.Mode())
	}
	length := p.length
	if length < 0 {
		length = info.Size() - p.offset
	}
	switch {
	case p.offset < 0 || p.offset > info.Size() || length > info.Size()-p.offset:
		return nil, fmt.Errorf("%d bytes from %d on were wanted of %d: %w", length, p.offset, info.Size(), io.ErrUnexpectedEOF)
	case p.max > 0 && length > p.max:
		return nil, fmt.Errorf("%d bytes, %d are allowed: %w", length, p.max, fetch.ErrTooLong)
	}
	return &fileBody{ctx: ctx, f: f, r: io.NewSectionReader(f, p.offset, length), left: length}, nil
}

// fileBody reads a piece of a file until its context ends.
type fileBody struct {
	ctx  context.Context
	f    *os.File
	r    io.Reader
	left int64
}

func (b *fileBody) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := b.r.Read(p)
	b.left -= int64(n)
	if err == io.EOF && b.left > 0 {
		err = io.ErrUnexpectedEOF // the file became shorter
	}
	return n, err
}

func (b *fileBody) Close() error { return b.f.Close() }
