package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/release"
)

// TestKillAnywhere kills the agent at random moments of updates with scripts,
// and now and then of the Resume after it. When a Resume has returned, the files
// are one release exactly, every script that comes with it has left its mark,
// every other is undone, and none runs. Some releases are sick, so that the way
// back is cut short too.
func TestKillAnywhere(t *testing.T) {
	t.Parallel()
	kills := 12
	switch {
	case os.Getenv("PAWL_CRASH") == "long":
		kills = 300
	case testing.Short():
		kills = 4
	}
	m := newScriptMaker(t)
	bothLayouts(t, func(t *testing.T, layout string) {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		k := newKilled(t, m, layout, rand.New(rand.NewPCG(seed, 0)))
		for rounds := 0; k.kills < kills; rounds++ {
			require.Less(t, rounds, 5*kills, "the agent is not met")
			k.round()
		}
		t.Logf("%d kills in %d releases: %v", k.kills, k.last, k.states)
	})
}

// killed is a device whose agent is killed.
type killed struct {
	*scripted
	random *rand.Rand
	trees  map[string]string // by version
	last   int               // the release that was published last
	kills  int
	took   time.Duration  // within which a kill should meet an update
	states map[string]int // that the journal was in after a kill
}

// marked are the scripts of each release of a killed device: each writes the
// version that it belongs to into a file of its name.
func marked() (all []script) {
	for _, s := range []script{
		{name: "ready", at: release.BeforeActivate},
		{name: "part-ready", at: release.BeforeActivate, component: true},
		{name: "part-on", at: release.AfterActivate, component: true},
		{name: "on", at: release.AfterActivate},
	} {
		s.run = "echo $$ >>$d/pids; echo half >$d/" + s.name + "; sleep 0.02; echo $PAWL_TO_VERSION >$d/" + s.name
		s.undo = "echo $$ >>$d/pids; echo half >$d/" + s.name + "; sleep 0.02; echo $PAWL_FROM_VERSION >$d/" + s.name
		all = append(all, s)
	}
	return all
}

func newKilled(t *testing.T, m *maker, layout string, random *rand.Rand) *killed {
	k := &killed{scripted: newScripted(t, m, layout), random: random, trees: map[string]string{}, states: map[string]int{}}
	k.set("trial", "starts", 1000)
	k.set("trial", "deadline", "400ms")
	k.publish(true)
	begin := time.Now()
	k.must(0, "update")
	k.took = time.Since(begin)
	k.check()
	return k
}

// publish makes the next release, and returns its version.
func (k *killed) publish(good bool) string {
	k.t.Helper()
	k.last++
	version := fmt.Sprintf("2.%d.0", k.last)
	tree := cloneTree(k.t, []string{k.v1, k.v2}[k.last%2], filepath.Join(k.m.dir, version))
	write(k.t, tree, "version", version, 0o644)
	if !good {
		write(k.t, tree, "bin/selftest", "exit 1\n", 0o755)
	}
	k.trees[version] = tree
	k.m.release(version, tree, k.scripts(marked()...)...)
	return version
}

// round takes one release to its end, cutting it short several times.
func (k *killed) round() {
	k.t.Helper()
	good := k.last%3 != 0
	version := k.publish(good)
	for range 1 + k.random.IntN(4) {
		k.kill("update", "-retry")
		k.states[string(k.must(0, "status").Status.State)]++
		if k.random.IntN(3) == 0 {
			k.kill("resume")
		}
		k.must(0, "resume")
		k.check()
	}
	a := k.agent("update", "-retry")
	k.check()
	require.Equal(k.t, !good, a.Code != 0, "%s: %s", a.Line, a.Error)
	if good {
		require.Equal(k.t, version, k.version())
	}
	require.Equal(k.t, "idle", string(k.must(0, "status").Status.State))
	k.must(0, "verify")
}

// kill runs the agent and kills it at some moment.
func (k *killed) kill(args ...string) {
	k.t.Helper()
	cmd := k.command(k.t.Context(), args...)
	require.NoError(k.t, cmd.Start())
	moment := time.NewTimer(time.Duration(k.random.Int64N(int64(k.took))))
	defer moment.Stop()
	<-moment.C
	_ = cmd.Process.Kill() // it may have ended
	_ = cmd.Wait()
	if cmd.ProcessState.Exited() {
		k.took = k.took * 9 / 10
		return
	}
	k.took = k.took * 11 / 10
	k.kills++
}

func (k *killed) version() string {
	k.t.Helper()
	data, err := os.ReadFile(filepath.Join(k.app, "version"))
	require.NoError(k.t, err)
	return string(data)
}

// check looks at the files, the marks of the scripts and the processes, with
// nothing of pawl.
func (k *killed) check() {
	k.t.Helper()
	version := k.version()
	requireSame(k.t, pictureOf(k.t, k.trees[version]), pictureOf(k.t, k.app))
	for _, s := range marked() {
		mark, err := os.ReadFile(filepath.Join(k.dir, s.name))
		require.NoError(k.t, err)
		require.Equal(k.t, version, strings.TrimSpace(string(mark)), "the mark of %s", s.name)
	}
	k.gone(k.pids()...)
	require.NoError(k.t, os.RemoveAll(filepath.Join(k.dir, "pids")))
}
