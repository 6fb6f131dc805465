package release

import (
	"encoding/binary"
	"fmt"
)

// Limits of a delta directory.
const (
	MaxDelta       = 4 << 20 // bytes of the stored directory
	MaxDeltaGroups = 65_536
	maxDeltaOpen   = 16 << 20 // bytes, uncompressed
)

// deltaMagic starts an uncompressed delta directory.
const deltaMagic = "pawl-delta/1\n"

// Delta is a stored way to make the content of a component from that of an
// earlier release. Its directory says which blobs it makes of which; the groups
// that it names lie back to back from Start on, in the same pack.
type Delta struct {
	Component string `json:"component"`
	From      Digest `json:"from"` // the index of the component that a device has
	To        Digest `json:"to"`   // and that of the release
	Pack      int    `json:"pack"` // which of Locator.Packs
	Offset    int64  `json:"offset"`
	Length    int64  `json:"length"`
	Directory Digest `json:"directory"` // of the Length bytes at Offset
	Start     int64  `json:"start"`
	Groups    int64  `json:"groups"` // bytes of all groups
}

// DeltaDirectory lists the patches of a delta.
//
// Its stored form is one Zstandard frame. In it, after the magic: the number of
// groups as a varint, the stored lengths of the groups and their numbers of
// patches as varints, then for all patches To, as the difference to the one
// after the last (varints, zigzag), then for all From, 0 for none, else 1 and
// the zigzag difference to the one after the last that was there.
type DeltaDirectory struct {
	Groups []DeltaGroup
}

// DeltaGroup is a sequence of patches that are stored as one.
type DeltaGroup struct {
	Offset  int64 // behind [Delta.Start]
	Length  int64 // bytes as stored
	Patches []DeltaPatch
}

// DeltaPatch makes one blob.
type DeltaPatch struct {
	// To counts the distinct blobs of the component's new index, as
	// [Index.Blobs] lists them.
	To int
	// From counts those of the old index in the same way; -1 means that the
	// patch takes nothing from an old blob.
	From int
}

// checkDelta checks a delta of l.
func (l *Locator) checkDelta(d *Delta) error {
	if err := CheckName(d.Component); err != nil {
		return err
	}
	if d.From.IsZero() || d.To.IsZero() || d.From == d.To {
		return fmt.Errorf("%w: from %s to %s", ErrInvalid, d.From.Short(), d.To.Short())
	}
	if d.Length > MaxDelta || d.Directory.IsZero() {
		return fmt.Errorf("%w: a directory of %d bytes, digest %s", ErrInvalid, d.Length, d.Directory.Short())
	}
	if err := l.checkPlace(d.Pack, d.Start, d.Groups); err != nil {
		return err
	}
	return l.checkPlace(d.Pack, d.Offset, d.Length)
}

// Delta returns the delta of the component with that new index that starts from
// the index from.
func (l *Locator) Delta(component string, to, from Digest) (Delta, bool) {
	for _, d := range l.Deltas {
		if d.Component == component && d.To == to && d.From == from {
			return d, true
		}
	}
	return Delta{}, false
}

// ParseDelta reads the stored directory of d, after comparing it with the digest
// that d has of it. from and to are how many distinct blobs the two indexes
// have: no patch names another, and none makes the same blob as one before.
// Errors wrap [ErrInvalid] or [ErrFormat].
func ParseDelta(stored []byte, d Delta, from, to int) (*DeltaDirectory, error) {
	if int64(len(stored)) != d.Length || Sum(stored) != d.Directory {
		return nil, fmt.Errorf("cannot read delta: %w: %d bytes with digest %s, not %d with %s", ErrInvalid,
			len(stored), Sum(stored).Short(), d.Length, d.Directory.Short())
	}
	data, err := inflate(stored, maxDeltaOpen)
	if err != nil {
		return nil, fmt.Errorf("cannot read delta: %w: %w", ErrInvalid, err)
	}
	dir, err := parseDelta(data, d.Groups, from, to)
	if err != nil {
		return nil, fmt.Errorf("cannot read delta: %w", err)
	}
	return dir, nil
}

func parseDelta(data []byte, groups int64, from, to int) (*DeltaDirectory, error) {
	c := columns{data: data}
	if string(c.take(len(deltaMagic))) != deltaMagic {
		return nil, fmt.Errorf("%w: not a %q", ErrFormat, deltaMagic[:len(deltaMagic)-1])
	}
	n := c.number(MaxDeltaGroups)
	if c.bad || 2*n > int64(len(c.data)) {
		return nil, fmt.Errorf("%w: too many groups", ErrInvalid)
	}
	dir := &DeltaDirectory{Groups: make([]DeltaGroup, n)}
	at := int64(0)
	for i := range dir.Groups {
		g := &dir.Groups[i]
		g.Offset, g.Length = at, c.number(groups-at)
		at += g.Length
	}
	if at != groups {
		return nil, fmt.Errorf("%w: groups of %d bytes, not %d", ErrInvalid, at, groups)
	}
	all := int64(0)
	count := make([]int64, n)
	for i := range count {
		count[i] = c.number(int64(to) - all)
		all += count[i]
	}
	if 2*all > int64(len(c.data)) {
		return nil, fmt.Errorf("%w: too many patches", ErrInvalid)
	}
	patches := make([]DeltaPatch, all)
	if err := readPatches(&c, patches, from, to); err != nil {
		return nil, err
	}
	for i, n := range count {
		dir.Groups[i].Patches, patches = patches[:n:n], patches[n:]
	}
	return dir, nil
}

func readPatches(c *columns, patches []DeltaPatch, from, to int) error {
	next, seen := int64(0), make([]bool, to)
	for i := range patches {
		next += c.difference()
		if next < 0 || next >= int64(to) || seen[next] {
			return fmt.Errorf("%w: a patch of blob %d of %d", ErrInvalid, next, to)
		}
		seen[next] = true
		patches[i].To = int(next)
		next++
	}
	next = 0
	for i := range patches {
		patches[i].From = -1
		if c.number(1) == 0 {
			continue
		}
		next += c.difference()
		if next < 0 || next >= int64(from) {
			return fmt.Errorf("%w: a patch from blob %d of %d", ErrInvalid, next, from)
		}
		patches[i].From = int(next)
		next++
	}
	if c.bad || len(c.data) != 0 {
		return fmt.Errorf("%w: cut short, or %d bytes too long", ErrInvalid, len(c.data))
	}
	return nil
}

// EncodeDelta returns the stored form of dir. It is for publishers; Offset of the
// groups is what comes of the order in which they are.
func EncodeDelta(dir *DeltaDirectory) ([]byte, error) {
	b := binary.AppendUvarint([]byte(deltaMagic), uint64(len(dir.Groups)))
	for _, g := range dir.Groups {
		b = binary.AppendUvarint(b, uint64(g.Length))
	}
	for _, g := range dir.Groups {
		b = binary.AppendUvarint(b, uint64(len(g.Patches)))
	}
	next := 0
	for _, g := range dir.Groups {
		for _, p := range g.Patches {
			b = binary.AppendVarint(b, int64(p.To-next))
			next = p.To + 1
		}
	}
	next = 0
	for _, g := range dir.Groups {
		for _, p := range g.Patches {
			if p.From < 0 {
				b = append(b, 0)
				continue
			}
			b = binary.AppendVarint(append(b, 1), int64(p.From-next))
			next = p.From + 1
		}
	}
	stored, err := deflate(b)
	if err == nil && (len(dir.Groups) > MaxDeltaGroups || len(b) > maxDeltaOpen || len(stored) > MaxDelta) {
		err = fmt.Errorf("%w: %d groups and %d bytes (%d uncompressed) are too many", ErrInvalid, len(dir.Groups), len(stored), len(b))
	}
	if err != nil {
		return nil, fmt.Errorf("cannot make delta: %w", err)
	}
	return stored, nil
}
