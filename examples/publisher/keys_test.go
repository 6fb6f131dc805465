//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/testneeds"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/tuf"
)

// rehearsal is a folder in which the commands of KEYS.md are run.
type rehearsal struct {
	t     *testing.T
	dir   string
	setup string // commands that every section starts with
	warm  string // the trust store of a device that looks from the beginning
}

// TestKeysDocument runs every command of KEYS.md, each section in a folder of
// its own, and looks as devices do where the document says what they find.
func TestKeysDocument(t *testing.T) {
	testneeds.Program(t, "sh")
	data, err := os.ReadFile("KEYS.md")
	require.NoError(t, err)
	parts := regexp.MustCompile("(?s)<!-- setup -->\n```sh\n(.*?)```").FindAllStringSubmatch(string(data), -1)
	require.Len(t, parts, 2)
	sections := strings.Split(string(data), "\n## ")[1:]
	ran := 0
	for _, section := range sections {
		title, _, _ := strings.Cut(section, "\n")
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			r := newRehearsal(t)
			r.setup = parts[1][1]
			r.run(parts[0][1])
			r.look(r.warm, "", "default")
			r.section(section)
		})
		ran += strings.Count(section, "```sh")
	}
	require.Greater(t, ran, 12)
}

func newRehearsal(t *testing.T) *rehearsal {
	r := &rehearsal{t: t, dir: t.TempDir()}
	r.warm = filepath.Join(r.dir, "warm")
	for name, content := range map[string]string{
		"app/hello":     "hello",
		"bin/publisher": "#!/bin/sh\nexec env " + asProgram + "=1 '" + os.Args[0] + "' \"$@\"\n",
		"camera.yaml":   minimal,
		"team-a.yaml":   "variant: arm64\n" + minimal,
		"thief.yaml":    "seq: 1000\n" + minimal,
		"moved.yaml":    "seq: 100\n" + minimal,
	} {
		path := filepath.Join(r.dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(content), 0o755))
	}
	return r
}

func (r *rehearsal) run(script string) {
	r.t.Helper()
	cmd := exec.Command("sh", "-eu", "-c", r.setup+script)
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(r.dir, "bin")+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	require.NoError(r.t, err, "%s\n%s", script, out)
}

var (
	step  = regexp.MustCompile("(?s)(<!-- setup -->\n)?```sh\n(.*?)```|<!-- device (.*?) -->")
	claim = regexp.MustCompile(`^(\S+)(?: in (\S+))?(?: after (\d+) days)?: (\S+)$`)
)

// section runs the commands of a section, and checks what it says of devices.
func (r *rehearsal) section(text string) {
	for _, m := range step.FindAllStringSubmatch(text, -1) {
		switch {
		case m[1] != "":
		case m[2] != "":
			r.run(m[2])
		default:
			r.check(m[3])
		}
	}
}

func (r *rehearsal) check(text string) {
	r.t.Helper()
	m := claim.FindStringSubmatch(text)
	require.NotNil(r.t, m, text)
	for _, store := range []string{r.warm, filepath.Join(r.t.TempDir(), "new")} {
		seq, err := r.look(store, m[2], m[1], m[3])
		if m[4] == "expired" {
			require.ErrorIs(r.t, err, tuf.ErrExpired, text)
			continue
		}
		require.NoError(r.t, err, text)
		require.Equal(r.t, m[4], fmt.Sprint(seq), text)
	}
}

// look looks for the newest release, as a device does whose firmware has the
// first root of the repository.
func (r *rehearsal) look(store, repo, variant string, after ...string) (uint64, error) {
	root := filepath.Join(r.dir, "root.json")
	if repo == "" {
		repo = "repo"
	} else {
		root = filepath.Join(r.dir, repo, "metadata", "1.root.json")
	}
	pinned, err := os.ReadFile(root)
	require.NoError(r.t, err)
	days := 0
	if len(after) > 0 && after[0] != "" {
		days, err = strconv.Atoi(after[0])
		require.NoError(r.t, err)
	}
	s, err := tuf.New(tuf.Options{URL: filepath.Join(r.dir, repo), Root: pinned, Dir: store, TrustClock: true,
		Now: func() time.Time { return time.Now().AddDate(0, 0, days) }})
	require.NoError(r.t, err)
	defer func() { require.NoError(r.t, s.Close()) }()
	found, err := s.Latest(context.Background(), ota.Device{ID: "7", Product: "camera", Variant: variant})
	if err != nil {
		return 0, err
	}
	_, err = s.Locator(context.Background(), found)
	return found.Seq, errors.Join(err)
}
