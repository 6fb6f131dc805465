package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/pawl-ota/pawl/ota/durable"
	"github.com/pawl-ota/pawl/ota/tuf"
)

const (
	// firstRoot is the file in the metadata folder from which everything is verified.
	firstRoot = "first-root"
	maxRoot   = 1 << 20 // bytes
)

// start takes the first root. It is verified when it is used.
func (c *command) start(root string) error {
	f, err := os.Open(root)
	if err != nil {
		return fmt.Errorf("cannot read the first root: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxRoot+1))
	err = errors.Join(err, f.Close())
	if err == nil && len(data) > maxRoot {
		err = errors.New("it has more than 1 MiB")
	}
	if err != nil {
		return fmt.Errorf("cannot read the first root: %w", err)
	}
	return errors.Join(durable.WriteFile(c.file("root.json"), data, 0o644), durable.WriteFile(c.file(firstRoot), data, 0o644))
}

// show writes what is trusted into the metadata folder, and takes away what is
// not any more.
func (c *command) show(s *tuf.Source) error {
	roles, err := s.Metadata(context.Background())
	if err != nil {
		return err
	}
	files := map[string]bool{}
	for role, data := range roles {
		path := c.file(escape(role) + ".json")
		files[path] = true
		if err := durable.WriteFile(path, data, 0o644); err != nil {
			return err
		}
	}
	there, err := os.ReadDir(c.metadataDir)
	for _, e := range there {
		if path := c.file(e.Name()); strings.HasSuffix(path, ".json") && !files[path] {
			err = errors.Join(err, durable.Remove(path))
		}
	}
	return err
}

// download brings a target, unless it is there already.
func (c *command) download(ctx context.Context, s *tuf.Source) error {
	t, err := s.Find(ctx, c.target)
	if err != nil {
		return err
	}
	path := filepath.Join(c.targetDir, escape(t.Name))
	switch old, err := readRegular(path, t.Length); {
	case err == nil && t.Check(old) == nil:
		return nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	data, err := s.Read(ctx, t)
	if err != nil {
		return err
	}
	return durable.WriteFile(path, data, 0o644)
}

// readRegular reads one byte more than length at most.
func readRegular(path string, length int64) ([]byte, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file but %v", path, info.Mode())
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, length+1))
	return data, errors.Join(err, f.Close())
}

// escape makes one file name of a role's or target's name.
func escape(name string) string {
	switch name {
	case ".", "..":
		return "%2E" + name[1:]
	}
	return url.PathEscape(name)
}
