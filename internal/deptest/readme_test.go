package deptest

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestReadmeProgram has the program in the README be one that compiles.
func TestReadmeProgram(t *testing.T) {
	shown := regexp.MustCompile("(?s)```go\n(.*?)```").FindStringSubmatch(read(t, "README.md"))
	require.NotNil(t, shown)
	program := read(t, "examples/minimal/main.go")
	_, body, ok := strings.Cut(program, "package main")
	require.True(t, ok)
	require.Equal(t, "package main"+body, shown[1])
}

// TestLinks has every file that the documents link be there.
func TestLinks(t *testing.T) {
	for _, doc := range []string{"README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"} {
		for _, link := range regexp.MustCompile(`\]\(([^) ]+)\)`).FindAllStringSubmatch(read(t, doc), -1) {
			if strings.Contains(link[1], "://") {
				continue
			}
			_, err := os.Stat(filepath.Join(root, link[1]))
			assert.NoError(t, err, "%s links %s", doc, link[1])
		}
	}
}

// TestEveryDependencyIsExplained wants a line in ARCHITECTURE.md for each
// module that go.mod asks for directly.
func TestEveryDependencyIsExplained(t *testing.T) {
	text := read(t, "ARCHITECTURE.md")
	for _, line := range strings.Split(read(t, "go.mod"), "\n") {
		fields := strings.Fields(line)
		if len(fields) == 2 && strings.HasPrefix(line, "\t") {
			assert.True(t, strings.Contains(text, "`"+fields[0]+"`"), "ARCHITECTURE.md does not say why %s is needed and what it adds", fields[0])
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, path))
	require.NoError(t, err)
	return string(data)
}
