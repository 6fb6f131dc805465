package otatest

import (
	"io"
	"reflect"
	"slices"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// offers returns the backend of this process as a T, and skips the test when
// it is none.
func offers[T any](s *bench) T {
	s.Helper()
	b, ok := s.b.(T)
	if !ok {
		s.Skipf("the backend is no %v", reflect.TypeFor[T]())
	}
	return b
}

// testPrune drops everything but what runs, what is to be kept, and what an
// open transaction has set aside.
func testPrune(s *bench) {
	offers[ota.Pruner](s)
	name := s.Component(0).Name
	s.install("first", 0)
	s.install("second", 1)
	before := s.observe()
	s.stage("open", 2)
	for range 2 {
		s.must(offers[ota.Pruner](s).Prune(s.Context(), name, []release.Digest{s.Component(1).Digest()}, []ota.TxID{"open"}), "Prune")
		s.same(before, "Prune")
	}
	s.activate("open", 2)
	s.revert("open", 2)
	s.same(before, "Revert after Prune")
	s.must(offers[ota.Pruner](s).Prune(s.Context(), name, nil, nil), "Prune of everything")
	s.same(before, "Prune of everything")
}

// testBudget checks that a budget is sane, and not larger for what is staged
// already.
func testBudget(s *bench) {
	b := offers[ota.Budgeter](s)
	before := s.observe()
	needs, err := b.Budget(s.Context(), s.Component(0), s.Blobs)
	s.must(err, "Budget")
	for _, n := range needs {
		if n.Path == "" || n.Bytes < 0 || n.Inodes < 0 {
			s.Errorf("Budget returned %+v", n)
		}
	}
	s.same(before, "Budget")
}

// testBlobs checks the list of blobs: each once, all there, without the index.
func testBlobs(s *bench) {
	l := offers[ota.Lister](s)
	c := s.Component(0)
	blobs, err := l.Blobs(s.Context(), c, s.Subject.Blobs)
	s.must(err, "Blobs")
	if len(blobs) == 0 {
		s.Error("there are no blobs")
	}
	for i, b := range blobs {
		if slices.Contains(blobs[:i], b) || b == c.Index {
			s.Errorf("blob %s stands twice or is the index", b.Digest.Short())
		}
		r, err := s.Subject.Blobs.Open(s.Context(), b)
		s.must(err, "Open")
		if _, err := io.Copy(io.Discard, r); err != nil {
			s.Errorf("blob %s: %v", b.Digest.Short(), err)
		}
	}
}

// testVerify finds nothing in what was installed, and something when it is
// compared with another version.
func testVerify(s *bench) {
	offers[ota.Verifier](s)
	s.install("first", 0)
	v := offers[ota.Verifier](s)
	before := s.observe()
	found, err := v.Verify(s.Context(), s.Component(0), s.Blobs)
	s.must(err, "Verify")
	if len(found) > 0 {
		s.Errorf("Verify found %v in a fresh installation", found)
	}
	found, err = v.Verify(s.Context(), s.Component(1), s.Blobs)
	s.must(err, "Verify")
	if len(found) == 0 {
		s.Error("Verify found no difference between two versions")
	}
	s.same(before, "Verify")
	if r, ok := s.b.(ota.Repairer); ok {
		left, err := r.Repair(s.Context(), s.Component(0), s.Blobs)
		s.must(err, "Repair")
		if len(left) > 0 {
			s.Errorf("Repair left %v in a fresh installation", left)
		}
		s.same(before, "Repair")
	}
}

// testSeed reads what the backend lends.
func testSeed(s *bench) {
	offers[ota.Seeder](s)
	offers[ota.Lister](s)
	s.install("first", 0)
	seeder, lister := offers[ota.Seeder](s), offers[ota.Lister](s)
	blobs, err := lister.Blobs(s.Context(), s.Component(0), s.Blobs)
	s.must(err, "Blobs")
	lent := 0
	for _, b := range blobs {
		r, ok, err := seeder.Seed(s.Context(), s.Component(0).Name, b)
		s.must(err, "Seed")
		if !ok {
			continue
		}
		lent++
		data, err := io.ReadAll(r)
		s.must(err, "reading a seed")
		s.must(r.Close(), "closing a seed")
		if release.Sum(data) != b.Digest {
			s.Errorf("the seed of %s has other bytes", b.Digest.Short())
		}
	}
	if lent == 0 {
		s.Error("nothing of what is installed was lent")
	}
	nowhere := release.Blob{Digest: release.Sum([]byte("nowhere")), Size: 7}
	if _, ok, err := seeder.Seed(s.Context(), s.Component(0).Name, nowhere); err != nil || ok {
		s.Errorf("Seed of what is nowhere: %v, %v", ok, err)
	}
}

// testCanRevert asks before and after the point of no return, also with the
// name alone, as after the loss of the release's document.
func testCanRevert(s *bench) {
	offers[ota.Reverter](s)
	ask := func(want bool, when string) {
		s.Helper()
		for _, c := range []release.Component{s.Component(1), {Name: s.Component(1).Name}} {
			got, err := offers[ota.Reverter](s).CanRevert(s.Context(), "tx", c)
			s.must(err, "CanRevert")
			if got != want {
				s.Errorf("%s CanRevert says %v of a %q", when, got, c.Kind)
			}
		}
	}
	s.install("first", 0)
	s.stage("tx", 1)
	ask(true, "after Stage")
	s.activate("tx", 1)
	ask(true, "after Activate")
	s.commit("tx", 1)
	ask(false, "after Commit")
}
