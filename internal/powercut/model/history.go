//go:build linux

package model

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// History is a disk with everything that was done to it, from a disk that was
// durable as a whole. It is made by one goroutine, and read by one at a time.
type History struct {
	ops     []Op
	effects []*effect
	inodes  []*inode
	real    map[uint64]*inode // by the number in the recording
	text    []string          // of names
	number  map[string]int32  // of names
	first   names
	now     names
	of      []int32         // the inode of each link
	open    map[int32][]int // effects on the inode, or on the names in it, that are not durable
	loose   []int           // all effects that are not durable

	marks  []names // after every so many effects, all of them kept
	marked int     // how many effects there were then

	start   []Entry // of NewHistory
	numbers map[string]uint64
	// volume tells file systems apart, for a disk that is laid out on several;
	// nil is one.
	volume func(path string) string
}

// NewHistory begins with what Scan returned. Inode numbers in the recording are
// those of real, by path; where it is nil they are those of the entries.
func NewHistory(start []Entry, real map[string]uint64) (*History, error) {
	h := &History{
		real: map[uint64]*inode{}, number: map[string]int32{}, text: []string{""},
		first: names{at: map[slot]int32{}}, open: map[int32][]int{}, start: start, numbers: real,
	}
	links := map[*Node]*inode{}
	for _, e := range start {
		i := links[e.Node]
		if i == nil {
			number := e.Ino
			if real != nil {
				number = real[e.Path]
			}
			i = h.newInode(*e.Node, number)
			links[e.Node] = i
		}
		if e.Path == "." {
			continue
		}
		s, err := h.slot(&h.first, e.Path)
		if err != nil {
			return nil, err
		}
		h.first.place = append(h.first.place, nowhere)
		h.first.give(s, h.newLink(i))
	}
	if len(start) == 0 || start[0].Path != "." {
		return nil, fmt.Errorf("the disk has no root")
	}
	h.now = h.first.clone()
	return h, nil
}

func (h *History) newInode(n Node, number uint64) *inode {
	i := &inode{id: int32(len(h.inodes)), first: n, now: n, link: -1, nodes: map[string]*seen{}}
	i.now.Data, i.now.Xattrs = slices.Clone(n.Data), maps.Clone(n.Xattrs)
	h.inodes = append(h.inodes, i)
	h.real[number] = i
	return i
}

// newLink returns a link without a name.
func (h *History) newLink(i *inode) int32 {
	h.of = append(h.of, i.id)
	i.link = int32(len(h.of) - 1)
	return i.link
}

// slot finds the place that a path is.
func (h *History) slot(n *names, p string) (slot, error) {
	dir := int32(0)
	if parent := path.Dir(p); parent != "." {
		i, err := h.lookup(n, parent)
		if err != nil {
			return nowhere, err
		}
		dir = i.id
	}
	if h.inodes[dir].first.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nowhere, fmt.Errorf("%s lies in no folder", p)
	}
	return slotOf(dir, h.intern(path.Base(p))), nil
}

func (h *History) intern(name string) int32 {
	id, ok := h.number[name]
	if !ok {
		id = int32(len(h.text))
		h.number[name], h.text = id, append(h.text, name)
	}
	return id
}

// lookup finds the inode that a path is of.
func (h *History) lookup(n *names, p string) (*inode, error) {
	i := h.inodes[0]
	if p == "." {
		return i, nil
	}
	for name := range strings.SplitSeq(p, "/") {
		link, ok := n.at[slotOf(i.id, h.intern(name))]
		if !ok {
			return nil, fmt.Errorf("nothing has the name %s in the model", p)
		}
		i = h.inodes[h.of[link]]
	}
	return i, nil
}

// Inode returns the number in the recording of what has a path now.
func (h *History) Inode(p string) (uint64, bool) {
	i, err := h.lookup(&h.now, p)
	if err != nil {
		return 0, false
	}
	for number, other := range h.real {
		if other == i {
			return number, true
		}
	}
	return 0, false
}

// Add appends a call. An error means that the model and the disk are not the
// same any more: a call was missed.
func (h *History) Add(o Op) error {
	h.ops = append(h.ops, o)
	if err := h.add(&h.ops[len(h.ops)-1]); err != nil {
		return fmt.Errorf("call %d, %s: %w", len(h.ops), o.String(), err)
	}
	return nil
}

func (h *History) add(o *Op) error {
	switch o.Kind {
	case Fact, Killed:
		return nil
	case SyncAll:
		h.settle(h.loose, h.within(o))
		return nil
	case Create, Mkdir, Symlink:
		return h.create(o)
	case Unlink, Rename, Exchange, Link:
		return h.rename(o)
	}
	i := h.real[o.Inode]
	switch {
	case i == nil:
		return fmt.Errorf("inode %d is not in the model", o.Inode)
	case o.Kind == Fsync:
		h.settle(h.open[i.id], nil)
	case o.Kind == Datasync:
		h.settle(h.open[i.id], func(o *Op) bool { return o.Kind != Chmod && o.Kind != Chown && o.Kind != Times })
	default:
		h.change(o, i)
	}
	return nil
}

// within reports what is on the same file system as what o syncs.
func (h *History) within(o *Op) func(*Op) bool {
	if h.volume == nil || o.Path == "" {
		return nil
	}
	v := h.volume(o.Path)
	return func(o *Op) bool { return h.volume(o.Path) == v }
}

// settle makes effects durable.
func (h *History) settle(all []int, only func(*Op) bool) {
	for _, n := range all {
		e := h.effects[n]
		if e.durable == never && (only == nil || only(&h.ops[e.op])) {
			e.durable = len(h.ops) - 1
		}
	}
	done := func(n int) bool { return h.effects[n].durable != never }
	h.loose = slices.DeleteFunc(h.loose, done)
	for id, open := range h.open {
		h.open[id] = slices.DeleteFunc(open, done)
	}
}

// effect notes an effect of the last call, which the given inodes' fsync makes
// durable.
func (h *History) effect(e *effect, syncs ...int32) {
	n := len(h.effects)
	e.op, e.durable = len(h.ops)-1, never
	h.loose = append(h.loose, n)
	for _, id := range syncs {
		h.open[id] = append(h.open[id], n)
	}
	h.effects = append(h.effects, e)
	if e.inode != nil {
		e.inode.changes = append(e.inode.changes, e)
		e.inode.numbers = append(e.inode.numbers, n)
	}
}

func (h *History) create(o *Op) error {
	i := h.newInode(Node{Ident: o.ID, Mode: o.Mode, UID: o.UID, GID: o.GID, Target: o.Text, Mtime: o.Mtime}, o.Inode)
	if o.Path == "" {
		return nil
	}
	s, err := h.slot(&h.now, o.Path)
	if err != nil {
		return err
	}
	if _, there := h.now.at[s]; there {
		return fmt.Errorf("the name is there already")
	}
	h.name(nil, naming{s, h.link(i)})
	return nil
}

// link is newLink in the course of the history.
func (h *History) link(i *inode) int32 {
	h.first.place = append(h.first.place, nowhere)
	h.now.place = append(h.now.place, nowhere)
	return h.newLink(i)
}

// name notes changes of names, which change the times of i too.
func (h *History) name(i *inode, all ...naming) {
	h.now.apply(all)
	var dirs []int32
	for _, c := range all {
		if !slices.Contains(dirs, c.slot.dir()) {
			dirs = append(dirs, c.slot.dir())
		}
	}
	h.effect(&effect{names: all, inode: i, fates: 2}, dirs...)
}

func (h *History) rename(o *Op) error {
	if o.Kind == Link {
		i, s, err := h.real[o.Inode], nowhere, error(nil)
		if s, err = h.slot(&h.now, o.Path2); err != nil || i == nil {
			return fmt.Errorf("inode %d is not in the model, or %w", o.Inode, err)
		}
		h.name(i, naming{s, h.link(i)})
		return nil
	}
	from, err := h.slot(&h.now, o.Path)
	link, there := h.now.at[from]
	if err != nil || !there {
		return fmt.Errorf("there is no such name: %w", err)
	}
	if o.Kind == Unlink {
		h.name(nil, naming{from, -1})
		return nil
	}
	to, err := h.slot(&h.now, o.Path2)
	if err != nil {
		return err
	}
	other, there := h.now.at[to]
	switch {
	case o.Kind == Exchange && !there:
		return fmt.Errorf("%s is not in the model", o.Path2)
	case o.Kind == Exchange:
		h.name(nil, naming{from, other}, naming{to, link})
	case !there || h.of[other] != h.of[link]: // else it does nothing
		h.name(h.inodes[h.of[link]], naming{to, link}, naming{from, -1})
	}
	return nil
}

// change notes what a call did to content or metadata.
func (h *History) change(o *Op, i *inode) {
	e := &effect{inode: i, fates: 2}
	if o.Kind == Write && len(o.Data) > 0 {
		e.fates = 3
		if o.Offset+int64(len(o.Data)) > int64(len(i.now.Data)) {
			e.fates = 6
		}
		e.cut = tear(len(o.Data))
	}
	i.now.change(o, kept, len(o.Data))
	h.effect(e, i.id)
}

// tear says where a write of n bytes tears: in the middle, where a sector ends
// if it has several.
func tear(n int) int {
	if n > 1024 {
		return n / 2 &^ 511
	}
	return n / 2
}

// Len returns the number of calls.
func (h *History) Len() int { return len(h.ops) }
