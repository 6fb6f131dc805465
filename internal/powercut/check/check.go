// Package check says what is on a device of the power cut campaigns, and
// whether that is allowed. It shares no code with what writes the device: it
// imports the standard library alone, and knows what each release should be
// from its own description (see Tree, InPlace and Image).
//
// A device is a folder:
//
//	app/       the component app: a whole tree, switched as one
//	app/data/  of the app's own, carried from release to release
//	sys/       the component sys: entries that change one by one
//	sys/local/ of the device's own, never touched
//	slots/     the component boot: images, of which one boots
//	effects/   what the scripts of sys have done: one file for each
//	boot_id    the boot that goes on, and the slot that it came up from
//	state/     pawl's own: updates (journal, local copy) and trust
//	health     "ok" or "sick"
//	root.json  the root of trust that the firmware came with
//	repo       the repository, or a symbolic link to it
//	xattrs     is there where files have extended attributes
//	carries    is there when the app has put something into app/data
package check

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Version is a release of the campaigns. It is also the release's seq.
type Version int

// The values of [Version].
const (
	None Version = 0 // a new device
	V1   Version = 1
	V2   Version = 2
	// Mixed is anything that is not exactly one of the others.
	Mixed Version = -1
)

// String returns the version as people say it.
func (v Version) String() string {
	switch v {
	case None:
		return "nothing"
	case Mixed:
		return "a mixture"
	}
	return fmt.Sprintf("v%d", int(v))
}

// Found is what is on a device.
type Found struct {
	// App, Sys and Boot are the components, Scripts what those of sys have
	// done.
	App, Sys, Boot, Scripts Version
	// Wrong lists why something is a mixture, and everything else that must
	// not be.
	Wrong []string
}

// Version returns what the device as a whole is.
func (f Found) Version() Version {
	if len(f.Wrong) > 0 || f.App != f.Sys || f.App != f.Boot || f.App != f.Scripts {
		return Mixed
	}
	return f.App
}

// String says all of it in one line.
func (f Found) String() string {
	s := fmt.Sprintf("app %s, sys %s, boot %s, scripts %s", f.App, f.Sys, f.Boot, f.Scripts)
	if len(f.Wrong) > 0 {
		s += ": " + strings.Join(f.Wrong, "; ")
	}
	return s
}

// ErrViolation is returned for a device that breaks a promise.
var ErrViolation = errors.New("a promise is broken")

// Device looks at the device in dir after its Resume has returned, and every
// restart and reboot that it asked for has happened. It must be exactly one of
// the releases want, all of it; of any where want is empty. The error wraps
// [ErrViolation].
func Device(dir string, want ...Version) (Found, error) {
	l := looker{dir: dir}
	l.leftovers()
	f := Look(dir)
	f.Wrong = append(f.Wrong, l.wrong...)
	got := f.Version()
	if got != Mixed && len(want) == 0 {
		return f, nil
	}
	for _, v := range want {
		if v == got {
			return f, nil
		}
	}
	return f, fmt.Errorf("%w: the device should be %v, and is %s", ErrViolation, want, f)
}

// Look says what is in dir, whatever lies about in state folders.
func Look(dir string) Found {
	l := looker{dir: dir}
	if _, err := os.Lstat(filepath.Join(dir, "xattrs")); err == nil {
		l.xattrs = true
	}
	device, err := os.Stat(dir)
	if err != nil {
		l.complain("%v", err)
		return Found{App: Mixed, Sys: Mixed, Boot: Mixed, Scripts: Mixed, Wrong: l.wrong}
	}
	l.owner = device.Sys().(*syscall.Stat_t)
	f := Found{App: l.app(), Sys: l.sys(), Boot: l.boot(), Scripts: l.scripts()}
	f.Wrong = l.wrong
	return f
}

// looker looks at one device.
type looker struct {
	dir    string
	xattrs bool
	owner  *syscall.Stat_t // of the folder
	wrong  []string
}

func (l *looker) path(names ...string) string {
	return filepath.Join(append([]string{l.dir}, names...)...)
}

func (l *looker) complain(format string, args ...any) Version {
	l.wrong = append(l.wrong, fmt.Sprintf(format, args...))
	return Mixed
}

// boot returns what the boot loader brought up.
func (l *looker) boot() Version {
	data, err := os.ReadFile(l.path("boot_id"))
	words := strings.Fields(string(data))
	if err != nil || len(words) != 2 {
		return l.complain("boot_id says %q (%v)", data, err)
	}
	if words[1] == "-" {
		return None
	}
	image, err := os.ReadFile(l.path("slots", words[1]))
	if err != nil {
		return l.complain("slot %s: %v", words[1], err)
	}
	for _, v := range []Version{V1, V2} {
		if string(image) == string(Image(v)) {
			return v
		}
	}
	return l.complain("slot %s holds %d bytes of something else", words[1], len(image))
}

// scripts returns the release that the scripts around the switch of sys say they
// prepared. The one before the staging may have prepared another, as long as
// that is open: see Tidy.
func (l *looker) scripts() Version {
	early, before, after := l.effect("early"), l.effect("before"), l.effect("after")
	if early == Mixed || before == Mixed || after == Mixed {
		return Mixed
	}
	if before != after {
		return l.complain("the script before the switch prepared %s, the one after it %s", before, after)
	}
	return before
}

// effect returns what one script prepared.
func (l *looker) effect(name string) Version {
	data, err := os.ReadFile(l.path("effects", name))
	text := strings.TrimSpace(string(data))
	switch {
	case errors.Is(err, os.ErrNotExist) || text == "0" && err == nil:
		return None
	case err == nil && text == "1":
		return V1
	case err == nil && text == "2":
		return V2
	}
	return l.complain("effects/%s says %q (%v)", name, data, err)
}

// leftovers finds temporary files of state folders, which every Lock sweeps.
func (l *looker) leftovers() {
	for _, folder := range []string{"state", "state/updates", "state/updates/blobs"} {
		names, err := filepath.Glob(l.path(folder, ".pawl-tmp-*"))
		if err != nil || len(names) > 0 {
			l.complain("left behind: %v (%v)", names, err)
		}
	}
}

// Tidy checks that a device on which no transaction is open has nothing that
// belongs to one. The error wraps [ErrViolation].
func Tidy(dir string) error {
	l := looker{dir: dir}
	if early, after := l.effect("early"), l.effect("after"); early != after {
		return fmt.Errorf("%w: nothing is open, and the script before the staging prepared %s, the one after the switch %s", ErrViolation, early, after)
	}
	var left []string
	for _, pattern := range []string{".pawl.app/tx/*", ".pawl.app/trash/*", ".pawl.sys/tx/*", ".pawl.sys/trash/*", "slots/.pawl-tmp-*"} {
		names, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return err
		}
		left = append(left, names...)
	}
	if len(left) > 0 {
		return fmt.Errorf("%w: nothing is open, and there is %v", ErrViolation, left)
	}
	return nil
}
