//go:build containers

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/container"
)

// withApp puts an app into the good configuration.
func withApp(keys string) string {
	return strings.Replace(goodConfig, `"components": {`, `"components": {"shop": {"kind": "compose"`+keys+`}, `, 1)
}

func TestApps(t *testing.T) {
	c, err := parseConfig([]byte(withApp(`, "engine": "unix:///nowhere.sock"`)))
	require.NoError(t, err)
	c.resolve(t.TempDir())
	a := &agent{config: c}
	require.NoError(t, a.makeBackends())
	require.Len(t, a.backends, 2)
	require.Contains(t, a.apps(), "shop")
	check, err := a.health()
	require.NoError(t, err)
	require.ErrorContains(t, check(t.Context()), "shop: nothing is in effect")

	services, problems := a.services(t.Context())
	require.Empty(t, services)
	require.Empty(t, problems)
	a.closeApps()
	code, word, _ := classify(container.ErrEngine)
	require.Equal(t, exitOther, code)
	require.Equal(t, "engine", word)
}

func TestAppsRefused(t *testing.T) {
	for keys, want := range map[string]string{
		`, "root": "/opt"`:      `belong to the kind "files"`,
		`, "layout": "tree"`:    `belong to the kind "files"`,
		`, "login": [""]`:       "login, revive and wipe begin with a program",
		`, "socket": "/x.sock"`: `"socket"`,
	} {
		_, err := parseConfig([]byte(withApp(keys)))
		require.ErrorContains(t, err, want, keys)
	}
}

// TestLogin asks a program as engines' clients ask their helpers, and shows
// nothing of what it says.
func TestLogin(t *testing.T) {
	helper := filepath.Join(t.TempDir(), "helper")
	require.NoError(t, os.WriteFile(helper, []byte("#!/bin/sh\nread host\n[ $1 = get ] && echo \"{\\\"Username\\\":\\\"me at $host\\\",\\\"Secret\\\":\\\"s\\\"}\"\n"), 0o700))
	l, err := askLogin(t.Context(), []string{helper, "get"}, "registry.example.com:5000")
	require.NoError(t, err)
	require.Equal(t, container.Login{Username: "me at registry.example.com:5000", Password: "s"}, l)
	_, err = askLogin(t.Context(), []string{"/bin/echo", "secret"}, "x")
	require.Error(t, err)
	require.NotContains(t, err.Error(), "secret")
}

func TestProgramsOfTheEngine(t *testing.T) {
	require.NoError(t, runProgram(t.Context(), []string{"/bin/true"}))
	require.ErrorContains(t, runProgram(t.Context(), []string{"/bin/sh", "-c", "echo no such store; exit 4"}), `exit status 4: "no such store"`)
}
