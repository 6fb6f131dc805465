//go:build monitor

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/internal/journal"
	"github.com/pawl-ota/pawl/micro"
	"github.com/pawl-ota/pawl/monitor/device"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// What a support archive says of the device, each as far as it can be had.

// facts are those of the machine.
type facts struct {
	Host     string             `json:"host"`
	Kernel   string             `json:"kernel"`
	System   string             `json:"system,omitempty"` // of /etc/os-release
	Arch     string             `json:"arch"`
	CPUs     int                `json:"cpus"`
	User     int                `json:"user"`
	Disks    []disk             `json:"disks"`
	Measured map[string]float64 `json:"measured"` // as monitor/device has it
	Problems []string           `json:"problems,omitempty"`
}

type disk struct {
	Path       string `json:"path"`
	Size       int64  `json:"size"`
	Free       int64  `json:"free"`
	Inodes     int64  `json:"inodes"`
	FreeInodes int64  `json:"freeInodes"`
}

func factsOf(c *config) facts {
	f := facts{Arch: runtime.GOARCH, CPUs: runtime.NumCPU(), User: os.Geteuid()}
	note := func(err error) {
		if err != nil {
			f.Problems = append(f.Problems, err.Error())
		}
	}
	var err error
	f.Host, err = os.Hostname()
	note(err)
	var name unix.Utsname
	note(unix.Uname(&name))
	f.Kernel = strings.Join([]string{unix.ByteSliceToString(name.Sysname[:]), unix.ByteSliceToString(name.Release[:]), unix.ByteSliceToString(name.Version[:])}, " ")
	release, _ := readAtMost("/etc/os-release", 64<<10) // small systems have none
	for l := range strings.Lines(string(release)) {
		if value, ok := strings.CutPrefix(l, "PRETTY_NAME="); ok {
			f.System = strings.Trim(strings.TrimSpace(value), `"`)
		}
	}
	for _, path := range foldersOf(c) {
		d, err := diskOf(path)
		note(err)
		if err == nil {
			f.Disks = append(f.Disks, d)
		}
	}
	d, err := device.New(device.Options{Paths: []string{"/"}})
	if err == nil {
		f.Measured, err = d.Sample()
	}
	note(err)
	return f
}

// foldersOf are those whose room matters.
func foldersOf(c *config) []string {
	all := []string{"/", c.State}
	for _, comp := range c.Components {
		all = append(all, comp.Root, comp.Spool)
	}
	slices.Sort(all)
	return slices.DeleteFunc(slices.Compact(all), func(s string) bool { return s == "" })
}

func diskOf(path string) (disk, error) {
	var f unix.Statfs_t
	if err := unix.Statfs(path, &f); err != nil {
		return disk{}, fmt.Errorf("%s: %w", path, err)
	}
	return disk{path, int64(f.Blocks) * int64(f.Bsize), int64(f.Bavail) * int64(f.Bsize), int64(f.Files), int64(f.Ffree)}, nil
}

// buildOf says which agent this is.
func buildOf() map[string]string {
	all := map[string]string{}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return all
	}
	all["go"], all["version"] = info.GoVersion, info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "-tags" || strings.HasPrefix(s.Key, "vcs.") {
			all[s.Key] = s.Value
		}
	}
	return all
}

// readJournal returns the newest record of the updater, as it is.
func readJournal(c *config) (any, error) {
	_, found, err := journal.Open(folder(c.stateDir()))
	if err != nil {
		return nil, err
	}
	if found.Body == nil {
		return nil, errors.New("there is none")
	}
	return map[string]any{"record": json.RawMessage(found.Body), "fallback": found.Fallback, "notes": found.Notes}, nil
}

// metadata is one file that the device trusts.
type metadata struct {
	Role    string    `json:"role"`
	Version int64     `json:"version"`
	Expires time.Time `json:"expires"`
}

// readTrust returns the versions of what ota/tuf keeps: a line, and JSON.
func readTrust(dir string) (any, error) {
	data, err := readAtMost(filepath.Join(dir, "trust"), 64<<20)
	if err != nil {
		return nil, err
	}
	_, body, _ := bytes.Cut(data, []byte("\n"))
	var stored struct {
		Marks json.RawMessage   `json:"marks"`
		Roots [][]byte          `json:"roots"`
		Roles map[string][]byte `json:"roles"`
	}
	if err := json.Unmarshal(body, &stored); err != nil {
		return nil, err
	}
	var files []metadata
	add := func(role string, data []byte) {
		var f struct{ Signed metadata }
		if json.Unmarshal(data, &f) == nil {
			f.Signed.Role = role
			files = append(files, f.Signed)
		}
	}
	for _, r := range stored.Roots {
		add("root", r)
	}
	for role, r := range stored.Roles {
		add(role, r)
	}
	slices.SortFunc(files, func(a, b metadata) int { return strings.Compare(a.Role, b.Role) })
	return map[string]any{"files": files, "marks": stored.Marks}, nil
}

// listing names the files of a folder, with sizes and times, and nothing of
// what is in them.
func listing(dir string) string {
	const most = 5000
	var out strings.Builder
	n := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if n++; n > most {
			return fs.SkipAll
		}
		if err != nil {
			fmt.Fprintf(&out, "%s: %v\n", path, err)
			return nil
		}
		if info, err := d.Info(); err == nil {
			rel, _ := filepath.Rel(dir, path) // it is below dir
			fmt.Fprintf(&out, "%s %12d %s %s\n", info.Mode(), info.Size(), info.ModTime().UTC().Format(time.RFC3339), rel)
		}
		return nil
	})
	if err != nil {
		fmt.Fprintln(&out, err)
	}
	return out.String()
}

// maxUnits bounds the logs of an archive.
const maxUnits = 32

// unitsOf are the units that the configuration asks for and measures, and the
// services of the release that runs.
func unitsOf(c *config) []string {
	var all []string
	var ask func([]question)
	ask = func(entries []question) {
		for _, q := range entries {
			all = append(all, q.Unit)
			ask(q.All)
			ask(q.Any)
		}
	}
	ask(c.Health)
	if c.monitor.report != nil {
		all = append(all, c.monitor.report.Metrics.Units...)
	}
	if c.Supervisor != nil && c.Supervisor.word != "" {
		all = append(all, servicesOf(c)...)
	}
	slices.Sort(all)
	all = slices.DeleteFunc(slices.Compact(all), func(s string) bool { return s == "" })
	return all[:min(len(all), maxUnits)]
}

// servicesOf are the services that the running release lists; none where that
// cannot be read.
func servicesOf(c *config) (all []string) {
	st, err := ota.ReadStatus(c.stateDir())
	if err != nil {
		return nil
	}
	data, err := readAtMost(filepath.Join(c.stateDir(), "blobs", st.Running.Digest.String()), 1<<20)
	if err != nil {
		return nil
	}
	r, err := release.Parse(data)
	if err != nil {
		return nil
	}
	for _, comp := range r.Components {
		if options, err := micro.ParseOptions(comp.Options); err == nil && comp.Kind == kindFiles {
			for _, s := range options.Services {
				all = append(all, s.Name)
			}
		}
	}
	return all
}

// maxOutput bounds what is taken of a command: the end of it.
const maxOutput = 1 << 20

// output runs a command, and returns the end of what it writes.
func output(ctx context.Context, argv []string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.WaitDelay = time.Second
	data, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w", argv[0], err)
	}
	return string(data[max(0, len(data)-maxOutput):]), nil
}
