package powercut

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/powercut/check"
	"github.com/pawl-ota/pawl/internal/powercut/firmware"
	"github.com/pawl-ota/pawl/internal/seam"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/durable"
)

// idleLimit is what Open, Resume and Close may take together where nothing is to
// be done.
const idleLimit = 10 * time.Millisecond

// counting is a state folder that notes what it is asked for.
type counting struct {
	seam.Dir
	asked *[]string
}

func (c counting) note(what string) { *c.asked = append(*c.asked, what) }

func (c counting) ReadFile(name string, max int64) ([]byte, error) {
	c.note("read " + name)
	return c.Dir.ReadFile(name, max)
}

func (c counting) WriteFile(name string, data []byte) error {
	c.note("write " + name)
	return c.Dir.WriteFile(name, data)
}

func (c counting) Create(name string) (seam.File, error) {
	c.note("create " + name)
	return c.Dir.Create(name)
}

func (c counting) Remove(name string) error {
	c.note("remove " + name)
	return c.Dir.Remove(name)
}

func (c counting) Sync() error {
	c.note("sync")
	return c.Dir.Sync()
}

// onlyResume is all that a device does at a boot with nothing open.
func onlyResume(ctx context.Context, dir string, wrap func(seam.Dir) seam.Dir) error {
	o, done, err := firmware.Options(dir)
	if err != nil {
		return err
	}
	if wrap != nil {
		d, err := durable.OpenDir(o.Dir)
		if err != nil {
			return err
		}
		seam.Set(&o, seam.Machine, wrap(d))
	}
	u, err := ota.Open(ctx, o)
	if err != nil {
		return err
	}
	if _, err := u.Resume(ctx); err != nil {
		return err
	}
	if err := u.Close(); err != nil {
		return err
	}
	return done()
}

// TestIdle: Resume of an idle device reads its journal once, which is two files,
// and asks its state folder for nothing else; with all that is around it, it
// takes less than idleLimit.
func TestIdle(t *testing.T) {
	mem := memory(t)
	s, dir := New(t, mem), filepath.Join(mem, "idle")
	s.Copy(t, dir, check.V2)
	var asked []string
	require.NoError(t, onlyResume(t.Context(), dir, func(d seam.Dir) seam.Dir { return counting{d, &asked} }))
	slices.Sort(asked)
	require.Equal(t, []string{"read journal.a", "read journal.b"}, asked)

	var steps []string
	hook := func(op, path string, call func() error) error {
		steps = append(steps, op+" "+path)
		return call()
	}
	seam.Step.Store(&hook)
	defer seam.Step.Store(nil)
	require.NoError(t, onlyResume(t.Context(), dir, nil))
	require.Empty(t, steps, "nothing has to survive")

	var took []time.Duration
	for range 200 {
		began := time.Now()
		require.NoError(t, onlyResume(t.Context(), dir, nil))
		took = append(took, time.Since(began))
		if len(took) >= 10 && slices.Min(took) <= idleLimit {
			break
		}
	}
	slices.Sort(took)
	t.Logf("idle: Open, Resume and Close take %v at best, %v in the middle of %d", took[0], took[len(took)/2], len(took))
	require.LessOrEqual(t, took[0], idleLimit)
}

// BenchmarkIdle has beside Resume the floor of the same run: to read the files
// that it reads.
func BenchmarkIdle(b *testing.B) {
	s, dir := New(b, ""), filepath.Join(b.TempDir(), "idle")
	s.Copy(b, dir, check.V2)
	b.Run("resume", func(b *testing.B) {
		for b.Loop() {
			require.NoError(b, onlyResume(b.Context(), dir, nil))
		}
	})
	b.Run("floor", func(b *testing.B) {
		for b.Loop() {
			for _, name := range []string{"journal.a", "journal.b"} {
				_, err := os.ReadFile(filepath.Join(dir, "state", "updates", name))
				require.NoError(b, err)
			}
		}
	})
}
