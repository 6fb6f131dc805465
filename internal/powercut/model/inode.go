//go:build linux

package model

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"maps"
	"slices"

	"golang.org/x/sys/unix"
)

// fate is what became of an effect.
type fate = byte

const (
	kept fate = iota
	lost
	torn      // the first bytes of a write
	zeros     // the length of a write, and zeros
	garbage   // the length of a write, and anything
	tornZeros // the first bytes, and zeros up to the length
)

// effect is something that a crash keeps or loses by itself.
type effect struct {
	op      int      // index of the call
	names   []naming // what it does to names
	inode   *inode   // what it is about, for anything else
	fates   int      // how many fates it can have: the first ones of the list
	cut     int      // of Data, where a write tears
	durable int      // index of the call that made it durable, or never
}

const never = int(^uint(0) >> 1)

// inode is an inode with all that was done to it.
type inode struct {
	id      int32
	first   Node      // as it began
	link    int32     // of a folder: its only one
	changes []*effect // in the order of the calls
	numbers []int     // of these effects in the history
	now     Node      // as the program sees it
	nodes   map[string]*seen
}

// seen is an inode as some crash left it.
type seen struct {
	Node
	sum uint64
}

// after returns the inode with the fates of its changes, of which it has those
// below n. What is returned is shared.
func (i *inode) after(ops []Op, fates []fate) *seen {
	key := make([]byte, 0, 64)
	for _, e := range i.numbers {
		if e >= len(fates) {
			break
		}
		key = append(key, fates[e])
	}
	if s := i.nodes[string(key)]; s != nil {
		return s
	}
	node := i.first
	node.Data, node.Xattrs = slices.Clone(node.Data), maps.Clone(node.Xattrs)
	for k, f := range key {
		if f != lost {
			node.change(&ops[i.changes[k].op], f, i.changes[k].cut)
		}
	}
	s := &seen{node, node.sum(i.id)}
	i.nodes[string(key)] = s
	return s
}

// change does to the inode what a call did, with its fate.
func (n *Node) change(o *Op, f fate, cut int) {
	switch o.Kind {
	case Write:
		n.write(o, f, cut)
	case Truncate:
		n.resize(o.Offset)
	case Chmod:
		n.Mode = n.Mode&unix.S_IFMT | o.Mode&0o7777
	case Chown:
		n.UID, n.GID = o.UID, o.GID
	case SetXattr:
		if n.Xattrs == nil {
			n.Xattrs = map[string]string{}
		}
		n.Xattrs[o.Text] = string(o.Data)
	case DelXattr:
		delete(n.Xattrs, o.Text)
	}
	if o.ID.Ctime != 0 {
		n.Mtime, n.Ctime = o.Mtime, o.ID.Ctime
	}
}

func (n *Node) write(o *Op, f fate, cut int) {
	end := o.Offset + int64(len(o.Data))
	switch f {
	case torn:
		end = o.Offset + int64(cut)
	case zeros, garbage:
		cut = 0
	case kept:
		cut = len(o.Data)
	}
	before := int64(len(n.Data))
	if before < end {
		n.resize(end)
	}
	copy(n.Data[o.Offset:], o.Data[:cut])
	if f == garbage {
		for i := before; i < end; i++ {
			n.Data[i] = byte(i*167 + 89)
		}
	}
}

func (n *Node) resize(size int64) {
	if size <= int64(len(n.Data)) {
		n.Data = n.Data[:size:size]
		return
	}
	n.Data = append(n.Data, make([]byte, size-int64(len(n.Data)))...)
}

// sum tells states of inodes apart: by everything but times.
func (n *Node) sum(id int32) uint64 {
	h := sha256.New()
	put(h, fmt.Sprint(id, n.Mode, n.UID, n.GID))
	put(h, string(n.Data))
	put(h, n.Target)
	for _, name := range slices.Sorted(maps.Keys(n.Xattrs)) {
		put(h, name)
		put(h, n.Xattrs[name])
	}
	return binary.LittleEndian.Uint64(h.Sum(nil))
}

func put(h hash.Hash, s string) {
	_ = binary.Write(h, binary.LittleEndian, int64(len(s)))
	h.Write([]byte(s))
}
