package tuf

import (
	"errors"
	"fmt"
	"time"

	"github.com/pawl-ota/pawl/ota/fetch"
)

// Options configure a [Source]. URL, one of Root and RootFile, and Dir are
// needed.
//
// Metadata expires, and a device may not know the time. The reference time is
// the later of the clock and a floor that only rises by what was signed: BuildTime
// and the newest `issued` of a verified timestamp. A clock that stands at 1970
// is so corrected; what is expired by the floor is [ErrExpired]. What is
// expired by the clock alone is [ErrClockUntrusted], and is refused as well,
// until the clock is right or the repository is refreshed; the clock never
// moves the floor, so that one boot in 2106 locks nothing out.
type Options struct {
	// URL is where the repository lies: http, https, or the path of a folder.
	URL string
	// MetadataURL and TargetsURL are where the repository's folders metadata
	// and targets lie, if not in URL: metadata may come from one host and
	// everything else from a mirror that nobody has to trust.
	MetadataURL, TargetsURL string
	// Root is the first root that the device trusts: the bytes of a root.json,
	// pinned in the firmware. A newer one may replace it with newer firmware.
	Root []byte
	// RootFile is the path of a file to read Root from, in the factory image
	// say. Whoever can write it decides whom the device trusts.
	RootFile string
	// Dir is the folder for the trust store, on a file system that survives a
	// power cut; nothing else may use it. It is made if it is missing.
	Dir string
	// Client fetches over HTTP; nil means one with default options. A folder
	// needs none.
	Client *fetch.Client
	// MaxStale is how long after their expiry the files of a folder still count:
	// a medium may be under way for long. Versions are checked all the same.
	MaxStale time.Duration
	// Now is the device's clock; nil means time.Now.
	Now func() time.Time
	// BuildTime is when the program was built: no time before it is believed.
	BuildTime time.Time
	// TrustClock says that the clock is known to be right, as after a secured
	// time synchronisation: what is expired by it is ErrExpired then.
	TrustClock bool
	// Timeout bounds one lookup, without content; 0 means 10 minutes. LockWait
	// is how long another process may hold the trust store; 0 means 10 s.
	Timeout, LockWait time.Duration
	// Limits bound the repository's metadata.
	Limits Limits
}

// Limits bound metadata, in bytes and numbers. Zero means the default that
// stands with each field. A device needs memory of some ten times the largest file.
type Limits struct {
	Root      int64 // bytes of one root.json; 128 KiB
	Timestamp int64 // bytes; 16 KiB
	Snapshot  int64 // bytes; 512 KiB
	Targets   int64 // bytes of one file of targets, delegated ones too; 4 MiB
	Target    int64 // bytes of a file that [Source.Read] reads; 16 MiB
	Rotations int64 // root versions not seen before that one lookup takes; 256
	Roles     int   // delegated roles visited for one target; 32
}

func (o Options) withDefaults() (Options, error) {
	switch {
	case o.URL == "":
		return o, errors.New("tuf: Options.URL is empty")
	case len(o.Root) == 0 && o.RootFile == "":
		return o, errors.New("tuf: Options.Root is empty, and so is Options.RootFile")
	case len(o.Root) > 0 && o.RootFile != "":
		return o, errors.New("tuf: Options.RootFile is set, and so is Options.Root")
	case o.Dir == "":
		return o, errors.New("tuf: Options.Dir is empty")
	case o.MaxStale < 0:
		return o, errors.New("tuf: Options.MaxStale is negative")
	case o.Timeout < 0:
		return o, errors.New("tuf: Options.Timeout is negative")
	case o.LockWait < 0:
		return o, errors.New("tuf: Options.LockWait is negative")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Minute
	}
	if o.LockWait == 0 {
		o.LockWait = 10 * time.Second
	}
	err := o.Limits.fill()
	return o, err
}

func (l *Limits) fill() error {
	for _, f := range []struct {
		name  string
		value *int64
		zero  int64
	}{
		{"Root", &l.Root, 128 << 10},
		{"Timestamp", &l.Timestamp, 16 << 10},
		{"Snapshot", &l.Snapshot, 512 << 10},
		{"Targets", &l.Targets, 4 << 20},
		{"Target", &l.Target, 16 << 20},
		{"Rotations", &l.Rotations, 256},
	} {
		if *f.value < 0 {
			return fmt.Errorf("tuf: Options.Limits.%s is negative", f.name)
		}
		if *f.value == 0 {
			*f.value = f.zero
		}
	}
	if l.Roles < 0 {
		return errors.New("tuf: Options.Limits.Roles is negative")
	}
	if l.Roles == 0 {
		l.Roles = 32
	}
	return nil
}
