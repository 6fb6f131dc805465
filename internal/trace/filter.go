//go:build linux && (amd64 || arm64)

package trace

import (
	"maps"
	"slices"

	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data, of which a filter loads words of 32 bits.
const (
	dataNumber = 0
	dataArch   = 4
	dataArgs   = 16 // each 8 bytes, the low half first
)

// foreign is what the filter says of a call by another table than ours.
const foreign = 1

// changingFlags are those with which opening a file changes something.
const changingFlags = unix.O_CREAT | unix.O_TRUNC | unix.O_TMPFILE&^unix.O_DIRECTORY

// filter is the program that decides at which calls a task stops.
func filter(calls map[uintptr]shape) []unix.SockFilter {
	stop := give(unix.SECCOMP_RET_TRACE)
	allow := give(unix.SECCOMP_RET_ALLOW)
	code := []unix.SockFilter{
		load(dataArch),
		jump(unix.BPF_JEQ, auditArch, 1, 0),
		give(unix.SECCOMP_RET_TRACE | foreign),
		load(dataNumber),
		jump(unix.BPF_JGE, foreignFrom, 0, 1),
		give(unix.SECCOMP_RET_TRACE | foreign),
		jump(unix.BPF_JEQ, unix.SYS_IO_URING_SETUP, 0, 1),
		give(unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)),
	}
	for _, nr := range slices.Sorted(maps.Keys(calls)) {
		body := []unix.SockFilter{stop}
		switch s := calls[nr]; {
		case s.opens && s.flags > 0:
			body = []unix.SockFilter{argument(s.flags), jump(unix.BPF_JSET, changingFlags, 0, 1), stop, allow}
		case nr == unix.SYS_MMAP:
			body = []unix.SockFilter{
				argument(3), jump(unix.BPF_JSET, unix.PROT_WRITE, 0, 3),
				argument(4), jump(unix.BPF_JSET, unix.MAP_ANONYMOUS, 1, 0),
				jump(unix.BPF_JSET, unix.MAP_SHARED, 1, 0), allow, stop,
			}
		}
		code = append(code, jump(unix.BPF_JEQ, uint32(nr), 0, uint8(len(body))))
		code = append(code, body...)
	}
	return append(code, allow)
}

func load(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

// argument loads the low half of an argument, from 1.
func argument(place int) unix.SockFilter { return load(dataArgs + 8*uint32(place-1)) }

func jump(test uint16, k uint32, yes, no uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_K | test, K: k, Jt: yes, Jf: no}
}

func give(what uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: what}
}
