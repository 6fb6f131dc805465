package container

import (
	"archive/tar"
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// treeOf is a tree of lines: a path, with a slash behind a folder, and what is in a
// file.
func treeOf(t *testing.T, lines ...string) tree {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, line := range lines {
		name, text, _ := strings.Cut(line, " ")
		h := tar.Header{Name: name, Size: int64(len(text)), Mode: 0o644}
		if strings.HasSuffix(name, "/") {
			h.Typeflag = tar.TypeDir
		}
		if to, ok := strings.CutPrefix(text, "= "); ok {
			h.Typeflag, h.Linkname, h.Size, text = tar.TypeLink, to, 0, ""
		}
		require.NoError(t, w.WriteHeader(&h))
		_, err := w.Write([]byte(text))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	tree, err := readTree(&b)
	require.NoError(t, err)
	return tree
}

// TestTree lays layers over each other as engines do.
func TestTree(t *testing.T) {
	base := []string{"bin/", "bin/a one", "./bin/b two", "/etc/", "etc/x/", "etc/x/y three", "z = bin/a"}
	for _, c := range []struct {
		layer []string
		want  string
	}{
		{nil, "bin bin/a bin/b etc etc/x etc/x/y z"},
		{[]string{"bin/.wh.a"}, "bin bin/b etc etc/x etc/x/y z"},
		{[]string{"etc/.wh.x"}, "bin bin/a bin/b etc z"},
		{[]string{".wh.etc", "etc/", "etc/new 1"}, "bin bin/a bin/b etc etc/new z"},
		{[]string{"etc/", "etc/.wh..wh..opq", "etc/new 1"}, "bin bin/a bin/b etc etc/new z"},
		{[]string{"etc/x now a file"}, "bin bin/a bin/b etc etc/x z"},
		{[]string{".wh..wh..opq", "new 1"}, "new"},
	} {
		whole := tree{}
		whole.add(treeOf(t, base...))
		whole.add(treeOf(t, c.layer...))
		var names []string
		for name := range whole {
			names = append(names, name)
		}
		slices.Sort(names)
		require.Equal(t, c.want, strings.Join(names, " "), "%v", c.layer)
	}
	whole := treeOf(t, base...)
	require.Equal(t, whole["bin/a"], whole["z"])
	require.Empty(t, whole.missing(treeOf(t, append(base, "etc/hosts 1", "more 2")...)))
	require.Equal(t, "bin/b", whole.missing(treeOf(t, slices.Delete(slices.Clone(base), 2, 3)...)))
	for n, other := range []string{"bin/b twO", "bin/b 2", "bin/b/"} {
		require.Equal(t, "bin/b", whole.missing(treeOf(t, append(base, other)...)), fmt.Sprint(n))
	}
}
