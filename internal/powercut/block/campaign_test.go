package block

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/powercut"
	"github.com/pawl-ota/pawl/internal/powercut/check"
)

// shares are how many states of a campaign on one file system are looked at in
// CI; a long one takes them many times over.
var shares = []struct {
	name string
	most int
}{{"update", 400}, {"rollback", 250}, {"install", 150}, {"trust", 100}, {"file", 100}}

// TestStates cuts the power of a real ext4, and in the long campaign also of an
// xfs and a btrfs: no state may break a promise.
func TestStates(t *testing.T) {
	systems, rounds := []FS{Ext4()}, 1
	if os.Getenv("PAWL_CRASH") == "long" {
		systems, rounds = []FS{Ext4(), XFS(), Btrfs()}, 7
	}
	needs(t, systems...)
	b := newBench(t)
	for _, fs := range systems {
		for _, share := range shares {
			t.Run(fs.Name+"/"+share.name, func(t *testing.T) {
				for round := range rounds {
					b.run(t, fs, share.name, uint64(round), share.most)
				}
			})
		}
	}
	t.Logf("block: %d distinct states, %d violations in %s", b.states, b.violations, b.took.Round(time.Second))
}

// TestSeesFaults records programs that leave a step out.
func TestSeesFaults(t *testing.T) {
	fs := Ext4()
	needs(t, fs)
	b := newBench(t)
	for _, name := range []string{"bare renameio", "file without fsync", "file without fsyncdir", "update without fsync"} {
		t.Run(name, func(t *testing.T) {
			o := b.look(t, fs, name, 1, 300)
			assert.NotEmpty(t, o.Failures, "nothing was noticed")
			for _, f := range o.Failures {
				t.Logf("%s: %v", f.State, f.Err)
			}
		})
	}
}

// bench is what all campaigns of a test have in common.
type bench struct {
	scene    *powercut.Scene
	versions string // the repository, refreshed again and again

	states, violations int
	took               time.Duration
}

func newBench(t *testing.T) *bench {
	b := &bench{scene: powercut.New(t, ""), versions: t.TempDir()}
	for i := range refreshes + 1 {
		require.NoError(t, os.CopyFS(filepath.Join(b.versions, strconv.Itoa(i)), os.DirFS(b.scene.Repo)))
		require.NoError(t, b.scene.Refresh(t.Context()))
	}
	return b
}

// fill puts on a disk what a campaign begins with.
func (b *bench) fill(t *testing.T, dir string, from check.Version) {
	b.scene.Copy(t, dir, from)
	require.NoError(t, os.Symlink(b.versions, filepath.Join(dir, "versions")))
}

// run wants no violation.
func (b *bench) run(t *testing.T, fs FS, name string, seed uint64, most int) {
	t.Helper()
	for i, f := range b.look(t, fs, name, seed, most).Failures {
		path := filepath.Join(t.ArtifactDir(), fmt.Sprintf("%s-%d-%d.img", strings.ReplaceAll(name, " ", "-"), seed, i))
		assert.Fail(t, "a promise is broken", "%s: %v (with -artifacts: %s, %v)", f.State, f.Err, path, f.Image.WriteFile(path))
	}
}

// look records a campaign and looks at most of its states.
func (b *bench) look(t *testing.T, fs FS, name string, seed uint64, most int) Outcome {
	t.Helper()
	begin, dir := time.Now(), t.TempDir()
	first := base(t, fs, dir, func(disk string) { b.fill(t, deviceOn(disk), campaigns[name].from) })
	log := record(t, fs, first, dir, name, time.Duration(1+seed%4)*time.Millisecond)
	states, found := States(log, Choice{Seed: seed, Sector: fs.Sector, All: 8, Most: most})
	r := Replay{Log: log, States: states, Check: 50, Visitor: func() *exec.Cmd { return program(t.Context(), roleVisit, name) }}
	var stands []*Stand
	for range runtime.NumCPU() {
		stands = append(stands, stand(t, fs, dir))
	}
	outcome, err := r.Run(stands...)
	require.NoError(t, err)
	took := time.Since(begin)
	t.Logf("block: %s on %s: %s: %s in %s", name, fs.Name, log, summary(outcome, len(states), found), took.Round(100*time.Millisecond))
	b.states, b.violations, b.took = b.states+len(states), b.violations+len(outcome.Failures), b.took+took
	return outcome
}

func summary(o Outcome, looked, found int) string {
	return fmt.Sprintf("%d of %d distinct states, %d violations (%d mounted after a repair, %d checked)",
		looked, found, len(o.Failures), len(o.Repaired), o.Checked)
}
