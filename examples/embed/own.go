package main

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
	"syscall"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/durable"
	"github.com/pawl-ota/pawl/ota/release"
)

// ownProgram is the [ota.Backend] for the firmware's own binary:
//
//	dir/slots/DIGEST/firmware   one program for each component that is there
//	dir/current                 a symlink to slots/DIGEST: what is started
//	dir/from-TX                 where current pointed before TX, until TX ends
//
// The switch is the rename of a symlink, and the symlink is the evidence.
// Every step is durable before the next one begins, and reads the disk alone.
//
// The program's name comes from here and not from the release, so that a
// release cannot choose another one. A program that starts and ends before it
// settles is for a guard to catch, which this example has none of.
type ownProgram struct{ dir string }

const programName = "firmware"

// from is what dir/from-TX holds.
type from struct {
	Target string `json:"target"` // of dir/current, empty where there was none
	Made   bool   `json:"made"`   // whether TX made the slot
	Slot   string `json:"slot"`   // of TX
}

func (o *ownProgram) current() string            { return filepath.Join(o.dir, "current") }
func (o *ownProgram) slot(d string) string       { return filepath.Join(o.dir, "slots", d) }
func (o *ownProgram) note(tx ota.TxID) string    { return filepath.Join(o.dir, "from-"+string(tx)) }
func (o *ownProgram) partial(tx ota.TxID) string { return filepath.Join(o.dir, "partial-"+string(tx)) }

// target returns where current points, empty where there is none.
func (o *ownProgram) target() (string, error) {
	t, err := os.Readlink(o.current())
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return t, err
}

// point makes current point to target; an empty target removes it.
func (o *ownProgram) point(target string) error {
	now, err := o.target()
	if err != nil || now == target {
		return err
	}
	if target == "" {
		return durable.Remove(o.current())
	}
	next := o.current() + ".next"
	if err := durable.Remove(next); err != nil {
		return err
	}
	if err := os.Symlink(target, next); err != nil {
		return err
	}
	return durable.Rename(next, o.current())
}

// Stage implements [ota.Backend].
func (o *ownProgram) Stage(ctx context.Context, tx ota.TxID, c release.Component, content ota.Content) (ota.Effect, error) {
	digest := c.Digest().String()
	if err := durable.MkdirAll(filepath.Join(o.dir, "slots"), 0o755); err != nil {
		return "", err
	}
	if _, err := o.from(tx); errors.Is(err, fs.ErrNotExist) {
		if err := o.remember(tx, digest); err != nil {
			return "", err
		}
	} else if err != nil {
		return "", err
	}
	if _, err := os.Stat(o.slot(digest)); err == nil {
		return ota.NeedsRestart, nil
	}
	program, err := programOf(ctx, c, content)
	if err != nil {
		return "", err
	}
	if err := o.fill(ctx, tx, program, content); err != nil {
		return "", fmt.Errorf("cannot store the program: %w", err)
	}
	return ota.NeedsRestart, durable.Rename(o.partial(tx), o.slot(digest))
}

// remember notes the way back before anything is made.
func (o *ownProgram) remember(tx ota.TxID, digest string) error {
	target, err := o.target()
	if err != nil {
		return err
	}
	_, err = os.Stat(o.slot(digest))
	data, merr := json.Marshal(from{Target: target, Made: errors.Is(err, fs.ErrNotExist), Slot: digest})
	if merr != nil {
		return merr
	}
	return durable.WriteFile(o.note(tx), data, 0o600)
}

// from reads the way back.
func (o *ownProgram) from(tx ota.TxID) (from, error) {
	var f from
	data, err := os.ReadFile(o.note(tx))
	if err == nil {
		err = json.Unmarshal(data, &f)
	}
	return f, err
}

// programOf returns the only file that the component's index lists.
func programOf(ctx context.Context, c release.Component, content ota.Content) (release.Blob, error) {
	r, err := content.Open(ctx, c.Index)
	if err != nil {
		return release.Blob{}, err
	}
	defer r.Close()
	index, err := release.ReadIndex(r, 16)
	if err != nil {
		return release.Blob{}, err
	}
	blobs := index.Blobs()
	if len(blobs) != 1 {
		return release.Blob{}, fmt.Errorf("%w: %s has to hold one program and holds %d files", release.ErrInvalid, c.Name, len(blobs))
	}
	return blobs[0], nil
}

// fill writes the program into a folder of tx, which is whole when fill
// returns nil.
func (o *ownProgram) fill(ctx context.Context, tx ota.TxID, program release.Blob, content ota.Content) error {
	partial := o.partial(tx)
	if err := durable.RemoveAll(partial); err != nil {
		return err
	}
	if err := durable.Mkdir(partial, 0o755); err != nil {
		return err
	}
	r, err := content.Open(ctx, program)
	if err != nil {
		return err
	}
	defer r.Close()
	path := filepath.Join(partial, programName)
	if err := writeProgram(path, r); err != nil {
		return err
	}
	if err := durable.SyncFile(path); err != nil {
		return err
	}
	return durable.SyncDir(partial)
}

func writeProgram(path string, r io.Reader) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

// Activate implements [ota.Backend].
func (o *ownProgram) Activate(_ context.Context, _ ota.TxID, c release.Component) error {
	slot := c.Digest().String()
	if _, err := os.Stat(filepath.Join(o.slot(slot), programName)); err != nil {
		return fmt.Errorf("cannot switch to a program that is not staged: %w", err)
	}
	return o.point(filepath.Join("slots", slot))
}

// Commit implements [ota.Backend].
func (o *ownProgram) Commit(_ context.Context, tx ota.TxID, _ release.Component) error {
	return durable.Remove(o.note(tx))
}

// Revert implements [ota.Backend].
func (o *ownProgram) Revert(_ context.Context, tx ota.TxID, _ release.Component) error {
	if err := durable.RemoveAll(o.partial(tx)); err != nil {
		return err
	}
	f, err := o.from(tx)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // never staged, or reverted before
	}
	if err != nil {
		return err
	}
	if err := o.point(f.Target); err != nil {
		return err
	}
	if f.Made {
		if err := durable.RemoveAll(o.slot(f.Slot)); err != nil {
			return err
		}
	}
	return durable.Remove(o.note(tx))
}

// CanRevert implements [ota.Reverter].
func (o *ownProgram) CanRevert(_ context.Context, tx ota.TxID, _ release.Component) (bool, error) {
	f, err := o.from(tx)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil || f.Target == "" {
		return err == nil, err
	}
	_, err = os.Stat(filepath.Join(o.dir, f.Target, programName))
	return err == nil, nil
}

// Active implements [ota.Backend].
func (o *ownProgram) Active(context.Context, string) (ota.Active, error) {
	target, err := o.target()
	if err != nil {
		return ota.Active{}, err
	}
	if target == "" {
		return ota.Active{State: ota.None}, nil
	}
	d, err := release.ParseDigest(filepath.Base(target))
	if err != nil || filepath.Dir(target) != "slots" {
		return ota.Active{State: ota.Mixed}, nil // somebody else's program
	}
	if _, err := os.Stat(filepath.Join(o.dir, target, programName)); err != nil {
		return ota.Active{State: ota.Mixed}, nil
	}
	return ota.Active{State: ota.Whole, Digest: d}, nil
}

// Prune implements [ota.Pruner].
func (o *ownProgram) Prune(_ context.Context, _ string, keep []release.Digest, open []ota.TxID) error {
	slots, err := os.ReadDir(filepath.Join(o.dir, "slots"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	target, err := o.target()
	if err != nil {
		return err
	}
	kept := []string{filepath.Base(target)}
	for _, d := range keep {
		kept = append(kept, d.String())
	}
	for _, tx := range open {
		if f, err := o.from(tx); err == nil {
			kept = append(kept, f.Slot, filepath.Base(f.Target))
		}
	}
	for _, s := range slots {
		if slices.Contains(kept, s.Name()) {
			continue
		}
		if err := durable.RemoveAll(o.slot(s.Name())); err != nil {
			return err
		}
	}
	return nil
}

// exec replaces this process by the program that current names.
func (o *ownProgram) exec(args []string) error {
	program := filepath.Join(o.current(), programName)
	return syscall.Exec(program, args, os.Environ())
}
