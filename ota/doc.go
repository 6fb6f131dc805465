// Package ota moves a device from one signed release to the next as one
// transaction over all of its components, and back again when the new release
// does not prove itself.
//
// Most programs need two calls: [Open], with [Updater.Resume] once at the
// start of the program, and [Updater.Update] whenever they want to look for a
// release. Firmware that decides for itself when to download, when to switch
// and when to be sure calls [Updater.Check], [Updater.Begin], [Tx.Stage],
// [Tx.Activate] and [Tx.Commit] one by one.
//
// # What is promised
//
// After a power cut, a kill or an error at any point, once Resume has returned
// and the restart or reboot that it may have asked for has happened, every
// component is exactly the old release or exactly the new one, and all of them
// are the same one. There is one point of no return: the journal record
// "committing". Before it the way is back, after it the way is forward.
//
// # What is not promised
//
// A backend that breaks its contract breaks the promise; package otatest tells.
// A disk that acknowledges what it did not write, and a file system that
// ignores fsync, are beyond what a program can see. Processes that write to
// what a release owns, while it is switched, get what they asked for.
//
// # Scripts
//
// A release can carry programs that run at the points of its transaction, with
// a paired undo: see [release.Script]. When they run, what they are given, what
// their exit codes mean and what happens when the power goes in the middle of
// one stands in SCRIPTS.md beside this file.
//
// # Formats
//
// The formats of version 0 may change until version 1 is there. A journal, a
// document or a state that this package does not know is refused, and kept.
package ota
