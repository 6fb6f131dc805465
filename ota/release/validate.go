package release

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode"
	"unicode/utf8"
)

// Limits of a release document.
const (
	MaxComponents = 256
	MaxHardware   = 256
	MaxPrevious   = 16
	MaxOptions    = 64 << 10 // bytes
	MaxLabel      = 128      // bytes of a version or a hardware id
	MaxBlob       = 1 << 40  // bytes
)

// Validate checks r against the rules that stand with its fields. Its error
// names the field and wraps [ErrInvalid], [ErrName] or [ErrFormat].
func (r *Release) Validate() error {
	if r.Format != Format {
		return fmt.Errorf("release document: %w %.80q, not %q", ErrFormat, r.Format, Format)
	}
	if err := r.validateHead(); err != nil {
		return fmt.Errorf("release document: %w", err)
	}
	if len(r.Components) == 0 || len(r.Components) > MaxComponents {
		return fmt.Errorf("release document: %w: %d components; 1 to %d are allowed", ErrInvalid, len(r.Components), MaxComponents)
	}
	seen := make(map[string]bool, len(r.Components))
	for _, c := range r.Components {
		if err := c.validate(); err != nil {
			return fmt.Errorf("release document: component %.80q: %w", c.Name, err)
		}
		if seen[c.Name] {
			return fmt.Errorf("release document: %w: component %q stands twice", ErrInvalid, c.Name)
		}
		seen[c.Name] = true
	}
	if err := r.validateScripts(); err != nil {
		return fmt.Errorf("release document: %w", err)
	}
	return nil
}

func (r *Release) validateHead() error {
	if err := CheckID(r.ID); err != nil {
		return err
	}
	if err := checkLabel(r.Version); err != nil {
		return fmt.Errorf("version: %w", err)
	}
	if r.SecurityFloor > r.Seq {
		return fmt.Errorf("%w: securityFloor %d is above seq %d", ErrInvalid, r.SecurityFloor, r.Seq)
	}
	if r.LateRollback != LateAllowed && r.LateRollback != LateForbidden {
		return fmt.Errorf("%w: lateRollback %.80q is not %q", ErrInvalid, r.LateRollback, LateForbidden)
	}
	if len(r.Hardware) > MaxHardware {
		return fmt.Errorf("%w: %d hardware ids are more than %d", ErrInvalid, len(r.Hardware), MaxHardware)
	}
	seen := make(map[string]bool, len(r.Hardware))
	for _, h := range r.Hardware {
		if err := checkLabel(h); err != nil {
			return fmt.Errorf("hardware: %w", err)
		}
		if h == "" || seen[h] {
			return fmt.Errorf("%w: hardware id %q is empty or stands twice", ErrInvalid, h)
		}
		seen[h] = true
	}
	t := r.Issued
	if t.IsZero() || t.Location().String() != "UTC" || t.Nanosecond() != 0 || t.Year() < 1970 || t.Year() > 9999 {
		return fmt.Errorf("%w: issued %v is not a time in UTC to the second", ErrInvalid, t)
	}
	return nil
}

func (c Component) validate() error {
	if err := CheckName(c.Name); err != nil {
		return err
	}
	if err := CheckName(c.Kind); err != nil {
		return fmt.Errorf("kind: %w", err)
	}
	if err := c.Index.validate(); err != nil {
		return fmt.Errorf("index: %w", err)
	}
	if c.Keep.Previous < 0 || c.Keep.Previous > MaxPrevious {
		return fmt.Errorf("%w: keep.previous %d is not from 0 to %d", ErrInvalid, c.Keep.Previous, MaxPrevious)
	}
	switch c.Keep.Repair {
	case RepairNone, RepairChanged, RepairFull:
	default:
		return fmt.Errorf("%w: keep.repair %.80q is not %q, %q or %q", ErrInvalid, c.Keep.Repair, RepairNone, RepairChanged, RepairFull)
	}
	return checkOptions(c.Options)
}

func (b Blob) validate() error {
	if b.Digest.IsZero() {
		return fmt.Errorf("%w: no digest", ErrInvalid)
	}
	if b.Size < 0 || b.Size > MaxBlob {
		return fmt.Errorf("%w: size %d is not from 0 to %d", ErrInvalid, b.Size, int64(MaxBlob))
	}
	return nil
}

// checkLabel checks a text for people: short, and nothing in it that could
// play tricks on a terminal.
func checkLabel(s string) error {
	if len(s) > MaxLabel {
		return fmt.Errorf("%w: %d bytes are more than %d", ErrInvalid, len(s), MaxLabel)
	}
	if !utf8.ValidString(s) {
		return fmt.Errorf("%w: %q is not UTF-8", ErrInvalid, s)
	}
	for _, c := range s {
		if !unicode.IsPrint(c) {
			return fmt.Errorf("%w: %q holds a character that cannot be printed", ErrInvalid, s)
		}
	}
	return nil
}

func checkOptions(raw json.RawMessage) error {
	if raw == nil {
		return nil
	}
	if len(raw) > MaxOptions {
		return fmt.Errorf("%w: options of %d bytes are longer than %d", ErrInvalid, len(raw), MaxOptions)
	}
	if !json.Valid(raw) || !utf8.Valid(raw) || bytes.TrimLeft(raw, " \t\r\n")[0] != '{' {
		return fmt.Errorf("%w: options are not a JSON object", ErrInvalid)
	}
	return checkKeys(raw)
}

// checkKeys refuses a JSON text in which an object has a key twice: two
// readers could take it for two different things.
func checkKeys(data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	type level struct {
		keys  map[string]bool // nil in an array
		value bool            // a value comes next, not a key
	}
	stack := []*level{{}}
	for {
		tok, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		top := stack[len(stack)-1]
		delim, _ := tok.(json.Delim)
		if delim == '}' || delim == ']' {
			stack = stack[:len(stack)-1]
			continue
		}
		if key, ok := tok.(string); ok && top.keys != nil && !top.value {
			if top.keys[key] {
				return fmt.Errorf("%w: the key %.80q stands twice", ErrInvalid, key)
			}
			top.keys[key], top.value = true, true
			continue
		}
		top.value = false
		switch delim {
		case '{':
			stack = append(stack, &level{keys: map[string]bool{}})
		case '[':
			stack = append(stack, &level{})
		}
	}
}
