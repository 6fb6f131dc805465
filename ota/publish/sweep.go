package publish

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pawl-ota/pawl/ota/release"
)

const (
	// unusedName is the file that says since when files are referred to by
	// nothing. No client looks at it.
	unusedName   = "unused.json"
	unusedFormat = "pawl-unused/1"
	maxUnused    = 64 << 20 // bytes
)

type unusedFile struct {
	Format string               `json:"format"`
	Since  map[string]time.Time `json:"since"` // by name
}

// sweep removes the files that nothing has referred to for long enough.
func (p *pruning) sweep() error {
	t, err := p.r.disk.load(nil, time.Time{})
	if err != nil {
		return err
	}
	used, err := p.r.disk.references(t)
	if err != nil {
		return err
	}
	names, err := p.r.disk.unused(used, "content", "targets", "metadata")
	if err != nil {
		return err
	}
	since := p.r.disk.readUnused()
	note := unusedFile{Format: unusedFormat, Since: map[string]time.Time{}}
	var remove []string
	for _, name := range names {
		at, ok := since[name]
		if !ok || at.After(p.now) {
			at = p.now
		}
		if p.o.Grace < 0 || p.now.Sub(at) >= p.o.Grace {
			remove = append(remove, name)
			continue
		}
		note.Since[name] = at
	}
	for _, name := range remove {
		size := p.r.disk.size(name)
		if err := p.r.disk.remove(name); err != nil {
			return err
		}
		p.done.Removed = append(p.done.Removed, name)
		p.done.Freed += size
	}
	for _, name := range names {
		if _, rests := note.Since[name]; rests {
			p.done.Resting = append(p.done.Resting, name)
			p.done.RestingSize += p.r.disk.size(name)
		}
	}
	return p.r.disk.writeUnused(note, len(since) > 0)
}

func (d *disk) size(name string) int64 {
	info, err := os.Stat(d.path(name))
	if err != nil {
		return 0
	}
	return info.Size()
}

// readUnused reads the note of an earlier Prune. One that is damaged counts for
// nothing: everything rests anew.
func (d *disk) readUnused() map[string]time.Time {
	data, err := d.readFile(unusedName, maxUnused)
	var note unusedFile
	if err != nil || json.Unmarshal(data, &note) != nil || note.Format != unusedFormat {
		return nil
	}
	return note.Since
}

func (d *disk) writeUnused(note unusedFile, there bool) error {
	if len(note.Since) == 0 {
		if !there {
			return nil
		}
		return d.remove(unusedName)
	}
	data, err := json.Marshal(note)
	if err != nil {
		return err
	}
	return d.writeFile(unusedName, append(data, '\n'))
}

// references returns the files that clients of the repository may ask for, and
// those of a change that waits for signatures.
func (d *disk) references(t *trusted) (map[string]bool, error) {
	used := map[string]bool{}
	for name, at := range resolve(t) {
		if err := d.reference(used, name, at.file); err != nil {
			return nil, err
		}
	}
	for role := range t.Targets {
		used[roleName(Role(role), versionOf(t.Snapshot.Signed.Meta, Role(role)))] = true
	}
	used[timestampName] = true
	used[roleName(Snapshot, versionOf(t.Timestamp.Signed.Meta, Snapshot))] = true
	if err := d.referenceRoots(used); err != nil {
		return nil, err
	}
	waits, err := d.waiting()
	if err != nil || waits == nil {
		return used, err
	}
	for _, draft := range waits.drafts {
		if draft.targets == nil {
			continue
		}
		for name, file := range draft.targets.Signed.Targets {
			if err := d.reference(used, name, file); err != nil {
				return nil, fmt.Errorf("the change that waits: %w", err)
			}
		}
	}
	return used, nil
}

// reference adds the document of a target, and what a locator refers to.
func (d *disk) reference(used map[string]bool, name string, file *targetFile) error {
	t, digest, err := parseTarget(name, file)
	if err != nil {
		return err
	}
	used[t.file(digest)] = true
	if t.Kind != kindLocator {
		return nil
	}
	data, err := d.readTarget(t, digest, file.Length)
	if err != nil {
		return err
	}
	l, err := release.ParseLocator(data)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	used[release.TableName(l.Table.Digest)] = true
	for _, p := range l.Packs {
		used[p.Name] = true
	}
	return nil
}

// referenceRoots adds all roots: a device may be at any of them.
func (d *disk) referenceRoots(used map[string]bool) error {
	entries, err := os.ReadDir(d.path("metadata"))
	for _, e := range entries {
		n, ok := strings.CutSuffix(e.Name(), "."+string(Root)+".json")
		if _, err := strconv.ParseUint(n, 10, 63); ok && err == nil {
			used[path.Join("metadata", e.Name())] = true
		}
	}
	return err
}

// unused lists the files below some folders that are not used.
func (d *disk) unused(used map[string]bool, tops ...string) (list []string, err error) {
	for _, top := range tops {
		err := fs.WalkDir(os.DirFS(d.dir), top, func(name string, e fs.DirEntry, err error) error {
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return nil
			case err == nil && !e.IsDir() && !used[name]:
				list = append(list, name)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	slices.Sort(list)
	return list, nil
}
