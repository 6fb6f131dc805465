package ota

import (
	"crypto/sha256"
	"hash"

	"github.com/pawl-ota/pawl/ota/release"
)

// hasher makes a digest of what is written to it.
type hasher struct{ hash.Hash }

func newHasher() hasher { return hasher{sha256.New()} }

// Digest returns the digest of what was written so far.
func (h hasher) Digest() (d release.Digest) {
	h.Sum(d[:0])
	return d
}
