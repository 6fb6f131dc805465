//go:build linux

package script

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/seam"
)

func TestHowItEnds(t *testing.T) {
	var all sync.WaitGroup // at once, because many wait for their time
	for _, c := range []struct {
		name, text string
		with       patience
		want       seam.Ran
	}{
		{name: "succeeds", text: "#!/bin/sh\necho hello\n", want: seam.Ran{Output: []byte("hello\n")}},
		{name: "says nothing", text: "#!/bin/sh\n", want: seam.Ran{}},
		{name: "fails", text: "#!/bin/sh\necho out; echo err >&2; exit 3\n", want: seam.Ran{Exit: 3, Output: []byte("out\nerr\n")}},
		{name: "asks for later", text: "#!/bin/sh\nexit 75\n", want: seam.Ran{Exit: 75}},
		{name: "255", text: "#!/bin/sh\nexit 255\n", want: seam.Ran{Exit: 255}},
		{name: "arguments of the interpreter", text: "#!/bin/sh -eu\necho one\nfalse\necho two\n", want: seam.Ran{Exit: 1, Output: []byte("one\n")}},
		{name: "no line end", text: "#!/bin/sh\nexit 4", want: seam.Ran{Exit: 4}},
		{name: "killed", text: "#!/bin/sh\nkill -9 $$\n", want: seam.Ran{Exit: -1, Signal: "SIGKILL"}},
		{name: "aborts", text: "#!/bin/sh\nkill -ABRT $$\n", want: seam.Ran{Exit: -1, Signal: "SIGABRT"}},
		{name: "a signal without a name", text: "#!/bin/sh\nkill -40 $$\n", want: seam.Ran{Exit: -1, Signal: "signal 40"}},
		{name: "reads", text: "#!/bin/sh\nread a || echo end\n", want: seam.Ran{Output: []byte("end\n")}},
		{name: "hangs", text: "#!/bin/sh\necho on; exec sleep 100\n",
			want: seam.Ran{Exit: -1, Signal: "SIGTERM", TimedOut: true, Output: []byte("on\n")}},
		{name: "hangs in a child", text: "#!/bin/sh\nsleep 100; exit 5\n",
			want: seam.Ran{Exit: -1, Signal: "SIGTERM", TimedOut: true}},
		{name: "stopped", text: "#!/bin/sh\nkill -STOP $$\n",
			want: seam.Ran{Exit: -1, Signal: "SIGTERM", TimedOut: true}},
		{name: "ends well when told", text: "#!/bin/sh\ntrap 'echo told; exit 6' TERM\nwhile :; do :; done\n",
			want: seam.Ran{Exit: 6, TimedOut: true, Output: []byte("told\n")}},
		{name: "does not listen", text: "#!/bin/sh\ntrap '' TERM\nwhile :; do :; done\n", with: quick,
			want: seam.Ran{Exit: -1, Signal: "SIGKILL", TimedOut: true}},
		{name: "does not listen and hands that on", text: "#!/bin/sh\ntrap '' TERM\nsleep 100\n", with: quick,
			want: seam.Ran{Exit: -1, Signal: "SIGKILL", TimedOut: true, Left: 1}},
		{name: "closes its output and sleeps", text: "#!/bin/sh\nexec >&- 2>&-\nexec sleep 100\n",
			want: seam.Ran{Exit: -1, Signal: "SIGTERM", TimedOut: true}},
		{name: "closes its output and ends", text: "#!/bin/sh\necho a; exec >&- 2>&-\nsleep 0.05; exit 9\n", want: seam.Ran{Exit: 9, Output: []byte("a\n")}},
	} {
		p := program(t, c.text)
		if c.want.TimedOut {
			p.Limit = time.Second // long enough to begin, on a busy machine too
		}
		all.Go(func() {
			ran, err := cmp.Or(c.with, calm).run(t.Context(), p)
			assert.NoError(t, err, c.name)
			if c.want.TimedOut {
				assert.GreaterOrEqual(t, ran.Took, p.Limit, c.name)
			}
			assert.Less(t, ran.Took, calm.grace, "%s was not told to end, or that was not seen", c.name)
			ran.Took = 0
			ran.Output, c.want.Output = append([]byte{}, ran.Output...), append([]byte{}, c.want.Output...)
			assert.Equal(t, c.want, ran, c.name)
		})
	}
	all.Wait()
}

func TestLastWordsAreKept(t *testing.T) {
	p := program(t, "#!/bin/sh\ni=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done\n")
	var all bytes.Buffer
	for i := range 3000 {
		fmt.Fprintf(&all, "line %d\n", i)
	}
	for _, limit := range []int{0, 1, 100, 4 << 10, all.Len() - 1, all.Len(), all.Len() + 1, 1 << 20} {
		p.MaxOutput = limit
		ran := run(t, p)
		kept := min(limit, all.Len())
		assert.Equal(t, all.String()[all.Len()-kept:], string(ran.Output), "of %d", limit)
		assert.Equal(t, int64(all.Len()-kept), ran.Cut)
	}
}

// TestFlood has the program write far more than is kept: it must not be held up
// for long, and cost no memory.
func TestFlood(t *testing.T) {
	const many = 100 << 20
	p := program(t, fmt.Sprintf("#!/bin/sh\nhead -c %d /dev/zero; echo end\n", many))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	ran := run(t, p)
	runtime.ReadMemStats(&after)
	assert.Equal(t, 0, ran.Exit)
	assert.Equal(t, int64(many+4), ran.Cut+int64(len(ran.Output)))
	assert.True(t, bytes.HasSuffix(ran.Output, []byte("\x00end\n")))
	assert.Len(t, ran.Output, p.MaxOutput)
	assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20), "bytes allocated in all")
	t.Logf("%d MB in %v, %d KB allocated", many>>20, ran.Took, (after.TotalAlloc-before.TotalAlloc)>>10)
}

func TestEndlessFlood(t *testing.T) {
	p := program(t, "#!/bin/sh\nexec cat /dev/zero\n")
	p.Limit = time.Second
	ran := run(t, p)
	assert.True(t, ran.TimedOut)
	assert.Equal(t, "SIGTERM", ran.Signal)
	assert.Len(t, ran.Output, p.MaxOutput)
}

func TestContextEnds(t *testing.T) {
	p := program(t, "#!/bin/sh\ntouch began\nexec sleep 100\n")
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		eventually(t, "the start", func() bool { _, err := os.Stat(filepath.Join(p.Dir, "began")); return err == nil })
		cancel()
	}()
	ran, err := calm.run(ctx, p)
	require.NoError(t, err)
	assert.Equal(t, "SIGTERM", ran.Signal)
	assert.False(t, ran.TimedOut)
	require.NoError(t, os.Remove(filepath.Join(p.Dir, "began")))
	_, err = quick.run(ctx, p)
	require.ErrorIs(t, err, context.Canceled)
	require.NoFileExists(t, filepath.Join(p.Dir, "began"), "nothing is started when the context has ended")
}

// TestGraceForAll has the first process end at once when it is told to, and its
// child, which does the work, take the time it needs.
func TestGraceForAll(t *testing.T) {
	p := program(t, `#!/bin/sh
/bin/sh -c 'trap "sleep 0.1; touch tidy; exit 0" TERM; while :; do sleep 0.01; done' &
wait
`)
	p.Limit = time.Second
	ran, err := calm.run(t.Context(), p)
	require.NoError(t, err)
	assert.True(t, ran.TimedOut)
	assert.Zero(t, ran.Left)
	assert.FileExists(t, filepath.Join(p.Dir, "tidy"))
	assert.Less(t, ran.Took, calm.grace)
}

func TestEnvironmentAndFolder(t *testing.T) {
	t.Setenv("SECRET_OF_THE_AGENT", "x")
	p := self(t, "environment")
	ran := run(t, p)
	want := "0 [" + p.Name + "] " + p.Dir + "\n" + strings.Join(p.Env, "\n") + "\n"
	assert.Equal(t, want, string(ran.Output))

	p = program(t, "#!/bin/sh\npwd; echo $#; echo \"$SECRET_OF_THE_AGENT\"\n")
	assert.Equal(t, p.Dir+"\n0\n\n", string(run(t, p).Output))
}

// TestManyAtOnce meets the race of a fork with a file that was just written,
// and looks for what each run leaves in this process.
func TestManyAtOnce(t *testing.T) {
	once := func() {
		var all sync.WaitGroup
		for range 8 {
			p := program(t, "#!/bin/sh\necho here\n")
			all.Go(func() {
				for range 15 {
					ran, err := quick.run(context.Background(), p)
					assert.NoError(t, err)
					assert.Equal(t, "here\n", string(ran.Output))
					assert.Zero(t, ran.Left)
				}
			})
		}
		all.Wait()
	}
	once()
	threads, files, routines := count(t, "task"), count(t, "fd"), runtime.NumGoroutine()
	for range 3 {
		once()
	}
	eventually(t, "the threads end", func() bool { return count(t, "task") <= threads+2 })
	assert.LessOrEqual(t, count(t, "fd"), files, "descriptors")
	f, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer f.Close()
	_, err = os.Lstat(fmt.Sprintf("/proc/self/task/%d/fd/%d", os.Getpid(), f.Fd()))
	assert.NoError(t, err, "the main thread shares the descriptors of the others")
	eventually(t, "the goroutines end", func() bool { return runtime.NumGoroutine() <= routines })
}

func count(t *testing.T, folder string) int {
	names, err := os.ReadDir("/proc/self/" + folder)
	require.NoError(t, err)
	return len(names)
}
