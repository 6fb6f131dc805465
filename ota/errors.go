package ota

import "errors"

// Errors that a caller branches on. They come wrapped with what was being
// done; compare with [errors.Is].
var (
	// ErrLocked is returned by Open when another process holds the state
	// directory and did not let go within Options.LockWait.
	ErrLocked = errors.New("another updater holds the state directory")
	// ErrPoisoned is returned by every verb after a write of the journal
	// failed in a way that leaves open what is on the disk, or after a backend
	// did not return. Only a new Open tells.
	ErrPoisoned = errors.New("the updater has to be opened anew")
	// ErrJournal is returned by Open when the journal is undamaged, but of a
	// format or in a state that this program does not know. Everything is kept
	// as it is.
	ErrJournal = errors.New("the journal is not one that this program can read")
	// ErrState is returned when a verb does not fit the state, such as Commit
	// of a transaction that was never activated.
	ErrState = errors.New("not possible in this state")
	// ErrNoSource is returned when Options.Source is nil and was needed.
	ErrNoSource = errors.New("no source is configured")
	// ErrNoRelease is returned by Check and by a Source when the repository
	// holds no release for the device.
	ErrNoRelease = errors.New("no release for this device")
	// ErrUpToDate is returned by Check when the device runs the newest release
	// already.
	ErrUpToDate = errors.New("the device runs the newest release")
	// ErrHeld is the family of refusals that pass by themselves or by an
	// operator's word: a release that failed here (ErrCondemned), or one that
	// was cut short too often lately (ErrBackoff).
	ErrHeld = errors.New("held back")
	// ErrCondemned is returned by Begin for a release that failed its trial
	// on this device. Options.Retry, or a higher attempt number in the
	// release, overrides it.
	ErrCondemned error = &held{"the release failed its trial on this device"}
	// ErrBackoff is returned by Begin for a release that was cut short here
	// several times, until some time has passed.
	ErrBackoff error = &held{"the release was cut short here; waiting before the next try"}
	// ErrHardware is returned for a release of another product or variant or
	// for other hardware.
	ErrHardware = errors.New("the release is not for this device")
	// ErrDowngrade is returned for a release whose seq is not above the
	// running one.
	ErrDowngrade = errors.New("the release is not newer than the running one")
	// ErrFloor is returned for a release below the security floor or the data
	// floor.
	ErrFloor = errors.New("the release is below a floor")
	// ErrComponent is returned for a release with a component that no backend
	// is configured for.
	ErrComponent = errors.New("no backend for a component of the release")
	// ErrNoSpace is returned before anything is fetched when a file system has
	// too little room; a *SpaceError holds the numbers.
	ErrNoSpace = errors.New("not enough space")
	// ErrNoMemory is returned before anything is fetched when the device has too
	// little memory available; a *MemoryError holds the numbers.
	ErrNoMemory = errors.New("not enough memory")
	// ErrNotLocal is returned when content is not on the device and there is
	// no source, as for a rollback to a release that was not kept.
	ErrNotLocal = errors.New("the content is not on the device")
	// ErrDigest is returned in place of io.EOF by a reader whose bytes are not
	// those that were signed.
	ErrDigest = errors.New("content has the wrong digest")
	// ErrLength is returned in place of io.EOF by a reader that has more or
	// fewer bytes than were signed.
	ErrLength = errors.New("content has the wrong length")
	// ErrUnhealthy is returned when a trial failed and was taken back.
	ErrUnhealthy = errors.New("the release did not prove itself")
	// ErrHopeless is what a [Check] wraps where the release will not become healthy
	// any more, whatever time it is given: the trial ends at once.
	ErrHopeless = errors.New("it will not become healthy")
	// ErrRestartPending is returned by Commit in the process that has to be
	// replaced before the trial can go on.
	ErrRestartPending = errors.New("the process has to be started anew first")
	// ErrRebootPending is returned by Commit in the boot that has to end
	// before the trial can go on.
	ErrRebootPending = errors.New("the device has to boot first")
	// ErrStuck is returned when neither way could be gone to its end. It is
	// tried again at each Resume, and a newer release may be begun over it.
	ErrStuck = errors.New("stuck between two releases")
	// ErrNothingKept is returned by Rollback when no earlier release was kept.
	ErrNothingKept = errors.New("no earlier release is kept on the device")
	// ErrWatchdog is returned by Activate when the watchdog could not be
	// armed, and by Begin for a release whose scripts may take longer than it
	// waits; nothing was changed.
	ErrWatchdog = errors.New("the watchdog does not allow it")
)

// held is a member of the ErrHeld family.
type held struct{ text string }

func (e *held) Error() string { return e.text }
func (e *held) Unwrap() error { return ErrHeld }
