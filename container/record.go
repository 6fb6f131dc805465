package container

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/compose"
	"github.com/pawl-ota/pawl/ota/release"
)

// formatRecord is the first word of the record: one line with it and the SHA-256
// sum of the rest, then JSON. It is replaced as a whole.
const formatRecord = "pawl-container/0"

const (
	recordName = "record"
	maxRecord  = 16 << 20
)

// record says what the containers at the engine mean.
type record struct {
	// Current is the transaction whose containers are in effect, or are to be
	// when the verb that was begun has ended. It is empty for none.
	Current ota.TxID          `json:"current,omitempty"`
	Sets    map[ota.TxID]*set `json:"sets"`
	// Images are those that the engine took in and that a sync has made durable,
	// by the digest of their configuration.
	Images map[release.Digest]string `json:"images,omitempty"`
}

// set is what one transaction made.
type set struct {
	Tx        ota.TxID       `json:"tx"`
	State     setState       `json:"state"`
	Component release.Digest `json:"component"`
	App       release.Digest `json:"app"`            // of the app document
	Values    compose.Values `json:"values"`         // that were put in
	Prev      ota.TxID       `json:"prev,omitempty"` // what was in effect before
	// Switched is set when Activate was begun.
	Switched bool `json:"switched,omitempty"`
	// Lacks is set where the way back ended without an image: a Repair has to
	// bring it.
	Lacks bool `json:"lacks,omitempty"`
	// Reset is set while a Reset of it has not ended.
	Reset resetting `json:"reset,omitempty"`
	// Boxes and Images are the containers and the engine's ids of their images, by
	// service.
	Boxes  map[string]string `json:"boxes,omitempty"`
	Images map[string]string `json:"images,omitempty"`
	// Volumes are those that this transaction made.
	Volumes []string `json:"volumes,omitempty"`
}

// setState is a word for how far a set is.
type setState string

const (
	staging    setState = "staging"
	staged     setState = "staged"
	activating setState = "activating"
	trial      setState = "trial"
	committing setState = "committing"
	committed  setState = "committed"
	reverting  setState = "reverting"
	kept       setState = "kept" // its images alone
)

// final reports whether the set can not be reverted any more.
func (s *set) final() bool {
	return s.State == committing || s.State == committed || s.State == kept
}

func (r *record) current() *set { return r.Sets[r.Current] }

// underway reports whether a verb was cut short on its way to or from what is
// current.
func (r *record) underway() bool {
	for tx, s := range r.Sets {
		if s.State == reverting || s.State == activating && tx == r.Current {
			return true
		}
	}
	return false
}

// line returns the current set and those that a way back would lead through.
func (r *record) line() map[ota.TxID]bool {
	in := map[ota.TxID]bool{}
	for tx := r.Current; tx != "" && !in[tx] && r.Sets[tx] != nil; tx = r.Sets[tx].Prev {
		in[tx] = true
	}
	return in
}

// errDamaged is returned for a record that is not what was written.
var errDamaged = errors.New("it is damaged")

// load reads the record; there may be none yet. One that was damaged is made
// anew of what the engine has.
func (c *Compose) load(ctx context.Context) (*record, error) {
	r, err := c.read()
	if errors.Is(err, errDamaged) {
		c.warn(err)
		return c.rebuild(ctx)
	}
	return r, err
}

// read is load for one who changes nothing.
func (c *Compose) read() (*record, error) {
	r := &record{}
	data, err := c.dir.ReadFile(recordName, maxRecord)
	if err == nil {
		err = r.decode(data)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot read the record of %s: %w", c.opts.Name, err)
	}
	if r.Sets == nil {
		r.Sets = map[ota.TxID]*set{}
	}
	if r.Images == nil {
		r.Images = map[release.Digest]string{}
	}
	return r, nil
}

func (r *record) decode(data []byte) error {
	head, body, _ := bytes.Cut(data, []byte("\n"))
	word, sum, _ := strings.Cut(string(head), " ")
	if release.Sum(body).String() != sum {
		return errDamaged
	}
	if word != formatRecord {
		return fmt.Errorf("format %.40q: %w", word, ota.ErrJournal)
	}
	if err := json.Unmarshal(body, r); err != nil {
		return err
	}
	for tx, s := range r.Sets {
		if s == nil || s.Tx != tx {
			return fmt.Errorf("transaction %.80q: %w", tx, ota.ErrJournal)
		}
		switch s.State {
		case staging, staged, activating, trial, committing, committed, reverting, kept:
		default:
			return fmt.Errorf("state %.40q: %w", s.State, ota.ErrJournal)
		}
		if s.Reset != "" && s.Reset != resetBoxes && s.Reset != resetVolumes && s.Reset != resetStart {
			return fmt.Errorf("reset of %.40q: %w", s.Reset, ota.ErrJournal)
		}
	}
	return nil
}

// save replaces the record, durably.
func (c *Compose) save(r *record) error {
	body, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("cannot write the record of %s: %w", c.opts.Name, err)
	}
	if c.before != nil {
		if err := c.before(); err != nil {
			return err
		}
	}
	data := fmt.Appendf(nil, "%s %s\n%s", formatRecord, release.Sum(body), body)
	if err := c.dir.WriteFile(recordName, data); err != nil {
		return fmt.Errorf("cannot write the record of %s: %w", c.opts.Name, err)
	}
	return nil
}
