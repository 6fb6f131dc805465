package publish

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/ota/release"
)

// taken reports whether the extended attribute belongs to a release. Others
// are of the machine that the tree was built on.
func taken(name string, selinux bool) bool {
	switch name {
	case "security.capability", "system.posix_acl_access", "system.posix_acl_default":
		return true
	case "security.selinux":
		return selinux
	}
	return strings.HasPrefix(name, "user.")
}

// readXattrs returns the extended attributes of path itself, sorted by name.
func readXattrs(path string, selinux bool) ([]release.Xattr, error) {
	names, err := readAll(func(buf []byte) (int, error) { return unix.Llistxattr(path, buf) })
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot list extended attributes: %w", err)
	}
	var list []release.Xattr
	for raw := range bytes.SplitSeq(names, []byte{0}) {
		name := string(raw)
		if !taken(name, selinux) {
			continue
		}
		value, err := readAll(func(buf []byte) (int, error) { return unix.Lgetxattr(path, name, buf) })
		if err != nil {
			return nil, fmt.Errorf("cannot read extended attribute %s: %w", name, err)
		}
		list = append(list, release.Xattr{Name: name, Value: value})
	}
	slices.SortFunc(list, func(a, b release.Xattr) int { return cmp.Compare(a.Name, b.Name) })
	return list, nil
}

// readAll calls get with a buffer that is large enough; nil comes back for
// nothing.
func readAll(get func([]byte) (int, error)) ([]byte, error) {
	for range 8 {
		size, err := get(nil)
		if err != nil || size == 0 {
			return nil, err
		}
		buf := make([]byte, size)
		size, err = get(buf)
		if errors.Is(err, unix.ERANGE) {
			continue // it grew in between
		}
		if err != nil || size == 0 {
			return nil, err
		}
		return buf[:size], nil
	}
	return nil, ErrChanged
}
