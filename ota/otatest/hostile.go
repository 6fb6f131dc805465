package otatest

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/pawl-ota/pawl/ota"
)

// HostileHarness is what [TestHostile] needs to know of a source under test.
type HostileHarness struct {
	// New returns a Source that trusts a device's first root alone. Its
	// transport gives up within a second where nothing comes. It is called for
	// each lookup, as by a new process.
	New func(t *testing.T, d HostileDevice) ota.Source
	// The families of errors in which the source refuses: what it does not
	// trust, what has expired, and what it could not read.
	Untrusted, Unavailable error
	Expired                []error
	// Threshold, Rollback and TooLarge are what of Untrusted is for too few
	// signatures, for older metadata, and for files above a limit.
	Threshold, Rollback, TooLarge error
}

// HostileDevice is a device in front of a hostile repository.
type HostileDevice struct {
	URL  string // http, https, or the path of a folder
	Root []byte // the first root.json that it trusts
	Dir  string // for its trust store
	Now  time.Time
}

// HostileOutcome is how one try of an attack ended.
type HostileOutcome struct {
	Attack, Try string
	Online      bool  // over HTTP, else from a folder
	Warm        bool  // the device has seen the repository before
	Err         error // with which the source refused; nil where there is nothing to refuse
}

// TestHostile plays every one of [Attacks] over HTTP and from a folder, against a
// device that has never seen the repository and one that has. Each has to end in
// its error, and the device has to take the publisher's newest release
// afterwards. The outcomes are for a table.
func TestHostile(t *testing.T, h HostileHarness) []HostileOutcome {
	var all []*outcome
	t.Run("play", func(t *testing.T) {
		for _, a := range attacks {
			for _, try := range a.tries {
				for i := range 4 {
					o := &outcome{HostileOutcome: HostileOutcome{Attack: a.name, Try: try.name, Online: i < 2, Warm: i%2 == 1}}
					all = append(all, o)
					t.Run(o.name(), func(t *testing.T) {
						t.Parallel()
						o.Err = playAttack(t, h, try, o.Online, o.Warm)
						o.played = true
					})
				}
			}
		}
	})
	var list []HostileOutcome
	for _, o := range all {
		if o.played {
			list = append(list, o.HostileOutcome)
		}
	}
	return list
}

type outcome struct {
	HostileOutcome
	played bool // and not left out by -run
}

func (o *outcome) name() string {
	medium, store := "folder", "fresh"
	if o.Online {
		medium = "online"
	}
	if o.Warm {
		store = "warm"
	}
	return fmt.Sprintf("%s/%s/%s/%s", o.Attack, o.Try, medium, store)
}

// Attack is one that [TestHostile] plays.
type Attack struct {
	Name, Aim string
	Tries     int // in how many ways, each of them four times
}

// Attacks returns what TestHostile plays.
func Attacks() (list []Attack) {
	for _, a := range attacks {
		list = append(list, Attack{a.name, a.aim, len(a.tries)})
	}
	return list
}

// stage is where one try is played: a publisher's repository of three releases,
// of which a warm device has seen two, and a mirror that the attacker owns.
type stage struct {
	t      *testing.T
	h      HostileHarness
	online bool
	warm   bool

	repo    *TUFRepo // the publisher's
	old     *TUFRepo // as it was with the first release
	seen    *TUFRepo // with the second one, which a warm device saw
	mirror  *TUFRepo // what the device is shown
	server  *TUFServer
	url     string // another one than the mirror's
	trust   string
	now     time.Time
	newest  uint64
	nothing bool // there is nothing to refuse
}

var hostileEpoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// hostileLimit is how long a lookup may take, on a busy machine.
const hostileLimit = 30 * time.Second

// later is when the attack is played: what was signed before has expired.
const later = 100 * 24 * time.Hour

func newStage(t *testing.T, h HostileHarness, online, warm bool) *stage {
	s := &stage{t: t, h: h, online: online, warm: warm, trust: filepath.Join(t.TempDir(), "trust"), now: hostileEpoch, newest: 3}
	s.repo = NewTUFRepo(t, hostileEpoch)
	s.repo.AddRelease("targets", 1, nil)
	s.repo.Publish()
	s.old = s.repo.Copy()
	s.repo.AddRelease("targets", 2, nil)
	s.repo.Publish()
	s.seen = s.repo.Copy()
	if warm {
		s.mirror = s.seen
		s.take(2)
	}
	s.now = hostileEpoch.Add(later)
	s.repo.Issue(s.now, 90*24*time.Hour)
	s.repo.AddRelease("targets", 3, nil)
	s.repo.Publish()
	s.mirror = s.repo.Copy()
	return s
}

// look is one lookup of the device at the mirror.
func (s *stage) look() (uint64, error) {
	url := s.mirror.Dir
	if s.online {
		if s.server == nil || s.server.dir != url {
			s.server = ServeTUF(s.t, url)
		}
		url = s.server.URL
	}
	if s.url != "" {
		url = s.url
	}
	source := s.h.New(s.t, HostileDevice{URL: url, Root: s.repo.First, Dir: s.trust, Now: s.now})
	r, err := source.Latest(s.t.Context(), tufDevice)
	if err != nil {
		return 0, err
	}
	if _, err := source.Locator(s.t.Context(), r); err != nil {
		return 0, err
	}
	return r.Seq, nil
}

// take has the device take a release of that seq.
func (s *stage) take(seq uint64) {
	s.t.Helper()
	if got, err := s.look(); err != nil || got != seq {
		s.t.Fatalf("the device is offered seq %d by its publisher, and took %d, with the error: %v", seq, got, err)
	}
}

// playAttack plays one try, and returns what it was refused with.
func playAttack(t *testing.T, h HostileHarness, try try, online, warm bool) error {
	s := newStage(t, h, online, warm)
	wants := try.play(s)
	start := time.Now()
	seq, err := s.look()
	if took := time.Since(start); took > hostileLimit {
		t.Errorf("the lookup took %s", took)
	}
	switch {
	case s.nothing && err != nil:
		t.Errorf("refused with: %v", err)
	case s.nothing:
	case err == nil:
		t.Errorf("the attack went through: the device took seq %d", seq)
	case !isOneOf(err, wants):
		t.Errorf("refused with another error than %q: %v", wants, err)
	}
	s.url, s.server, s.mirror = "", nil, s.repo
	s.take(s.newest)
	return err
}

func isOneOf(err error, wants []error) bool {
	for _, want := range wants {
		if errors.Is(err, want) {
			return true
		}
	}
	return false
}
