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
	kernel  string // a Linux image
	busybox string // a static one: the shell of scripts
}

// download gets the newest kernel of a kind, and unpacks the shell.
func download(dir, kind string) (p parts, file string, err error) {
	out, err := exec.Command("apt-cache", "depends", kind).Output()
	if err != nil {
		return p, "", fmt.Errorf("cannot find the kernel's package: %w", err)
	}
	_, name, ok := strings.Cut(string(out), "Depends: ")
	if !ok {
		return p, "", fmt.Errorf("cannot find the kernel's package in %q", out)
	}
	name, _, _ = strings.Cut(name, "\n")
	get := exec.Command("apt-get", "-q", "download", name, "busybox-static")
	get.Dir = dir
	if out, err := get.CombinedOutput(); err != nil {
		return p, "", fmt.Errorf("cannot get %s: %w: %s", name, err, out)
	}
	for prefix, to := range map[string]*string{name: &file, "busybox-static": &p.busybox} {
		found, err := filepath.Glob(filepath.Join(dir, prefix+"_*.deb"))
		if err != nil || len(found) != 1 {
			return p, "", fmt.Errorf("cannot find the package %s: %v (%w)", prefix, found, err)
		}
		*to = found[0]
	}
	if out, err := exec.Command("dpkg-deb", "-x", p.busybox, dir).CombinedOutput(); err != nil {
		return p, "", fmt.Errorf("cannot unpack %s: %w: %s", p.busybox, err, out)
	}
	p.busybox = filepath.Join(dir, "bin", "busybox")
	_, err = os.Stat(p.busybox)
	return p, file, err
}
