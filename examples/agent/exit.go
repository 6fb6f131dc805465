package main

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"syscall"

	"github.com/pawl-ota/pawl/micro"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/tuf"
)

// The exit codes. README.md documents them for the programs that call the
// agent; they do not change.
const (
	exitOK    = 0  // the device runs the newest release it may run, or the question was answered
	exitOther = 1  // anything else; nothing is lost, and the next call goes on
	exitUsage = 2  // the command line or the configuration cannot be used
	exitBack  = 10 // a release was tried and taken back
	exitHeld  = 11 // the newest release is held back here
	exitStuck = 12 // neither way could be gone to its end
	exitNeeds = 13 // a restart or a reboot has to happen, then the same again
	exitLater = 14 // a script of the release asked for another time; the same again later
)

// errUsage marks what is wrong with the command line or the configuration.
type errUsage struct{ error }

func (e errUsage) Unwrap() error { return e.error }

// errDamaged is returned by verify and repair when something is not as the
// release says.
var errDamaged = errors.New("not everything is as the release says")

// errLeft is returned by repair for what it could not mend.
var errLeft = errors.New("not everything could be mended with what is on the device")

// errDiffers is returned by adopt when what is installed is no release.
var errDiffers = errors.New("what is installed is not exactly a release of the repository")

// kind is what an error can be. The words are for programs and do not change.
type kind struct {
	is   error
	word string
	code int
	hint string
}

// kinds lists the kinds of errors, the more telling first.
var kinds = []kind{
	{ota.ErrStuck, "stuck", exitStuck, "run resume again when what is in the way is gone; a newer release can also be installed over it"},
	{ota.ErrRestartPending, "restart", exitNeeds, "start the agent again: it goes on from here"},
	{ota.ErrRebootPending, "reboot", exitNeeds, "reboot the device and run update again: it goes on from here"},
	{ota.ErrLater, "later", exitLater, "nothing is lost: run update again later, it goes on from here; status says which script waits for what"},
	{ota.ErrRefused, "refused", exitOther, "the release says by a script that it is not for this device: publish another, or try this one again with: update -retry"},
	{ota.ErrUnhealthy, "unhealthy", exitBack, "the device runs what it ran before; this release is not tried again by itself"},
	{ota.ErrScript, "script", exitOther, "mend what the script says, or publish a newer release; this one is tried again by itself unless it is held back"},
	{ota.ErrCondemned, "condemned", exitHeld, "publish a newer release, or try this one again with: update -retry"},
	{ota.ErrHeld, "held", exitHeld, "it is tried again by itself later, or now with: update -retry"},
	{ota.ErrLocked, "locked", exitOther, "another agent is at work; status and history answer meanwhile"},
	{ota.ErrJournal, "journal", exitOther, "the state folder belongs to something else or to a newer agent; nothing in it was changed"},
	{errDiffers, "differs", exitOther, "nothing was recorded: mend what differs, or have a release installed over it with update"},
	{ota.ErrNoMemory, "memory", exitOther, "stop something that holds memory; nothing was changed"},
	{ota.ErrNoSpace, "space", exitOther, "make room, or lower limits.reserve; nothing was changed"},
	{syscall.ENOSPC, "space", exitOther, "make room; nothing was lost"},
	{syscall.EROFS, "readonly", exitOther, "mount the file system for writing; nothing was changed"},
	{micro.ErrReadOnly, "readonly", exitOther, "mount the file system for writing, or run as the owner of the root; nothing was changed"},
	{micro.ErrLayout, "layout", exitOther, "the root has to be a plain folder on one file system"},
	{micro.ErrNoExchange, "layout", exitOther, "an entry is a mount point, or its file system cannot exchange names"},
	{micro.ErrLocalChange, "localchange", exitOther, "undo the changes, or have the release keep or overwrite them (options: localChanges)"},
	{micro.ErrChanged, "changed", exitOther, "verify says what differs from the release that runs; a later release installs over it"},
	{micro.ErrUnmanaged, "unmanaged", exitOther, "move the files away, or have the release carry them over (carry)"},
	{micro.ErrNoSupervisor, "supervisor", exitOther, "the release lists services: add supervisor to the configuration; nothing was changed"},
	{micro.ErrSupervisor, "supervisor", exitOther, "the supervisor of the services does not answer; nothing is lost"},
	{ota.ErrHardware, "hardware", exitOther, "compare device in the configuration with what the release is for"},
	{ota.ErrComponent, "component", exitOther, "add the component to the configuration"},
	{ota.ErrNoSource, "source", exitOther, "add source to the configuration"},
	{ota.ErrNoRelease, "none", exitOther, "nothing was published for this product and variant yet"},
	{ota.ErrNothingKept, "kept", exitOther, "a release says with keep.previous how many earlier ones stay on the device"},
	{ota.ErrNotLocal, "local", exitOther, "only a release that was kept can be gone back to"},
	{ota.ErrFloor, "floor", exitOther, "status shows the floors"},
	{tuf.ErrExpired, "expired", exitOther, "the publisher has to run: publisher refresh"},
	{tuf.ErrClockUntrusted, "clock", exitOther, "set the device's clock"},
	{tuf.ErrUntrusted, "untrusted", exitOther, "the repository is not signed by the keys that this device trusts"},
	{tuf.ErrStore, "trust", exitOther, "the trust folder belongs to something else or to a newer agent; nothing in it was changed"},
	{tuf.ErrUnavailable, "unavailable", exitOther, "the repository or the way to it does not answer; nothing is lost, the next call tries again"},
	{ota.ErrDigest, "content", exitOther, "the repository holds other content than was signed: publish it again; nothing of it was used"},
	{ota.ErrLength, "content", exitOther, "the repository holds other content than was signed: publish it again; nothing of it was used"},
	{errDamaged, "damaged", exitOther, "mend it with: repair"},
	{errLeft, "damaged", exitOther, "publish a newer release; with keep.repair full a device can mend everything by itself"},
	{context.Canceled, "stopped", exitOther, "stopped in between; the next call goes on from here"},
	{fs.ErrPermission, "permission", exitOther, "run the agent as the owner of the state folder and of the roots"},
}

// classify returns the exit code for err, a word for programs and a hint for
// people.
func classify(err error) (code int, word, hint string) {
	if err == nil {
		return exitOK, "", ""
	}
	var usage errUsage
	if errors.As(err, &usage) {
		return exitUsage, "usage", "agent -h shows how it is called"
	}
	for _, k := range slices.Concat(appKinds(), kinds) {
		if errors.Is(err, k.is) {
			return k.code, k.word, k.hint
		}
	}
	return exitOther, "other", ""
}

// outcome classifies what became of a transaction: an ended one can need a
// restart without an error, and one that is stuck says so first.
func outcome(r ota.Result, err error) (code int, word, hint string) {
	switch {
	case r.State == ota.Stuck:
		return classify(ota.ErrStuck)
	case err == nil && r.Needs == ota.NeedsRestart:
		return classify(ota.ErrRestartPending)
	case err == nil && r.Needs == ota.NeedsReboot:
		return classify(ota.ErrRebootPending)
	}
	code, word, hint = classify(err)
	if code == exitOther && r.State == ota.Reverted && tookBack(r, err) {
		code = exitBack
	}
	return code, word, hint
}

// tookBack reports whether what err says is what the release was taken back
// for.
func tookBack(r ota.Result, err error) bool {
	return errors.Is(err, ota.ErrScript) || errors.Is(err, ota.ErrRefused) || strings.Contains(r.Reason, err.Error())
}
