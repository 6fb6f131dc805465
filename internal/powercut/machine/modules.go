package machine

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// module is one of the kernel's, not loaded yet.
type module struct {
	name  string // with _ for -
	needs []string
	data  []byte
}

// debian gets a kernel and a shell as Debian's packages, and unpacks them below dir:
// of the kernel also the modules wanted with all that they need, in the order in
// which they have to be loaded. Nothing is installed.
func debian(dir, kind string, wanted ...string) (parts, []module, error) {
	p, file, err := download(dir, kind)
	if err != nil {
		return p, nil, err
	}
	all, err := unpack(file, &p, dir)
	if err != nil {
		return p, nil, err
	}
	var order []module
	for _, name := range wanted {
		if err := needed(name, all, &order); err != nil {
			return p, nil, err
		}
	}
	return p, order, nil
}

// needed adds a module to those before it, behind what it needs.
func needed(name string, all map[string]module, order *[]module) error {
	for _, m := range *order {
		if m.name == name {
			return nil
		}
	}
	m, ok := all[name]
	if !ok {
		return fmt.Errorf("the kernel has no module %s", name)
	}
	for _, n := range m.needs {
		if err := needed(n, all, order); err != nil {
			return fmt.Errorf("%s needs it: %w", name, err)
		}
	}
	*order = append(*order, m)
	return nil
}

// unpack takes the kernel and some of its modules out of the package: all of them
// are half a gigabyte.
func unpack(file string, p *parts, dir string) (map[string]module, error) {
	cmd := exec.Command("dpkg-deb", "--fsys-tarfile", file)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	all := map[string]module{}
	for t := tar.NewReader(out); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			_, _ = io.Copy(io.Discard, out)
			return all, cmd.Wait()
		}
		if err == nil {
			err = p.take(h.Name, t, all, dir)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("cannot unpack %s: %w", file, err), cmd.Process.Kill(), cmd.Wait())
		}
	}
}

func (p *parts) take(name string, r io.Reader, all map[string]module, dir string) error {
	_, inside, isModule := strings.Cut(name, "/kernel/")
	switch {
	case strings.HasPrefix(name, "./boot/vmlinuz-"):
		p.kernel = filepath.Join(dir, path.Base(name))
		data, err := io.ReadAll(r)
		return errors.Join(err, os.WriteFile(p.kernel, data, 0o600))
	case !isModule || path.Ext(name) != ".ko":
		return nil
	}
	for _, folder := range []string{"fs/ext4/", "fs/jbd2/", "fs/mbcache", "lib/", "crypto/", "block/", "drivers/block/", "drivers/virtio/", "drivers/watchdog/"} {
		if !strings.HasPrefix(inside, folder) {
			continue
		}
		m := module{name: moduleName(path.Base(name))}
		var err error
		if m.data, err = io.ReadAll(r); err == nil {
			m.needs, err = needs(m.data)
		}
		all[m.name] = m
		return err
	}
	return nil
}

func moduleName(file string) string {
	return strings.ReplaceAll(strings.TrimSuffix(file, ".ko"), "-", "_")
}

// needs reads what a module says of itself.
func needs(data []byte) (names []string, err error) {
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, errors.New("it is no module")
	}
	info, err := section.Data()
	for line := range strings.SplitSeq(string(info), "\x00") {
		if list, ok := strings.CutPrefix(line, "depends="); ok && list != "" {
			for name := range strings.SplitSeq(list, ",") {
				names = append(names, moduleName(name))
			}
		}
	}
	return names, err
}
