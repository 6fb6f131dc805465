// Package firmware is the device of the power cut campaigns: what a maker's
// firmware would be, with the real engine, the real backend of files in both
// layouts, the real trust store, and a backend for images that boot. It works
// on any folder, laid out as package check describes it.
//
// Nothing in it knows whether it is being tested but two things: the boot is
// what [Boot] last wrote, and while the engine waits, the clock runs a
// thousand times faster.
package firmware

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pawl-ota/pawl/internal/seam"
	"github.com/pawl-ota/pawl/micro"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/tuf"
)

// Product is what the releases of the campaigns are for.
const Product = "powercut"

// What a verb of the device can be.
const (
	VerbUpdate   = "update"   // all the way to the newest release
	VerbRetry    = "retry"    // update, also to a release that is held back
	VerbResume   = "resume"   // settle what is open
	VerbRollback = "rollback" // back to the release before
	VerbFinish   = "finish"   // take what is open to its end, and begin nothing
	VerbVerify   = "verify"   // compare what is installed with what should be
	VerbStatus   = "status"   // say what is recorded
	VerbRefresh  = "refresh"  // bring the trust store up to date
	VerbBoot     = "boot"     // be the boot loader
)

// Exit codes.
const (
	ExitDone  = 0
	ExitError = 1
	ExitBoot  = 10 // the device has to boot before it can go on
)

// Answer is what a verb did. It is printed as JSON.
type Answer struct {
	Code   int          `json:"code"`
	Error  string       `json:"error,omitempty"`
	Result ota.Result   `json:"result,omitzero"`
	Status *ota.Status  `json:"status,omitempty"`
	Damage []ota.Damage `json:"damage,omitempty"`
	Boot   string       `json:"boot,omitempty"` // the slot that came up
}

// Err returns the error of a verb that failed, and nil for one that only asks
// for a boot.
func (a Answer) Err() error {
	if a.Code == ExitDone || a.Code == ExitBoot {
		return nil
	}
	return errors.New(a.Error)
}

// Run runs one verb as a process of its own would, in this one.
func Run(ctx context.Context, dir, verb string) (a Answer) {
	var err error
	switch verb {
	case VerbBoot:
		a.Boot, err = Boot(dir)
	case VerbRefresh:
		err = refresh(ctx, dir)
	default:
		err = With(ctx, dir, verb == VerbRetry, func(u *ota.Updater) (err error) {
			a, err = do(ctx, u, verb)
			return err
		})
	}
	switch needs := a.Result.Needs; {
	case errors.Is(err, ota.ErrRebootPending) || errors.Is(err, ota.ErrRestartPending):
		a.Code, a.Error = ExitBoot, err.Error()
	case err != nil:
		a.Code, a.Error = ExitError, err.Error()
	case needs != "" && needs != ota.Live:
		a.Code = ExitBoot
	}
	return a
}

func do(ctx context.Context, u *ota.Updater, verb string) (a Answer, err error) {
	switch verb {
	case VerbUpdate, VerbRetry:
		a.Result, err = u.Update(ctx)
	case VerbResume:
		a.Result, err = u.Resume(ctx)
	case VerbRollback:
		if a.Result, err = u.Resume(ctx); err == nil {
			a.Result, err = u.Rollback(ctx, 0)
		}
	case VerbFinish:
		a.Result, err = finish(ctx, u)
	case VerbVerify:
		if a.Result, err = u.Resume(ctx); err == nil {
			a.Damage, err = u.Verify(ctx)
		}
	case VerbStatus:
		status := u.Status()
		a.Status = &status
	default:
		err = fmt.Errorf("unknown verb %q", verb)
	}
	return a, err
}

// finish takes the open transaction to its end.
func finish(ctx context.Context, u *ota.Updater) (ota.Result, error) {
	r, err := u.Resume(ctx)
	t := u.Tx()
	if err != nil || t == nil {
		return r, err
	}
	for _, step := range []struct {
		from ota.State
		take func(context.Context) error
	}{{ota.Staging, t.Stage}, {ota.Staged, t.Activate}, {ota.InTrial, t.Commit}} {
		if err == nil && t.State() == step.from {
			err = step.take(ctx)
		}
	}
	return t.Result(), err
}

// With opens the updater of the device in dir as a new process, has f use it,
// and closes it.
func With(ctx context.Context, dir string, retry bool, f func(*ota.Updater) error) error {
	o, done, err := Options(dir)
	if err != nil {
		return err
	}
	o.Retry = retry
	u, err := ota.Open(ctx, o)
	if err != nil {
		return errors.Join(err, done())
	}
	return errors.Join(f(u), u.Close(), done())
}

// Options returns the options of a new process on the device in dir. done lets
// go of what they hold.
func Options(dir string) (o ota.Options, done func() error, err error) {
	source, err := sourceOf(dir)
	if err != nil {
		return o, nil, err
	}
	app, err := micro.New(micro.Options{Name: "app", Root: filepath.Join(dir, "app"), Layout: micro.Tree})
	if err != nil {
		return o, nil, err
	}
	sys, err := micro.New(micro.Options{Name: "sys", Root: filepath.Join(dir, "sys"), Layout: micro.InPlace})
	if err != nil {
		return o, nil, err
	}
	o = ota.Options{
		Dir:      filepath.Join(dir, "state", "updates"),
		Device:   ota.Device{ID: "d1", Product: Product, Variant: "default"},
		Source:   source,
		Backends: map[string]ota.Backend{"app": app, "sys": sys, "boot": &Slots{Dir: dir}},
		Health:   func(context.Context) error { return health(dir) },
	}
	seam.Set(&o, newHost(dir), nil)
	forget, err := useInodes(dir)
	if err != nil {
		return o, nil, err
	}
	return o, func() error { forget(); return source.Close() }, nil
}

func sourceOf(dir string) (*tuf.Source, error) {
	return tuf.New(tuf.Options{
		URL:      filepath.Join(dir, "repo"),
		RootFile: filepath.Join(dir, "root.json"),
		Dir:      filepath.Join(dir, "state", "trust"),
	})
}

func refresh(ctx context.Context, dir string) error {
	source, err := sourceOf(dir)
	if err != nil {
		return err
	}
	return errors.Join(source.Refresh(ctx), source.Close())
}

func health(dir string) error {
	data, err := os.ReadFile(filepath.Join(dir, "health"))
	if err != nil {
		return err
	}
	if text := strings.TrimSpace(string(data)); text != "ok" {
		return fmt.Errorf("the device is %s", text)
	}
	return nil
}

// host is the real machine, but for its boots and its waits.
type host struct {
	seam.Host
	dir     string
	process string
	waited  time.Duration
}

func newHost(dir string) *host {
	return &host{Host: seam.Machine, dir: dir, process: newID()}
}

// Boot returns the id that the boot loader gave this boot.
func (h *host) Boot() (string, error) {
	id, _, err := booted(h.dir)
	return id, err
}

// Process returns an id that is new for each [Options].
func (h *host) Process() (string, error) { return h.process, nil }

func (h *host) Uptime() time.Duration { return h.Host.Uptime() + h.waited }

func (h *host) Sleep(ctx context.Context, d time.Duration) error {
	h.waited += d
	return h.Host.Sleep(ctx, d/1000)
}

// Main is the device as a program: device -dir DIR VERB. It prints the answer
// and returns the exit code.
func Main(args []string, stdout, stderr io.Writer) int {
	if len(args) != 3 || args[0] != "-dir" {
		fmt.Fprintln(stderr, "usage: device -dir DIR update|retry|resume|rollback|finish|verify|status|refresh|boot")
		return ExitError
	}
	a := Run(context.Background(), args[1], args[2])
	if err := a.Err(); err != nil {
		fmt.Fprintln(stderr, err)
	}
	if err := json.NewEncoder(stdout).Encode(a); err != nil {
		fmt.Fprintln(stderr, err)
	}
	return a.Code
}
