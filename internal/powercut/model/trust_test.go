//go:build linux && (amd64 || arm64)

package model

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/publish"
	"github.com/pawl-ota/pawl/ota/tuf"
)

// repos are what a repository was like at one time after the other, in a folder
// each, and root.json, which devices begin with.
type repos struct {
	dir  string
	seqs []uint64 // the newest release in each
}

// maxRepos is how many.
const maxRepos = 14

func newRepos(t *testing.T) *repos {
	t.Helper()
	dir := inMemory(t)
	ctx := t.Context()
	keys := publish.KeyDir{Path: filepath.Join(dir, "keys")}
	made, err := keys.Make(1, false)
	require.NoError(t, err)
	repo, err := publish.Open(publish.Options{Dir: filepath.Join(dir, "repo"), Keys: made})
	require.NoError(t, err)
	require.NoError(t, repo.Create(ctx, "trust", 1))
	from := filepath.Join(dir, "from")
	require.NoError(t, os.Mkdir(from, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(from, "file"), []byte("content"), 0o644))
	all := &repos{dir: dir}
	seq := uint64(0)
	for n := range maxRepos {
		switch {
		case n%3 == 0:
			seq++
			_, err = repo.Release(ctx, publish.Spec{Version: fmt.Sprint(seq), Seq: seq, Components: []publish.Component{{Name: "app", From: from}}})
		case n%5 == 4:
			err = repo.Renew(ctx)
		default:
			_, err = repo.Refresh(ctx)
		}
		require.NoError(t, err)
		require.NoError(t, os.CopyFS(all.path(n), os.DirFS(filepath.Join(dir, "repo"))))
		all.seqs = append(all.seqs, seq)
	}
	root, err := os.ReadFile(filepath.Join(all.path(0), "metadata", "1.root.json"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "root.json"), root, 0o644))
	return all
}

func (r *repos) path(n int) string { return filepath.Join(r.dir, fmt.Sprint("at", n)) }

// latest asks for the newest release in one of them, and returns its seq.
func (r *repos) latest(ctx context.Context, disk string, n int) (uint64, error) {
	s, err := tuf.New(tuf.Options{URL: r.path(n), RootFile: filepath.Join(r.dir, "root.json"), Dir: filepath.Join(disk, "trust")})
	if err != nil {
		return 0, err
	}
	found, err := s.Latest(ctx, ota.Device{ID: "d", Product: "trust", Variant: "default"})
	if err := errors.Join(err, s.Close()); err != nil {
		return 0, err
	}
	return found.Seq, nil
}

// stamp returns the version of the timestamp that the repository has.
func (r *repos) stamp(n int) (int64, error) {
	data, err := os.ReadFile(filepath.Join(r.path(n), "metadata", "timestamp.json"))
	var file struct{ Signed struct{ Version int64 } }
	return file.Signed.Version, errors.Join(err, json.Unmarshal(data, &file))
}

// envRepos says where they are to a process that is recorded.
const envRepos = "PAWL_MODEL_REPOS"

// trusting brings a trust store up to date with one repository after the other:
// what was seen of one stays seen, and the next one is taken whatever a power cut
// left.
func trusting(all *repos) Workload {
	return trust(all, "trust", look(0, 1), look(1, maxRepos/2), look(maxRepos/2, maxRepos))
}

// distrusting has one killed when the store got its name, and the next one find
// nothing newer.
func distrusting(all *repos) Workload {
	first := look(0, 2)
	first.Kill = made(2, Rename, "trust/trust")
	return trust(all, "trust, killed", first, look(1, 3))
}

// look takes repositories, one after the other, and says so.
func look(from, to int) Process {
	return Process{Run: func(ctx context.Context, disk string, fact func(string) error) error {
		all := &repos{dir: os.Getenv(envRepos)}
		for n := from; n < to; n++ {
			if _, err := all.latest(ctx, disk, n); err != nil {
				return err
			}
			if err := fact(fmt.Sprint(n)); err != nil {
				return err
			}
		}
		return nil
	}}
}

func trust(all *repos, name string, processes ...Process) Workload {
	return Workload{
		Name:      name,
		Prepare:   func(_ context.Context, disk string) error { return os.Mkdir(disk, 0o755) },
		Processes: processes,
		Check: func(ctx context.Context, disk string, facts []string, _ int) error {
			return errors.Join(all.keepsMarks(ctx, disk, len(facts)), all.goesOn(ctx, disk))
		},
	}
}

// keepsMarks asks the files, and then the store: a repository older than what was
// seen is refused.
func (r *repos) keepsMarks(ctx context.Context, disk string, seen int) error {
	if seen == 0 {
		return nil
	}
	want, err := r.stamp(seen - 1)
	if err != nil {
		return err
	}
	if got := max(stampIn(disk, "marks"), stampIn(disk, "trust")); got < want {
		return fmt.Errorf("timestamp %d was seen, and the marks say %d", want, got)
	}
	for n := seen - 2; n >= 0; n-- {
		if stamp, err := r.stamp(n); err != nil || stamp == want {
			continue // the keys were renewed, and nothing else
		}
		if _, err := r.latest(ctx, disk, n); !errors.Is(err, tuf.ErrRollback) {
			return fmt.Errorf("repository %d was seen, and %d is not refused: %v", seen-1, n, err)
		}
		break
	}
	return nil
}

// goesOn takes the newest repository.
func (r *repos) goesOn(ctx context.Context, disk string) error {
	got, err := r.latest(ctx, disk, maxRepos-1)
	if err == nil && got != r.seqs[maxRepos-1] {
		err = fmt.Errorf("it finds release %d", got)
	}
	if err != nil {
		return fmt.Errorf("the update channel is dead: %w", err)
	}
	return nil
}

// stampIn reads a file of the trust store: the version in its marks, 0 where it
// is not whole.
func stampIn(disk, name string) int64 {
	data, err := os.ReadFile(filepath.Join(disk, "trust", name))
	_, body, ok := bytes.Cut(data, []byte("\n"))
	var file struct {
		Marks     struct{ Timestamp int64 }
		Timestamp int64
	}
	if err != nil || !ok || json.Unmarshal(body, &file) != nil {
		return 0
	}
	return max(file.Timestamp, file.Marks.Timestamp)
}
