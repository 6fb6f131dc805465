package otatest

import (
	"context"
	"errors"
	"io"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

func testNothing(s *bench) {
	if a := s.active(); a.State != ota.None || !a.Next.IsZero() {
		s.Fatalf("Active says %+v of nothing", a)
	}
	if look := s.Look(); look != "" {
		s.Fatalf("Look says %q of nothing", look)
	}
}

func testUnknownName(s *bench) {
	a, err := s.b.Active(s.Context(), "no-such-component")
	if err == nil && a.State != ota.None {
		s.Fatalf("Active says %+v of a component that is not there", a)
	}
}

// testVersions installs one version after the other, and an old one again.
func testVersions(s *bench) {
	seen := map[string]int{}
	for i, n := range []int{0, 1, 2, 0} {
		tx := ota.TxID(rune('a' + i))
		before := s.observe()
		s.stage(tx, n)
		s.same(before, "Stage")
		s.activate(tx, n)
		look := s.Look()
		s.commit(tx, n)
		if s.Look() != look {
			s.Fatalf("Commit changed what is in effect from %q to %q", look, s.Look())
		}
		s.reboot()
		s.runs(n)
		if a := s.active(); !a.Next.IsZero() {
			s.Fatalf("after Commit something is armed: %+v", a)
		}
		if was, ok := seen[s.Look()]; ok && was != n {
			s.Fatalf("versions %d and %d look the same", was, n)
		}
		seen[s.Look()] = n
	}
	if len(seen) != 3 {
		s.Fatalf("3 versions had %d looks", len(seen))
	}
}

// testAgain calls every verb again, in the same process and in the next.
func testAgain(s *bench) {
	s.install("first", 0)
	for range 3 {
		s.stage("tx", 1)
		s.reopen()
	}
	for range 3 {
		s.must(s.b.Activate(s.Context(), "tx", s.Component(1)), "Activate")
		s.reopen()
	}
	s.reboot()
	for range 3 {
		s.must(s.b.Activate(s.Context(), "tx", s.Component(1)), "Activate, in effect")
		s.runs(1)
		s.reopen()
	}
	for range 3 {
		s.commit("tx", 1)
		s.reopen()
	}
	s.reboot()
	s.runs(1)
}

// testRevert goes back from every point, once and several times.
func testRevert(s *bench) {
	points := []struct {
		name string
		to   func(s *bench, tx ota.TxID)
	}{
		{"never staged", func(*bench, ota.TxID) {}},
		{"half staged", func(s *bench, tx ota.TxID) {
			_, err := s.b.Stage(s.Context(), tx, s.Component(1), newFailing(s.Blobs, 2, io.ErrUnexpectedEOF))
			if err == nil {
				s.Fatal("Stage succeeded with content that broke off")
			}
		}},
		{"staged", func(s *bench, tx ota.TxID) { s.stage(tx, 1) }},
		{"activated", func(s *bench, tx ota.TxID) {
			s.stage(tx, 1)
			s.must(s.b.Activate(s.Context(), tx, s.Component(1)), "Activate")
		}},
		{"in effect", func(s *bench, tx ota.TxID) {
			s.stage(tx, 1)
			s.activate(tx, 1)
		}},
	}
	for _, installed := range []bool{false, true} {
		if installed {
			s.install("first", 0)
		}
		before := s.observe()
		for i, p := range points {
			for _, times := range []int{1, 3} {
				tx := ota.TxID([]byte{'a' + byte(i), '0' + byte(times)})
				p.to(s, tx)
				for range times {
					s.revert(tx, 1)
					s.reopen()
				}
				s.same(before, "Revert from "+p.name)
				s.reboot()
				s.same(before, "Revert and a start from "+p.name)
			}
		}
	}
	s.install("last", 2)
}

// testNotStaged activates and commits what is not there.
func testNotStaged(s *bench) {
	s.install("first", 0)
	before := s.observe()
	if err := s.b.Activate(s.Context(), "tx", s.Component(1)); err == nil {
		s.Fatal("Activate succeeded without Stage")
	}
	s.same(before, "Activate without Stage")
	s.must(s.b.Revert(s.Context(), "tx", s.Component(1)), "Revert")
	s.same(before, "Revert")
}

// testNameAlone goes back with nothing but the component's name, as after the
// loss of the release's document.
func testNameAlone(s *bench) {
	bare := release.Component{Name: s.Component(1).Name}
	s.install("first", 0)
	before := s.observe()
	for i, tx := range []ota.TxID{"never", "staged", "effect"} {
		if i > 0 {
			s.stage(tx, 1)
		}
		if i > 1 {
			s.activate(tx, 1)
		}
		for range 2 {
			s.must(s.b.Revert(s.Context(), tx, bare), "Revert with the name alone")
			s.reboot()
			s.same(before, "Revert with the name alone")
		}
	}
	s.install("last", 2)
}

// testBadContent breaks every reader in turn: nothing of it takes effect, the
// error is passed on, and staging again with good content succeeds.
func testBadContent(s *bench) {
	s.install("first", 0)
	before := s.observe()
	for _, how := range []error{ota.ErrDigest, io.ErrUnexpectedEOF} {
		tx := ota.TxID("bad")
		for n := 1; n < 1000; n++ {
			f := newFailing(s.Blobs, n, how)
			_, err := s.b.Stage(s.Context(), tx, s.Component(1), f)
			if *f.seen < n {
				s.must(err, "Stage with good content")
				break
			}
			if !errors.Is(err, how) {
				s.Fatalf("Stage returned %v where reader %d ended in %v", err, n, how)
			}
			s.same(before, "a Stage that failed")
			s.reopen()
			s.revert(tx, 1)
			s.same(before, "its Revert")
		}
		s.revert(tx, 1)
	}
	s.install("good", 1)
}

func testCancelled(s *bench) {
	s.install("first", 0)
	before := s.observe()
	ctx, cancel := context.WithCancel(s.Context())
	cancel()
	if _, err := s.b.Stage(ctx, "tx", s.Component(1), s.Blobs); err == nil {
		s.Log("Stage succeeded although its context had ended")
	}
	s.same(before, "a cancelled Stage")
	s.stage("tx", 1)
	_ = s.b.Activate(ctx, "tx", s.Component(1)) // how far it got does not matter
	s.revert("tx", 1)
	s.reboot()
	s.same(before, "a cancelled Activate and Revert")
}

// testOverStuck installs a version over a transaction that was neither
// committed nor reverted, and takes another one back over it.
func testOverStuck(s *bench) {
	s.install("first", 0)
	s.stage("stuck", 1)
	s.activate("stuck", 1)
	s.stage("over", 2)
	s.activate("over", 2)
	s.commit("over", 2)
	if p, ok := s.b.(ota.Pruner); ok {
		s.must(p.Prune(s.Context(), s.Component(0).Name, nil, nil), "Prune")
	}
	s.reboot()
	s.runs(2)
}

// testCrash cuts every verb short at every step; the next process reverts, or
// goes on.
func testCrash(s *bench) {
	if s.Crash == nil {
		s.Skip("Subject.Crash is not set")
	}
	verbs := []struct {
		name string
		prep func(*bench)
		call func(*bench) error
		// back is whether Revert may follow.
		back bool
	}{
		{"Stage", func(*bench) {}, func(s *bench) error {
			_, err := s.b.Stage(s.Context(), "tx", s.Component(1), s.Blobs)
			return err
		}, true},
		{"Activate", func(s *bench) { s.stage("tx", 1) }, func(s *bench) error {
			return s.b.Activate(s.Context(), "tx", s.Component(1))
		}, true},
		{"Revert", func(s *bench) { s.stage("tx", 1); s.activate("tx", 1) }, func(s *bench) error {
			return s.b.Revert(s.Context(), "tx", s.Component(1))
		}, true},
		{"Commit", func(s *bench) { s.stage("tx", 1); s.activate("tx", 1) }, func(s *bench) error {
			return s.b.Commit(s.Context(), "tx", s.Component(1))
		}, false},
	}
	for _, v := range verbs {
		for _, back := range []bool{true, false} {
			for n := 1; (v.back || !back) && n < 1000; n++ {
				if !crashOnce(s, v.prep, v.call, n, back) {
					break
				}
			}
		}
	}
}

// crashOnce does one of testCrash, on a place of its own. It returns false
// when the call has fewer than n steps.
func crashOnce(s *bench, prep func(*bench), call func(*bench) error, n int, back bool) bool {
	s.Helper()
	sub := s.open(s.T)
	c := &bench{T: s.T, Subject: sub, b: sub.Backend, open: s.open}
	c.install("first", 0)
	before := c.observe()
	effect := c.effect
	prep(c)
	c.effect = effect
	c.Crash(n)
	err := call(c)
	if !c.Crashed() {
		c.must(err, "a verb that was not cut short")
		return false
	}
	if err == nil {
		s.Fatalf("a verb succeeded although its step %d did not happen", n)
	}
	c.reboot()
	if back {
		c.revert("tx", 1)
		c.reboot()
		c.same(before, "a crash and Revert")
		c.install("next", 2)
		return true
	}
	return c.forward(call)
}

// forward goes on after a crash until version 1 is committed, whatever verb
// was cut short.
func (s *bench) forward(call func(*bench) error) bool {
	s.Helper()
	if a := s.active(); !a.Is(s.Component(1).Digest()) {
		_ = call(s) // Stage, Activate or Revert once more
		s.stage("tx", 1)
		s.activate("tx", 1)
	}
	s.commit("tx", 1)
	s.reboot()
	s.runs(1)
	s.install("next", 2)
	return true
}
