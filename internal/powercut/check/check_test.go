package check

import (
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestStandardLibraryAlone: the checker shares no code with what it checks.
func TestStandardLibraryAlone(t *testing.T) {
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		require.NoError(t, err)
		for _, imported := range f.Imports {
			require.NotContains(t, imported.Path.Value, ".", "%s imports a module", name)
		}
	}
}

// TestWorkloadIsRich: the releases have at least 40 entries, of all kinds, and
// every kind of change is between them.
func TestWorkloadIsRich(t *testing.T) {
	entries, large := 0, 0
	kinds := map[string]int{}
	for _, of := range []func(Version) map[string]Entry{Tree, InPlace} {
		one, two := of(V1), of(V2)
		entries += len(one)
		for path, e := range one {
			if len(e.Content) > 64<<10 {
				large++
			}
			now, there := two[path]
			switch {
			case !there:
				kinds["removed"]++
			case e.Mode.Type() != now.Mode.Type():
				kinds["another type"]++
			case e.Mode != now.Mode:
				kinds["mode alone"]++
			case e.Note != now.Note:
				kinds["attribute alone"]++
			case e.Target != now.Target:
				kinds["link"]++
			case string(e.Content) != string(now.Content):
				kinds["content"]++
			default:
				kinds["same"]++
			}
		}
		for path := range two {
			if _, there := one[path]; !there {
				kinds["added"]++
			}
		}
	}
	require.GreaterOrEqual(t, entries+1, 40)
	require.Positive(t, large)
	for _, kind := range []string{"removed", "another type", "mode alone", "link", "content", "same", "added"} {
		require.Positive(t, kinds[kind], kind)
	}
}
