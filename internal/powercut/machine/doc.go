// Package machine cuts the power of a whole machine: Debian's kernel in QEMU,
// with its own drivers, block layer and ext4, on a disk with a volatile cache
// that is made here. The device program of package device is the firmware, and
// the program in guest is its init.
//
// A machine is killed at a random write to its disk, and never told to stop.
// What the guest's kernel had not written yet is lost with its memory. What it
// had written and not flushed is lost in part: the disk keeps none of it, all,
// or any of it, in pieces of a sector. What was flushed, or written with FUA, is
// kept. So a cut loses what a disk may lose that tells the truth about its cache
// and whose sectors, of 4 KiB, are whole. A disk that lies about flushes is not modelled,
// nor one that damages sectors that nobody wrote.
//
// A reboot that the device asks for is a reset without a sync: the guest loses
// its memory, the disk nothing.
//
// TestWatchdog has one with a watchdog instead, QEMU's model of Intel's 6300ESB, and
// keeps its power: what is reset by that is a device whose updating process stops,
// is killed, or closes a watchdog that cannot be closed. Debian's kernel for clouds has
// no driver for it; the one for all machines is taken, with its modules.
package machine
