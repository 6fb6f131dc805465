package firmware

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/durable"
	"github.com/pawl-ota/pawl/ota/release"
)

// Slots is the backend of a component that is one image, in one of three slots
// below DIR/slots. A slot is written in place, as a partition is; which one boots
// says the selection, and what is in which one says the record. There are three
// so that one is always free of what runs, what boots, and what is to be tried.
type Slots struct{ Dir string }

var (
	_ ota.Lister   = (*Slots)(nil)
	_ ota.Seeder   = (*Slots)(nil)
	_ ota.Verifier = (*Slots)(nil)
	_ ota.Pruner   = (*Slots)(nil)
	_ ota.Reverter = (*Slots)(nil)
)

// slotNames returns all slots.
func slotNames() []string { return []string{"a", "b", "c"} }

// filled is a slot whose content is whole.
type filled struct {
	Component release.Digest `json:"component"`
	Image     release.Blob   `json:"image"`
}

// slotWork is what a transaction has set aside.
type slotWork struct {
	Slot   string `json:"slot"`
	Before string `json:"before,omitempty"` // the slot that ran when it began
}

// slotRecord is the file slots/record. It is made durable before a slot is
// written, and again after that.
type slotRecord struct {
	Slots map[string]filled     `json:"slots"`
	Works map[ota.TxID]slotWork `json:"works"`
}

func (s *Slots) recordPath() string { return filepath.Join(s.Dir, "slots", "record") }

func (s *Slots) slotPath(slot string) string { return filepath.Join(s.Dir, "slots", slot) }

func (s *Slots) read() (r slotRecord, err error) {
	r = slotRecord{Slots: map[string]filled{}, Works: map[ota.TxID]slotWork{}}
	data, err := os.ReadFile(s.recordPath())
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	return r, err
}

func (s *Slots) write(r slotRecord) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return durable.WriteFile(s.recordPath(), data, 0o600)
}

// rely returns all that the device says, and makes it durable before a verb goes by
// it: a process that changed it may have been killed before it could.
func (s *Slots) rely() (r slotRecord, sel selection, running string, err error) {
	if err := durable.SyncDir(filepath.Join(s.Dir, "slots")); err != nil {
		return r, sel, "", err
	}
	return s.look()
}

// look returns all that the device says.
func (s *Slots) look() (r slotRecord, sel selection, running string, err error) {
	r, err1 := s.read()
	sel, err2 := readSelection(s.Dir)
	_, running, err3 := booted(s.Dir)
	return r, sel, running, errors.Join(err1, err2, err3)
}

// Stage writes the image into a slot that nothing needs.
func (s *Slots) Stage(ctx context.Context, tx ota.TxID, c release.Component, content ota.Content) (ota.Effect, error) {
	r, sel, running, err := s.rely()
	if err != nil {
		return "", err
	}
	image, err := imageOf(ctx, c, content)
	if err != nil {
		return "", err
	}
	w, ok := r.Works[tx]
	if ok && s.holds(r, w.Slot, c, image) {
		return ota.NeedsReboot, nil
	}
	if !ok {
		w = slotWork{Slot: free(sel, running), Before: running}
	}
	delete(r.Slots, w.Slot)
	r.Works[tx] = w
	if err := s.write(r); err != nil {
		return "", err
	}
	if err := s.fill(ctx, w.Slot, image, content); err != nil {
		return "", err
	}
	r.Slots[w.Slot] = filled{c.Digest(), image}
	return ota.NeedsReboot, s.write(r)
}

// free returns a slot that neither runs nor boots next.
func free(sel selection, running string) string {
	for _, slot := range slotNames() {
		if slot != running && slot != sel.permanent && slot != sel.try {
			return slot
		}
	}
	return "" // one of four is left over
}

func (s *Slots) holds(r slotRecord, slot string, c release.Component, image release.Blob) bool {
	if r.Slots[slot] != (filled{c.Digest(), image}) {
		return false
	}
	data, err := os.ReadFile(s.slotPath(slot))
	return err == nil && release.Sum(data) == image.Digest
}

// imageOf returns the one file of the component.
func imageOf(ctx context.Context, c release.Component, content ota.Content) (release.Blob, error) {
	rc, err := content.Open(ctx, c.Index)
	if err != nil {
		return release.Blob{}, err
	}
	ix, err := release.ReadIndex(rc, 100)
	if err = errors.Join(err, rc.Close()); err != nil {
		return release.Blob{}, err
	}
	blobs := ix.Blobs()
	if len(blobs) != 1 {
		return release.Blob{}, fmt.Errorf("component %s has %d files, not one image", c.Name, len(blobs))
	}
	return blobs[0], nil
}

// fill writes the slot in place and makes it durable.
func (s *Slots) fill(ctx context.Context, slot string, image release.Blob, content ota.Content) error {
	put := func(_ release.Blob, from io.Reader) error {
		f, err := os.OpenFile(s.slotPath(slot), os.O_WRONLY|os.O_CREATE, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, from)
		if err == nil {
			err = f.Truncate(image.Size)
		}
		return errors.Join(err, f.Close())
	}
	if err := content.Each(ctx, []release.Blob{image}, put); err != nil {
		return err
	}
	if err := durable.SyncFile(s.slotPath(slot)); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(s.slotPath(slot)))
}

// Activate arms the slot for one boot.
func (s *Slots) Activate(_ context.Context, tx ota.TxID, c release.Component) error {
	r, sel, running, err := s.rely()
	if err != nil {
		return err
	}
	w, ok := r.Works[tx]
	if !ok || r.Slots[w.Slot].Component != c.Digest() {
		return fmt.Errorf("%s is not staged for %s", c.Name, tx)
	}
	if w.Slot == running || w.Slot == sel.try {
		return nil
	}
	return selection{sel.permanent, w.Slot}.write(s.Dir)
}

// Commit makes the running slot the one that boots.
func (s *Slots) Commit(_ context.Context, tx ota.TxID, c release.Component) error {
	r, sel, running, err := s.rely()
	if err != nil {
		return err
	}
	if r.Slots[running].Component != c.Digest() {
		return fmt.Errorf("%s is not in effect", c.Name)
	}
	return s.end(r, tx, sel, selection{permanent: running})
}

// Revert makes the slot that ran before the one that boots.
func (s *Slots) Revert(_ context.Context, tx ota.TxID, _ release.Component) error {
	r, sel, _, err := s.rely()
	if err != nil {
		return err
	}
	w, ok := r.Works[tx]
	if !ok {
		return nil
	}
	return s.end(r, tx, sel, selection{permanent: w.Before})
}

// end writes the selection and then forgets the transaction.
func (s *Slots) end(r slotRecord, tx ota.TxID, is, should selection) error {
	if is != should {
		if err := should.write(s.Dir); err != nil {
			return err
		}
	}
	if _, ok := r.Works[tx]; !ok {
		return nil
	}
	delete(r.Works, tx)
	return s.write(r)
}

// Active says what the boot brought up, and what the next one will.
func (s *Slots) Active(_ context.Context, name string) (ota.Active, error) {
	if name != "boot" {
		return ota.Active{State: ota.None}, nil
	}
	r, sel, running, err := s.look()
	if err != nil {
		return ota.Active{}, err
	}
	a := ota.Active{State: ota.None}
	if f, ok := r.Slots[running]; ok {
		a = ota.Active{State: ota.Whole, Digest: f.Component}
	} else if running != "" {
		a.State = ota.Mixed
	}
	next := sel.permanent
	if sel.try != "" {
		next = sel.try
	}
	if d := r.Slots[next].Component; d != a.Digest {
		a.Next = d
	}
	return a, nil
}

// Blobs returns the image.
func (s *Slots) Blobs(ctx context.Context, c release.Component, content ota.Content) ([]release.Blob, error) {
	image, err := imageOf(ctx, c, content)
	return []release.Blob{image}, err
}

// Seed lends a slot that holds the image b.
func (s *Slots) Seed(_ context.Context, _ string, b release.Blob) (io.ReadCloser, bool, error) {
	r, err := s.read()
	if err != nil {
		return nil, false, err
	}
	for _, slot := range slotNames() {
		if r.Slots[slot].Image == b {
			if f, err := os.Open(s.slotPath(slot)); err == nil {
				return f, true, nil
			}
		}
	}
	return nil, false, nil
}

// Verify compares the running slot with the image.
func (s *Slots) Verify(ctx context.Context, c release.Component, content ota.Content) ([]ota.Damage, error) {
	image, err := imageOf(ctx, c, content)
	if err != nil {
		return nil, err
	}
	r, _, running, err := s.look()
	if err != nil || s.holds(r, running, c, image) {
		return nil, err
	}
	return []ota.Damage{{Component: c.Name, Path: running, Reason: "other content"}}, nil
}

// Prune forgets transactions that are not open.
func (s *Slots) Prune(_ context.Context, _ string, _ []release.Digest, open []ota.TxID) error {
	r, _, _, err := s.rely()
	if err != nil {
		return err
	}
	n := len(r.Works)
	for tx := range r.Works {
		if !slices.Contains(open, tx) {
			delete(r.Works, tx)
		}
	}
	if len(r.Works) == n {
		return nil
	}
	return s.write(r)
}

// CanRevert reports whether the way back is known, or need not be gone.
func (s *Slots) CanRevert(_ context.Context, tx ota.TxID, c release.Component) (bool, error) {
	r, _, running, err := s.look()
	_, ok := r.Works[tx]
	return ok || c.Kind != "" && r.Slots[running].Component != c.Digest(), err
}
