// Package block cuts the power of a real file system: it records every write
// and every flush that the kernel asks of a disk while a program works on it,
// and builds the disks that a power cut could have left.
//
// A [Recorder] is the disk: a file in memory, served over /dev/fuse, under a
// loop device with direct I/O, so that each request of the file system arrives
// here by itself and in order. [States] enumerates what a cut could leave: what
// was written before the last flush is there, of what was written since any
// part may be, and the last write may be torn between two sectors. States with
// equal bytes count once. A [Stand] is a loop device over memory onto which
// such a state is put, to be mounted (which replays the journal of the file
// system), looked at and thrown away: some three milliseconds each.
//
// [Recorder.Mark] notes the log position at which a call of the program had
// returned. A state in which everything up to that position can have happened
// has to hold what the call promised.
//
// The kernel's protocol is spoken directly, without a library: the root of the
// file system is itself the one file, which leaves nine requests; one reader
// gives the log its order; and no module is added to go.mod.
//
// The process that serves a Recorder must not work on it: a fork that waits
// for the disk stops the Go runtime that would have to serve it.
package block
