package tuf

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/config"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/updater"

	"github.com/pawl-ota/pawl/internal/seam"
)

// scratchName is the folder in the trust store in which go-tuf keeps its files
// during a lookup. Nothing in it has to survive.
const scratchName = "scratch"

// view is one verified state of the repository, during one lookup.
type view struct {
	s       *Source
	ctx     context.Context
	begin   time.Time
	scratch string
	trust   trust
	roles   *roleFetcher
	chain   *chain
	ref     time.Time // what metadata is checked against
	set     trustedmetadata.TrustedMetadata
}

// lookup brings the view up to date, lets find look at it, and stores what was
// verified, all with the trust store locked. early is whether files may be fetched
// before they are asked for.
func (s *Source) lookup(ctx context.Context, early bool, find func(*view) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	return s.locked(ctx, func(dir seam.Dir) error {
		given, err := s.look(ctx, dir, early, find)
		if given && errors.Is(err, ErrUntrusted) {
			_, err = s.look(ctx, dir, false, find) // what was enclosed may be wrong
		}
		return err
	})
}

// look is one lookup. It reports whether it was given files by a timestamp.
func (s *Source) look(ctx context.Context, dir seam.Dir, early bool, find func(*view) error) (given bool, err error) {
	v := &view{
		s: s, ctx: ctx, begin: time.Now(), scratch: filepath.Join(s.o.Dir, scratchName),
		roles: &roleFetcher{ctx: ctx, s: s, cached: map[string]answer{}},
	}
	a := &v.roles.ahead
	v.roles.early, a.s = early && !s.repo.onMedium(), s
	a.ctx, a.stop = context.WithCancel(ctx)
	defer a.end()
	if err = v.use(dir, find); err == nil && a.parts != nil {
		s.parts = a.parts
	}
	return a.given, errors.Join(err, os.RemoveAll(v.scratch))
}

func (v *view) use(dir seam.Dir, find func(*view) error) error {
	trust, whole, err := load(dir)
	if err != nil {
		return err
	}
	v.trust, v.roles.trust = trust, &v.trust
	if err = v.rotate(); err == nil {
		err = v.refresh()
	}
	if err == nil {
		v.trust.note(v.roles.tag)
		err = find(v)
	}
	return errors.Join(err, v.trust.save(dir, whole))
}

// rotate verifies the roots, from the pinned one to the newest. The ones before
// one that is refused stand.
func (v *view) rotate() (err error) {
	stored := v.trust.Roots
	if v.chain, err = v.s.anchor.chain(stored); err != nil {
		return err
	}
	if v.roles.early {
		v.roles.ahead.besideRoot(v.roles.timestamp())
	}
	refused := v.chain.extend(v.roles, v.trust.Marks.Root)
	v.roles.consistent = v.chain.newest().Signed.ConsistentSnapshot
	if err := v.trust.adopt(v.chain.roots, signedBy(stored)); err != nil {
		return err
	}
	return refused
}

// refresh verifies timestamp, snapshot and targets. Their own word on when they
// were issued counts at once: what else has expired by then is refused.
func (v *view) refresh() error {
	err := v.healed(func() error {
		if err := v.prepare(); err != nil {
			return err
		}
		ref, err := v.attempt()
		if _, later := v.times(); err == nil && later.After(ref) {
			_, err = v.attempt()
		}
		return err
	})
	if err == nil {
		v.trust.forget(v.set.Snapshot)
	}
	return err
}

// healed calls try, and once more without the stored files of roles where
// something was refused: it may be one of those that go-tuf stumbled over. The
// marks hold either way.
func (v *view) healed(try func() error) error {
	before := maps.Clone(v.trust.Roles)
	err := try()
	if !errors.Is(err, ErrUntrusted) || len(before) == 0 {
		return err
	}
	after := v.trust.Roles
	v.trust.Roles = nil
	if err = try(); err != nil {
		v.trust.Roles = after
	}
	return err
}

// attempt does the refresh once, against the times known now. What it verified
// before something was refused is kept.
func (v *view) attempt() (ref time.Time, err error) {
	floor, ref := v.times()
	set, err := v.run(ref)
	if below := v.trust.Marks.check(set); below != nil {
		return ref, below
	}
	v.trust.Marks.raise(set)
	if kept := v.keep(); kept != nil {
		return ref, kept
	}
	v.ref, v.set = ref, set
	return ref, v.explain(err, floor, ref, func(at time.Time) error {
		_, err := v.run(at)
		return err
	})
}

// times returns the earliest time that it can be, by what was signed, and
// the time to check against.
func (v *view) times() (floor, ref time.Time) {
	floor, ref = v.s.o.BuildTime, v.s.o.Now()
	if issued := time.Unix(v.trust.Marks.Issued, 0); v.trust.Marks.Issued > 0 && issued.After(floor) {
		floor = issued
	}
	if floor.After(ref) {
		ref = floor
	}
	if v.s.repo.onMedium() {
		return floor.Add(-v.s.o.MaxStale), ref.Add(-v.s.o.MaxStale)
	}
	return floor, ref
}

// explain tells what has expired for sure from what has by the clock alone: that
// passes when it is tried at the floor.
func (v *view) explain(err error, floor, ref time.Time, try func(time.Time) error) error {
	if !errors.Is(err, ErrExpired) || v.s.o.TrustClock || !ref.After(floor) {
		return err
	}
	if again := try(floor); errors.Is(again, ErrExpired) {
		return err
	}
	what := "metadata has expired"
	if e, ok := errors.AsType[*metadata.ErrExpiredMetadata](err); ok {
		what = e.Msg
	}
	return fmt.Errorf("%w: %s, and the clock says %s", ErrClockUntrusted, what, v.s.o.Now().UTC().Format(time.RFC3339))
}

// prepare lays the stored files out for go-tuf.
func (v *view) prepare() error {
	if err := os.RemoveAll(v.scratch); err != nil {
		return fmt.Errorf("cannot clear the scratch folder: %w", err)
	}
	if err := os.Mkdir(v.scratch, 0o700); err != nil {
		return fmt.Errorf("cannot make the scratch folder: %w", err)
	}
	for role, data := range v.trust.Roles {
		if err := os.WriteFile(v.scratchFile(role), data, 0o600); err != nil {
			return fmt.Errorf("cannot lay out the trust store: %w", err)
		}
	}
	return nil
}

func (v *view) scratchFile(role string) string {
	return filepath.Join(v.scratch, url.PathEscape(role)+".json")
}

// updater returns a fresh one of go-tuf's.
func (v *view) updater(ref time.Time) (*updater.Updater, error) {
	l := v.s.o.Limits
	u, err := updater.New(&config.UpdaterConfig{
		MaxRootRotations:   1,           // all that there are were taken before
		MaxDelegations:     l.Roles + 1, // one more, to see that there are more
		RootMaxLength:      l.Root,
		TimestampMaxLength: l.Timestamp,
		SnapshotMaxLength:  l.Snapshot,
		TargetsMaxLength:   l.Targets,
		Fetcher:            v.roles,
		LocalTrustedRoot:   v.chain.roots[len(v.chain.roots)-1].data,
		LocalMetadataDir:   v.scratch,
		LocalTargetsDir:    v.scratch,
		RemoteMetadataURL:  rolesURL,
	})
	if err != nil {
		return nil, err
	}
	u.UnsafeSetRefTime(ref)
	return u, nil
}

// run refreshes with a fresh updater, and returns what that verified.
func (v *view) run(ref time.Time) (set trustedmetadata.TrustedMetadata, err error) {
	err = failClosed(func() error {
		u, err := v.updater(ref)
		if err != nil {
			return err
		}
		err = u.Refresh()
		set = u.GetTrustedMetadataSet()
		return err
	})
	return set, classify(err)
}

// walk looks a target up, and returns also what was verified on the way, which it
// keeps. A target that is not there is a noTarget.
func (v *view) walk(name string) (info *metadata.TargetFiles, set trustedmetadata.TrustedMetadata, err error) {
	err = v.healed(func() error {
		if err := v.prepare(); err != nil {
			return err
		}
		info, set, err = v.walkOnce(name, v.ref)
		if kept := v.keep(); kept != nil {
			return kept
		}
		floor, _ := v.times()
		return v.explain(err, floor, v.ref, func(at time.Time) error {
			_, _, err := v.walkOnce(name, at)
			return err
		})
	})
	return info, set, err
}

// walkOnce walks with a fresh updater (go-tuf issue 759).
func (v *view) walkOnce(name string, ref time.Time) (info *metadata.TargetFiles, set trustedmetadata.TrustedMetadata, err error) {
	err = failClosed(func() error {
		u, err := v.updater(ref)
		if err != nil {
			return err
		}
		info, err = u.GetTargetInfo(name)
		set = u.GetTrustedMetadataSet()
		if err != nil && err.Error() == fmt.Sprintf("target %s not found", name) {
			err = &transportError{v.notFound(name, set)}
		}
		return err
	})
	return info, set, classify(err)
}

// notFound tells a target that is not there from one that was not looked for in
// all roles.
func (v *view) notFound(name string, set trustedmetadata.TrustedMetadata) error {
	if n := v.s.o.Limits.Roles; len(set.Targets)-1 > n {
		return fmt.Errorf("%w: target %s may be in any of more than %d roles", ErrTooLarge, name, n)
	}
	return &noTarget{name}
}

// noTarget is an fs.ErrNotExist that the repository's keys vouch for: a file
// that cannot be had is none.
type noTarget struct{ name string }

func (e *noTarget) Error() string        { return "no target " + e.name }
func (e *noTarget) Is(target error) bool { return target == fs.ErrNotExist }

func isNoTarget(err error) bool {
	_, ok := errors.AsType[*noTarget](err)
	return ok
}

// keep takes into the trust store the files that go-tuf has laid down: each
// one was verified before.
func (v *view) keep() error {
	entries, err := os.ReadDir(v.scratch)
	if err != nil {
		return fmt.Errorf("cannot read the scratch folder: %w", err)
	}
	if v.trust.Roles == nil {
		v.trust.Roles = map[string][]byte{}
	}
	for _, e := range entries {
		base, ok := strings.CutSuffix(e.Name(), ".json")
		role, err := url.PathUnescape(base)
		if !ok || err != nil || role == metadata.ROOT {
			continue
		}
		if v.trust.Roles[role], err = os.ReadFile(filepath.Join(v.scratch, e.Name())); err != nil {
			return fmt.Errorf("cannot keep role %.64s: %w", role, err)
		}
	}
	return nil
}
