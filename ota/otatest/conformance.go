package otatest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// Subject is what [TestBackend] tests: one component of one backend, on a
// place of its own with nothing installed.
type Subject struct {
	Backend ota.Backend
	// Component returns the nth version of the component. All have the same
	// name; versions 0 to 2 are asked for, and differ in what they install.
	Component func(n int) release.Component
	// Blobs hold the content of all versions, with their indexes.
	Blobs Blobs
	// Look returns what is in effect, as an observer sees it who knows
	// nothing of the backend: equal texts for equal states, and "" for
	// nothing. Of a backend that needs a reboot it is what the boot brought
	// up.
	Look func() string
	// Paths, if set, is Look path by path, without a path for the whole: what
	// Diff says is compared with it.
	Paths func() map[string]string
	// Reopen, if set, returns the backend as the next process would have it.
	Reopen func() ota.Backend
	// Reboot ends the boot and returns the backend as the next one has it. It
	// is needed when Stage returns ota.NeedsReboot.
	Reboot func() ota.Backend
	// Crash, if set, has the nth step from now that a disk would remember
	// not happen, and nothing after it either, until Reopen or Reboot.
	// Crashed reports whether that step was reached.
	Crash   func(n int)
	Crashed func() bool
}

// Blobs is content in memory. Its readers verify as [ota.Content] says.
type Blobs map[release.Digest][]byte

// NewBlobs returns content that holds data.
func NewBlobs(data ...[]byte) Blobs {
	b := Blobs{}
	b.Add(data...)
	return b
}

// Add puts data into b.
func (b Blobs) Add(data ...[]byte) {
	for _, d := range data {
		b[release.Sum(d)] = d
	}
}

// Open implements [ota.Content].
func (b Blobs) Open(_ context.Context, blob release.Blob) (io.ReadCloser, error) {
	data, ok := b[blob.Digest]
	if !ok {
		return nil, fmt.Errorf("%w: %s", ota.ErrNotLocal, blob.Digest.Short())
	}
	var end error
	switch {
	case int64(len(data)) != blob.Size:
		end = ota.ErrLength
	case release.Sum(data) != blob.Digest:
		end = ota.ErrDigest
	default:
		end = io.EOF
	}
	return io.NopCloser(io.MultiReader(bytes.NewReader(data), ends{end})), nil
}

// ends is a reader with nothing but an end.
type ends struct{ err error }

func (e ends) Read([]byte) (int, error) { return 0, e.err }

// Each implements [ota.Content].
func (b Blobs) Each(ctx context.Context, blobs []release.Blob, put func(release.Blob, io.Reader) error) error {
	seen := map[release.Digest]bool{}
	for _, blob := range blobs {
		if err := ctx.Err(); err != nil {
			return err
		}
		if seen[blob.Digest] {
			continue
		}
		seen[blob.Digest] = true
		r, err := b.Open(ctx, blob)
		if err != nil {
			return err
		}
		if err := errors.Join(put(blob, r), r.Close()); err != nil {
			return err
		}
	}
	return nil
}

// failing is content that breaks at the nth reader that is asked for.
type failing struct {
	Blobs
	at, seen *int
	how      error
}

func newFailing(b Blobs, n int, how error) failing { return failing{b, &n, new(int), how} }

func (f failing) Open(ctx context.Context, blob release.Blob) (io.ReadCloser, error) {
	r, err := f.Blobs.Open(ctx, blob)
	if err != nil {
		return nil, err
	}
	if *f.seen++; *f.seen != *f.at {
		return r, nil
	}
	if errors.Is(f.how, ota.ErrDigest) { // other bytes, of the right length
		return io.NopCloser(io.MultiReader(bytes.NewReader(make([]byte, blob.Size)), ends{f.how})), nil
	}
	return io.NopCloser(io.MultiReader(io.LimitReader(r, blob.Size/2), ends{f.how})), nil
}

func (f failing) Each(ctx context.Context, blobs []release.Blob, put func(release.Blob, io.Reader) error) error {
	for _, blob := range blobs {
		r, err := f.Open(ctx, blob)
		if err != nil {
			return err
		}
		if err := errors.Join(put(blob, r), r.Close()); err != nil {
			return err
		}
	}
	return nil
}

// TestBackend checks a backend against the contract of [ota.Backend] and of
// the optional interfaces that it implements. open returns a new Subject on a
// place of its own.
func TestBackend(t *testing.T, open func(t *testing.T) Subject) {
	for name, test := range map[string]func(*bench){
		"Nothing":     testNothing,
		"Versions":    testVersions,
		"Again":       testAgain,
		"Revert":      testRevert,
		"NotStaged":   testNotStaged,
		"NameAlone":   testNameAlone,
		"BadContent":  testBadContent,
		"Cancelled":   testCancelled,
		"OverStuck":   testOverStuck,
		"Prune":       testPrune,
		"Budget":      testBudget,
		"Blobs":       testBlobs,
		"Verify":      testVerify,
		"Seed":        testSeed,
		"CanRevert":   testCanRevert,
		"Root":        testRoot,
		"Diff":        testDiff,
		"Crash":       testCrash,
		"UnknownName": testUnknownName,
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			test(&bench{T: t, Subject: s, b: s.Backend, open: open})
		})
	}
}

// bench is a subject under test.
type bench struct {
	*testing.T
	Subject
	b      ota.Backend
	effect ota.Effect
	open   func(*testing.T) Subject
}

// must ends the test when err is set.
func (s *bench) must(err error, doing string) {
	s.Helper()
	if err != nil {
		s.Fatalf("%s: %v", doing, err)
	}
}

// reopen goes on as the next process.
func (s *bench) reopen() {
	if s.Reopen != nil {
		s.b = s.Reopen()
	}
}

// reboot ends the boot where the backend needs that, and else the process.
func (s *bench) reboot() {
	s.Helper()
	switch {
	case s.effect != ota.NeedsReboot:
		s.reopen()
	case s.Reboot == nil:
		s.Fatal("the backend needs a reboot, and Subject.Reboot is nil")
	default:
		s.b = s.Reboot()
	}
}

func (s *bench) stage(tx ota.TxID, n int) {
	s.Helper()
	effect, err := s.b.Stage(s.Context(), tx, s.Component(n), s.Blobs)
	s.must(err, "Stage")
	if !slices.Contains([]ota.Effect{"", ota.Live, ota.NeedsRestart, ota.NeedsReboot}, effect) {
		s.Fatalf("Stage returned the effect %q", effect)
	}
	s.effect = effect
}

// activate calls Activate and lets it become effective.
func (s *bench) activate(tx ota.TxID, n int) {
	s.Helper()
	s.must(s.b.Activate(s.Context(), tx, s.Component(n)), "Activate")
	if s.effect == ota.NeedsReboot {
		if a := s.active(); a.Next != s.Component(n).Digest() {
			s.Fatalf("after Activate Next is %s, want %s", a.Next.Short(), s.Component(n).Digest().Short())
		}
	}
	s.reboot()
	s.runs(n)
}

func (s *bench) commit(tx ota.TxID, n int) {
	s.Helper()
	s.must(s.b.Commit(s.Context(), tx, s.Component(n)), "Commit")
	s.runs(n)
}

// revert calls Revert, and lets it become effective where it was in effect.
func (s *bench) revert(tx ota.TxID, n int) {
	s.Helper()
	before := s.active()
	s.must(s.b.Revert(s.Context(), tx, s.Component(n)), "Revert")
	if s.effect == ota.NeedsRestart || before.Is(s.Component(n).Digest()) {
		s.reboot()
	}
}

// install takes version n all the way.
func (s *bench) install(tx ota.TxID, n int) {
	s.Helper()
	s.stage(tx, n)
	s.activate(tx, n)
	s.commit(tx, n)
}

func (s *bench) active() ota.Active {
	s.Helper()
	a, err := s.b.Active(s.Context(), s.Component(0).Name)
	s.must(err, "Active")
	return a
}

// runs checks that version n is in effect.
func (s *bench) runs(n int) {
	s.Helper()
	if a := s.active(); !a.Is(s.Component(n).Digest()) {
		s.Fatalf("Active says %+v, want version %d, %s", a, n, s.Component(n).Digest().Short())
	}
}

// state is what an observer and the backend itself say, but for what the next
// boot brings.
type observed struct {
	look   string
	state  ota.Presence
	digest release.Digest
}

func (s *bench) observe() observed {
	s.Helper()
	a := s.active()
	return observed{s.Look(), a.State, a.Digest}
}

// same checks that nothing is other than it was.
func (s *bench) same(want observed, after string) {
	s.Helper()
	if got := s.observe(); got != want {
		s.Fatalf("after %s there is %+v, want %+v", after, got, want)
	}
}
