//go:build linux

package micro

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/durable"
	"github.com/pawl-ota/pawl/ota/release"
)

// The formats of the records in the spool's folder services.
const (
	formatServices   = "pawl-micro-services/0"
	formatServiceRun = "pawl-micro-service-run/0"
)

// The names in that folder. The record of a transaction does not lie in the
// transaction's own: Revert drops that one before it starts anything again.
const (
	dirServices   = "services"
	fileRunning   = "running"
	prefixRun     = "tx."
	prefixRunRoom = "room."
)

// runRoom is what the records of one transaction have set aside: two of the
// longest, because one is replaced as a whole.
const runRoom = 64 << 10

// runningServices is what the committed release lists.
type runningServices struct {
	Component release.Digest `json:"component"`
	Services  []Service      `json:"services"`
}

// phase says how far a transaction is with its services. It is stored as its
// word, each before what it names begins.
type phase string

const (
	stopping  phase = "stopping"  // the files are as before
	switching phase = "switching" // all that has to rest rests
	switched  phase = "switched"  // what starts from here on finds the new files
	back      phase = "back"      // the files are as before again
)

// serviceRun is what one transaction does with its services: the new release's
// in its order, then those that only the old one lists.
type serviceRun struct {
	Component release.Digest `json:"component"`
	Phase     phase          `json:"phase"`
	Services  []serviceMark  `json:"services"`
}

// serviceMark is one service of a transaction.
type serviceMark struct {
	Service
	// Old is its place in the old release's order, from 1; 0 where that does
	// not list it.
	Old int `json:"old,omitempty"`
	// Gone: the new release does not list it.
	Gone bool `json:"gone,omitempty"`
	// Was: it was running, or about to, before the first stop.
	Was bool `json:"was,omitempty"`
	// Restarts is the count from which on one more is a failure.
	Restarts int `json:"restarts,omitempty"`
	// Done: it was restarted or reloaded after the switch.
	Done bool `json:"done,omitempty"`
}

// rests reports whether the service may not run during the switch.
func (m *serviceMark) rests() bool { return m.Gone || m.handling() == Around }

// oldOrder returns the services in the order of the old release; those that it
// does not list come last.
func (r *serviceRun) oldOrder() []*serviceMark {
	all := make([]*serviceMark, len(r.Services))
	for i := range r.Services {
		all[i] = &r.Services[i]
	}
	last := func(m *serviceMark) int {
		if m.Old == 0 {
			return maxServices * maxServices
		}
		return m.Old
	}
	slices.SortStableFunc(all, func(a, b *serviceMark) int { return last(a) - last(b) })
	return all
}

// readRun returns the record of tx, or nil.
func (s *services) readRun(tx ota.TxID) (*serviceRun, error) {
	run := &serviceRun{}
	err := readRecord(s.path(dirServices, prefixRun+string(tx)), formatServiceRun, run)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return run, nil
}

// runs returns the records of all transactions but one.
func (s *services) runs(but ota.TxID) ([]*serviceRun, error) {
	names, err := s.listDir(dirServices)
	if err != nil {
		return nil, err
	}
	var all []*serviceRun
	for _, name := range names {
		tx, ok := strings.CutPrefix(name, prefixRun)
		if !ok || tx == string(but) {
			continue
		}
		run, err := s.readRun(ota.TxID(tx))
		if errors.Is(err, errDamaged) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, run)
	}
	return all, nil
}

// readRunning returns what the committed release lists; the zero value where
// there is none or it cannot be read any more.
func (s *services) readRunning() (runningServices, error) {
	var r runningServices
	err := readRecord(s.path(dirServices, fileRunning), formatServices, &r)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, errDamaged) {
		return runningServices{}, nil
	}
	return r, err
}

// old returns what the running release and the open transactions below tx
// list, each once.
func (s *services) old(tx ota.TxID) ([]Service, error) {
	r, err := s.readRunning()
	if err != nil {
		return nil, err
	}
	all := r.Services
	others, err := s.runs(tx)
	for _, run := range others {
		for _, m := range run.Services {
			known := func(o Service) bool { return o.Name == m.Name }
			if run.Phase != back && !slices.ContainsFunc(all, known) {
				all = append(all, m.Service)
			}
		}
	}
	return all, err
}

// setRoom sets aside what the records of tx will need.
func (s *services) setRoom(tx ota.TxID) error {
	if err := s.makeSpool(s.path(dirServices)); err != nil {
		return err
	}
	room := s.path(dirServices, prefixRunRoom+string(tx))
	if err := s.step("write", room); err != nil {
		return err
	}
	return explain(durable.WriteFile(room, bytes.Repeat([]byte{'.'}, runRoom), 0o600))
}

// write replaces a record, and gives up the room of tx if there is no other.
func (s *services) write(tx ota.TxID, name, format string, v any) error {
	if err := s.makeSpool(s.path(dirServices)); err != nil {
		return err
	}
	err := s.writeRecord(s.path(dirServices, name), format, v)
	if !errors.Is(err, ota.ErrNoSpace) {
		return err
	}
	if err := os.Remove(s.path(dirServices, prefixRunRoom+string(tx))); err != nil {
		return err
	}
	return s.writeRecord(s.path(dirServices, name), format, v)
}

func (s *services) save(tx ota.TxID, run *serviceRun) error {
	return s.write(tx, prefixRun+string(tx), formatServiceRun, run)
}

func (s *services) enter(tx ota.TxID, run *serviceRun, p phase) error {
	run.Phase = p
	return s.save(tx, run)
}

// remember writes down what the release lists that is being committed.
func (s *services) remember(tx ota.TxID, d release.Digest, list []Service) error {
	was, err := s.readRunning()
	if err != nil || len(list) == 0 && len(was.Services) == 0 {
		return err
	}
	return s.write(tx, fileRunning, formatServices, runningServices{d, list})
}

// forget drops the record of tx. A name that is not there is no error.
func (s *services) forget(tx ota.TxID) error {
	for _, name := range []string{prefixRun + string(tx), prefixRunRoom + string(tx)} {
		if there, err := look(s.path(dirServices, name)); err != nil || !there.there {
			if err != nil {
				return err
			}
			continue
		}
		if err := s.step("remove", s.path(dirServices, name)); err != nil {
			return err
		}
		if err := durable.Remove(s.path(dirServices, name)); err != nil {
			return fmt.Errorf("cannot forget the services of %s: %w", tx, err)
		}
	}
	return nil
}

// prune drops the records of the transactions that are not open.
func (s *services) prune(open []ota.TxID) error {
	names, err := s.listDir(dirServices)
	if err != nil {
		return err
	}
	for _, name := range names {
		tx, ok := strings.CutPrefix(name, prefixRun)
		if !ok {
			tx, ok = strings.CutPrefix(name, prefixRunRoom)
		}
		if ok && !slices.Contains(open, ota.TxID(tx)) {
			if err := s.forget(ota.TxID(tx)); err != nil {
				return err
			}
		}
	}
	return s.sweepTemp(dirServices)
}
