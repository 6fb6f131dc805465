package watchdog

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// DeviceOptions configure a [Device]. The zero value is useful.
type DeviceOptions struct {
	// Path is "/dev/watchdog" where it is empty.
	Path string
	// Pretimeout, where it is not 0, is how long before the reset the kernel
	// does what it is configured for, such as a panic that leaves a dump. Not
	// every hardware can: see [Info].
	Pretimeout time.Duration
	// Stay has Disarm leave it on: from then on it is fed for as long as this
	// process runs. Where the kernel does not allow it to be switched off
	// (nowayout) that is so in any case.
	Stay bool

	open func(path string) (driver, error) // in place of the kernel's, for tests
}

// Device is a watchdog of Linux (Documentation/watchdog/watchdog-api.rst). It is
// off until it is armed. When the process ends without Disarm or Close, it
// bites. Device is safe for concurrent use.
type Device struct {
	o DeviceOptions

	mu      sync.Mutex
	driver  driver // nil while it is closed
	info    Info
	limit   time.Duration // of Arm; 0 when it stays without anybody's kicks
	kicked  time.Time
	feeding chan struct{} // closed to end the goroutine that feeds
}

// Info is what a watchdog says of itself.
type Info struct {
	Identity string
	// Timeout and Pretimeout are what it is set to.
	Timeout, Pretimeout time.Duration
	// Bit is whether it was what reset the device before this boot.
	Bit bool
	// NoWayOut is whether it cannot be switched off again.
	NoWayOut bool
}

// driver is what the kernel offers. Times are in seconds.
type driver interface {
	Info() (identity string, bit, noWayOut bool)
	SetTimeout(seconds int) error
	Timeout() (seconds int, err error)
	SetPretimeout(seconds int) error
	Kick() error
	// Close lets go of it; off switches it off before.
	Close(off bool) error
}

// OpenDevice returns the watchdog, without starting it. It fails where there is
// none.
func OpenDevice(o DeviceOptions) (*Device, error) {
	o.Path = cmp.Or(o.Path, "/dev/watchdog")
	if o.open == nil {
		o.open = openKernel
		if _, err := os.Stat(o.Path); err != nil {
			return nil, fmt.Errorf("cannot use the watchdog: %w", err)
		}
	}
	return &Device{o: o}, nil
}

// Arm implements [Watchdog]. Opening a watchdog starts it. Where its longest time
// is shorter than d, a goroutine feeds it in between, and stops when nobody
// kicked for d: it then bites a little later.
func (w *Device) Arm(d time.Duration) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	was := w.driver
	err := w.arm(d)
	if err != nil && was == nil && w.driver != nil { // opening it started it
		err = errors.Join(err, w.off())
	}
	if err != nil {
		return fmt.Errorf("cannot arm %s: %w", w.o.Path, err)
	}
	return nil
}

func (w *Device) arm(d time.Duration) error {
	if d <= 0 {
		return fmt.Errorf("the time %v is not positive", d)
	}
	if w.driver == nil {
		opened, err := w.o.open(w.o.Path)
		if err != nil {
			return err
		}
		w.driver = opened
	}
	w.info.Identity, w.info.Bit, w.info.NoWayOut = w.driver.Info()
	if err := w.set(d); err != nil {
		return err
	}
	w.limit, w.kicked = d, time.Now()
	if err := w.driver.Kick(); err != nil {
		return err
	}
	w.stopFeeding()
	if w.info.Timeout < d {
		w.feed()
	}
	return nil
}

// set gives the hardware as much of d as it takes: a driver refuses what is too
// long for it, or rounds it.
func (w *Device) set(d time.Duration) error {
	refused := w.driver.SetTimeout(int((d + time.Second - 1) / time.Second))
	seconds, err := w.driver.Timeout()
	if err != nil || seconds <= 0 {
		return errors.Join(fmt.Errorf("it has no time of its own: %d s", seconds), refused, err)
	}
	w.info.Timeout, w.info.Pretimeout = time.Duration(seconds)*time.Second, 0
	if p := w.o.Pretimeout; p > 0 && p < w.info.Timeout && w.driver.SetPretimeout(int(p/time.Second)) == nil {
		w.info.Pretimeout = p.Truncate(time.Second)
	}
	return nil
}

// feed starts the goroutine that kicks three times within the hardware's time,
// as long as the limit of Arm allows it.
func (w *Device) feed() {
	stop, t := make(chan struct{}), time.NewTicker(w.info.Timeout/3)
	w.feeding = stop
	go func() {
		defer t.Stop()
		for {
			select {
			case <-stop:
				return
			case <-t.C:
				w.feedOnce(stop)
			}
		}
	}()
}

func (w *Device) feedOnce(stop chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.feeding == stop && (w.limit == 0 || time.Since(w.kicked) < w.limit) {
		_ = w.driver.Kick() // it bites when this keeps failing, which is what it is for
	}
}

func (w *Device) stopFeeding() {
	if w.feeding != nil {
		close(w.feeding)
		w.feeding = nil
	}
}

// Kick implements [Watchdog]. It does nothing while it is not armed.
func (w *Device) Kick() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.driver == nil {
		return nil
	}
	if w.limit > 0 && time.Since(w.kicked) >= w.limit {
		return fmt.Errorf("cannot kick %s: its time of %v is over", w.o.Path, w.limit)
	}
	w.kicked = time.Now()
	if err := w.driver.Kick(); err != nil {
		return fmt.Errorf("cannot kick %s: %w", w.o.Path, err)
	}
	return nil
}

// Disarm implements [Watchdog]: it switches it off, or leaves it to a goroutine
// that feeds it as [DeviceOptions] say.
func (w *Device) Disarm() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.driver == nil {
		return nil
	}
	w.stopFeeding()
	if w.o.Stay || w.info.NoWayOut {
		w.limit = 0
		w.feed()
		return w.driver.Kick()
	}
	return w.off()
}

// Close switches it off, where the kernel allows that; else it bites.
func (w *Device) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.driver == nil {
		return nil
	}
	w.stopFeeding()
	return w.off()
}

func (w *Device) off() error {
	err := w.driver.Close(true)
	w.driver = nil
	if err != nil {
		return fmt.Errorf("cannot switch %s off: %w", w.o.Path, err)
	}
	return nil
}

// Info returns what is known of it since it was armed last.
func (w *Device) Info() Info {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.info
}

// kernel is the driver of a real one.
type kernel struct{ f *os.File }

func openKernel(path string) (driver, error) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	k := kernel{f}
	if _, err := k.Timeout(); errors.Is(err, unix.ENOTTY) {
		return nil, errors.Join(errors.New("it is no watchdog"), f.Close())
	}
	return k, nil
}

func (k kernel) fd() int { return int(k.f.Fd()) }

func (k kernel) Info() (identity string, bit, noWayOut bool) {
	if info, err := unix.IoctlGetWatchdogInfo(k.fd()); err == nil {
		name, _, _ := bytes.Cut(info.Identity[:], []byte{0})
		identity = string(name)
	}
	if status, err := unix.IoctlGetInt(k.fd(), unix.WDIOC_GETBOOTSTATUS); err == nil {
		bit = status&unix.WDIOF_CARDRESET != 0
	}
	return identity, bit, cannotBeStopped(k.f)
}

func (k kernel) SetTimeout(seconds int) error {
	return unix.IoctlSetPointerInt(k.fd(), unix.WDIOC_SETTIMEOUT, seconds)
}

func (k kernel) Timeout() (int, error) { return unix.IoctlGetInt(k.fd(), unix.WDIOC_GETTIMEOUT) }

func (k kernel) SetPretimeout(seconds int) error {
	return unix.IoctlSetPointerInt(k.fd(), unix.WDIOC_SETPRETIMEOUT, seconds)
}

// Kick writes, which every watchdog understands.
func (k kernel) Kick() error {
	_, err := k.f.Write([]byte{0})
	return err
}

// Close writes the magic character that tells an end on purpose from a crash.
func (k kernel) Close(off bool) error {
	var err error
	if off {
		_, err = k.f.Write([]byte("V"))
	}
	return errors.Join(err, k.f.Close())
}

// cannotBeStopped asks sysfs, by the number of the device, and for /dev/watchdog, which
// has another number, the first of them.
func cannotBeStopped(f *os.File) bool {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return false
	}
	const misc = 10 // the major number that /dev/watchdog has
	dir := fmt.Sprintf("/sys/dev/char/%d:%d", unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev)))
	if unix.Major(uint64(st.Rdev)) == misc {
		dir = "/sys/class/watchdog/watchdog0"
	}
	data, err := os.ReadFile(filepath.Join(dir, "nowayout"))
	return err == nil && bytes.HasPrefix(data, []byte("1"))
}
