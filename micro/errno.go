//go:build linux

package micro

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"
)

var linkRefusals = []unix.Errno{unix.EMLINK, unix.EXDEV, unix.EOPNOTSUPP, unix.ENOENT}

func isErrno(err error, among ...unix.Errno) bool {
	var no unix.Errno
	return errors.As(err, &no) && slices.Contains(among, no)
}
