//go:build linux

package script

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/internal/seam"
)

// seals make the bytes of a memory file, and the seals themselves, final.
const seals = unix.F_SEAL_WRITE | unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL

// load copies the program into a sealed file in memory. A memory file is not
// opened through a path and so never counts as being written to: a fork
// elsewhere that holds a copy of the descriptor cannot make execve answer
// ETXTBSY.
func load(p seam.Program) (*os.File, error) {
	f, err := newMemory(p.Name)
	if err != nil {
		return nil, err
	}
	if err := fill(f, p); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// fill copies, and seals when the reader said that all was as it should be.
func fill(f *os.File, p seam.Program) error {
	r, err := p.Open()
	if err != nil {
		return fmt.Errorf("cannot open program %s: %w", p.Name, err)
	}
	defer r.Close()
	// One byte more than there may be: io.Copy then returns without an error
	// and with p.Size only if r itself ended there in io.EOF.
	n, err := io.Copy(f, io.LimitReader(r, p.Size+1))
	if err != nil {
		return fmt.Errorf("cannot read program %s: %w", p.Name, err)
	}
	if n != p.Size {
		return fmt.Errorf("cannot read program %s: it does not have %d bytes", p.Name, p.Size)
	}
	if err := f.Chmod(0o500); err != nil {
		return fmt.Errorf("cannot make program %s executable: %w", p.Name, err)
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return fmt.Errorf("cannot seal program %s: %w", p.Name, err)
	}
	return nil
}

// newMemory makes a memory file that may be executed. Linux before 6.3 does not
// know MFD_EXEC, and allows it to all.
func newMemory(name string) (*os.File, error) {
	name = name[:min(len(name), 200)] // the kernel takes 249
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate(name, flags|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.MemfdCreate(name, flags)
	}
	switch {
	case err == nil:
		return os.NewFile(uintptr(fd), name), nil
	case errors.Is(err, unix.EACCES):
		return nil, fmt.Errorf("cannot start %s: the kernel forbids programs in memory, see the sysctl vm.memfd_noexec: %w", name, err)
	case errors.Is(err, unix.ENOSYS):
		return nil, fmt.Errorf("cannot start %s: the kernel has no memfd_create, which Linux has since 3.17: %w", name, err)
	default:
		return nil, fmt.Errorf("cannot start %s: cannot hold it in memory: %w", name, err)
	}
}
