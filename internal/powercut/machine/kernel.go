package machine

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// parts are what is not made here.
type parts struct {
	kernel  string // a Linux image with ext4 and NVMe built in
	busybox string // a static one: the shell of scripts
}

// debian gets the parts as Debian's packages, and unpacks them below dir.
// Nothing is installed.
func debian(dir string) (p parts, err error) {
	out, err := exec.Command("apt-cache", "depends", "linux-image-cloud-amd64").Output()
	if err != nil {
		return p, fmt.Errorf("cannot find the kernel's package: %w", err)
	}
	_, name, ok := strings.Cut(string(out), "Depends: ")
	if !ok {
		return p, fmt.Errorf("cannot find the kernel's package in %q", out)
	}
	name, _, _ = strings.Cut(name, "\n")
	get := exec.Command("apt-get", "-q", "download", name, "busybox-static")
	get.Dir = dir
	if out, err := get.CombinedOutput(); err != nil {
		return p, fmt.Errorf("cannot get %s: %w: %s", name, err, out)
	}
	packages, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil {
		return p, err
	}
	for _, file := range packages {
		if out, err := exec.Command("dpkg-deb", "-x", file, dir).CombinedOutput(); err != nil {
			return p, fmt.Errorf("cannot unpack %s: %w: %s", file, err, out)
		}
	}
	kernels, err := filepath.Glob(filepath.Join(dir, "boot", "vmlinuz-*"))
	if err != nil || len(kernels) != 1 {
		return p, fmt.Errorf("cannot find the kernel in its package: %v (%w)", kernels, err)
	}
	p = parts{kernel: kernels[0], busybox: filepath.Join(dir, "bin", "busybox")}
	_, err = os.Stat(p.busybox)
	return p, err
}
