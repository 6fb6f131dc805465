package deptest

import (
	"go/ast"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTopLevel(t *testing.T) {
	allowed := []string{
		"ota", "container", "micro", "rollback", "monitor", "examples", "internal",
		"go.mod", "go.sum", "README.md", "LICENSE", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "Makefile",
		".ci", ".git", ".gitignore", ".gitattributes",
	}
	entries, err := os.ReadDir(root)
	require.NoError(t, err)
	for _, e := range entries {
		assert.Contains(t, allowed, e.Name(), "the top level holds nothing else")
	}
}

func TestOnePackageComment(t *testing.T) {
	files := map[string][]string{}
	packages := map[string]bool{}
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		packages[s.dir] = true
		if s.file.Doc == nil {
			continue
		}
		files[s.dir] = append(files[s.dir], s.path)
		text := s.file.Doc.Text()
		want := "Package " + s.file.Name.Name + " "
		if s.file.Name.Name == "main" {
			want = "Command " + filepath.Base(s.dir) + " "
		}
		assert.True(t, strings.HasPrefix(text, want), "%s: the package comment begins with %q", s.path, want)
		assert.Contains(t, []string{"doc.go", "main.go", s.file.Name.Name + ".go"}, filepath.Base(s.path), "%s: the package comment stands in doc.go or the file of the package's name", s.path)
	}
	for dir := range packages {
		assert.Len(t, files[dir], 1, "%s: one package comment, in one file", dir)
	}
}

func TestExportedNamesAreDocumented(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || s.file.Name.Name == "main" {
			continue
		}
		for _, d := range s.file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				documented := d.Doc != nil || !d.Name.IsExported() || isMethodOfUnexported(d) || isWellKnown(d)
				assert.True(t, documented, "%s: %s has no comment", s.at(d), d.Name.Name)
			case *ast.GenDecl:
				checkGroup(t, s, d)
			}
		}
	}
}

// checkGroup wants a comment on each exported name of a declaration or on the
// whole group.
func checkGroup(t *testing.T, s source, d *ast.GenDecl) {
	for _, spec := range d.Specs {
		switch spec := spec.(type) {
		case *ast.TypeSpec:
			assert.True(t, d.Doc != nil || spec.Doc != nil || !spec.Name.IsExported(), "%s: %s has no comment", s.at(spec), spec.Name.Name)
		case *ast.ValueSpec:
			for _, name := range spec.Names {
				documented := d.Doc != nil || spec.Doc != nil || spec.Comment != nil || !name.IsExported()
				assert.True(t, documented, "%s: %s has no comment", s.at(spec), name.Name)
			}
		}
	}
}

func isMethodOfUnexported(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return false
	}
	x := d.Recv.List[0].Type
	if star, ok := x.(*ast.StarExpr); ok {
		x = star.X
	}
	if generic, ok := x.(*ast.IndexExpr); ok {
		x = generic.X
	}
	name, ok := x.(*ast.Ident)
	return ok && !name.IsExported()
}

// isWellKnown reports a method whose meaning is fixed by the standard library.
func isWellKnown(d *ast.FuncDecl) bool {
	return d.Recv != nil && slices.Contains([]string{"Error", "Unwrap", "Is", "String"}, d.Name.Name)
}

// TestLengths holds the measure that the code we look up to keeps.
func TestLengths(t *testing.T) {
	var lengths []int
	for _, s := range sources(t) {
		limit := 500
		if s.test {
			limit = 600
		}
		assert.Less(t, s.set.File(s.file.Pos()).LineCount(), limit, "%s is long: is it one idea?", s.path)
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Body != nil && !s.test {
				lengths = append(lengths, s.lines(f.Body))
				assert.Less(t, s.lines(f.Body), 90, "%s: %s is long", s.at(f), f.Name.Name)
			}
		}
	}
	slices.Sort(lengths)
	median, most := lengths[len(lengths)/2], lengths[len(lengths)*9/10]
	t.Logf("%d functions: median %d lines, 90th percentile %d", len(lengths), median, most)
	assert.LessOrEqual(t, median, 12, "median length of a function in lines")
	assert.LessOrEqual(t, most, 32, "90th percentile of the lengths of functions in lines")
}

// TestWords finds what must not be left in a file. The words are put together
// here so that this file does not hold them.
func TestWords(t *testing.T) {
	words := []string{"TO" + "DO", "FIX" + "ME", "XX" + "X", "/wo" + "rk/", "bash_" + "jobs"}
	for _, s := range sources(t) {
		data, err := os.ReadFile(filepath.Join(root, s.path))
		require.NoError(t, err)
		for _, w := range words {
			assert.False(t, strings.Contains(string(data), w), "%s holds %q", s.path, w)
		}
	}
}

// calls that wait, skip or reach for a global where they must not.
var forbiddenCalls = []struct {
	x, sel string
	tests  bool // in tests too
	except []string
	reason string
}{
	{"time", "Sleep", true, nil, "wait for the event instead"},
	{"t", "Skip", true, []string{"internal/testneeds"}, "use package testneeds, so that nothing is skipped in CI"},
	{"t", "Skipf", true, []string{"internal/testneeds"}, "use package testneeds, so that nothing is skipped in CI"},
	{"t", "SkipNow", true, []string{"internal/testneeds"}, "use package testneeds, so that nothing is skipped in CI"},
	{"http", "DefaultClient", false, nil, "it is shared and has no limits"},
	{"http", "DefaultTransport", false, nil, "it is shared and has no limits"},
	{"os", "Exit", false, []string{"examples", "internal/e2e/testdata", "internal/powercut/device", "internal/powercut/machine/guest", "internal/dockerd/testdata"}, "a library returns"},
}

func TestForbiddenCalls(t *testing.T) {
	for _, s := range sources(t) {
		ast.Inspect(s.file, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			x, ok := sel.X.(*ast.Ident)
			if !ok {
				return true
			}
			for _, f := range forbiddenCalls {
				exempt := s.test && !f.tests || slices.ContainsFunc(f.except, func(p string) bool { return strings.HasPrefix(s.dir, p) })
				if x.Name == f.x && sel.Sel.Name == f.sel && !exempt {
					assert.Fail(t, "a forbidden call", "%s: %s.%s: %s", s.at(sel), f.x, f.sel, f.reason)
				}
			}
			return true
		})
	}
}

// TestNoPackageState refuses package-level variables that can be written: but
// for errors, tables that nothing assigns to, and what is listed here.
func TestNoPackageState(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || strings.HasPrefix(s.dir, "examples/") {
			continue
		}
		for _, d := range s.file.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR {
				continue
			}
			for _, spec := range g.Specs {
				v := spec.(*ast.ValueSpec)
				if len(v.Values) > 0 || v.Names[0].Name == "_" || s.path == "internal/seam/seam.go" {
					continue
				}
				assert.Fail(t, "package-level state", "%s: %s", s.at(v), v.Names[0].Name)
			}
		}
	}
}
