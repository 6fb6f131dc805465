package machine

// What the machine and its init have agreed on.
const (
	DeviceDir  = "/data/device" // the device
	DiskMount  = "/data"
	DiskDevice = "/dev/vda"
	Repo       = "/repo" // a link to the repository with v1, or with both

	// ModeInstall and ModeSick are arguments of init: make a device with v1,
	// and have every trial fail.
	ModeInstall = "install"
	ModeSick    = "sick"
	// ModeGuarded has the machine be under its watchdog; see package main in
	// guest.
	ModeGuarded = "guarded"

	// Mark begins every line of init. A word follows, and more.
	Mark          = "pawl: "
	SaysUp        = "up"    // the first one
	SaysFound     = "found" // version, state: what there is after Resume
	SaysBegin     = "begin" // verb
	SaysDone      = "done"  // version, verb, exit code
	SaysReboot    = "reboot"
	SaysEnd       = "end"
	SaysViolation = "violation"
	SaysDog       = "dog"  // what the watchdog is to show next, or has not done
	SaysBoot      = "boot" // why it booted
)
