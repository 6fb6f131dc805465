package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/pawl-ota/pawl/micro"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/tuf"
)

// maxTrusted bounds the files that the agent trusts: the first TUF root,
// certificates and keys.
const maxTrusted = 1 << 20

// stateDir is where the updater keeps its journal and the local copy.
func (c *config) stateDir() string { return filepath.Join(c.State, "updates") }

// open makes the updater. It takes the lock of the state folder.
func (a *agent) open(ctx context.Context, progress func(ota.Progress)) error {
	c := a.config
	src, err := a.openSource()
	if err != nil {
		return err
	}
	if err := a.makeBackends(); err != nil {
		return err
	}
	health, err := a.health()
	if err != nil {
		return err
	}
	options := ota.Options{
		Dir:        c.stateDir(),
		Device:     c.Device,
		Backends:   a.backends,
		Health:     health,
		Trial:      c.Trial.options(),
		Progress:   progress,
		Retry:      a.args.retry,
		LockWait:   time.Duration(c.Limits.Lock),
		StageLimit: time.Duration(c.Limits.Stage),
		StepLimit:  time.Duration(c.Limits.Step),
		Reserve:    c.Limits.Reserve,
	}
	if src != nil {
		options.Source = src
	}
	if a.watchdog != nil {
		options.Watchdog = a.watchdog
		options.WatchdogTimeout = max(time.Minute, 2*(c.Trial.timeout()+time.Duration(c.Trial.Interval)+time.Second))
	}
	if a.report != nil {
		options.Progress = func(p ota.Progress) {
			progress(p)
			a.report.progress(p)
		}
	}
	if a.updater, err = ota.Open(ctx, options); err == nil && a.report != nil {
		a.report.opened(a)
	}
	return err
}

// close lets go of what open took.
func (a *agent) close() {
	_ = a.updater.Close() // what is open goes on with the next agent
	a.closeApps()
}

func (t trial) options() ota.Trial {
	return ota.Trial{
		Soak:     time.Duration(t.Soak),
		Deadline: time.Duration(t.Deadline),
		Interval: time.Duration(t.Interval),
		Timeout:  time.Duration(t.Timeout),
		Failures: t.Failures,
		Starts:   t.Starts,
	}
}

// openSource returns the repository, or nil for a command that does not ask
// it, so that a broken certificate never keeps a device from going back.
func (a *agent) openSource() (*tuf.Source, error) {
	s := a.config.Source
	if !a.asks || s.URL == "" {
		return nil, nil
	}
	root, err := readAtMost(s.Root, maxTrusted)
	if err != nil {
		return nil, errUsage{fmt.Errorf("source.root: %w", err)}
	}
	options := tuf.Options{
		URL:        s.URL,
		Root:       root,
		Dir:        filepath.Join(a.config.State, "trust"),
		MaxStale:   time.Duration(s.MaxStale),
		TrustClock: s.TrustClock,
	}
	if isWeb(s.URL) {
		if options.Client, err = a.config.client(a.warn); err != nil {
			return nil, err
		}
		a.client = options.Client
	}
	return tuf.New(options)
}

func isWeb(url string) bool {
	return strings.HasPrefix(url, "http://") || strings.HasPrefix(url, "https://")
}

// makeBackends makes one backend for each component.
func (a *agent) makeBackends() error {
	supervisor, err := a.config.Supervisor.open()
	if err != nil {
		return fmt.Errorf("supervisor: %w", err)
	}
	a.backends = map[string]ota.Backend{}
	for name, comp := range a.config.Components {
		if comp.Kind != kindFiles {
			continue
		}
		options := micro.Options{
			Name: name, Root: comp.Root, Layout: micro.Layout(comp.Layout), Spool: comp.Spool,
			IgnoreOwner: comp.IgnoreOwner, Supervisor: supervisor, Warn: a.warn,
		}
		if comp.Restart {
			options.Effect = ota.NeedsRestart
		}
		if a.backends[name], err = micro.New(options); err != nil {
			return fmt.Errorf("components.%s: %w", name, err)
		}
	}
	return a.openApps()
}

// warned takes what was kept.
func (a *agent) warned() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := a.warnings
	a.warnings = nil
	return all
}

// warn keeps what goes with the answer.
func (a *agent) warn(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.warnings = append(a.warnings, err.Error())
}
