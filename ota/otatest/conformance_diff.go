package otatest

import (
	"maps"
	"path/filepath"
	"slices"

	"github.com/pawl-ota/pawl/ota"
)

// testRoot checks that scripts would be told one folder, always.
func testRoot(s *bench) {
	name := s.Component(0).Name
	root := offers[ota.Rooter](s).Root(name)
	if !filepath.IsAbs(root) || filepath.Clean(root) != root {
		s.Errorf("Root returned %q, which is no clean absolute path", root)
	}
	s.install("first", 0)
	s.reopen()
	if again := offers[ota.Rooter](s).Root(name); again != root {
		s.Errorf("Root returned %q, and %q after an installation", root, again)
	}
}

// testDiff goes from nothing through all versions: what Diff says before is
// what Activate does, Diff itself does nothing, and there is nothing to say of
// the version that is in effect.
func testDiff(s *bench) {
	offers[ota.Differ](s)
	for i, n := range []int{0, 1, 2, 0} {
		tx := ota.TxID(rune('a' + i))
		said := s.diff(n)
		if len(said) == 0 {
			s.Errorf("Diff says nothing of version %d, which is not in effect", n)
		}
		before := s.paths()
		s.stage(tx, n)
		if again := s.diff(n); !slices.Equal(again, said) {
			s.Errorf("Diff says %v, and %v after Stage", said, again)
		}
		s.activate(tx, n)
		s.agrees(said, before, s.paths())
		s.commit(tx, n)
		if said := s.diff(n); len(said) > 0 {
			s.Errorf("Diff says %v of the version in effect", said)
		}
	}
}

// diff asks twice, with nothing but the indexes for content.
func (s *bench) diff(n int) []ota.Change {
	s.Helper()
	indexes := Blobs{}
	for i := range 3 {
		indexes.Add(s.Blobs[s.Component(i).Index.Digest])
	}
	before, paths := s.observe(), s.paths()
	var said []ota.Change
	for i := range 2 {
		all, err := offers[ota.Differ](s).Diff(s.Context(), s.Component(n), indexes)
		s.must(err, "Diff")
		if i > 0 && !slices.Equal(all, said) {
			s.Errorf("Diff says %v, and then %v", said, all)
		}
		said = all
	}
	s.same(before, "Diff")
	if !maps.Equal(paths, s.paths()) {
		s.Error("Diff changed something")
	}
	return said
}

func (s *bench) paths() map[string]string {
	if s.Paths == nil {
		return nil
	}
	return s.Paths()
}

// agrees compares what Diff said with what happened. Without Paths only the
// form of what it said is looked at.
func (s *bench) agrees(said []ota.Change, before, after map[string]string) {
	s.Helper()
	told := map[string]ota.ChangeKind{}
	for _, c := range said {
		if c.Component != s.Component(0).Name || c.Path == "" || told[c.Path] != "" {
			s.Errorf("Diff says %+v, of another component, of nothing, or twice", c)
		}
		told[c.Path] = c.What
		if c.What == ota.Metadata {
			told[c.Path] = ota.Changed
		}
	}
	if s.Paths == nil {
		return
	}
	did := map[string]ota.ChangeKind{}
	for p, line := range after {
		switch was, there := before[p]; {
		case !there:
			did[p] = ota.Added
		case was != line:
			did[p] = ota.Changed
		}
	}
	for p := range before {
		if _, there := after[p]; !there {
			did[p] = ota.Removed
		}
	}
	if !maps.Equal(told, did) {
		s.Errorf("Diff said %v, and Activate did %v", told, did)
	}
}
