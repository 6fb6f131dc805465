package tuf

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"path"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/pawl-ota/pawl/internal/seam"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/durable"
	"github.com/pawl-ota/pawl/ota/fetch"
)

// Target is a target file that the repository's keys vouch for, be it one of
// pawl's or not.
type Target struct {
	Name       string
	Length     int64 // bytes
	info       *metadata.TargetFiles
	consistent bool // the file's name holds its digest
}

// Check returns nil if data are the bytes that were signed, else an error
// that wraps [ota.ErrLength] or [ota.ErrDigest].
func (t *Target) Check(data []byte) error {
	if int64(len(data)) != t.Length {
		return fmt.Errorf("%w: %w: target %s was signed with %d bytes", ErrUntrusted, ota.ErrLength, t.Name, t.Length)
	}
	if t.info.VerifyLengthHashes(data) != nil {
		return fmt.Errorf("%w: %w: target %s", ErrUntrusted, ota.ErrDigest, t.Name)
	}
	return nil
}

// file is where the repository holds the target.
func (t *Target) file() (string, error) {
	if !t.consistent {
		return "targets/" + t.Name, nil
	}
	for _, algorithm := range []string{"sha256", "sha512"} {
		if sum := t.info.Hashes[algorithm]; len(sum) > 0 {
			folder, base := path.Split(t.Name)
			return "targets/" + folder + hex.EncodeToString(sum) + "." + base, nil
		}
	}
	return "", fmt.Errorf("%w: target %s has no digest that is known here", ErrUntrusted, t.Name)
}

// part is what to read of the repository for the target.
func (t *Target) part() (part, error) {
	file, err := t.file()
	return part{name: escape(file), length: -1, max: max(1, t.Length), cause: fetch.Metadata}, err
}

// Refresh verifies the repository's metadata, and stores what is new: the
// client workflow of the TUF specification, section 5, without a target. It
// fails as [Source.Latest] does.
func (s *Source) Refresh(ctx context.Context) error {
	err := s.lookup(ctx, false, func(*view) error { return nil })
	if err != nil {
		return fmt.Errorf("cannot refresh the metadata: %w", err)
	}
	return nil
}

// Find refreshes, and looks a target up by its name. It returns an error that
// is [io/fs.ErrNotExist], and not ErrUnavailable, where no role that may has
// it; else it fails as [Source.Latest] does. Roles that are delegated to by
// path_hash_prefixes are not asked: go-tuf spells the hash in another way than
// the specification.
func (s *Source) Find(ctx context.Context, name string) (*Target, error) {
	var found *Target
	err := s.lookup(ctx, false, func(v *view) error {
		var err error
		found, err = v.resolve(name)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot find the target: %w", err)
	}
	return found, nil
}

// Read reads a target that Find found, into memory. What is longer than
// [Limits].Target, or is not what was signed, is refused.
func (s *Source) Read(ctx context.Context, t *Target) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	return s.read(ctx, t, s.o.Limits.Target)
}

// Metadata returns the metadata that the device trusts, as it was signed, by
// role: the newest root, and what the trust store holds of the others. It reads
// nothing of the repository.
func (s *Source) Metadata(ctx context.Context) (map[string][]byte, error) {
	var roles map[string][]byte
	err := s.locked(ctx, func(dir seam.Dir) error {
		t, _, err := load(dir)
		if err != nil {
			return err
		}
		c, err := s.anchor.chain(t.Roots)
		if err != nil {
			return err
		}
		roles = t.Roles
		if roles == nil {
			roles = map[string][]byte{}
		}
		roles[metadata.ROOT] = c.roots[len(c.roots)-1].data
		return nil
	})
	return roles, err
}

// locked runs f with the trust store locked.
func (s *Source) locked(ctx context.Context, f func(seam.Dir) error) error {
	dir, err := durable.OpenDir(s.o.Dir)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	unlock, err := dir.Lock(ctx, s.o.LockWait)
	if err != nil {
		return err
	}
	if !s.relied {
		err = dir.SyncNames(".") // whoever was here may have been killed before it could
		s.relied = err == nil
	}
	if err == nil {
		err = f(dir)
	}
	return errors.Join(err, unlock())
}

// resolve returns what the role that may speak for a target says of it.
func (v *view) resolve(name string) (*Target, error) {
	info, err := v.set.Targets[metadata.TARGETS].Signed.Targets[name], error(nil)
	if v.delegates() {
		info, _, err = v.walk(name)
	} else if info == nil {
		err = &noTarget{name}
	}
	if err != nil {
		return nil, err
	}
	return &Target{Name: name, Length: info.Length, info: info, consistent: v.set.Root.Signed.ConsistentSnapshot}, nil
}

func (v *view) delegates() bool {
	return v.set.Targets[metadata.TARGETS].Signed.Delegations != nil
}

// read brings a target's bytes and checks them.
func (s *Source) read(ctx context.Context, t *Target, limit int64) ([]byte, error) {
	p, err := t.part()
	if err != nil {
		return nil, err
	}
	if t.Length < 0 || t.Length > limit {
		return nil, fmt.Errorf("%w: target %s has %d bytes, %d are allowed", ErrTooLarge, t.Name, t.Length, limit)
	}
	data := s.last.early
	s.last.early = nil
	if data == nil || t.Check(data) != nil {
		data, err = s.readAll(ctx, p)
	}
	if errors.Is(err, fetch.ErrTooLong) {
		return nil, fmt.Errorf("%w: %w: target %s was signed with %d bytes", ErrUntrusted, ota.ErrLength, t.Name, t.Length)
	}
	if err == nil {
		err = t.Check(data)
	}
	if err != nil {
		return nil, err
	}
	return data, nil
}
