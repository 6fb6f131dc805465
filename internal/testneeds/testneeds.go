// Package testneeds skips a test by name where the machine lacks what it
// needs, and fails it instead when CI=true, so that no test is ever left out
// there unseen.
package testneeds

import (
	"os"
	"os/exec"
	"testing"
)

// Root skips unless the test runs as root.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Missing(t, "root")
	}
}

// Program returns the path of the named program, and skips where there is
// none.
func Program(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		Missing(t, "the program "+name)
	}
	return path
}

// Missing ends the test because the machine lacks what: as a skip, or as a
// failure when CI=true.
func Missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("needs %s, and with CI=true nothing is skipped", what)
	}
	t.Skip("needs " + what)
}
