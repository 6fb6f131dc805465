package block

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
)

// hashes tells contents apart without building them: the content of a disk is
// the sum of one hash for each of its sectors. Sectors of zeros count nothing.
type hashes struct {
	log   *Log
	seed  maphash.Seed
	write map[int][]uint64 // of each sector of the request at that position

	floor   map[int64]uint64 // of the sectors that the log touches, at the floor
	sum     uint64
	overlay map[int64]uint64 // of those that a state has otherwise
}

func newHashes(l *Log) *hashes {
	h := &hashes{log: l, seed: maphash.MakeSeed(), write: map[int][]uint64{}, floor: map[int64]uint64{}, overlay: map[int64]uint64{}}
	data := make([]byte, sectorSize)
	for i, e := range l.Entries {
		for off := int64(0); off < e.Length; off += sectorSize {
			sector := (e.Offset + off) / sectorSize
			value := uint64(0)
			if e.Op == Write {
				value = h.sector(sector, e.Data[off:min(off+sectorSize, e.Length)])
			}
			h.write[i] = append(h.write[i], value)
			if _, known := h.floor[sector]; !known {
				l.Base.Read(data, sector*sectorSize)
				h.floor[sector] = h.sector(sector, data)
				h.sum += h.floor[sector]
			}
		}
	}
	return h
}

func (h *hashes) sector(number int64, data []byte) uint64 {
	if bytes.Equal(data, zeroPage[:len(data)]) {
		return 0
	}
	var hash maphash.Hash
	hash.SetSeed(h.seed)
	_, _ = hash.Write(binary.LittleEndian.AppendUint64(nil, uint64(number)))
	_, _ = hash.Write(data)
	return hash.Sum64()
}

// of returns the hash of the disk in a state whose floor is where h stands.
func (h *hashes) of(s State) uint64 {
	clear(h.overlay)
	for i, w := range s.Writes {
		length := h.log.Entries[w].Length
		if s.Torn > 0 && i == len(s.Writes)-1 {
			length = s.Torn
		}
		first := h.log.Entries[w].Offset / sectorSize
		for k := range (length + sectorSize - 1) / sectorSize {
			h.overlay[first+k] = h.write[w][k]
		}
	}
	sum := h.sum
	for sector, value := range h.overlay {
		sum += value - h.floor[sector]
	}
	return sum
}

// advance moves the floor behind an epoch.
func (h *hashes) advance(ep epoch) {
	for _, w := range ep.writes {
		first := h.log.Entries[w].Offset / sectorSize
		for k, value := range h.write[w] {
			sector := first + int64(k)
			h.sum += value - h.floor[sector]
			h.floor[sector] = value
		}
	}
}
