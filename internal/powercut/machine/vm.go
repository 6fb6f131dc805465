package machine

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// bootLimit is how long a machine may run without a line, a cut or an end. An
// emulated one on a busy host is slow.
const bootLimit = 5 * time.Minute

// errSilent is returned for a machine that said nothing for so long.
var errSilent = fmt.Errorf("the machine was silent for %s", bootLimit)

// vm is a machine without its disk.
type vm struct {
	kernel, initrd string
	accel          string // kvm or tcg
	dir            string // for the socket of the disk
	// resets has it come up again by itself after a reset, and devices are
	// arguments for more of them.
	resets  bool
	devices []string
}

// run switches the machine on with the disk, and passes what its init says on
// to heard, until the machine is off. It returns errCut when that was because
// the disk lost its power.
func (m vm) run(ctx context.Context, d *disk, words string, heard func(line string)) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	socket := filepath.Join(m.dir, "disk")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	defer listener.Close()
	off := make(chan struct{})
	defer close(off)
	go func() {
		if c, err := accept(listener, d); err != nil {
			stop(err)
			<-off // a disk that hangs up first has the machine tell of its errors
			_ = c.Close()
		}
	}()
	limit := time.AfterFunc(bootLimit, func() { stop(errSilent) })
	defer limit.Stop()
	cmd := m.command(ctx, socket, words)
	var trouble bytes.Buffer
	cmd.Stderr = &trouble
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	said := listen(out, func(line string, before []byte) {
		limit.Reset(bootLimit)
		if strings.HasPrefix(line, SaysViolation) {
			line += "\n" + string(before)
		}
		heard(line)
	})
	err = cmd.Wait()
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if err != nil && !errors.Is(err, errCut) {
		err = fmt.Errorf("%w\n%s\n%s", err, trouble.Bytes(), said)
	}
	return err
}

// command is the machine's. Its disk is one that knows no writes with FUA, so that
// the kernel flushes instead: QEMU's NVMe says that it knows them, and drops the word
// before it gets to the disk.
func (m vm) command(ctx context.Context, socket, words string) *exec.Cmd {
	args := []string{
		"-M", "q35,usb=off,sata=off,smbus=off", "-accel", m.accel, "-m", "256", "-smp", "1",
		"-nodefaults", "-display", "none", "-serial", "stdio",
		"-kernel", m.kernel, "-initrd", m.initrd,
		"-append", "console=ttyS0 loglevel=4 panic=-1 no_timer_check tsc=reliable mitigations=off -- " + words,
		"-drive", "file=nbd+unix:///?socket=" + socket + ",if=none,id=disk,format=raw,cache=writeback",
		"-device", "virtio-blk-pci,drive=disk",
	}
	if !m.resets {
		args = append(args, "-no-reboot")
	}
	return exec.CommandContext(ctx, "qemu-system-x86_64", append(args, m.devices...)...)
}

// accept serves the disk to the machine, until that is off (nil) or the disk lost
// its power (errCut): from then on it says nothing to the connection that it
// returns.
func accept(l net.Listener, d *disk) (net.Conn, error) {
	for {
		c, err := l.Accept()
		if err != nil {
			return nil, nil
		}
		if err := serve(c, d); errors.Is(err, errCut) {
			return c, err
		}
		_ = c.Close()
	}
}

// listen passes init's lines on, with all the others before them, and returns
// the others.
func listen(out io.Reader, heard func(line string, before []byte)) []byte {
	var rest bytes.Buffer
	scanner := bufio.NewScanner(out)
	for scanner.Scan() {
		line := strings.TrimSpace(scanner.Text())
		if _, after, ok := strings.Cut(line, Mark); ok {
			heard(after, rest.Bytes())
		} else if rest.Len() < 1<<20 {
			fmt.Fprintln(&rest, line)
		}
	}
	return rest.Bytes()
}

// fastest returns kvm where a machine comes up with it, else tcg.
func (m vm) fastest(ctx context.Context) string {
	if f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err != nil {
		return "tcg"
	} else {
		_ = f.Close()
	}
	ctx, stop := context.WithTimeout(ctx, 20*time.Second)
	defer stop()
	m.accel = "kvm"
	up := false
	_ = m.run(ctx, newDisk(make([]byte, 1<<20), nil), "", func(string) { up = true; stop() })
	if up {
		return "kvm"
	}
	return "tcg"
}
