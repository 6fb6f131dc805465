package powercut

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/pawl-ota/pawl/internal/powercut/check"
	"github.com/pawl-ota/pawl/internal/powercut/firmware"
	"github.com/pawl-ota/pawl/internal/testneeds"
	"github.com/pawl-ota/pawl/ota/publish"
	"github.com/pawl-ota/pawl/ota/release"
)

// Scene is a repository with v1 and v2, and a device in each state that a
// campaign begins with.
type Scene struct {
	// Repo is the repository. Devices have a symbolic link to it.
	Repo string
	// Xattrs is whether files have extended attributes.
	Xattrs bool

	dir  string
	keys publish.Keys
}

// New makes a Scene in a temporary folder of the test; in memory if dir is a
// folder there. dir empty means t.TempDir().
func New(t testing.TB, dir string) *Scene {
	t.Helper()
	if dir == "" {
		dir = t.TempDir()
	}
	s := &Scene{dir: dir, Repo: filepath.Join(dir, "repo")}
	if err := s.make(t.Context()); err != nil {
		t.Fatalf("cannot make the scene: %v", err)
	}
	return s
}

// make publishes v1, installs it, publishes v2 and installs that on a second
// device.
func (s *Scene) make(ctx context.Context) (err error) {
	s.Xattrs = syscall.Setxattr(s.dir, "user.note", []byte("probe"), 0) == nil
	if s.keys, err = (publish.KeyDir{Path: filepath.Join(s.dir, "keys")}).Make(1, false); err != nil {
		return err
	}
	r, err := s.repository()
	if err != nil {
		return err
	}
	if err := r.Create(ctx, firmware.Product, 1); err != nil {
		return err
	}
	if err := s.factory(s.template(check.None)); err != nil {
		return err
	}
	for _, v := range []check.Version{check.V1, check.V2} {
		if err := s.publish(ctx, r, v); err != nil {
			return fmt.Errorf("cannot publish %s: %w", v, err)
		}
		if _, err := copyTree(s.Repo, s.repoAt(v)); err != nil {
			return err
		}
		if err := copyDevice(s.template(v-1), s.template(v)); err != nil {
			return err
		}
		if err := s.take(ctx, s.template(v), v); err != nil {
			return err
		}
	}
	return nil
}

// take has the device in dir install v, which is the newest in its repository.
func (s *Scene) take(ctx context.Context, dir string, v check.Version) error {
	if a, _, err := drive(ctx, InProcess, dir, firmware.VerbUpdate); err != nil {
		return fmt.Errorf("cannot install %s: %w (%s)", v, err, a.Result)
	}
	if err := s.own(dir); err != nil {
		return err
	}
	_, err := check.Device(dir, v)
	return err
}

// Install makes a device in the folder dir, which must be there and empty, by
// real installations of v1, or of v1 and v2, on its file system: its inodes are
// its own. The repository is copied too. It is for images of disks.
func (s *Scene) Install(t testing.TB, dir string, v check.Version) {
	t.Helper()
	if err := s.install(t.Context(), dir, v); err != nil {
		t.Fatalf("cannot make a device with %s: %v", v, err)
	}
}

func (s *Scene) install(ctx context.Context, dir string, v check.Version) error {
	if err := s.factory(dir); err != nil {
		return err
	}
	repo := filepath.Join(dir, "repo")
	for now := check.V1; now <= v; now++ {
		if err := os.RemoveAll(repo); err != nil {
			return err
		}
		if _, err := copyTree(s.repoAt(now), repo); err != nil {
			return err
		}
		if err := s.take(ctx, dir, now); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(repo); err != nil {
		return err
	}
	_, err := copyTree(s.Repo, repo)
	return err
}

// repoAt is the repository as it was when v was the newest release.
func (s *Scene) repoAt(v check.Version) string { return fmt.Sprintf("%s-%d", s.Repo, int(v)) }

// own has the app put something of its own where it may.
func (s *Scene) own(dir string) error {
	data := filepath.Join(dir, "app", check.Carried)
	if err := os.MkdirAll(data, 0o755); err != nil {
		return err
	}
	return errors.Join(os.WriteFile(filepath.Join(data, "own"), []byte(check.Own), 0o644),
		os.WriteFile(filepath.Join(dir, "carries"), nil, 0o644))
}

func (s *Scene) repository() (*publish.Repository, error) {
	return publish.Open(publish.Options{Dir: s.Repo, Keys: s.keys})
}

func (s *Scene) template(v check.Version) string {
	return filepath.Join(s.dir, fmt.Sprintf("device-%d", int(v)))
}

// Refresh signs the repository's timestamp anew: one more version for a trust
// store to take.
func (s *Scene) Refresh(ctx context.Context) error {
	r, err := s.repository()
	if err == nil {
		_, err = r.Refresh(ctx)
	}
	return err
}

// factory makes a device as it leaves the factory, with nothing installed.
func (s *Scene) factory(dir string) error {
	for _, folder := range []string{"", "sys", "sys/local", "slots", "effects", "state"} {
		perm := fs.FileMode(0o755)
		if folder == "state" {
			perm = 0o700
		}
		if err := os.Mkdir(filepath.Join(dir, folder), perm); err != nil && (folder != "" || !errors.Is(err, fs.ErrExist)) {
			return err
		}
	}
	root, err := os.ReadFile(filepath.Join(s.Repo, "metadata", "1.root.json"))
	if err != nil {
		return err
	}
	files := map[string]string{"effects/early": "0\n", "effects/before": "0\n", "effects/after": "0\n", "sys/local/own": check.Own, "health": "ok\n", "root.json": string(root)}
	if s.Xattrs {
		files["xattrs"] = ""
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return os.Symlink(s.Repo, filepath.Join(dir, "repo"))
}

// publish makes the trees of one release and releases them.
func (s *Scene) publish(ctx context.Context, r *publish.Repository, v check.Version) error {
	from := filepath.Join(s.dir, "made", v.String())
	for name, entries := range map[string]map[string]check.Entry{
		"app": check.Tree(v), "sys": check.InPlace(v), "boot": {
			".": {Mode: 0o755 | fs.ModeDir}, "image": {Mode: 0o600, Content: check.Image(v)},
		},
	} {
		if err := s.plant(filepath.Join(from, name), entries); err != nil {
			return err
		}
	}
	scripts, err := s.scripts(from)
	if err != nil {
		return err
	}
	keep := release.Keep{Previous: 1, Repair: release.RepairFull}
	_, err = r.Release(ctx, publish.Spec{Version: v.String(), Seq: uint64(v), Components: []publish.Component{
		{Name: "app", From: filepath.Join(from, "app"), Keep: keep, Scan: publish.ScanOptions{Carry: []string{check.Carried}}},
		{Name: "sys", From: filepath.Join(from, "sys"), Keep: keep, Scripts: scripts},
		{Name: "boot", From: filepath.Join(from, "boot"), Keep: keep},
	}})
	return err
}

// plant makes the entries below dir.
func (s *Scene) plant(dir string, entries map[string]check.Entry) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, path := range check.Paths(entries) {
		if err := s.plantOne(filepath.Join(dir, path), entries[path]); err != nil {
			return err
		}
	}
	return nil
}

func (s *Scene) plantOne(path string, e check.Entry) error {
	switch {
	case e.Mode&fs.ModeSymlink != 0:
		return os.Symlink(e.Target, path)
	case e.Mode.IsDir():
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
	default:
		if err := os.WriteFile(path, e.Content, 0o600); err != nil {
			return err
		}
	}
	if s.Xattrs && e.Note != "" {
		if err := syscall.Setxattr(path, "user.note", []byte(e.Note), 0); err != nil {
			return err
		}
	}
	return os.Chmod(path, e.Mode.Perm()) // whatever the umask is
}

// script has one file, which is there, say which release was prepared, durably: it
// overwrites one digit. It may run any number of times. It starts no more programs than
// it must: much of the time of a campaign is theirs.
const script = `#!/bin/sh
set -e
cd "$PAWL_ROOT/../effects"
echo "$%s" 1<>%s
exec sync %[2]s
`

// scripts makes those of the component sys: one before it is staged, and one on
// either side of the switch.
func (s *Scene) scripts(dir string) (all []publish.Script, err error) {
	for name, at := range map[string]release.Point{"early": release.BeforeStage, "before": release.BeforeActivate, "after": release.AfterActivate} {
		p := publish.Script{Name: name, At: at, Run: filepath.Join(dir, name), Undo: filepath.Join(dir, name+"-undo")}
		for path, says := range map[string]string{p.Run: "PAWL_TO_SEQ", p.Undo: "PAWL_FROM_SEQ"} {
			if err := os.WriteFile(path, fmt.Appendf(nil, script, says, name), 0o755); err != nil {
				return nil, err
			}
		}
		all = append(all, p)
	}
	return all, nil
}

// Copy makes a device in dir, which must not be there yet: one with nothing
// installed (check.None), with v1, or with v2 that came over v1. It has
// booted. The repository offers v2.
func (s *Scene) Copy(t testing.TB, dir string, v check.Version) {
	t.Helper()
	if err := s.CopyTo(dir, v); err != nil {
		t.Fatalf("cannot make a device with %s: %v", v, err)
	}
}

// CopyTo is Copy without a test.
func (s *Scene) CopyTo(dir string, v check.Version) error {
	if err := copyDevice(s.template(v), dir); err != nil {
		return err
	}
	_, err := firmware.Boot(dir)
	return err
}

// Program builds the device as a program, without cgo, and returns its path.
func Program(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "device")
	cmd := exec.Command(testneeds.Program(t, "go"), "build", "-o", path, "github.com/pawl-ota/pawl/internal/powercut/device")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cannot build the device: %v: %s", err, out)
	}
	return path
}
