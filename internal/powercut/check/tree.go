package check

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
)

// Entry is one path of a component.
type Entry struct {
	Mode    fs.FileMode // with the type
	Content []byte      // of a file
	Target  string      // of a symbolic link
	Note    string      // the extended attribute user.note; empty for none
}

// Carried is the folder of the component app that belongs to the app.
const Carried = "data"

// Own is what the app has in its carried folder, and the device beside what
// releases install into sys.
const Own = "of the device's own\n"

// known are the descriptions, made once.
var known = struct{ tree, inPlace, image map[Version]func() any }{
	each(func(v Version) any { return makeTree(v) }),
	each(func(v Version) any { return makeInPlace(v) }),
	each(func(v Version) any { return makeImage(v) }),
}

func each(make func(Version) any) map[Version]func() any {
	all := map[Version]func() any{}
	for _, v := range []Version{V1, V2} {
		all[v] = sync.OnceValue(func() any { return make(v) })
	}
	return all
}

// Tree returns the entries of the component app by path, without Carried. They
// must not be changed.
func Tree(v Version) map[string]Entry { return known.tree[v]().(map[string]Entry) }

// InPlace returns the entries of the component sys by path. They must not be
// changed.
func InPlace(v Version) map[string]Entry { return known.inPlace[v]().(map[string]Entry) }

// Image returns the image of the component boot.
func Image(v Version) []byte { return known.image[v]().([]byte) }

func makeTree(v Version) map[string]Entry {
	t := tree{v: v, entries: map[string]Entry{}}
	t.dir(".", 0o755)
	t.dir("bin", 0o755)
	t.file("bin/app", 0o755, 72_000, "changes")
	t.file("bin/tool", 0o755, 5_000, "")
	t.dir("etc", 0o755)
	t.file("etc/app.conf", 0o644, 300, "changes")
	t.file("etc/limits", 0o644, 200, "")
	t.dir("lib", 0o750)
	for _, name := range []string{"b", "c", "d", "e"} {
		t.file("lib/"+name+".so", 0o644, 1_500, "")
	}
	t.file("lib/f.so", 0o644, 9_000, "changes")
	t.file("lib/empty", 0o600, 0, "")
	t.dir("share", 0o755)
	t.dir("share/doc", 0o755)
	t.file("share/doc/readme", 0o444, 700, "")
	t.note("lib/b.so", "the same")
	if v == V1 {
		t.link("bin/sh", "app")
		t.file("etc/secret", 0o600, 40, "")
		t.file("etc/old.conf", 0o644, 100, "")
		t.file("lib/a.so", 0o644, 4_000, "")
		t.file("lib/swap", 0o644, 10, "")
		t.dir("share/old", 0o700)
		t.file("share/old/list", 0o644, 80, "")
		t.note("etc/app.conf", "one")
		return t.entries
	}
	t.link("bin/sh", "tool")
	t.file("etc/secret", 0o640, 40, "") // the mode alone
	t.file("etc/new.conf", 0o644, 120, "")
	t.dir("lib/x", 0o755)
	t.entries["lib/x/a.so"] = Entry{Mode: 0o644, Content: noise("lib/a.so", 4_000)} // it moved
	t.dir("lib/swap", 0o755)                                                        // was a file
	t.file("lib/swap/in", 0o644, 60, "")
	t.link("share/latest", "../bin/app")
	t.note("etc/app.conf", "two")
	return t.entries
}

func makeInPlace(v Version) map[string]Entry {
	t := tree{v: v, entries: map[string]Entry{}}
	t.dir(".", 0o755)
	t.dir("etc", 0o755)
	t.file("etc/net.conf", 0o644, 250, "changes")
	t.file("etc/hosts", 0o644, 90, "")
	t.dir("etc/rc.d", 0o755)
	t.file("etc/rc.d/10-first", 0o755, 130, "")
	t.file("etc/rc.d/20-second", 0o755, 140, "changes")
	t.dir("sbin", 0o755)
	t.file("sbin/daemon", 0o755, 17_000, "changes")
	t.file("sbin/helper", 0o755, 2_000, "")
	if v == V1 {
		t.file("etc/issue", 0o644, 30, "")
		t.file("etc/shadow", 0o644, 60, "")
		t.file("etc/rc.d/30-third", 0o755, 150, "")
		t.link("etc/localtime", "zone/one")
		t.dir("etc/legacy", 0o755)
		t.file("etc/legacy/conf", 0o644, 20, "")
		t.note("etc/hosts", "one")
		return t.entries
	}
	t.file("etc/motd", 0o644, 35, "")
	t.file("etc/shadow", 0o600, 60, "") // the mode alone
	t.entries["etc/rc.d/35-third"] = Entry{Mode: 0o755, Content: noise("etc/rc.d/30-third", 150)}
	t.link("etc/localtime", "zone/two")
	t.dir("etc/modern", 0o755)
	t.file("etc/modern/conf", 0o644, 25, "")
	t.note("etc/hosts", "two")
	return t.entries
}

func makeImage(v Version) []byte { return noise(fmt.Sprint("image ", v), 24_000+int(v)*1_000) }

// tree is being put together.
type tree struct {
	v       Version
	entries map[string]Entry
}

func (t *tree) dir(path string, perm fs.FileMode) { t.entries[path] = Entry{Mode: perm | fs.ModeDir} }

func (t *tree) link(path, target string) {
	t.entries[path] = Entry{Mode: 0o777 | fs.ModeSymlink, Target: target}
}

// file adds one whose content is the same in all releases, or changes.
func (t *tree) file(path string, perm fs.FileMode, size int, changes string) {
	seed := path
	if changes != "" {
		seed += " of " + t.v.String()
	}
	t.entries[path] = Entry{Mode: perm, Content: noise(seed, size)}
}

func (t *tree) note(path, text string) {
	e := t.entries[path]
	e.Note = text
	t.entries[path] = e
}

// noise returns bytes that do not shrink and that tell what they are of.
func noise(seed string, size int) []byte {
	out := []byte(seed + "\n")
	sum := sha256.Sum256(out)
	for len(out) < size {
		out = append(out, sum[:]...)
		sum = sha256.Sum256(sum[:])
	}
	return out[:size]
}

// app returns what the tree is.
func (l *looker) app() Version {
	root := l.path("app")
	if _, err := os.Lstat(root); errors.Is(err, fs.ErrNotExist) {
		return None
	}
	return l.compare(root, Carried, Tree)
}

// sys returns what the entries in place are.
func (l *looker) sys() Version {
	root := l.path("sys")
	names, err := os.ReadDir(root)
	if err != nil {
		return l.complain("%v", err)
	}
	if len(names) == 1 && names[0].Name() == "local" {
		l.own(filepath.Join(root, "local"))
		return None
	}
	return l.compare(root, "local", InPlace)
}

// compare looks at everything below root but own, which must be as ever.
func (l *looker) compare(root, own string, of func(Version) map[string]Entry) Version {
	l.own(filepath.Join(root, own))
	found := map[string]Entry{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if rel == own {
			return fs.SkipDir
		}
		found[rel], err = l.entry(path)
		return err
	})
	if err != nil {
		return l.complain("%v", err)
	}
	for _, v := range []Version{V1, V2} {
		if l.same(of(v), found) {
			return v
		}
	}
	best := ""
	for _, v := range []Version{V1, V2} {
		diff := l.differences(of(v), found)
		best += fmt.Sprintf(" not %s because of %d paths, such as %v;", v, len(diff), diff[:min(5, len(diff))])
	}
	return l.complain("%s is%s", filepath.Base(root), best)
}

// own checks what pawl must never touch.
func (l *looker) own(dir string) {
	if _, err := os.Lstat(l.path("carries")); err != nil && filepath.Base(dir) == Carried {
		return
	}
	data, err := os.ReadFile(filepath.Join(dir, "own"))
	names, _ := os.ReadDir(dir)
	if err != nil || string(data) != Own || len(names) != 1 {
		l.complain("%s holds %d entries, own says %q (%v)", dir, len(names), data, err)
	}
}

// same reports whether nothing differs.
func (l *looker) same(want, got map[string]Entry) bool {
	return maps.EqualFunc(want, got, l.alike)
}

func (l *looker) alike(a, b Entry) bool {
	return a.Mode == b.Mode && a.Target == b.Target && (a.Note == b.Note || !l.xattrs) && bytes.Equal(a.Content, b.Content)
}

func (l *looker) differences(want, got map[string]Entry) (diff []string) {
	for _, path := range slices.Sorted(maps.Keys(want)) {
		w, g := want[path], got[path]
		if _, ok := got[path]; !ok {
			diff = append(diff, path+" is missing")
		} else if !l.alike(w, g) {
			diff = append(diff, fmt.Sprintf("%s is %s", path, g.unlike(w)))
		}
	}
	for _, path := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[path]; !ok {
			diff = append(diff, path+" is there")
		}
	}
	return diff
}

// unlike says in what e is other than want.
func (e Entry) unlike(want Entry) string {
	switch {
	case e.Mode != want.Mode:
		return fmt.Sprintf("of mode %s and not %s", e.Mode, want.Mode)
	case e.Target != want.Target:
		return fmt.Sprintf("a link to %q and not to %q", e.Target, want.Target)
	case e.Note != want.Note:
		return fmt.Sprintf("noted %q and not %q", e.Note, want.Note)
	}
	return fmt.Sprintf("of other content (%d bytes, %d)", len(e.Content), len(want.Content))
}

// entry looks at one path. Whatever has another owner than the device's folder
// is wrong.
func (l *looker) entry(path string) (e Entry, err error) {
	info, err := os.Lstat(path)
	if err != nil {
		return e, err
	}
	e.Mode = info.Mode()
	is, should := info.Sys().(*syscall.Stat_t), l.owner
	if is.Uid != should.Uid || is.Gid != should.Gid {
		return e, fmt.Errorf("%s belongs to %d:%d and not to %d:%d", path, is.Uid, is.Gid, should.Uid, should.Gid)
	}
	switch {
	case info.Mode().IsRegular():
		if e.Content, err = os.ReadFile(path); err != nil {
			return e, err
		}
		e.Note = note(path)
	case info.Mode()&fs.ModeSymlink != 0:
		e.Target, err = os.Readlink(path)
	}
	return e, err
}

func note(path string) string {
	buf := make([]byte, 256)
	n, err := syscall.Getxattr(path, "user.note", buf)
	if err != nil {
		return ""
	}
	return string(buf[:n])
}

// Paths returns the paths of entries, a folder before what is in it.
func Paths(entries map[string]Entry) []string { return slices.Sorted(maps.Keys(entries)) }
