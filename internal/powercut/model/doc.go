//go:build linux

// Package model is a file system that crashes: it takes what a program asked of
// the kernel, one call after the other, and says what the disk may hold when the
// power goes. Every such disk can be laid out in a folder, for the program to be
// started on, and for an independent check.
//
// # What a crash keeps
//
// A file system is a set of inodes (type, mode, owner, extended attributes,
// times, content) and of names in folders. Each call changes some of it, in
// effects that are kept or lost one by one:
//
//   - a name that comes, goes or moves. A rename is one effect, with the name that
//     goes, the name that comes and what was replaced, also between two folders,
//     and so is an exchange. A new inode comes with its name, its mode, its owner
//     and, of a symbolic link, its target.
//   - each write. One may also be torn: the first bytes of it alone. One that made
//     the file longer may also leave the length without the bytes: zeros, or
//     anything; or the first bytes and zeros.
//   - each change of a length, of a mode, an owner, a time, an attribute.
//
// What is synced is kept: by fsync of a file its content, length and metadata, but
// not its name; by fdatasync the same without the metadata; by fsync of a folder
// every change of its names, and its own metadata, but nothing of the inodes
// that the names are of; by syncfs and sync everything; by O_SYNC nothing. Of
// everything else any subset is kept. No order is assumed, neither between two folders nor within one: of a name that changed
// three times, each of the four answers can come. Effects that are kept
// happen in the order of the calls, and a name that is given away takes the inode
// from wherever it is, so that no folder ever has two names.
//
// This is weaker than what any file system in use does. POSIX promises no more;
// the order of operations that applications must not rely on is described, with
// what each file system does in fact, in "All File Systems Are Not Created
// Equal" (Pillai and others, OSDI 2014), whose persistence model this is but for
// one thing: there, a rename may fall apart where the file system has no
// journal. ext4 with delayed allocation orders data before a rename that
// replaces, and on a fsync of a new file keeps its first name (Documentation/
// filesystems/ext4, auto_da_alloc; ext4(5)); XFS and btrfs keep the order of
// names within their log; none of that is relied on. What the model cannot
// show is what a real file system does wrong, which is why there is a campaign on
// real ones too.
//
// # What is recorded
//
// [Record] runs a workload in a process of its own under the tracer of
// internal/trace, from the disk that it starts with to the end. The names and
// contents that the model ends with are compared with those on the real disk: no
// call was missed. A fact is what the workload promised at a place of the log:
// what was acknowledged to somebody has to hold in every later state.
//
// # What is run
//
// Every place in the log is an end: with everything kept, and with nothing kept
// that was not synced. Before each call that syncs something, where most is open, all
// subsets of up to ten open effects are taken, and a seeded sample of more. Two
// states are the same when names, inodes and contents are. Each state is laid out
// on a file system in memory. A program that knows files by their inode numbers
// sees those of the recording: internal/seam has a place for that.
package model
