package watchdog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota"
)

var _ = []ota.Watchdog{None{}, Several{}, &Shared{}, &Device{}, &Systemd{}}

// hardware is a simulated watchdog: it bites when nobody kicks it.
type hardware struct {
	most     int  // seconds that it can
	noWayOut bool // it cannot be switched off
	fail     map[string]error

	mu      sync.Mutex
	timeout int
	pre     int
	opened  int
	open    bool
	timer   *time.Timer
	bit     time.Time
}

func (h *hardware) device(t *testing.T, o DeviceOptions) *Device {
	t.Helper()
	o.open = func(string) (driver, error) {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.open {
			return nil, syscall.EBUSY
		}
		h.open, h.timeout = true, min(30, h.most)
		h.opened++
		h.restart()
		return h, h.fail["open"]
	}
	d, err := OpenDevice(o)
	require.NoError(t, err)
	return d
}

func (h *hardware) restart() {
	if h.timer != nil {
		h.timer.Stop()
	}
	h.timer = time.AfterFunc(time.Duration(h.timeout)*time.Second, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.bit = time.Now()
	})
}

func (h *hardware) Info() (string, bool, bool) { return "simulated", true, h.noWayOut }

func (h *hardware) SetTimeout(s int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s > h.most || s < 1 {
		return syscall.EINVAL
	}
	h.timeout = s
	h.restart()
	return h.fail["timeout"]
}

func (h *hardware) Timeout() (int, error) { return h.timeout, h.fail["get"] }

func (h *hardware) SetPretimeout(s int) error { h.pre = s; return h.fail["pre"] }

func (h *hardware) Kick() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.restart()
	return h.fail["kick"]
}

func (h *hardware) Close(off bool) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.open = false
	if off && !h.noWayOut {
		h.timer.Stop()
	}
	return h.fail["close"]
}

func (h *hardware) hasBit() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.bit.IsZero()
}

// bites waits for a day at most, and returns when it did: 0 never.
func (h *hardware) bites() time.Duration {
	began := time.Now()
	<-time.After(24 * time.Hour)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.bit.IsZero() {
		return 0
	}
	return h.bit.Sub(began)
}

// TestStarved: without a kick the device is reset: in time where the hardware
// waits that long, else no later than the hardware's own time after it.
func TestStarved(t *testing.T) {
	for _, c := range []struct {
		most        int
		armed       time.Duration
		early, late time.Duration
	}{
		{120, time.Minute, time.Minute, time.Minute},
		{60, time.Minute, time.Minute, time.Minute},
		{16, 5 * time.Minute, 5 * time.Minute, 5*time.Minute + 16*time.Second},
		{1, 10 * time.Second, 10 * time.Second, 11 * time.Second},
		{60, 1500 * time.Millisecond, 1500 * time.Millisecond, 2 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := &hardware{most: c.most}
			d := h.device(t, DeviceOptions{})
			require.Zero(t, h.opened, "it is not started before it is armed")
			require.NoError(t, d.Arm(c.armed))
			for range 10 {
				<-time.After(c.armed * 9 / 10)
				require.NoError(t, d.Kick())
			}
			require.False(t, h.hasBit())
			bites := h.bites()
			require.GreaterOrEqual(t, bites, c.early-c.early/3)
			require.LessOrEqual(t, bites, c.late)
			require.ErrorContains(t, d.Kick(), "is over", "too late")
			require.NoError(t, d.Close())
		})
	}
}

// TestDisarmed: it is off, or fed for as long as the process runs.
func TestDisarmed(t *testing.T) {
	for _, c := range []struct {
		name        string
		h           *hardware
		stay        bool
		open        bool // afterwards
		afterClosed time.Duration
	}{
		{"off", &hardware{most: 60}, false, false, 0},
		{"stays", &hardware{most: 60}, true, true, 0},
		{"no way out", &hardware{most: 60, noWayOut: true}, false, true, 20 * time.Second},
		{"short", &hardware{most: 5}, false, false, 0},
		{"short and no way out", &hardware{most: 5, noWayOut: true}, true, true, 5 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := c.h.device(t, DeviceOptions{Stay: c.stay})
				require.NoError(t, d.Kick())
				require.NoError(t, d.Disarm(), "before it was armed")
				for range 3 {
					require.NoError(t, d.Arm(20*time.Second))
					<-time.After(10 * time.Second)
					require.NoError(t, d.Kick())
					require.NoError(t, d.Disarm())
					require.Zero(t, c.h.bites())
					require.Equal(t, c.open, c.h.open)
				}
				require.Equal(t, c.h.noWayOut, d.Info().NoWayOut)
				require.NoError(t, d.Close())
				require.LessOrEqual(t, c.h.bites(), c.afterClosed)
				require.Equal(t, c.afterClosed > 0, c.h.hasBit())
			})
		})
	}
}

func TestInfo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hardware{most: 60}
		d := h.device(t, DeviceOptions{Pretimeout: 5 * time.Second})
		require.NoError(t, d.Arm(20*time.Second))
		require.Equal(t, Info{Identity: "simulated", Timeout: 20 * time.Second, Pretimeout: 5 * time.Second, Bit: true}, d.Info())
		require.NoError(t, d.Arm(4*time.Second))
		require.Zero(t, d.Info().Pretimeout, "longer than the time itself")
		require.NoError(t, d.Close())
		h.fail = map[string]error{"pre": syscall.EOPNOTSUPP}
		require.NoError(t, d.Arm(20*time.Second), "hardware that cannot is used all the same")
		require.Zero(t, d.Info().Pretimeout)
		require.NoError(t, d.Close())
	})
}

// TestArmThatFails leaves nothing running.
func TestArmThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, what := range []string{"get", "kick"} {
			h := &hardware{most: 60, fail: map[string]error{what: syscall.EIO}}
			require.ErrorIs(t, h.device(t, DeviceOptions{}).Arm(time.Minute), syscall.EIO, what)
			require.False(t, h.open)
			require.Zero(t, h.bites())
		}
		h := &hardware{most: 60, open: true}
		require.ErrorIs(t, h.device(t, DeviceOptions{}).Arm(time.Minute), syscall.EBUSY, "systemd has it, say")
		require.ErrorContains(t, h.device(t, DeviceOptions{}).Arm(0), "not positive")
	})
}

// TestNoDevice: what is not there, and what is no watchdog.
func TestNoDevice(t *testing.T) {
	_, err := OpenDevice(DeviceOptions{Path: filepath.Join(t.TempDir(), "none")})
	require.ErrorIs(t, err, os.ErrNotExist)
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	d, err := OpenDevice(DeviceOptions{Path: path})
	require.NoError(t, err)
	require.ErrorContains(t, d.Arm(time.Minute), "it is no watchdog")
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Empty(t, data)
}

// TestKernelDriver writes what the kernel's interface wants into a file in its
// place.
func TestKernelDriver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	f, err := os.Create(path)
	require.NoError(t, err)
	k := kernel{f}
	_, bit, noWayOut := k.Info()
	require.False(t, bit || noWayOut)
	require.ErrorIs(t, k.SetTimeout(3), syscall.ENOTTY)
	require.ErrorIs(t, k.SetPretimeout(3), syscall.ENOTTY)
	require.NoError(t, k.Kick())
	require.NoError(t, k.Close(true))
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "\x00V", string(data), "the magic character comes last")
}

// dog notes what it is told.
type dog struct {
	said []string
	fail error
}

func (d *dog) Arm(t time.Duration) error {
	d.said = append(d.said, fmt.Sprint("arm ", t))
	return d.fail
}
func (d *dog) Kick() error   { d.said = append(d.said, "kick"); return d.fail }
func (d *dog) Disarm() error { d.said = append(d.said, "disarm"); return d.fail }

func TestSeveral(t *testing.T) {
	one, two, broken := &dog{}, &dog{}, &dog{fail: errors.New("no dog")}
	s := Several{one, two}
	require.NoError(t, errors.Join(s.Arm(time.Second), s.Kick(), s.Disarm()))
	require.Equal(t, []string{"arm 1s", "kick", "disarm"}, one.said)
	require.Equal(t, one.said, two.said)
	one, two = &dog{}, &dog{}
	s = Several{one, broken, two}
	require.ErrorContains(t, s.Arm(time.Second), "no dog")
	require.Equal(t, []string{"arm 1s", "disarm"}, one.said)
	require.Empty(t, two.said)
	require.ErrorContains(t, s.Kick(), "no dog")
	require.Equal(t, []string{"kick"}, two.said)
	require.NoError(t, errors.Join(None{}.Arm(0), None{}.Kick(), None{}.Disarm()))
}

// TestShared has the watchdog kicked by the main loop alone, and not any more
// when an updater that is at work hangs.
func TestShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		behind := &dog{}
		s := NewShared(behind)
		kicks := func(n int, why string) {
			t.Helper()
			require.NoError(t, s.Alive())
			require.Len(t, behind.said, n, why)
		}
		kicks(1, "nothing is armed")
		require.NoError(t, s.Arm(time.Minute))
		<-time.After(59 * time.Second)
		kicks(2, "the updater has time")
		require.NoError(t, s.Kick())
		require.Len(t, behind.said, 2, "the updater's kick reached the watchdog past the main loop")
		<-time.After(59 * time.Second)
		kicks(3, "the updater kicked")
		<-time.After(time.Second)
		kicks(3, "the updater hangs")
		require.NoError(t, s.Disarm())
		kicks(4, "the updater has ended")
		behind.fail = errors.New("gone")
		require.ErrorContains(t, s.Alive(), "gone")
	})
}
