//go:build linux

package model

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"strings"
)

// An Order says what must be durable when: it is checked on a recording alone,
// without a crash, and so notices what the program owes to luck.
type Order struct {
	Name string
	// At are the calls before which it holds.
	At func(*Op) bool
	// Open are the effects that may be open then: those of calls o for which it is
	// true. next is the call of At.
	Open func(h *History, o, next *Op) bool
}

// check returns what is open where nothing may be.
func (r *Order) check(h *History) error {
	for n := range h.ops {
		if !r.At(&h.ops[n]) {
			continue
		}
		for _, e := range h.effects {
			if o := &h.ops[e.op]; e.op < n && e.durable > n && !r.Open(h, o, &h.ops[n]) {
				return fmt.Errorf("%s: before call %d, %s, this is not durable: call %d, %s", r.Name, n+1, h.ops[n].String(), e.op+1, o.String())
			}
		}
	}
	return nil
}

// passing reports a call about something that need not survive: what says who
// holds a lock and which boot this is, what go-tuf works in, what is being removed
// for good, bytes kept from the network, which are checked when they are used and
// dropped by every Resume, and what is known of the looks of files, which has a
// checksum.
func passing(o *Op) bool {
	return strings.HasSuffix(o.Path, ".seen") || path.Base(o.Path) == "lock" || path.Base(o.Path) == ".pawl-reserve" || strings.HasPrefix(o.Path, "state/updates/spool/") || strings.HasPrefix(o.Path, "boot_id") || o.in("scratch") || o.in("trash") && o.Kind == Unlink && !dropped(o)
}

// dropped reports that the last of what was to be removed for good is.
func dropped(o *Op) bool { return path.Base(path.Dir(o.Path)) == "trash" }

// in reports whether one of the folders above has the name.
func (o *Op) in(name string) bool {
	return strings.Contains("/"+o.Path, "/"+name+"/") || path.Base(o.Path) == name
}

// isFact reports an acknowledgement.
func isFact(o *Op) bool { return o.Kind == Fact }

// moves reports a call that moves a name to or from a path.
func (o *Op) moves(path func(string) bool) bool {
	return (o.Kind == Rename || o.Kind == Exchange) && (path(o.Path) || path(o.Path2))
}

// to reports paths that begin with one of these.
func to(prefixes ...string) func(string) bool {
	return func(p string) bool {
		return slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(p, prefix) })
	}
}

// mark says which release the entries in place are of: it moves when all of them
// have.
const mark = ".pawl.sys/mark"

// nothing may be open but what need not survive, the temporary name of what gets
// its own now, and what a killed process left.
func nothing(h *History, o, next *Op) bool {
	return passing(o) || o.Kind == Create && o.Path == next.Path || h.swept(o) || h.cut(o, next) ||
		next.Kind == Fact && strings.HasPrefix(o.Path, "state/") && h.before(o, next)
}

// swept reports a call on a file that never got its own name, because the
// process that made it was killed.
func (h *History) swept(o *Op) bool {
	return strings.HasPrefix(path.Base(o.Path), ".pawl-tmp-") && (o.Kind == Unlink || h.named(o) == o.Path)
}

// before reports that o is of a process that was killed, and that the one that came
// after it has recorded nothing before next: all that it says is what it found.
func (h *History) before(o, next *Op) bool {
	return h.left(o, next, func(r *Op) bool { return r.moves(to("state/updates/journal.")) })
}

// left reports that o is of a process that was killed, and that the one that came
// after it did nothing that counts before next.
func (h *History) left(o, next *Op, counts func(*Op) bool) bool {
	seen, killed := false, false
	for i := range h.ops {
		switch r := &h.ops[i]; {
		case r == next:
			return killed
		case r == o:
			seen = true
		case r.Kind == Killed:
			killed = seen
		case counts(r):
			killed = false
		}
	}
	return false
}

// takenBack reports that next records the way back alone, and that what a killed
// process left of a component was not touched yet.
func (h *History) takenBack(o, next *Op) bool {
	return strings.Contains(h.written(next.Path), `"state":"reverting"`) && h.left(o, next, func(r *Op) bool {
		return r.Kind == Rename && volumeOf(r.Path) == volumeOf(o.Path)
	})
}

// cut reports a write of a script that was killed: it is what it was before, or
// runs again.
func (h *History) cut(o, next *Op) bool {
	return strings.HasPrefix(o.Path, "effects/") && h.left(o, next, func(r *Op) bool { return r.Path == o.Path && r.Kind == Write })
}

// isPlan reports a record by which a component is taken back.
func isPlan(p string) bool {
	ok, _ := path.Match(".pawl.*/tx/*/plan", p)
	staged, _ := path.Match(".pawl.*/tx/*/staged", p)
	return ok || staged
}

// named returns the name that what o is about got later.
func (h *History) named(o *Op) string {
	for i := range h.ops {
		if r := &h.ops[i]; r.Kind == Rename && (r == o || r.Path == o.Path) {
			return r.Path2
		}
	}
	return o.Path
}

// written returns what was written to a file that is written once.
func (h *History) written(name string) (text string) {
	for i := range h.ops {
		if o := &h.ops[i]; o.Kind == Write && o.Path == name {
			text += string(o.Data)
		}
	}
	return text
}

// Orders are those that all programs keep which tell facts.
func Orders() []Order {
	return []Order{{"what is acknowledged is durable", isFact, nothing}}
}

// DeviceOrders are those that devices keep besides. A record may come before
// content in the local copy that it does not name: that is verified whenever it
// is read, and all of it is durable before the first switch.
func DeviceOrders() []Order {
	entry := to("sys/")
	return []Order{
		{"fact after effect", func(o *Op) bool { return o.moves(to("state/updates/journal.")) }, func(h *History, o, next *Op) bool {
			if o.in("blobs") && !nothing(h, o, next) {
				return !strings.Contains(h.written(next.Path), path.Base(h.named(o)))
			}
			return nothing(h, o, next) || h.before(o, next) || h.takenBack(o, next)
		}},
		{"scripts are there for the way back before one runs", func(o *Op) bool { return strings.HasPrefix(o.Path, "effects/") }, func(_ *History, o, _ *Op) bool {
			return o.Kind != Write || !bytes.HasPrefix(o.Data, []byte("#!"))
		}},
		{"intent before effect", func(o *Op) bool { return o.moves(to("app", "sys/", mark)) }, func(h *History, o, next *Op) bool {
			return nothing(h, o, next) || o.moves(entry) && next.moves(entry)
		}},
		{"what boots is whole", func(o *Op) bool { return o.moves(to("slots/select")) }, nothing},
		{"nothing is dropped before what follows it is durable", func(o *Op) bool {
			return o.moves(func(p string) bool { return strings.Contains(p, "/trash/") }) || o.Kind == Unlink && isPlan(o.Path)
		}, nothing},
		{"what is half removed is none", func(o *Op) bool { return o.Kind == Unlink && o.in("trash") }, func(_ *History, o, _ *Op) bool {
			return !o.moves(func(p string) bool { return strings.Contains(p, "/trash/") })
		}},
	}
}

// volumeOf has each component of a device, and the state folder, on a file
// system of its own, as a maker may: a syncfs of one does nothing for the others.
func volumeOf(path string) string {
	first, _, _ := strings.Cut(path, "/")
	return strings.TrimPrefix(strings.TrimPrefix(first, ".pawl."), ".pawl-tmp-")
}
