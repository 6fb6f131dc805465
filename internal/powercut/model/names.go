//go:build linux

package model

import (
	"maps"
	"slices"
)

// slot is a place for a name: the folder's number, and the name's.
type slot uint64

func slotOf(dir, name int32) slot { return slot(uint64(uint32(dir))<<32 | uint64(uint32(name))) }

func (s slot) dir() int32  { return int32(s >> 32) }
func (s slot) name() int32 { return int32(s & 0xffffffff) }

// nowhere is the slot of a link that has no name. Folder 0 is the root, and
// name 0 is never given.
const nowhere slot = 0

// names are all names at one time. A link is one name of an inode, whichever
// that is: a rename changes the name of a link.
type names struct {
	at    map[slot]int32 // the link
	place []slot         // of each link
}

func (n *names) clone() names { return names{maps.Clone(n.at), slices.Clone(n.place)} }

// give puts a link at a slot, from wherever it was, over what is there.
func (n *names) give(s slot, link int32) {
	if was := n.place[link]; was != nowhere {
		delete(n.at, was)
	}
	n.drop(s)
	n.at[s], n.place[link] = link, s
}

// drop empties a slot.
func (n *names) drop(s slot) {
	if link, ok := n.at[s]; ok {
		n.place[link] = nowhere
		delete(n.at, s)
	}
}

// naming is what an effect does to one slot: a link below 0 empties it.
type naming struct {
	slot slot
	link int32
}

func (n *names) apply(all []naming) {
	for _, c := range all {
		if c.link >= 0 {
			n.give(c.slot, c.link)
		}
	}
	for _, c := range all {
		if c.link < 0 {
			n.drop(c.slot)
		}
	}
}
