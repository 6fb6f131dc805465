package release

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// ErrFormat is returned for a document whose first word names a format that
// this program does not know. A newer program may read it.
var ErrFormat = errors.New("unknown format")

// MaxRelease is the longest release document in bytes.
const MaxRelease = 1 << 20

// Parse reads a release document. It takes only the bytes that
// [Release.Encode] writes for the same release, so that a release has one
// digest: an unknown or repeated key, other spacing or anything after the
// document is refused with an error that wraps [ErrInvalid], another format
// word with one that wraps [ErrFormat].
func Parse(data []byte) (*Release, error) {
	r := new(Release)
	if err := decode(data, MaxRelease, Format, r); err != nil {
		return nil, fmt.Errorf("cannot read release document: %w", err)
	}
	if err := r.Validate(); err != nil {
		return nil, err
	}
	if err := sameBytes(data, r); err != nil {
		return nil, fmt.Errorf("cannot read release document: %w", err)
	}
	return r, nil
}

// Encode checks r and returns its document: compact JSON in the order of the
// fields, and a newline.
func (r *Release) Encode() ([]byte, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	data, err := encode(r)
	if err == nil && len(data) > MaxRelease {
		err = fmt.Errorf("%w: release document of %d bytes is longer than %d", ErrInvalid, len(data), MaxRelease)
	}
	return data, err
}

// Digest returns the digest of the document that Encode returns. It is zero
// when r cannot be encoded at all.
func (r *Release) Digest() Digest {
	data, err := encode(r)
	if err != nil {
		return Digest{}
	}
	return Sum(data)
}

// Identity is the digest of the document with no Attempt in it: what may never
// change under one ID. A publisher raises Attempt alone to have devices try the
// same release again.
func (r *Release) Identity() Digest {
	first := *r
	first.Attempt = 0
	return first.Digest()
}

// Component returns the component with that name.
func (r *Release) Component(name string) (Component, bool) {
	for _, c := range r.Components {
		if c.Name == name {
			return c, true
		}
	}
	return Component{}, false
}

// Digest names what c puts on a device: it covers name, kind, index and
// options, and neither Keep nor Scripts, which change nothing of what runs.
func (c Component) Digest() Digest {
	data, err := json.Marshal(struct {
		Name    string          `json:"name"`
		Kind    string          `json:"kind"`
		Index   Blob            `json:"index"`
		Options json.RawMessage `json:"options,omitempty"`
	}{c.Name, c.Kind, c.Index, c.Options})
	if err != nil {
		return Digest{}
	}
	return Sum(append([]byte("pawl-component/0\n"), data...))
}

// encode returns the canonical form of a document.
func encode(v any) ([]byte, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return append(data, '\n'), nil
}

// decode reads a document of the given format into v. The format word comes
// first, so that a newer document is not mistaken for a broken one.
func decode(data []byte, limit int, format string, v any) error {
	if len(data) > limit {
		return fmt.Errorf("%w: %d bytes are more than %d", ErrInvalid, len(data), limit)
	}
	var head struct {
		Format string `json:"format"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if head.Format != format {
		return fmt.Errorf("%w %.80q, not %q", ErrFormat, head.Format, format)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return nil
}

// sameBytes checks that data is the canonical form of v. A key that stands
// twice or in other letters does not survive this.
func sameBytes(data []byte, v any) error {
	canonical, err := encode(v)
	if err != nil {
		return err
	}
	if !bytes.Equal(data, canonical) {
		return fmt.Errorf("%w: not in canonical form", ErrInvalid)
	}
	return nil
}
