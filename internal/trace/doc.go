// Package trace runs a program under ptrace and stops it at every system call
// that changes something on a file system, whichever of its threads and
// children makes it. Each such call gets an ordinal that counts over the whole
// tree of processes. Whoever traces sees a call before and after it happens,
// may kill the tree at either moment, and may have a call fail.
//
// A seccomp filter picks the calls, so that all others run at full speed. It is
// put into the program at its first instruction and stays with every child.
// Changing calls happen one after the other: while one is between its two
// callbacks no other begins. So the calls that were seen, in their order, are
// what the file system went through.
//
// What it sees: calls on regular files and folders, on names, and sync. It does
// not see writes through a shared mapping (the call that makes one is told as
// "mmap"), and it hides io_uring from the program. Pipes, sockets, devices,
// memory files, /proc and /sys do not count.
//
// It works on Linux on amd64 and arm64, from 5.3 on; elsewhere Run ends in
// ErrUnavailable.
package trace
