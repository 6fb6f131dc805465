//go:build linux

package micro

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/pawl-ota/pawl/micro/internal/at"
	"github.com/pawl-ota/pawl/ota/release"
)

// dropping keeps what is known of the root's files while a tree is removed that
// shares them: that a name goes gives a file another time of change. One that was
// what it was right before is known by the time that it has right after, and by
// the length and the time of a write that it had. For the tick of that look the
// rules of [seenFile] hold; between the two looks something could write to the file
// and set its time back, or change its attributes, and not be seen.
//
// It is work saved, no more: where anything is in the way the files are read again.
type dropping struct {
	f       *base
	name    string   // what is removed, of the trash
	tree    *at.Tree // the root, open once a file went that may be one of its own
	ix      *release.Index
	of      release.Digest
	seen    []seenFile
	changed bool
	tried   bool
}

func (f *base) dropping(name string) *dropping { return &dropping{f: f, name: name} }

// gone is told that the path rel of the trash went.
func (d *dropping) gone(rel string, was at.Info) {
	if !was.IsFile() || was.Links < 2 || !d.open() {
		return
	}
	p := strings.TrimPrefix(rel, d.name+"/")
	if _, err := release.ParseDigest(d.name); err != nil { // a transaction
		p = strings.TrimPrefix(p, "tree/")
	}
	i, ok := d.ix.Search(p)
	if !ok || !d.seen[i].is(was) {
		return
	}
	now, err := d.tree.Stat(p)
	if err == nil && now.Same(was.ID) { // length and time of a write stay what they were known as
		d.seen[i].ctime, d.changed = now.Ctime, true
	}
}

// open finds out what is known of the root's files, and reports whether anything
// is.
func (d *dropping) open() bool {
	if d.tree != nil || d.tried {
		return d.tree != nil
	}
	d.tried = true
	root, err := look(d.f.opts.Root)
	if err != nil {
		return false
	}
	k, ok := d.f.identify(root, nil)
	if !ok {
		return false
	}
	if d.ix, err = d.f.storedIndex(k.Digest, k.Index); err != nil {
		return false
	}
	d.of, d.seen = k.Digest, d.f.readSeen(k.Digest, d.ix)
	if d.seen != nil {
		d.tree, _ = at.Open(d.f.opts.Root)
	}
	return d.tree != nil
}

// end writes down what is known now. That checks itself when it is read: nothing
// has to make it durable.
func (d *dropping) end() error {
	if d.tree == nil {
		return nil
	}
	_ = d.tree.Close()
	if !d.changed {
		return nil
	}
	to := d.f.seenPath(d.of)
	if err := d.f.step("seen", to); err != nil {
		return err
	}
	temp := filepath.Join(filepath.Dir(to), tempPrefix+filepath.Base(to))
	if err := d.write(temp, to); err != nil || placeLater(temp, to) != nil {
		_ = os.Remove(temp)
	}
	return nil
}

func (d *dropping) write(temp, from string) error {
	log, err := createSharedLog(temp)
	if err != nil {
		return err
	}
	err = eachFile(from, d.ix, func(i int, s *shared) error {
		if now := d.seen[i]; now.ino == s.Ino && now.ctime != s.Ctime {
			s.Ctime, s.Own = now.ctime, false
		}
		return log.add(i, *s)
	})
	return errors.Join(err, log.close())
}
