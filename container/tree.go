package container

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/pawl-ota/pawl/ota/release"
)

// node is a file, folder or link of a layer, or of an image.
type node struct {
	kind     byte // of a tar's header
	mode     int64
	uid, gid int
	size     int64
	sum      release.Digest // of a file's content
	target   string         // of a link
}

// tree is what a tar holds, by clean paths without a slash in front.
type tree map[string]node

// The marks of a layer for what it takes away.
const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
)

// readTree reads a tar. A hard link becomes the file that it is another name of.
func readTree(r io.Reader) (tree, error) {
	t := tree{}
	for in := tar.NewReader(r); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return t, nil
		}
		if err != nil {
			return nil, err
		}
		n := node{kind: h.Typeflag, mode: h.Mode & 0o7777, uid: h.Uid, gid: h.Gid, target: h.Linkname}
		switch h.Typeflag {
		case tar.TypeReg:
			sum := sha256.New()
			if n.size, err = io.Copy(sum, in); err != nil {
				return nil, err
			}
			n.sum = release.Digest(sum.Sum(nil))
		case tar.TypeLink:
			if first, ok := t[inside(h.Linkname)]; ok {
				n = first
			}
		}
		t[inside(h.Name)] = n
	}
}

func inside(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

// add lays a layer over t.
func (t tree) add(layer tree) {
	for _, name := range slices.Sorted(maps.Keys(layer)) {
		dir, base := path.Split(name)
		switch {
		case base == opaque:
			t.drop(strings.TrimSuffix(dir, "/"), false)
		case strings.HasPrefix(base, whiteout):
			t.drop(dir+strings.TrimPrefix(base, whiteout), true)
		}
	}
	for name, n := range layer {
		if strings.HasPrefix(path.Base(name), whiteout) {
			continue
		}
		if was, ok := t[name]; ok && was.kind == tar.TypeDir && n.kind != tar.TypeDir {
			t.drop(name, true)
		}
		t[name] = n
	}
}

// drop removes what is below a path, and the path too.
func (t tree) drop(name string, too bool) {
	maps.DeleteFunc(t, func(p string, _ node) bool { return p == name && too || strings.HasPrefix(p, name+"/") || name == "" })
}

// missing returns the first path at which is differs from t, or nothing. What an
// engine puts into every container is not looked at, nor what is is there besides.
func (t tree) missing(is tree) string {
	for _, name := range slices.Sorted(maps.Keys(t)) {
		if !engines(name) && is[name] != t[name] {
			return name
		}
	}
	return ""
}

// engines reports whether an engine makes the path by itself.
func engines(name string) bool {
	switch name {
	case "", "etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab", "dev", "proc", "sys", "etc", ".dockerenv":
		return true
	}
	return strings.HasPrefix(name, "dev/")
}

// compareFiles reads the files of an image as a container has them, and returns
// what is wrong with them. The containerd store has them beside the layers that it
// gives out; other stores give out layers that they put together of the files.
func (c *Compose) compareFiles(ctx context.Context, ref string, layers []release.Digest, found map[release.Digest]tree) (wrong string, err error) {
	whole := tree{}
	for n, l := range layers {
		layer := found[l]
		if layer == nil {
			return fmt.Sprintf("layer %d of %d is no archive", n+1, len(layers)), nil
		}
		whole.add(layer)
	}
	r, err := c.engine.Files(ctx, ref, map[string]string{labelComponent: c.opts.Name, labelTx: "files"})
	if errors.Is(err, ErrEngine) || err != nil && ctx.Err() != nil {
		return "", err
	}
	if err != nil {
		return "the engine cannot unpack it: " + err.Error(), nil
	}
	is, err := readTree(r)
	err = errors.Join(err, r.Close())
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if err != nil {
		return "the engine cannot read its files: " + err.Error(), nil
	}
	if name := whole.missing(is); name != "" {
		return fmt.Sprintf("its file /%.200s is another one", name), nil
	}
	return "", nil
}
