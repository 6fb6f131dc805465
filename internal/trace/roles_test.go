//go:build linux && (amd64 || arm64)

package trace

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// roleName in the environment makes the test binary another program.
const roleName = "TRACE_TEST_ROLE"

// roles are what the test binary does as a program, in the folder that is its
// only argument.
var roles = map[string]func(dir string) error{
	"known":    known,
	"crowd":    crowd,
	"write":    write,
	"content":  content,
	"children": children,
	"lasting":  lasting,
	"dying":    dying,
	"waiting":  waiting,
}

func TestMain(m *testing.M) {
	role, ok := roles[os.Getenv(roleName)]
	if !ok {
		os.Exit(runTests(m))
	}
	if err := role(os.Args[1]); err != nil {
		fmt.Println(err)
		os.Exit(3)
	}
	os.Exit(0)
}

// runTests runs the tests in a temporary folder of their own, which goes with
// them: programs that are killed leave theirs.
func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "pawl-trace-")
	if err != nil {
		fmt.Println(err)
		return 3
	}
	defer os.RemoveAll(dir)
	_ = os.Setenv("TMPDIR", dir)
	return m.Run()
}

// known makes one call of each kind.
func known(dir string) error {
	p := func(name string) string { return filepath.Join(dir, name) }
	root, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	a := -1
	for i, step := range []func() error{
		func() error { return unix.Mkdir(p("d"), 0o755) },
		func() error { a, err = unix.Open(p("a"), unix.O_CREAT|unix.O_WRONLY|unix.O_EXCL, 0o644); return err },
		func() error { _, err := unix.Write(a, []byte("hello")); return err },
		func() error { _, err := unix.Pwrite(a, []byte("J"), 0); return err },
		func() error { _, err := unix.Writev(a, [][]byte{[]byte(" wor"), []byte("ld")}); return err },
		func() error { return unix.Ftruncate(a, 9) },
		func() error { return unix.Fallocate(a, unix.FALLOC_FL_KEEP_SIZE, 0, 4096) },
		func() error { return unix.Fsync(a) },
		func() error { return unix.Fdatasync(a) },
		func() error { return unix.Fchmod(a, 0o600) },
		func() error { return unix.Fchown(a, os.Getuid(), os.Getgid()) },
		func() error { return unix.Symlinkat("a", root, "l") },
		func() error { return unix.Linkat(root, "a", root, "d/b", 0) },
		func() error { return unix.Renameat2(root, "d/b", root, "c", unix.RENAME_NOREPLACE) },
		func() error { return unix.Renameat2(root, "c", root, "l", unix.RENAME_EXCHANGE) },
		func() error { return unix.Rename(p("l"), p("b")) },
		func() error { return unix.Chmod(p("c"), 0o640) }, // c is a link to a
		func() error { return unix.Truncate(p("b"), 3) },
		func() error { return unix.UtimesNanoAt(root, "b", make([]unix.Timespec, 2), unix.AT_SYMLINK_NOFOLLOW) },
		func() error { return unix.Mkfifo(p("f"), 0o600) },
		func() error { return unix.Unlinkat(root, "d", unix.AT_REMOVEDIR) },
		func() error { return unix.Unlink(p("f")) },
		func() error { return unix.Fsync(root) },
		func() error { return unix.Syncfs(root) },
	} {
		if err := step(); err != nil {
			return fmt.Errorf("step %d: %w", i+1, err)
		}
	}
	// None of these changes anything.
	null, _ := unix.Open("/dev/null", unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC, 0o600)
	_, _ = unix.Write(null, []byte("x"))
	var pipe [2]int
	_ = unix.Pipe(pipe[:])
	_, _ = unix.Write(pipe[1], []byte("x"))
	mem, _ := unix.MemfdCreate("m", 0)
	_, _ = unix.Write(mem, []byte("x"))
	_, _ = unix.Open(p("b"), unix.O_RDWR, 0)
	_, _ = unix.Write(1, []byte("done\n"))
	return nil
}

// knownCalls are those of known, in their order.
var knownCalls = []string{
	"mkdirat d", "openat a", "write a", "pwrite64 a", "writev a", "ftruncate a", "fallocate a", "fsync a", "fdatasync a", "fchmod a", "fchown a",
	"symlinkat l", "linkat a d/b", "renameat2 d/b c", "renameat2 c l", "renameat l b", "fchmodat a", "truncate b", "utimensat b", "mknodat f",
	"unlinkat d", "unlinkat f", "fsync .", "syncfs .",
}

const crowdSize, crowdFiles = 32, 12

// crowd has many goroutines on several threads change something at the same
// time, children too.
func crowd(dir string) error {
	runtime.GOMAXPROCS(4)
	errs := make(chan error, crowdSize)
	var wg sync.WaitGroup
	for g := range crowdSize {
		wg.Go(func() {
			for i := range crowdFiles {
				if err := oneFile(filepath.Join(dir, fmt.Sprintf("%d-%d", g, i))); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	return <-errs
}

// oneFile makes crowdCalls calls.
func oneFile(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for range 3 {
		if _, err := f.WriteString(path); err != nil {
			return err
		}
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return os.Rename(path, path+".done")
}

var crowdCalls = map[string]int{"openat": 1, "write": 3, "fsync": 1, "renameat": 1}

// write writes a file, and says what came of it.
func write(dir string) error {
	f, err := os.Create(filepath.Join(dir, "f"))
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString("text")
	return err
}

// content puts bytes into files in every way there is.
func content(dir string) error {
	open := func(name string, flags int) int {
		fd, err := unix.Open(filepath.Join(dir, name), flags|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
		if err != nil {
			panic(err)
		}
		return fd
	}
	big := make([]byte, 300_000)
	for i := range big {
		big[i] = byte(i / 7)
	}
	a, b, c := open("a", unix.O_RDWR), open("b", unix.O_WRONLY), open("c", unix.O_WRONLY|unix.O_APPEND)
	from, to := int64(1000), int64(77)
	for i, step := range []func() (int, error){
		func() (int, error) { return unix.Write(a, big) },
		func() (int, error) { return unix.Pwrite(a, []byte("in the middle"), 5000) },
		func() (int, error) { return unix.Pwritev(a, [][]byte{[]byte("one"), []byte("two")}, 100) },
		func() (int, error) { return unix.CopyFileRange(a, &from, b, &to, 50_000, 0) },
		func() (int, error) { return unix.Write(b, []byte("at the begin")) },
		func() (int, error) { return unix.Sendfile(b, a, new(int64), 10) },
		func() (int, error) { end := int64(290_000); return unix.Sendfile(b, a, &end, 50_000) }, // there is less
		func() (int, error) { return unix.Write(c, []byte("first")) },
		func() (int, error) { return unix.Write(c, []byte("second")) },
		func() (int, error) { return 1, unix.Ftruncate(a, 200_001) },
	} {
		if n, err := step(); err != nil || n <= 0 {
			return fmt.Errorf("step %d: %d, %w", i+1, n, err)
		}
	}
	_ = unix.IoctlFileClone(open("d", unix.O_WRONLY), a) // not on every file system
	_ = unix.IoctlFileCloneRange(open("e", unix.O_WRONLY), &unix.FileCloneRange{Src_fd: int64(a), Src_length: 8192, Dest_offset: 4096})
	return nil
}

// children has a shell do things, and its child in a session of its own.
func children(dir string) error {
	cmd := exec.Command("/bin/sh", "-c", "echo x >one; setsid sh -c 'echo y >two; : >three' & wait; exec mkdir four")
	cmd.Dir = dir
	return cmd.Run()
}

// lasting leaves processes that would last, and then writes.
func lasting(dir string) error {
	for i := range 3 {
		cmd := exec.Command("/bin/sh", "-c", "sleep 1000 & exec sleep 1000")
		cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), []byte(strconv.Itoa(cmd.Process.Pid)), 0o600); err != nil {
			return err
		}
	}
	return os.Mkdir(filepath.Join(dir, "end"), 0o700)
}

// dying traces lasting, and ends in the middle of that.
func dying(dir string) error {
	cmd := exec.Command("/proc/self/exe", dir)
	cmd.Env = append(os.Environ(), roleName+"=lasting")
	_, err := Run(context.Background(), cmd, Options{After: func(c *Call) {
		if strings.HasPrefix(c.Name, "mkdir") {
			os.Exit(0)
		}
	}})
	return err
}

// waiting waits until its input ends.
func waiting(string) error {
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}
