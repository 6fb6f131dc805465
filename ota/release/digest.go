package release

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
)

// Digest is a SHA-256 sum. Its text form, in JSON too, is 64 lower-case
// hexadecimal digits. The zero value names nothing.
type Digest [sha256.Size]byte

// ErrDigestText is returned when a text is not the form of a [Digest].
var ErrDigestText = errors.New("not a SHA-256 digest in lower-case hexadecimal")

// Sum returns the digest of data.
func Sum(data []byte) Digest { return sha256.Sum256(data) }

// ParseDigest reads the text form of a digest. It takes no other spelling, so
// that one digest has one name.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	if err := d.UnmarshalText([]byte(s)); err != nil {
		return Digest{}, err
	}
	return d, nil
}

// String returns the text form.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// Short returns the first 12 digits, for people to read.
func (d Digest) Short() string { return d.String()[:12] }

// IsZero reports whether d names nothing.
func (d Digest) IsZero() bool { return d == Digest{} }

// MarshalText implements [encoding.TextMarshaler].
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (d *Digest) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(d)) {
		return fmt.Errorf("%w: %d characters", ErrDigestText, len(text))
	}
	for _, c := range text {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return fmt.Errorf("%w: character %q", ErrDigestText, c)
		}
	}
	_, err := hex.Decode(d[:], text)
	return err
}
