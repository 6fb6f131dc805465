package block

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/internal/testneeds"
)

// roleEnv says which process of the test this is.
const roleEnv = "PAWL_BLOCK_ROLE"

const (
	roleInside = "inside" // the test, in a mount namespace of its own
	roleWork   = "work"   // a program at work on a recorded disk
	roleVisit  = "visit"  // a program that looks at states
)

// TestMain runs the tests in a mount namespace of their own: however they end,
// nothing stays mounted, and so no loop device stays attached.
func TestMain(m *testing.M) {
	switch role := os.Getenv(roleEnv); {
	case role == roleWork:
		os.Exit(exit(work(os.Args[1], os.Args[2])))
	case role == roleVisit:
		os.Exit(exit(Visiting(os.Stdin, os.Stdout, campaigns[os.Args[1]].look)))
	case role == roleInside || os.Geteuid() != 0:
		os.Exit(m.Run())
	}
	runtime.LockOSThread() // the death signal is tied to the thread
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), roleEnv+"="+roleInside)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "no mount namespace:", err)
		os.Exit(m.Run())
	}
	_ = cmd.Wait()
	os.Exit(cmd.ProcessState.ExitCode())
}

// needs skips where no file system can be mounted or recorded.
func needs(t *testing.T, systems ...FS) {
	t.Helper()
	testneeds.Root(t)
	if os.Getenv(roleEnv) != roleInside {
		testneeds.Missing(t, "a mount namespace")
	}
	for _, dev := range []string{"/dev/fuse", "/dev/loop-control"} {
		f, err := os.OpenFile(dev, os.O_RDWR, 0)
		if err != nil {
			testneeds.Missing(t, dev)
		}
		require.NoError(t, f.Close())
	}
	known, err := os.ReadFile("/proc/filesystems")
	require.NoError(t, err)
	for _, fs := range systems {
		for _, command := range [][]string{fs.Make, fs.Check, fs.Repair} {
			testneeds.Program(t, command[0])
		}
		if !strings.Contains(string(known), "\t"+fs.Name+"\n") && exec.Command("modprobe", fs.Name).Run() != nil {
			testneeds.Missing(t, "the file system "+fs.Name)
		}
	}
}

// program is this program in another role.
func program(ctx context.Context, role string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), roleEnv+"="+role)
	cmd.Stderr = os.Stderr
	return cmd
}

func exit(err error) int {
	if err != nil {
		fmt.Fprintln(os.Stderr, strings.Join(os.Args[1:], " ")+":", err)
		return 1
	}
	return 0
}

// stand returns an empty disk, and gives it up when the test ends.
func stand(t *testing.T, fs FS, dir string) *Stand {
	t.Helper()
	s, err := NewStand(fs, dir)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// base returns a disk with a file system that fill has filled.
func base(t *testing.T, fs FS, dir string, fill func(dir string)) *Image {
	t.Helper()
	s := stand(t, fs, dir)
	require.NoError(t, s.Make())
	require.NoError(t, s.Mount())
	fill(s.Dir)
	require.NoError(t, s.Unmount())
	image, err := s.Save()
	require.NoError(t, err)
	return image
}

// workload is a program that works on a folder of a recorded disk, in a
// process of its own. ack notes the log position, and returns when that is done.
type workload func(ctx context.Context, dir string, ack func(mark string) error) error

// record runs the workload of that name on base, with a second program writing
// beside it, and returns what arrived at the disk.
func record(t *testing.T, fs FS, base *Image, dir, name string, delay time.Duration) *Log {
	t.Helper()
	d, err := Record(fs, base, delay, dir, t.TempDir())
	require.NoError(t, err)
	err = supervise(t.Context(), d, name)
	log, closed := d.Close()
	require.NoError(t, errors.Join(err, closed))
	return log
}

// supervise runs the program and notes its marks while it waits.
func supervise(ctx context.Context, d *Disk, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	cmd := program(ctx, roleWork, name, d.Dir)
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		return err
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		d.Mark(lines.Text())
		if _, err := io.WriteString(in, "\n"); err != nil {
			break
		}
	}
	return cmd.Wait()
}

// work is the program.
func work(name, disk string) error {
	in := bufio.NewReader(os.Stdin)
	ack := func(mark string) error {
		fmt.Println(mark)
		_, err := in.ReadString('\n')
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	var beside sync.WaitGroup
	var noise error
	beside.Go(func() { noise = disturb(ctx, filepath.Join(disk, "other")) })
	err := campaigns[name].work(ctx, deviceOn(disk), ack)
	stop()
	beside.Wait()
	return errors.Join(err, noise)
}

// deviceOn is the folder of a disk in which the program works; beside it
// another one does.
func deviceOn(disk string) string { return filepath.Join(disk, "device") }

// disturb is a program that has nothing to do with the one at work, but makes
// the file system write what both did: it replaces files, syncs some of them,
// and now and then everything.
func disturb(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tick := time.NewTicker(3 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := disturbance(dir, i); err != nil {
			return err
		}
	}
}

func disturbance(dir string, i int) (err error) {
	name := filepath.Join(dir, fmt.Sprintf("file%d", i%5))
	f, err := os.Create(name + ".new")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := fmt.Fprintf(f, "%*d\n", 1+i%3000, i); err != nil {
		return err
	}
	switch {
	case i%64 == 63:
		err = unix.Syncfs(int(f.Fd()))
	case i%3 == 2:
		err = f.Sync()
	}
	return errors.Join(err, os.Rename(name+".new", name))
}
