package release

import (
	"errors"
	"fmt"
)

// ErrName is returned for a product, variant or component name that is not of
// the form that CheckName takes.
var ErrName = errors.New("not a name")

// ErrInvalid is returned for a document that breaks a rule of its format.
var ErrInvalid = errors.New("invalid document")

// MaxName is the longest name of a product, variant or component in bytes.
const MaxName = 64

// CheckName checks the name of a product, variant or component: 1 to MaxName
// of the characters a–z, 0–9, '.', '_' and '-', the first a letter or digit.
// Such a name is a safe file name everywhere.
func CheckName(s string) error {
	if s == "" || len(s) > MaxName {
		return fmt.Errorf("%w: %.80q: 1 to %d characters are allowed", ErrName, s, MaxName)
	}
	for i := range len(s) {
		c := s[i]
		letter := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || c != '.' && c != '_' && c != '-') {
			return fmt.Errorf("%w: %.80q: character %q", ErrName, s, c)
		}
	}
	return nil
}

// CheckID checks an ID: two names and a seq above 0.
func CheckID(id ID) error {
	if err := CheckName(id.Product); err != nil {
		return fmt.Errorf("product: %w", err)
	}
	if err := CheckName(id.Variant); err != nil {
		return fmt.Errorf("variant: %w", err)
	}
	if id.Seq == 0 || id.Seq > MaxSeq {
		return fmt.Errorf("%w: seq %d is not from 1 to %d", ErrInvalid, id.Seq, uint64(MaxSeq))
	}
	return nil
}

// MaxSeq is the highest seq, so that every JSON reader keeps it exact.
const MaxSeq = 1<<53 - 1
