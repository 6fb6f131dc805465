package compose

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/pawl-ota/pawl/ota/release"
)

// MaxApp is the longest app document in bytes.
const MaxApp = 4 << 20

// Parse reads an app document. It takes only the bytes that [App.Encode] writes
// for the same app: an unknown or repeated key, other spacing or anything after
// the document is refused with an error that wraps [release.ErrInvalid], another
// format word with one that wraps [release.ErrFormat].
func Parse(data []byte) (*App, error) {
	a := new(App)
	if err := decode(data, a); err != nil {
		return nil, fmt.Errorf("cannot read app document: %w", err)
	}
	if err := a.Validate(); err != nil {
		return nil, err
	}
	canonical, err := marshal(a)
	if err != nil {
		return nil, fmt.Errorf("cannot read app document: %w", err)
	}
	if !bytes.Equal(data, canonical) {
		return nil, fmt.Errorf("cannot read app document: %w: not in canonical form", release.ErrInvalid)
	}
	return a, nil
}

// Encode checks a and returns its document: compact JSON in the order of the
// fields, and a newline.
func (a *App) Encode() ([]byte, error) {
	if err := a.Validate(); err != nil {
		return nil, err
	}
	data, err := marshal(a)
	if err == nil && len(data) > MaxApp {
		err = fmt.Errorf("%w: app document of %d bytes is longer than %d", release.ErrInvalid, len(data), MaxApp)
	}
	return data, err
}

func marshal(a *App) ([]byte, error) {
	data, err := json.Marshal(a)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", release.ErrInvalid, err)
	}
	return append(data, '\n'), nil
}

// decode reads data into a. The format word comes first, so that a newer
// document is not mistaken for a broken one.
func decode(data []byte, a *App) error {
	if len(data) > MaxApp {
		return fmt.Errorf("%w: %d bytes are more than %d", release.ErrInvalid, len(data), MaxApp)
	}
	var head struct {
		Format string `json:"format"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return fmt.Errorf("%w: %w", release.ErrInvalid, err)
	}
	if head.Format != Format {
		return fmt.Errorf("%w %.80q, not %q", release.ErrFormat, head.Format, Format)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(a); err != nil {
		return fmt.Errorf("%w: %w", release.ErrInvalid, err)
	}
	return nil
}
