//go:build linux && (amd64 || arm64)

package model

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/pawl-ota/pawl/internal/seam"
	"github.com/pawl-ota/pawl/micro"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/durable"
	"github.com/pawl-ota/pawl/ota/otatest"
	"github.com/pawl-ota/pawl/ota/release"
)

// alone is package micro without an engine, with one small record in its place: a
// state of it costs a tenth of one of a whole device.
type alone struct {
	name   string
	layout micro.Layout
	// replace has a kernel that cannot exchange names.
	replace bool
}

// move is one change: to a version, and back again if revert is set.
type move struct {
	to     int
	revert bool
}

// moves are what a recording does, each in a process of its own.
var moves = []move{{1, false}, {2, true}, {2, false}, {3, false}, {3, true}, {2, false}, {1, true}}

// record is what the engine would keep.
type record struct {
	n, at, kept, to int
	state           string // "idle", "owed", "open", "committing"
}

func (r record) save(disk string) error {
	text := fmt.Sprintln(r.n, r.at, r.kept, r.to, r.state)
	return durable.WriteFile(filepath.Join(disk, "record"), []byte(text), 0o600)
}

func readRecord(disk string) (r record, err error) {
	data, err := os.ReadFile(filepath.Join(disk, "record"))
	if err == nil {
		_, err = fmt.Sscan(string(data), &r.n, &r.at, &r.kept, &r.to, &r.state)
	}
	return r, err
}

func (r record) tx() ota.TxID { return ota.TxID(fmt.Sprint("t", r.n)) }

// entries is version v, by path: what is there, as describe has it.
func entries(v int) map[string]string {
	file := func(mode fs.FileMode, n int, text string) string {
		return fmt.Sprint(mode, " ", strings.Repeat(text+"\n", n))
	}
	dir := fmt.Sprint(fs.ModeDir | 0o755)
	all := map[string]string{
		".": dir, "bin": dir, "bin/same": file(0o755, 40, "the same"), "bin/app": file(0o755, 30, fmt.Sprint("app ", v)),
		"link": fmt.Sprint("-> bin/", v), "conf": file(0o644, 3, "conf"), "swap": file(0o644, 1, "a file"),
	}
	switch v {
	case 1:
		all["old"] = file(0o600, 2, "old")
	case 2:
		all["conf"] = file(0o640, 3, "conf") // the mode alone
		all["swap"], all["swap/in"] = dir, file(0o644, 2, "in")
		all["new"] = file(0o644, 0, "")
	}
	return all
}

// component is version v with its content.
func component(v int) (release.Component, otatest.Blobs) {
	blobs := otatest.NewBlobs()
	ix := &release.Index{}
	uid, gid := uint32(os.Geteuid()), uint32(os.Getegid())
	for p, is := range entries(v) {
		e := release.Entry{Path: p, UID: uid, GID: gid}
		mode, text, _ := strings.Cut(is, " ")
		switch {
		case mode == "->":
			e.Type, e.Target = release.Symlink, text
		case mode[0] == 'd':
			e.Type, e.Mode = release.Dir, 0o755
		default:
			e.Type, e.Mode = release.File, permOf(mode)
			e.Blob = release.Blob{Digest: release.Sum([]byte(text)), Size: int64(len(text))}
			blobs.Add([]byte(text))
		}
		ix.Entries = append(ix.Entries, e)
	}
	slices.SortFunc(ix.Entries, func(a, b release.Entry) int { return strings.Compare(a.Path, b.Path) })
	var buf bytes.Buffer
	if err := ix.Encode(&buf); err != nil {
		panic(err)
	}
	blobs.Add(buf.Bytes())
	return release.Component{
		Name: "app", Kind: micro.Kind, Keep: release.Keep{Previous: 1},
		Index: release.Blob{Digest: release.Sum(buf.Bytes()), Size: int64(buf.Len())},
	}, blobs
}

func permOf(mode string) (perm uint32) {
	for _, c := range mode[1:] {
		perm <<= 1
		if c != '-' {
			perm |= 1
		}
	}
	return perm
}

func (a alone) open(disk string) (*micro.Files, error) {
	return micro.New(micro.Options{Name: "app", Root: filepath.Join(disk, "app"), Layout: a.layout})
}

// change is what the engine does with a component, one call after the other.
func (a alone) change(ctx context.Context, disk string, m move) error {
	f, err := a.open(disk)
	if err != nil {
		return err
	}
	r, err := readRecord(disk)
	if err != nil {
		return err
	}
	r.n, r.to, r.state = r.n+1, m.to, "open"
	c, blobs := component(m.to)
	if err := r.save(disk); err != nil {
		return err
	}
	if _, err := f.Stage(ctx, r.tx(), c, blobs); err != nil {
		return err
	}
	if err := f.Activate(ctx, r.tx(), c); err != nil {
		return err
	}
	if !m.revert {
		r.state = "committing"
		if err := r.save(disk); err != nil {
			return err
		}
	}
	return a.settle(ctx, disk, f, r)
}

// settle takes what is open to its end, from any point of it.
func (a alone) settle(ctx context.Context, disk string, f *micro.Files, r record) error {
	c, _ := component(max(r.to, 1))
	var err error
	switch r.state {
	case "open":
		if err = f.Revert(ctx, r.tx(), c); err == nil {
			r.state = "owed"
			err = r.save(disk)
		}
	case "committing":
		if err = a.forward(ctx, f, r, c); err == nil {
			r.at, r.kept, r.state = r.to, r.at, "owed"
			err = r.save(disk)
		}
	}
	if err != nil || r.state == "idle" {
		return err
	}
	var keep []release.Digest
	for _, v := range []int{r.at, r.kept} {
		c, _ := component(max(v, 1))
		keep = append(keep, c.Digest())
	}
	if err := f.Prune(ctx, "app", keep, nil); err != nil {
		return err
	}
	r.state = "idle"
	return r.save(disk)
}

func (a alone) forward(ctx context.Context, f *micro.Files, r record, c release.Component) error {
	is, err := f.Active(ctx, "app")
	if err == nil && !is.Is(c.Digest()) {
		err = f.Activate(ctx, r.tx(), c)
	}
	if err != nil {
		return err
	}
	return f.Commit(ctx, r.tx(), c)
}

// workload has all moves, and a good one after every so many states.
func (a alone) workload(every int) Workload {
	w := Workload{
		Name:    a.name,
		Prepare: func(_ context.Context, disk string) error { return a.prepare(disk) },
		Recover: func(ctx context.Context, disk string) error { return a.resume(ctx, disk) },
		Check: func(ctx context.Context, disk string, facts []string, sample int) error {
			return a.check(ctx, disk, len(facts), sample%every == 0)
		},
	}
	for _, m := range moves {
		w.Processes = append(w.Processes, Process{Run: func(ctx context.Context, disk string, fact func(string) error) error {
			if a.replace {
				defer withoutExchange()()
			}
			return errors.Join(a.change(ctx, disk, m), fact(fmt.Sprint("done ", m)))
		}})
	}
	return w
}

// withoutExchange has no two names exchanged, until the function returned is
// called.
func withoutExchange() (done func()) {
	before := seam.Step.Load()
	hook := func(op, path string, call func() error) error {
		switch {
		case op == "exchange":
			return syscall.ENOSYS
		case before != nil:
			return (*before)(op, path, call)
		}
		return call()
	}
	seam.Step.Store(&hook)
	return func() { seam.Step.Store(before) }
}

func (a alone) prepare(disk string) error {
	err := os.Mkdir(disk, 0o755)
	if a.layout == micro.InPlace && err == nil {
		err = errors.Join(os.Mkdir(filepath.Join(disk, "app"), 0o755), os.WriteFile(filepath.Join(disk, "app", "own"), []byte("own\n"), 0o644))
	}
	return errors.Join(err, record{state: "idle"}.save(disk))
}

// resume is a new process after a crash.
func (a alone) resume(ctx context.Context, disk string) error {
	f, err := a.open(disk)
	if err != nil {
		return err
	}
	r, err := readRecord(disk)
	if err != nil {
		return err
	}
	return a.settle(ctx, disk, f, r)
}

// check has the device come up after a crash, when so many moves were done.
func (a alone) check(ctx context.Context, disk string, done int, goOn bool) error {
	if err := a.resume(ctx, disk); err != nil {
		return err
	}
	now := 0
	var may []int
	for n, m := range append(moves[:len(moves):len(moves)], move{0, true}) {
		if n == done {
			may = []int{now}
		}
		if !m.revert {
			now = m.to
		}
		if n == done {
			may = append(may, now)
			break
		}
	}
	r, err := a.exactly(ctx, disk)
	if err == nil && !slices.Contains(may, r.at) {
		err = fmt.Errorf("version %d is there, and should be one of %v", r.at, may)
	}
	if err != nil || !goOn {
		return err
	}
	if err := a.change(ctx, disk, move{r.at%3 + 1, false}); err != nil {
		return fmt.Errorf("the next update: %w", err)
	}
	after, err := a.exactly(ctx, disk)
	if err == nil && after.at != r.at%3+1 {
		err = fmt.Errorf("version %d is there after an update from %d", after.at, r.at)
	}
	return err
}

// exactly checks that what is recorded is what is there, all of it and nothing
// else.
func (a alone) exactly(ctx context.Context, disk string) (record, error) {
	r, err := readRecord(disk)
	if err != nil {
		return r, err
	}
	want := map[string]string{}
	if r.at > 0 {
		want = entries(r.at)
	}
	if a.layout == micro.InPlace {
		want["own"], want["."] = fmt.Sprint(fs.FileMode(0o644), " own\n"), fmt.Sprint(fs.ModeDir|0o755)
	}
	there, err := describe(filepath.Join(disk, "app"))
	if err != nil || !maps.Equal(there, want) {
		return r, fmt.Errorf("this should be version %d: %.300q, %w", r.at, there, err)
	}
	f, err := a.open(disk)
	if err != nil {
		return r, err
	}
	is, err := f.Active(ctx, "app")
	c, _ := component(max(r.at, 1))
	if err != nil || r.at > 0 && !is.Is(c.Digest()) || r.at == 0 && is.State == ota.Whole {
		return r, fmt.Errorf("version %d is there, and Active says %v, %w", r.at, is, err)
	}
	return r, tidy(disk)
}

// tidy finds what an ended transaction left.
func tidy(disk string) error {
	return filepath.WalkDir(disk, func(path string, d fs.DirEntry, err error) error {
		dir := filepath.Base(filepath.Dir(path))
		if err == nil && (dir == "tx" || dir == "trash" || strings.HasPrefix(d.Name(), ".pawl-tmp-") && dir == "app") {
			err = fmt.Errorf("%s was left", path)
		}
		return err
	})
}

// describe says what is in a folder, by path.
func describe(root string) (map[string]string, error) {
	all := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && path == root {
			return nil
		}
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, text := ".", fmt.Sprint(info.Mode())
		if path != root {
			rel = path[len(root)+1:]
		}
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			var to string
			to, err = os.Readlink(path)
			text = "-> " + to
		case info.Mode().IsRegular():
			var data []byte
			data, err = os.ReadFile(path)
			text += " " + string(data)
		}
		all[rel] = text
		return err
	})
	return all, err
}

// allAlone are the ways to install files.
func allAlone() []alone {
	return []alone{{"tree alone", micro.Tree, false}, {"in place alone", micro.InPlace, false}, {"in place alone, without exchange", micro.InPlace, true}}
}
