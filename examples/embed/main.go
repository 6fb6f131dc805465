// Command embed is a small firmware that keeps its own main loop and updates
// itself: its own program, which a new start of the same process replaces, and
// a folder of files, both in one transaction. It is what the README's program
// grows into.
//
//	embed -dir DIR -source URL -root root.json [-look 1h] [-soak 30s] [-watchdog /dev/watchdog]
//
// DIR/own/current/firmware is the program that an init system starts, DIR/app
// is the folder of files, and while DIR/busy exists nothing is switched.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/pawl-ota/pawl/micro"
	"github.com/pawl-ota/pawl/monitor/watchdog"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/tuf"
)

// Set at build time: go build -ldflags='-X main.version=2.0.0'.
var (
	version = "dev"
	sick    = "" // why this build does not work, to see it taken back
)

// settings are the command line.
type settings struct {
	dir, source, root, watchdog string
	look, soak, deadline, work  time.Duration
}

func main() {
	var s settings
	flag.StringVar(&s.dir, "dir", "", "the `DIR` of everything that stays on the device")
	flag.StringVar(&s.source, "source", "", "the repository: a `URL` or a folder")
	flag.StringVar(&s.root, "root", "", "the first trusted root.json, a `FILE`")
	flag.StringVar(&s.watchdog, "watchdog", "", "a watchdog `DEVICE`")
	flag.DurationVar(&s.look, "look", time.Hour, "`time` between two looks at the repository")
	flag.DurationVar(&s.soak, "soak", 30*time.Second, "how long a new release has to be healthy")
	flag.DurationVar(&s.deadline, "deadline", 10*time.Minute, "how long it may take until it is healthy")
	flag.DurationVar(&s.work, "work", time.Second, "`time` between two units of work")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := start(ctx, s, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "embed:", err)
		os.Exit(1)
	}
}

// start runs the firmware until ctx ends, or never returns because a new
// program takes the process over.
func start(ctx context.Context, s settings, log io.Writer) error {
	say := func(format string, args ...any) { fmt.Fprintf(log, version+": "+format+"\n", args...) }
	say("started")
	hardware, err := startWatchdog(s.watchdog)
	if err != nil {
		return err
	}
	defer hardware.Disarm()
	f := &firmware{every: s.work, dog: watchdog.NewShared(hardware), say: say}
	own := &ownProgram{dir: filepath.Join(s.dir, "own")}
	options, err := s.options(f, own)
	if err != nil {
		return err
	}
	updater, err := ota.Open(ctx, options)
	if err != nil {
		return err
	}
	f.updates = &updates{updater: updater, look: s.look, say: say, consent: func() bool {
		_, err := os.Stat(filepath.Join(s.dir, "busy"))
		return os.IsNotExist(err)
	}}
	needs, err := f.run(ctx)
	// The lock has to be free before the next program asks for it.
	if closed := updater.Close(); err == nil {
		err = closed
	}
	switch {
	case err != nil:
		return err
	case needs == ota.NeedsRestart:
		say("starting the program anew")
		return own.exec(os.Args)
	case needs == ota.NeedsReboot:
		return fmt.Errorf("a reboot is needed, and nothing here asks for one")
	}
	say("stopped")
	return nil
}

// startWatchdog starts the watchdog of the device; without a path there is none.
func startWatchdog(path string) (watchdog.Watchdog, error) {
	if path == "" {
		return watchdog.None{}, nil
	}
	d, err := watchdog.OpenDevice(watchdog.DeviceOptions{Path: path})
	if err != nil {
		return nil, err
	}
	return d, d.Arm(time.Minute)
}

// options puts the parts of the device together.
func (s settings) options(f *firmware, own *ownProgram) (ota.Options, error) {
	root, err := os.ReadFile(s.root)
	if err != nil {
		return ota.Options{}, err
	}
	source, err := tuf.New(tuf.Options{URL: s.source, Root: root, Dir: filepath.Join(s.dir, "trust")})
	if err != nil {
		return ota.Options{}, err
	}
	files, err := micro.New(micro.Options{Name: "app", Root: filepath.Join(s.dir, "app"), Layout: micro.Tree})
	if err != nil {
		return ota.Options{}, err
	}
	return ota.Options{
		Dir:      filepath.Join(s.dir, "updates"),
		Device:   ota.Device{ID: "demo", Product: "embed", Variant: "any"},
		Source:   source,
		Backends: map[string]ota.Backend{"firmware": own, "app": files},
		Health:   f.health,
		Trial:    ota.Trial{Soak: s.soak, Deadline: s.deadline + s.soak, Interval: max(s.soak/10, 10*time.Millisecond), Timeout: 5 * time.Second},
		Watchdog: f.dog,
		Progress: f.progress,
	}, nil
}
