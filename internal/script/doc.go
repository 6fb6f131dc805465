// Package script runs a program of a release: verified bytes, in a session of
// its own, with a fixed environment, within limits; and ends whatever the
// program left behind.
//
// The program becomes a sealed file in memory before anything of it runs, so
// nothing can change it between check and exec, and the state folder may be on
// a mount that forbids execution. It is executed as /proc/self/fd/3, which
// works for an executable and for a text with an interpreter line; descriptor 3
// stays open in it. What else it gets: /dev/null as standard input, one pipe
// for both outputs, the environment and folder of [seam.Program], umask 022 (the
// caller's own where a thread may not have another, as in a container that
// forbids unshare), no core dumps and 1,024 descriptors. The limits are set
// right after it began, since they belong to a process that must be there first.
//
// Its processes are known by two signs, either is enough: the session, which
// no process can enter from outside, and the mark in the environment, which
// stays when a process makes a session of its own. A process that made its own
// session, dropped or overwrote its environment, and whose session holds no
// process with the mark, is not found; nor is one whose environment this
// process may not read. A process that is asked of a service manager belongs to
// that manager, and is left alone.
//
// The kernel could kill the program when its caller dies (PR_SET_PDEATHSIG).
// That is not used: it acts when the thread that forked ends, and the thread
// that forks here has a descriptor table of its own, which would hold every
// file and connection of the embedding process open for as long as the program
// runs. [End] does it instead, for all of the program's processes.
package script
