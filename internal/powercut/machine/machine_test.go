package machine

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/powercut"
	"github.com/pawl-ota/pawl/internal/powercut/check"
	"github.com/pawl-ota/pawl/internal/testneeds"
)

// TestMachine cuts the power of machines as often as PAWL_MACHINE says, and
// does nothing where that is not set: it takes a while (see make machine). There
// is one machine for each processor. PAWL_SEED repeats a campaign as far as
// machines can be repeated.
func TestMachine(t *testing.T) {
	cuts, _ := strconv.Atoi(os.Getenv("PAWL_MACHINE"))
	if cuts == 0 {
		return
	}
	seed, err := strconv.ParseUint(os.Getenv("PAWL_SEED"), 10, 64)
	if err != nil {
		seed = rand.Uint64()
	}
	first := newCampaign(t, seed)
	first.install()
	t.Logf("PAWL_SEED=%d, %s, an update and the way back are %d writes", seed, first.vm.accel, first.cycle)
	begin, all := time.Now(), &tally{states: map[string]int{}}
	t.Run("all", func(t *testing.T) {
		for n := range runtime.GOMAXPROCS(0) {
			t.Run(fmt.Sprint("machine=", n), func(t *testing.T) {
				t.Parallel()
				c := first.another(t, seed+uint64(n)+1)
				for n := 1; all.begins(cuts); n++ {
					c.life(n%25 == 0)
					all.add(t, &c.tally, begin)
				}
			})
		}
	})
	if !t.Failed() {
		t.Logf("machine: %v, 0 violations in %s", all, time.Since(begin).Round(time.Second))
	}
}

// tally counts.
type tally struct {
	mu                                           sync.Mutex
	begun, cuts, boots, lost, updates, rollbacks int
	states                                       map[string]int // after Resume
}

// begins reports whether there is another cut to be made of so many.
func (a *tally) begins(most int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.begun++
	return a.begun <= most
}

// add adds what b counted to a, and says so now and then.
func (a *tally) add(t *testing.T, b *tally, begin time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cuts, a.boots, a.lost = a.cuts+b.cuts, a.boots+b.boots, a.lost+b.lost
	a.updates, a.rollbacks = a.updates+b.updates, a.rollbacks+b.rollbacks
	for s, n := range b.states {
		a.states[s] += n
	}
	if a.cuts%10 == 0 {
		t.Logf("%v in %s", a, time.Since(begin).Round(time.Second))
	}
	*b = tally{states: map[string]int{}}
}

// String says it in one line.
func (a *tally) String() string {
	return fmt.Sprintf("%d cuts, %d boots, %d sectors lost; %d updates and %d ways back done; Resume left %v",
		a.cuts, a.boots, a.lost, a.updates, a.rollbacks, a.states)
}

// campaign is one machine.
type campaign struct {
	*testing.T
	tally
	vm     vm
	disk   *disk
	random *rand.Rand
	cycle  int // writes of an update and the way back

	known string // the release that a verb has left the device with, if none began since
	last  []string
}

func newCampaign(t *testing.T, seed uint64) *campaign {
	testneeds.Program(t, "qemu-system-x86_64")
	p, modules, err := debian(t.TempDir(), "linux-image-cloud-amd64", "virtio_pci", "virtio_blk")
	require.NoError(t, err)
	initrd := filepath.Join(t.TempDir(), "initrd")
	require.NoError(t, os.WriteFile(initrd, firmwareImage(t, p, modules...), 0o600))
	c := campaignOn(t, vm{kernel: p.kernel, initrd: initrd}, format(t), seed)
	c.vm.accel = c.vm.fastest(t.Context())
	return c
}

func campaignOn(t *testing.T, vm vm, image []byte, seed uint64) *campaign {
	dir, err := os.MkdirTemp("", "pawl-") // the path of a socket is short
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	vm.dir = dir
	random := rand.New(rand.NewPCG(seed, 5))
	return &campaign{T: t, vm: vm, random: random, disk: newDisk(image, random), tally: tally{states: map[string]int{}}}
}

// another is a machine of its own that is as c is now.
func (c *campaign) another(t *testing.T, seed uint64) *campaign {
	n := campaignOn(t, c.vm, slices.Clone(c.disk.stable), seed)
	n.cycle = c.cycle
	return n
}

// format returns an ext4.
func format(t *testing.T) []byte {
	path := filepath.Join(t.TempDir(), "disk")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.NoError(t, os.Truncate(path, 64<<20))
	out, err := exec.Command(testneeds.Program(t, "mkfs.ext4"), "-q", "-F", "-b", "4096", path).CombinedOutput()
	require.NoError(t, err, "%s", out)
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	return data
}

// firmwareImage returns what the machine boots.
func firmwareImage(t *testing.T, p parts, modules ...module) []byte {
	s := powercut.New(t, "")
	factory := filepath.Join(t.TempDir(), "factory")
	s.Copy(t, factory, check.None)
	for _, name := range []string{"inodes", "boot_id", "repo"} { // of this machine
		require.NoError(t, os.RemoveAll(filepath.Join(factory, name)))
	}
	require.NoError(t, os.Symlink(Repo, filepath.Join(factory, "repo")))
	guest := filepath.Join(t.TempDir(), "init")
	cmd := exec.Command("go", "build", "-ldflags=-s -w", "-o", guest, "./guest")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH=amd64")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)

	var i initrd
	for _, dir := range []string{"bin", "data", "dev", "modules", "proc", "sys", "tmp"} {
		i.add(dir, typeDir|0o755, nil)
	}
	i.console()
	for _, name := range []string{"sh", "mv", "sync"} {
		i.add("bin/"+name, typeLink|0o777, []byte("busybox"))
	}
	for n, m := range modules {
		i.add(fmt.Sprintf("modules/%02d-%s", n, m.name), typeFile|0o600, m.data)
	}
	for from, to := range map[string]string{
		p.busybox: "bin/busybox", guest: "init", powercut.Program(t): "device",
		factory: "factory", s.Repo + "-1": "repo-1", s.Repo: "repo-2",
	} {
		require.NoError(t, i.tree(from, to))
	}
	return i.bytes()
}

// boot runs the machine until it is off, and returns how that came about:
// errCut, or nil after a reboot or the end. An emulated kernel on a busy host
// may not come up; then it is started again.
func (c *campaign) boot(words string, heard func(words []string)) error {
	for tries := 1; ; tries++ {
		up := false
		c.last = append(c.last, "boot "+words)
		err := c.vm.run(c.Context(), c.disk, words, func(line string) {
			up = true
			c.heard(line)
			heard(append(strings.Fields(line), "", ""))
		})
		switch {
		case errors.Is(err, errSilent) && !up && tries < 5:
			c.Logf("the kernel did not come up")
			continue
		case err != nil && !errors.Is(err, errCut):
			c.fail(err.Error())
		}
		c.boots++
		return err
	}
}

// heard holds what init says against what it said before.
func (c *campaign) heard(line string) {
	c.last = append(c.last, line)
	switch words := append(strings.Fields(line), "", ""); words[0] {
	case SaysViolation:
		c.fail(line)
	case SaysFound:
		if c.known != "" && words[1] != c.known {
			c.fail("it was acknowledged that the device has " + c.known)
		}
		c.states[words[2]]++
		c.known = ""
		if slices.Contains([]string{"idle", "committed", "reverted"}, words[2]) { // nothing is open
			c.known = words[1]
		}
	case SaysBegin, SaysDog:
		c.known = ""
	case SaysDone:
		c.known = words[1]
	}
}

func (c *campaign) fail(why string) {
	c.Errorf("violation after %d cuts: %s\n%s", c.cuts, why, strings.Join(c.last, "\n"))
}

// install makes a device with v1, and finds out how long a cycle is.
func (c *campaign) install() {
	c.installOnly()
	c.disk.arm(0)
	c.round()
	c.cycle = c.disk.written()
	c.cut()
}

func (c *campaign) installOnly() {
	for end := false; !end; {
		require.Less(c, c.boots, 10)
		require.NoError(c, c.boot(ModeInstall, func(words []string) { end = end || words[0] == SaysEnd }))
		c.check()
	}
}

func (c *campaign) check() {
	if c.Failed() {
		c.FailNow()
	}
}

// round has the device go to v2 and back to v1, and cuts the power then.
func (c *campaign) round() {
	there, back := false, false
	for boots := 0; !back; boots++ {
		require.Less(c, boots, 20)
		_ = c.boot("", func(words []string) {
			c.count(words)
			there = there || words[0] == SaysDone && words[1] == "v2"
			if there && words[0] == SaysDone && words[1] == "v1" {
				back = true
				c.disk.cut()
			}
		})
		c.check()
	}
}

func (c *campaign) count(words []string) {
	switch {
	case words[0] != SaysDone || words[3] != "0":
	case words[1] == "v2":
		c.updates++
	default:
		c.rollbacks++
	}
}

// life has the device go to and fro until the power goes at a random write; in
// a whole life it gets to v2 and back before.
func (c *campaign) life(whole bool) {
	c.last = nil
	words := ""
	if c.random.IntN(4) == 0 {
		words = ModeSick
	}
	if whole {
		c.disk.arm(0)
		c.round()
	} else {
		c.disk.arm(1 + c.random.IntN(c.cycle>>c.random.IntN(4)))
		for boots := 0; c.boot(words, c.count) == nil; boots++ {
			c.check()
			require.Less(c, boots, 100, "the power does not go")
		}
	}
	c.check()
	c.cut()
}

func (c *campaign) cut() {
	c.cuts++
	lost := c.disk.on()
	c.lost += lost
	c.last = append(c.last, fmt.Sprintf("cut at write %d, %d sectors lost", c.disk.written(), lost))
}
