// Package process kills the device's program at each system call that changes
// something, before and after it, and has each of these calls fail; then the
// device settles, and the checker says whether anything is mixed or broken. It
// has no code of its own but tests.
//
// A moment in a program is known by the call, the class of the path (random
// parts left out) and the ordinal within these two, so that moments are told
// from each other also where threads take turns by chance. A run that meets a
// moment nobody knew adds it; a campaign ends when every known one was met.
package process
