package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/publish"
	"github.com/stretchr/testify/require"
)

// bench is a real device in a folder, whose firmware is a real program, and
// its maker.
type bench struct {
	t        *testing.T
	dir      string // of the device
	maker    string
	repo     *publish.Repository
	programs map[string]string // by build: the folder with its program
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, dir: filepath.Join(t.TempDir(), "device"), maker: t.TempDir(), programs: map[string]string{}}
	b.build("one", "")
	b.build("two", "")
	b.build("bad", "the radio does not answer")
	keys, err := publish.KeyDir{Path: filepath.Join(b.maker, "keys")}.Make(1, false)
	require.NoError(t, err)
	b.repo, err = publish.Open(publish.Options{Dir: filepath.Join(b.maker, "repo"), Keys: keys})
	require.NoError(t, err)
	require.NoError(t, b.repo.Create(t.Context(), "embed", 1))

	// As it leaves the factory: some program, which pawl did not put there.
	require.NoError(t, os.MkdirAll(filepath.Join(b.dir, "own", "factory"), 0o755))
	data, err := os.ReadFile(filepath.Join(b.programs["one"], programName))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(b.dir, "own", "factory", programName), data, 0o755))
	require.NoError(t, os.Symlink("factory", filepath.Join(b.dir, "own", "current")))
	return b
}

// build makes one build of this firmware. A bad one knows why it is sick.
func (b *bench) build(name, why string) {
	b.t.Helper()
	dir := filepath.Join(b.maker, "build", name)
	flags := fmt.Sprintf("-s -w -X main.version=%s -X 'main.sick=%s'", name, why)
	out, err := exec.Command("go", "build", "-ldflags", flags, "-o", filepath.Join(dir, programName), ".").CombinedOutput()
	require.NoError(b.t, err, "%s", out)
	b.programs[name] = dir
}

// release publishes a build together with a folder that says the same.
func (b *bench) release(build string, n int) {
	b.t.Helper()
	app := filepath.Join(b.maker, "app", fmt.Sprint(n))
	require.NoError(b.t, os.MkdirAll(app, 0o755))
	for i := range 20 {
		require.NoError(b.t, os.WriteFile(filepath.Join(app, fmt.Sprint(i)), fmt.Appendf(nil, "%d %s", n*(i/10), build), 0o644))
	}
	_, err := b.repo.Release(b.t.Context(), publish.Spec{Version: fmt.Sprint(n), Variant: "any", Components: []publish.Component{
		{Name: "firmware", From: b.programs[build]},
		{Name: "app", From: app},
	}})
	require.NoError(b.t, err)
}

// start runs the firmware that is on the device, and calls each for every line
// that it prints, with its number, until it ends. each returns what to do to the
// process.
func (b *bench) start(each func(n int, line string) os.Signal) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(b.dir, "own", "current", programName),
		"-dir", b.dir, "-source", filepath.Join(b.maker, "repo"), "-root", filepath.Join(b.maker, "repo", "metadata", "1.root.json"),
		"-look", "1h", "-work", "20ms", "-soak", "100ms", "-deadline", "300ms")
	out, err := cmd.StdoutPipe()
	require.NoError(b.t, err)
	var complaint strings.Builder
	cmd.Stderr = &complaint
	require.NoError(b.t, cmd.Start())
	lines := bufio.NewScanner(out)
	var all []string
	for n := 1; lines.Scan(); n++ {
		all = append(all, lines.Text())
		if s := each(n, lines.Text()); s != nil {
			require.NoError(b.t, cmd.Process.Signal(s))
		}
	}
	_ = cmd.Wait()
	require.NoError(b.t, ctx.Err(), "the firmware did not end: %s\n%s", strings.Join(all, "\n"), complaint.String())
	require.Empty(b.t, complaint.String(), "%s", strings.Join(all, "\n"))
}

// settle starts the firmware as an init system does until a transaction ends
// and nothing is left to do, and then stops it in an orderly way.
func (b *bench) settle() {
	b.t.Helper()
	for range 10 {
		done, stopped := false, false
		b.start(func(_ int, line string) os.Signal {
			if strings.HasSuffix(line, ": stopped") {
				stopped = true
			}
			if !done && strings.HasSuffix(line, ": nothing to do") {
				done = true
				return os.Interrupt
			}
			return nil
		})
		if done && stopped {
			return
		}
	}
	b.t.Fatal("the firmware does not settle")
}

// holds checks that the device runs build and folder of release n, all of it.
func (b *bench) holds(build string, n int) {
	b.t.Helper()
	want := sum(b.t, filepath.Join(b.programs[build], programName))
	require.Equal(b.t, want, sum(b.t, filepath.Join(b.dir, "own", "current", programName)), "the program is not build %s", build)
	for i := range 20 {
		want := fmt.Sprintf("%d %s", n*(i/10), build)
		got, err := os.ReadFile(filepath.Join(b.dir, "app", fmt.Sprint(i)))
		require.NoError(b.t, err)
		require.Equal(b.t, want, string(got), "the folder is not of release %d", n)
	}
	st, err := ota.ReadStatus(filepath.Join(b.dir, "updates"))
	require.NoError(b.t, err)
	require.Equal(b.t, ota.Idle, st.State)
	require.Equal(b.t, fmt.Sprint(n), st.Running.Version)
}

func sum(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	require.NoError(t, err)
	return fmt.Sprintf("%x", h.Sum(nil))
}

// TestKill kills the real firmware with SIGKILL at one line of its progress
// after the other, a random moment later, while it replaces itself; every
// fourth release is a bad one. After each kill it is started as an init system
// does, and the device has to be wholly on one release: the new one, or the one
// before a bad one.
func TestKill(t *testing.T) {
	b := newBench(t)
	b.release("one", 1)
	b.settle()
	b.holds("one", 1)

	kills, every := map[string]int{}, 9 // by what was said last
	switch {
	case os.Getenv("PAWL_CRASH") == "long":
		every = 1
	case testing.Short():
		every = 40
	}
	builds := []string{"two", "one", "two", "bad", "one"}
	running, runs := "one", 1
	random := rand.New(rand.NewPCG(1, 2))
	n := 1
	for line, missed := 1, 0; line <= 200 && missed < 3; line += every {
		n++
		build := builds[n%len(builds)]
		b.release(build, n)
		killed := false
		delay := time.Duration(random.Int64N(int64(15 * time.Millisecond)))
		b.start(func(got int, text string) os.Signal {
			switch {
			case strings.HasSuffix(text, ": nothing to do"):
				return os.Interrupt
			case got == line && !killed:
				killed = true
				kills[step(text)]++
				<-time.After(delay)
				return os.Kill
			}
			return nil
		})
		missed++
		if killed {
			missed = 0
		}
		b.settle()
		if build != "bad" {
			running, runs = build, n
		}
		b.holds(running, runs)
	}
	t.Logf("%d releases, killed after: %v", n-1, kills)
	require.NotEmpty(t, kills)
	if !testing.Short() {
		require.GreaterOrEqual(t, len(kills), 3)
	}
}

// step is what a line of progress is about: its state and step.
func step(line string) string {
	if fields := strings.Fields(line); len(fields) > 5 && strings.HasPrefix(fields[2], "(seq") {
		return fields[4] + " " + fields[5]
	}
	return "between"
}
