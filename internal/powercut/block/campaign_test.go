package block

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
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
}{{"update", 300}, {"sick", 150}, {"rollback", 200}, {"install", 100}, {"trust", 100}, {"file", 70}}

// In some states of an update and of its way back the power goes again, while
// the device settles.
const (
	again     = 4  // states of each
	mostAgain = 10 // states of each of those
)

// TestStates cuts the power of a real ext4, and in the long campaign also of an
// xfs and a btrfs: no state may break a promise.
func TestStates(t *testing.T) {
	systems, rounds := []FS{Ext4()}, 1
	if long() {
		systems, rounds = []FS{Ext4(), XFS(), Btrfs()}, 7
	}
	needs(t, systems...)
	b := newBench(t)
	for round := range uint64(rounds) {
		for _, fs := range systems {
			for _, share := range shares {
				t.Run(fs.Name+"/"+share.name, func(t *testing.T) { b.run(t, fs, share.name, round, share.most) })
			}
			for _, name := range []string{"update", "sick"} {
				t.Run(fs.Name+"/again/"+name, func(t *testing.T) { b.again(t, fs, name, round) })
			}
		}
	}
	t.Logf("block: %d distinct states, %d violations in %s", b.states, b.violations, b.took.Round(time.Second))
}

// TestSeesFaults records programs that leave a step out, bare renameio among
// them, which leaves out the fsync of the folder.
func TestSeesFaults(t *testing.T) {
	fs := Ext4()
	needs(t, fs)
	b := newBench(t)
	for _, name := range []string{"bare renameio", "file without fsync", "file without fsyncdir", "update without fsync"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			o, _ := b.look(t, fs, dir, b.first(t, fs, dir, name), name, 1, 300)
			assert.NotEmpty(t, o.Failures, "nothing was noticed")
			for _, f := range o.Failures {
				t.Logf("%s: %v", f.State, f.Err)
			}
		})
	}
}

// TestComparison counts, in the long campaign, the states in which a file that
// was replaced is not there or the old one, with renameio alone and with
// ota/durable.
func TestComparison(t *testing.T) {
	if !long() {
		return
	}
	systems := []FS{Ext4(), XFS(), Btrfs()}
	needs(t, systems...)
	b := newBench(t)
	b.enough = math.MaxInt
	for _, fs := range systems {
		for name, broken := range map[string]bool{"bare renameio": true, "file": false} {
			t.Run(fs.Name+"/"+name, func(t *testing.T) {
				dir := t.TempDir()
				o, _ := b.look(t, fs, dir, b.first(t, fs, dir, name), name, 1, 1000)
				assert.Equal(t, broken, len(o.Failures) > 0)
			})
		}
	}
}

func long() bool { return os.Getenv("PAWL_CRASH") == "long" }

// bench is what all campaigns of a test have in common.
type bench struct {
	scene    *powercut.Scene
	versions string // the repository, refreshed again and again
	enough   int    // violations, with which a campaign ends

	states, violations int
	took               time.Duration
}

func newBench(t *testing.T) *bench {
	b := &bench{scene: powercut.New(t, ""), versions: t.TempDir(), enough: 8}
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

// run records a campaign, and wants no violation in the states of it.
func (b *bench) run(t *testing.T, fs FS, name string, seed uint64, most int) {
	t.Helper()
	dir := t.TempDir()
	o, log := b.look(t, fs, dir, b.first(t, fs, dir, name), name, seed, most)
	noViolation(t, o, log)
}

// again records a campaign, and then what the device does in some of its states,
// and wants no violation in the states of that.
func (b *bench) again(t *testing.T, fs FS, name string, seed uint64) {
	t.Helper()
	dir := t.TempDir()
	log := record(t, fs, b.first(t, fs, dir, name), dir, name, time.Millisecond)
	states, _ := States(log, Choice{Seed: seed, Sector: fs.Sector, All: 8, Most: 1000})
	random := rand.New(rand.NewPCG(seed, 0))
	for range again {
		image := NewBuilder(log).Build(states[random.IntN(len(states))])
		o, log := b.look(t, fs, dir, image, "resume", seed, mostAgain)
		noViolation(t, o, log)
	}
}

func noViolation(t *testing.T, o Outcome, log *Log) {
	t.Helper()
	for i, f := range o.Failures {
		path := filepath.Join(t.ArtifactDir(), fmt.Sprintf("violation-%d.img", i))
		assert.Fail(t, "a promise is broken", "%s: %v (with -artifacts: %s, %v)", f.State, f.Err, path, NewBuilder(log).Build(f.State).WriteFile(path))
	}
}

// first returns the disk with which a campaign begins.
func (b *bench) first(t *testing.T, fs FS, dir, name string) *Image {
	t.Helper()
	return base(t, fs, dir, func(disk string) { b.fill(t, deviceOn(disk), campaigns[name].from) })
}

// look records a campaign that begins with first, and looks at most of its
// states.
func (b *bench) look(t *testing.T, fs FS, dir string, first *Image, name string, seed uint64, most int) (Outcome, *Log) {
	t.Helper()
	begin := time.Now()
	log := record(t, fs, first, dir, name, time.Duration(1+seed%4)*time.Millisecond)
	states, found := States(log, Choice{Seed: seed, Sector: fs.Sector, All: 8, Most: most})
	r := Replay{Log: log, States: states, Check: 50, Enough: b.enough, Visitor: func() *exec.Cmd { return program(t.Context(), roleVisit, name) }}
	var stands []*Stand
	for range runtime.NumCPU() {
		stands = append(stands, stand(t, fs, dir))
	}
	outcome, err := r.Run(stands...)
	require.NoError(t, err)
	took := time.Since(begin)
	t.Logf("block: %s on %s: %s: %s in %s", name, fs.Name, log, summary(outcome, len(states), found), took.Round(100*time.Millisecond))
	b.states, b.violations, b.took = b.states+len(states), b.violations+len(outcome.Failures), b.took+took
	return outcome, log
}

func summary(o Outcome, looked, found int) string {
	return fmt.Sprintf("%d of %d distinct states, %d violations (%d mounted after a repair, %d checked)",
		looked, found, len(o.Failures), len(o.Repaired), o.Checked)
}
