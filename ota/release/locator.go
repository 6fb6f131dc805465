package release

import (
	"fmt"
	"strings"
)

// LocatorFormat is the word that a locator starts with.
const LocatorFormat = "pawl-locator/1"

// Limits of a locator.
const (
	MaxLocator = 1 << 20 // bytes
	MaxPacks   = 4096
	MaxPatches = 4096
	MaxDeltas  = 1024
)

// Locator says where the content of one release lies in the repository. It is
// signed like the release, and may be replaced without touching the release.
type Locator struct {
	Format string `json:"format"`
	ID
	Release Digest  `json:"release"` // of the release document
	Packs   []Pack  `json:"packs"`
	Table   Blob    `json:"table"` // of the stored table file, see [TableName]
	Patches []Patch `json:"patches,omitempty"`
	Deltas  []Delta `json:"deltas,omitempty"`
}

// Pack is one file of stored blobs.
type Pack struct {
	Name string `json:"name"` // in the repository, see [PackName]
	Size int64  `json:"size"` // bytes
}

// Patch is a stored way to make one blob from another.
type Patch struct {
	To     Blob   `json:"to"`
	From   Digest `json:"from"`
	Pack   int    `json:"pack"` // which of Locator.Packs
	Offset int64  `json:"offset"`
	Length int64  `json:"length"`
	Codec  Codec  `json:"codec"`
}

// Codec is how stored bytes become a blob. It is stored as its word.
type Codec string

// The values of [Codec].
const (
	// Raw bytes are the blob.
	Raw Codec = "raw"
	// Zstd is one Zstandard frame (RFC 8878) with a window of at most 4 MiB.
	Zstd Codec = "zstd"
	// Splice is a script in a Zstandard frame that makes the blob from pieces
	// of another, and is used in a Patch only. Package codec describes it.
	Splice Codec = "splice"
)

// Place is where a stored blob lies.
type Place struct {
	Pack   string // name in the repository
	Offset int64
	Length int64
	Codec  Codec
}

// PackName returns the name in the repository of the pack file with digest d.
func PackName(d Digest) string { return contentName(d, ".pack") }

// TableName returns the name in the repository of the table file with digest d.
func TableName(d Digest) string { return contentName(d, ".table") }

// contentFolder is the folder of the repository with packs and tables.
const contentFolder = "content/"

func contentName(d Digest, suffix string) string {
	s := d.String()
	return contentFolder + s[:2] + "/" + s + suffix
}

// Digest returns the digest of the whole pack file, which its name holds.
func (p Pack) Digest() (Digest, error) {
	const head = len(contentFolder + "00/")
	hex, ok := strings.CutSuffix(p.Name, ".pack")
	if !ok || len(hex) < head {
		return Digest{}, fmt.Errorf("%w: pack name %.120q", ErrInvalid, p.Name)
	}
	d, err := ParseDigest(hex[head:])
	if err != nil || PackName(d) != p.Name {
		return Digest{}, fmt.Errorf("%w: pack name %.120q", ErrInvalid, p.Name)
	}
	return d, nil
}

// ParseLocator reads a locator as strictly as [Parse] reads a release.
func ParseLocator(data []byte) (*Locator, error) {
	l := new(Locator)
	if err := decode(data, MaxLocator, LocatorFormat, l); err != nil {
		return nil, fmt.Errorf("cannot read locator: %w", err)
	}
	if err := l.Validate(); err != nil {
		return nil, err
	}
	if err := sameBytes(data, l); err != nil {
		return nil, fmt.Errorf("cannot read locator: %w", err)
	}
	return l, nil
}

// Encode checks l and returns its document.
func (l *Locator) Encode() ([]byte, error) {
	if err := l.Validate(); err != nil {
		return nil, err
	}
	data, err := encode(l)
	if err == nil && len(data) > MaxLocator {
		err = fmt.Errorf("%w: locator of %d bytes is longer than %d", ErrInvalid, len(data), MaxLocator)
	}
	return data, err
}

// Validate checks l: every place is inside its pack. Its error wraps
// [ErrInvalid], [ErrName] or [ErrFormat].
func (l *Locator) Validate() error {
	if l.Format != LocatorFormat {
		return fmt.Errorf("locator: %w %.80q, not %q", ErrFormat, l.Format, LocatorFormat)
	}
	if err := CheckID(l.ID); err != nil {
		return fmt.Errorf("locator: %w", err)
	}
	if l.Release.IsZero() {
		return fmt.Errorf("locator: %w: no release digest", ErrInvalid)
	}
	if err := l.Table.validate(); err != nil || l.Table.Size > MaxTable {
		return fmt.Errorf("locator: %w: table of %d bytes, digest %s", ErrInvalid, l.Table.Size, l.Table.Digest.Short())
	}
	if len(l.Packs) > MaxPacks || len(l.Patches) > MaxPatches || len(l.Deltas) > MaxDeltas {
		return fmt.Errorf("locator: %w: %d packs, %d patches and %d deltas are too many", ErrInvalid,
			len(l.Packs), len(l.Patches), len(l.Deltas))
	}
	seen := make(map[string]bool, len(l.Packs))
	for _, p := range l.Packs {
		if _, err := p.Digest(); err != nil {
			return fmt.Errorf("locator: %w", err)
		}
		if p.Size < 0 || p.Size > MaxBlob || seen[p.Name] {
			return fmt.Errorf("locator: %w: pack %s of %d bytes is too long or stands twice", ErrInvalid, p.Name, p.Size)
		}
		seen[p.Name] = true
	}
	for i := range l.Patches {
		if err := l.checkPatch(&l.Patches[i]); err != nil {
			return fmt.Errorf("locator: patch %d: %w", i, err)
		}
	}
	for i := range l.Deltas {
		if err := l.checkDelta(&l.Deltas[i]); err != nil {
			return fmt.Errorf("locator: delta %d: %w", i, err)
		}
	}
	return nil
}

func (l *Locator) checkPatch(p *Patch) error {
	if err := p.To.validate(); err != nil {
		return err
	}
	if p.From.IsZero() || p.From == p.To.Digest {
		return fmt.Errorf("%w: from %s to %s", ErrInvalid, p.From.Short(), p.To.Digest.Short())
	}
	if p.Codec != Splice {
		return fmt.Errorf("%w: codec %.80q is not %q", ErrInvalid, p.Codec, Splice)
	}
	return l.checkPlace(p.Pack, p.Offset, p.Length)
}

func (l *Locator) checkPlace(pack int, offset, length int64) error {
	if pack < 0 || pack >= len(l.Packs) {
		return fmt.Errorf("%w: pack %d of %d", ErrInvalid, pack, len(l.Packs))
	}
	if !inside(offset, length, l.Packs[pack].Size) {
		return fmt.Errorf("%w: %d bytes at %d are outside of the pack", ErrInvalid, length, offset)
	}
	return nil
}

// inside reports whether length bytes at offset lie within size bytes.
func inside(offset, length, size int64) bool {
	return offset >= 0 && length >= 0 && offset <= size && length <= size-offset
}

// Patch returns the shortest patch that makes the blob to from one that have
// reports to be there.
func (l *Locator) Patch(to Digest, have func(Digest) bool) (Patch, bool) {
	var best Patch
	found := false
	for _, p := range l.Patches {
		if p.To.Digest == to && (!found || p.Length < best.Length) && have(p.From) {
			best, found = p, true
		}
	}
	return best, found
}

// Place returns where the bytes of p lie.
func (l *Locator) Place(p Patch) Place {
	return Place{Pack: l.Packs[p.Pack].Name, Offset: p.Offset, Length: p.Length, Codec: p.Codec}
}
