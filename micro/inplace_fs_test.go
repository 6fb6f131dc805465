//go:build linux

package micro

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/internal/testneeds"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// fatDisk is a FAT file system of its own.
type fatDisk struct {
	t         testing.TB
	device    string
	point, fs string
	mount     string
}

// newFAT mounts one at point: with the kernel's own vfat, or where that has
// none, as exFAT over FUSE.
func newFAT(t testing.TB, point string) *fatDisk {
	t.Helper()
	testneeds.Root(t)
	known, err := os.ReadFile("/proc/filesystems")
	require.NoError(t, err)
	d := &fatDisk{t: t, point: point, mount: "mount", fs: "vfat"}
	mkfs, _ := exec.LookPath("mkfs.vfat")
	if mkfs == "" || !strings.Contains(string(known), "\tvfat\n") {
		mkfs, _ = exec.LookPath("mkfs.exfat")
		d.fs, d.mount = "", "mount.exfat-fuse"
		if _, err := exec.LookPath(d.mount); err != nil || mkfs == "" {
			testneeds.Missing(t, "vfat in the kernel and dosfstools, or exfat-fuse and exfatprogs")
		}
	}
	image := filepath.Join(t.TempDir(), "image")
	require.NoError(t, os.WriteFile(image, nil, 0o600))
	require.NoError(t, os.Truncate(image, 16<<20))
	d.run(mkfs, image)
	d.device = strings.TrimSpace(d.run("losetup", "-f", "--show", image))
	t.Cleanup(func() { _ = exec.Command("losetup", "-d", d.device).Run() })
	d.attach()
	t.Cleanup(d.detach)
	return d
}

func (d *fatDisk) run(name string, args ...string) string {
	d.t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	require.NoError(d.t, err, "%s %v: %s", name, args, out)
	return string(out)
}

func (d *fatDisk) attach() {
	args := []string{"-o", "umask=022", d.device, d.point}
	if d.fs != "" {
		args = append([]string{"-t", d.fs}, args...)
	}
	d.run(d.mount, args...)
}

func (d *fatDisk) detach() { d.run("umount", d.point) }

// again is what a boot does: whatever the kernel or a server of FUSE had in
// memory is gone, inode numbers with it.
func (d *fatDisk) again() {
	d.detach()
	d.attach()
}

// fatScene is a device with a FAT file system at boot.
func fatScene(t testing.TB) (*placeDevice, *fatDisk, *shop, *shop) {
	d := newPlaceDevice(t)
	require.NoError(t, os.Mkdir(filepath.Join(d.root, "boot"), 0o755))
	disk := newFAT(t, filepath.Join(d.root, "boot"))
	s1 := placeShop(t, files(t, t.TempDir(), map[string]string{
		"boot/kernel": "kernel 1", "boot/cmdline": "root=1", "boot/dtb/a": "a", "boot/type": "file", "boot/turn/": "", "etc/conf": "1",
	}), "")
	s2 := placeShop(t, files(t, t.TempDir(), map[string]string{
		"boot/kernel": "kernel 2 ", "boot/cmdline": "root=1", "boot/new/b": "b", "boot/type/x": "x", "boot/turn": "file", "etc/conf": "2",
	}), "")
	files(t, d.root, map[string]string{"boot/own": "own"})
	d.install("t1", s1)
	return d, disk, s1, s2
}

// contents are the names and the content of all files, and which folders there
// are: all that FAT keeps.
func contents(t testing.TB, dir string) map[string]string {
	all := snapshotLines(t, dir)
	for p, line := range all {
		all[p] = line[strings.LastIndex(line, " ")+1:]
	}
	return all
}

// TestInPlaceOnFAT takes a release with plain files on FAT through a cut at
// each step of the switch, each followed by a mount anew, and back or on.
func TestInPlaceOnFAT(t *testing.T) {
	d, disk, s1, s2 := fatScene(t)
	ctx := t.Context()
	before := contents(t, d.root)
	require.NoError(t, d.stage("t2", s2))
	count := d.cutAt(0)
	require.NoError(t, d.f.Activate(ctx, "t2", s2.c))
	total, after := *count, contents(t, d.root)
	require.Equal(t, before["boot/own"], after["boot/own"])
	for n := total; n > 0; n-- {
		require.NoError(t, d.f.Revert(ctx, "t2", s2.c))
		same(t, before, contents(t, d.root), "back")
		disk.again()
		d.restart()
		d.isWhole(s1)
		require.NoError(t, d.stage("t2", s2))
		count := d.cutAt(n)
		if err := d.f.Activate(ctx, "t2", s2.c); err == nil {
			require.Less(t, *count, n, "a plan need not be written again, when the clock of FAT did not go on since Stage")
		} else {
			require.ErrorIs(t, err, errCut, "step %d", n)
		}
		disk.again()
		d.restart()
		if n%2 == 0 {
			continue
		}
		require.NoError(t, d.f.Activate(ctx, "t2", s2.c))
		same(t, after, contents(t, d.root), "on")
		d.isWhole(s2)
		disk.again()
		d.restart()
	}
	require.NoError(t, d.f.Revert(ctx, "t2", s2.c))
	same(t, before, contents(t, d.root), "back")
	d.install("t3", s2)
	disk.again()
	d.restart()
	same(t, after, contents(t, d.root), "committed")
	d.isWhole(s2)
	found, err := d.f.Verify(ctx, s2.c, s2)
	require.NoError(t, err)
	require.Empty(t, found)
	d.lends(s1, "what was there is kept")
	require.NoError(t, os.WriteFile(filepath.Join(d.root, "boot/kernel"), []byte("rotten!"), 0o644))
	left, err := d.f.Repair(ctx, s2.c, s2)
	require.NoError(t, err)
	require.Empty(t, left)
	same(t, after, contents(t, d.root), "repaired")
}

// TestInPlaceOnFATRefuses: what FAT cannot keep is found before content is
// fetched for it.
func TestInPlaceOnFATRefuses(t *testing.T) {
	d, _, _, _ := fatScene(t)
	before := contents(t, d.root)
	blob := release.Blob{Digest: release.Sum([]byte("x")), Size: 1}
	file := release.Entry{Path: "boot/x", Type: release.File, Mode: 0o644, Blob: blob}
	for name, change := range map[string]func(e *release.Entry){
		"symlink": func(e *release.Entry) {
			e.Type, e.Target, e.Blob, e.Mode = release.Symlink, "kernel", release.Blob{}, 0o777
		},
		"owner":       func(e *release.Entry) { e.UID = 7 },
		"setuid":      func(e *release.Entry) { e.Mode = 0o4755 },
		"secret":      func(e *release.Entry) { e.Mode = 0o600 },
		"attributes":  func(e *release.Entry) { e.Xattrs = []release.Xattr{{Name: "user.x", Value: []byte("1")}} },
		"open folder": func(e *release.Entry) { e.Type, e.Blob, e.Mode = release.Dir, release.Blob{}, 0o700 },
	} {
		e := file
		change(&e)
		s := entriesShop(t, map[release.Digest][]byte{blob.Digest: []byte("x")}, []release.Entry{e}, "")
		err := d.stage("t2", s)
		require.ErrorIs(t, err, ErrNoExchange, name)
		require.ErrorContains(t, err, "does not keep", name)
		require.Equal(t, s.c.Index.Size, s.fetched, "%s: only the index", name)
		require.NoError(t, d.f.Revert(t.Context(), "t2", s.c))
		same(t, before, contents(t, d.root), name)
	}
	f, err := New(Options{Name: "app", Root: d.root, Layout: InPlace, Spool: filepath.Join(d.root, "boot/spool")})
	require.NoError(t, err)
	_, err = f.Stage(t.Context(), "t2", oneFile(t, "etc/conf", "x", "").c, oneFile(t, "etc/conf", "x", ""))
	require.ErrorIs(t, err, ErrNoExchange)
	require.ErrorContains(t, err, "option Spool")
}

// unchanged has Stage refuse s, and checks that nothing happened.
func unchanged(t *testing.T, d *placeDevice, s *shop, want error) {
	t.Helper()
	before := times(t, d.root)
	require.ErrorIs(t, d.stage("tx", s), want)
	same(t, before, times(t, d.root), "nothing was changed")
	require.NoError(t, d.f.Revert(t.Context(), "tx", s.c))
	same(t, before, times(t, d.root), "nothing was changed")
}

func TestInPlaceImmutable(t *testing.T) {
	testneeds.Root(t)
	chattr := testneeds.Program(t, "chattr")
	d := newPlaceDevice(t)
	d.install("t1", oneFile(t, "etc/app/conf", "one", ""))
	files(t, d.root, map[string]string{"etc/empty/": ""})
	for _, p := range []string{"etc/app/conf", "etc/app", "etc/empty"} {
		for _, flag := range []string{"i", "a"} {
			if err := exec.Command(chattr, "+"+flag, filepath.Join(d.root, p)).Run(); err != nil {
				testneeds.Missing(t, "a file system with immutable files")
			}
			unlock := func() { _ = exec.Command(chattr, "-"+flag, filepath.Join(d.root, p)).Run() }
			t.Cleanup(unlock)
			s := oneFile(t, "etc/app/conf", "two", "")
			if p == "etc/empty" {
				s = placeShop(t, files(t, t.TempDir(), map[string]string{"etc/empty": "a file"}), "")
			}
			unchanged(t, d, s, ErrReadOnly)
			unlock()
		}
	}
	d.install("t2", oneFile(t, "etc/app/conf", "two", ""))
}

// TestInPlaceReadOnlyBind has a folder below the root mounted over itself,
// read-only.
func TestInPlaceReadOnlyBind(t *testing.T) {
	d := newPlaceDevice(t)
	files(t, d.root, map[string]string{"usr/lib/a": "a"})
	p := filepath.Join(d.root, "usr/lib")
	mount(t, p, p, "", unix.MS_BIND, "")
	require.NoError(t, unix.Mount("", p, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
	unchanged(t, d, oneFile(t, "usr/lib/a", "b", ""), ErrReadOnly)
	unchanged(t, d, oneFile(t, "usr/lib/new", "b", ""), ErrReadOnly)
	d.install("t2", oneFile(t, "usr/other", "b", ""))
}

// TestInPlaceQuota has the quota of a subvolume run out. The kernel that the
// tests run on may know no quotas of ext4 or xfs; those of btrfs give the same
// error.
func TestInPlaceQuota(t *testing.T) {
	btrfs := testneeds.Program(t, "btrfs")
	d := newPlaceDevice(t)
	point := disk(t, "mkfs.btrfs", "-q")
	for _, args := range [][]string{{"quota", "enable", point}, {"subvolume", "create", point + "/sys"}, {"qgroup", "limit", "4M", point + "/sys"}} {
		if out, err := exec.Command(btrfs, args...).CombinedOutput(); err != nil {
			testneeds.Missing(t, "quotas of btrfs: "+string(out))
		}
	}
	d.root = filepath.Join(point, "sys")
	d.restart()
	d.f.opts.Spool = filepath.Join(d.root, ".pawl.app")
	d.install("t1", oneFile(t, "etc/conf", "one", ""))
	big := oneFile(t, "etc/conf", string(make([]byte, 8<<20)), "")
	err := d.stage("tx", big)
	require.ErrorIs(t, err, unix.EDQUOT)
	unchanged(t, d, big, ota.ErrNoSpace)
	d.install("t2", oneFile(t, "etc/conf", "two", ""))
}

// TestInPlaceRunningProgram exchanges a program while it runs.
func TestInPlaceRunningProgram(t *testing.T) {
	program, err := os.ReadFile(testneeds.Program(t, "sleep"))
	require.NoError(t, err)
	d := newPlaceDevice(t)
	v := files(t, t.TempDir(), map[string]string{"bin/app": string(program)})
	require.NoError(t, os.Chmod(filepath.Join(v, "bin/app"), 0o755))
	d.install("t1", placeShop(t, v, ""))
	before := times(t, d.root)
	cmd := exec.Command(filepath.Join(d.root, "bin/app"), "600")
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	require.ErrorIs(t, os.WriteFile(filepath.Join(d.root, "bin/app"), nil, 0o755), unix.ETXTBSY)
	for name, calls := range maps.All(map[string][]string{"exchange": nil, "links": {"exchange"}, "copies": {"exchange", "link"}}) {
		d.without = calls
		d.restart()
		s := oneFile(t, "bin/app", "another", "")
		d.activate("t2", s)
		require.Equal(t, "another", d.read("bin/app"), name)
		d.revert("t2", s)
		same(t, before, times(t, d.root), name)
	}
}

// TestInPlaceOverlay has files, links and folders of a lower layer.
func TestInPlaceOverlay(t *testing.T) {
	base := t.TempDir()
	mount(t, "tmpfs", base, "tmpfs", 0, "")
	lower := files(t, filepath.Join(base, "lower"), map[string]string{
		"etc/conf": "shipped", "etc/gone": "shipped", "etc/link": "->conf", "etc/empty/": "", "etc/full/x": "x",
	})
	require.NoError(t, os.Chmod(filepath.Join(lower, "etc/conf"), 0o4750))
	for _, dir := range []string{"upper", "work", "merged"} {
		require.NoError(t, os.Mkdir(filepath.Join(base, dir), 0o755))
	}
	merged := filepath.Join(base, "merged")
	mount(t, "overlay", merged, "overlay", 0, fmt.Sprintf("lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work", base, base, base))
	d := &placeDevice{t: t, root: merged}
	d.restart()
	d.f.opts.Spool = filepath.Join(merged, ".pawl.app")
	d.install("t0", oneFile(t, "var/app", "x", ""))
	before := times(t, merged)

	folder := placeShop(t, files(t, t.TempDir(), map[string]string{"etc/empty": "a file", "var/app": "x"}), "")
	unchanged(t, d, folder, ErrNoExchange)

	s := placeShop(t, files(t, t.TempDir(), map[string]string{"etc/conf": "new", "etc/link": "->elsewhere", "new/a": "a", "var/app": "x"}), "", "etc/gone")
	for n := 1; ; n++ {
		require.NoError(t, d.stage("t1", s))
		same(t, before, times(t, merged), "staged")
		d.cutAt(n)
		err := d.f.Activate(t.Context(), "t1", s.c)
		d.cutAt(0)
		if err == nil {
			break
		}
		require.ErrorIs(t, err, errCut)
		d.revert("t1", s)
		same(t, before, times(t, merged), "back")
	}
	d.isWhole(s)
	require.Equal(t, "new", d.read("etc/conf"))
	require.NoFileExists(t, filepath.Join(merged, "etc/gone"))
	d.revert("t1", s)
	same(t, before, times(t, merged), "back")
	d.install("t2", s)
	d.isWhole(s)
}

// TestInPlaceBudgetOfInterrupted: what an interrupted Stage has left is not
// asked for again, on either file system.
func TestInPlaceBudgetOfInterrupted(t *testing.T) {
	d := newPlaceDevice(t)
	twoVolumes(t, d)
	content := map[string]string{}
	for i := range 40 {
		content[fmt.Sprintf("%s/f%d", []string{"usr", "mnt/data"}[i%2], i)] = strings.Repeat(fmt.Sprint(i%10), 8<<10)
	}
	s := placeShop(t, files(t, t.TempDir(), content), "")
	need := func() (bytes []int64) {
		all, err := d.f.Budget(t.Context(), s.c, s)
		require.NoError(t, err)
		for _, n := range all {
			bytes = append(bytes, n.Bytes)
		}
		return bytes
	}
	first := need()
	require.Len(t, first, 2)
	require.Greater(t, first[1], int64(20*8<<10-1))
	puts := 0
	d.f.before = func(op, _ string) error {
		if op == "create" || op == "copy" {
			if puts++; puts > 30 {
				return errCut
			}
		}
		return nil
	}
	require.ErrorIs(t, d.stage("t1", s), errCut)
	d.restart()
	second := need()
	index := s.c.Index.Size/4096*4096 + 4096
	const made = 29 // one of 30 readers broke off
	require.Equal(t, made*8<<10+index, first[0]-second[0]+first[1]-second[1], "%v, then %v", first, second)
	require.NoError(t, d.stage("t1", s))
	third := need()
	require.Zero(t, third[1])
	require.Less(t, third[0], int64(200<<10), "the records alone")
}
