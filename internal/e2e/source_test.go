package e2e

import (
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pawl-ota/pawl/internal/testneeds"
	"github.com/pawl-ota/pawl/ota/publish"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestExpiredRepository has nobody refresh the repository in time. A device
// that saw a later time signed says that the repository has expired, and goes
// on with all that needs none. One that has only its clock to go by says that,
// unless its owner vouches for the clock.
func TestExpiredRepository(t *testing.T) {
	t.Parallel()
	f := newField(t, t.TempDir())
	keys, err := publish.KeyDir{Path: f.m.keys}.Load(publish.Roles()...)
	require.NoError(t, err)
	past := func() time.Time { return time.Now().Add(-23 * time.Hour) }
	short := publish.Lifetimes{Timestamp: time.Hour}
	repo, err := publish.Open(publish.Options{Dir: f.m.repo, Keys: keys, Now: past, Lifetimes: short})
	require.NoError(t, err)
	_, err = repo.Refresh(t.Context())
	require.NoError(t, err)

	f.refused(1, "expired")
	f.must(0, "resume")
	f.must(0, "verify")

	fresh := newDevice(t, f.m, t.TempDir())
	require.Equal(t, "clock", fresh.must(1, "update").Kind)
	fresh.set("source", "trustClock", true)
	require.Equal(t, "expired", fresh.must(1, "update").Kind)

	f.m.publisher("refresh", "-repo", f.m.repo, "-keys", f.m.keys)
	f.installs(f.v2)
	fresh.must(0, "update")
	fresh.holds(f.v2)
}

// TestRepositoryOfSomebodyElse has another maker's repository at the same
// address.
func TestRepositoryOfSomebodyElse(t *testing.T) {
	t.Parallel()
	f := newField(t, t.TempDir())
	other := newMaker(t)
	other.release("1.0.0", f.v2)
	other.release("9.0.0", f.v2)
	own := f.m.url
	f.set("source", "url", other.url)
	f.refused(1, "untrusted")
	f.set("source", "url", own)
	f.installs(f.v2)
}

// TestFolder takes an update from a folder, as from a USB stick.
func TestFolder(t *testing.T) {
	t.Parallel()
	f := newField(t, t.TempDir())
	stick := cloneTree(t, f.m.repo, filepath.Join(f.dir, "stick"))
	f.m.server.Close()
	f.set("source", "url", stick)
	f.installs(f.v2)
}

// TestDamagedContent flips a byte in each pack: nothing of it gets onto the
// device.
func TestDamagedContent(t *testing.T) {
	t.Parallel()
	f := newField(t, t.TempDir())
	good := cloneTree(t, filepath.Join(f.m.repo, "content"), filepath.Join(f.m.dir, "good"))
	packs, err := filepath.Glob(filepath.Join(f.m.repo, "content", "*", "*.pack"))
	require.NoError(t, err)
	require.NotEmpty(t, packs)
	for _, pack := range packs {
		data, err := os.ReadFile(pack)
		require.NoError(t, err)
		for i := 0; i < len(data); i += 64 {
			data[i] ^= 0x20
		}
		require.NoError(t, os.WriteFile(pack, data, 0o644))
	}
	a := f.must(1, "update")
	require.NotEmpty(t, a.Error)
	requireSame(t, pictureOf(t, f.v1), pictureOf(t, f.app))

	require.NoError(t, os.RemoveAll(filepath.Join(f.m.repo, "content")))
	require.NoError(t, os.Rename(good, filepath.Join(f.m.repo, "content")))
	f.installs(f.v2)
}

// TestProgressBarOnATerminal gives the agent a terminal, and then none.
func TestProgressBarOnATerminal(t *testing.T) {
	t.Parallel()
	f := newField(t, t.TempDir())
	terminal, screen := openTerminal(t)
	cmd := f.command(t.Context(), "update")
	cmd.Stderr = terminal
	out, err := cmd.Output()
	require.NoError(t, err)
	require.Equal(t, 1, strings.Count(string(out), "\n"), "one line of what happened: %q", out)
	require.NoError(t, terminal.Close())
	drawn, _ := io.ReadAll(screen) // it ends in EIO, as the terminal is gone
	require.Contains(t, string(drawn), "app fetch [")
	require.Contains(t, string(drawn), "100%")

	var plain strings.Builder
	cmd = f.command(t.Context(), "update")
	cmd.Stderr = &plain
	require.NoError(t, cmd.Run())
	require.Empty(t, plain.String())
}

// openTerminal returns both ends of a new pseudo-terminal.
func openTerminal(t *testing.T) (terminal, screen *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		testneeds.Missing(t, "pseudo-terminals: "+err.Error())
	}
	t.Cleanup(func() { screen.Close() })
	fd := int(screen.Fd())
	require.NoError(t, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	require.NoError(t, unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 25, Col: 80}))
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	require.NoError(t, err)
	terminal, err = os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		testneeds.Missing(t, "pseudo-terminals: "+err.Error())
	}
	return terminal, screen
}
