// Package container installs components of kind "compose": apps of several
// containers on a stock container engine, with no other program on the device.
//
// Stage brings the images into the engine, straight from the release's blobs or
// from a registry by digest, and makes everything that can be made while the old
// app runs: networks, volumes, and all containers of the new one. Activate stops
// the old containers and starts the new ones in the order of their dependencies;
// services with the strategy handover run twice for a moment instead. The old
// containers stay, stopped, until Commit. Revert starts those same containers
// again.
//
// While a release is on trial its containers have the restart policy "no", and
// so have the old ones from before they are stopped: after a boot the engine
// starts neither by itself, and Resume starts the right ones. Commit gives the
// new ones the policies of the app. In the trial it is [Compose.Healthy] that
// starts a container again which ended, as often as the app allows.
//
// Everything made here carries labels that begin with "io.pawl.": the component,
// the component's digest, the transaction and the service. Containers and
// networks are found, kept and removed by label and id, and what lacks the labels
// is left alone, whatever its name. A volume may have been made by somebody else;
// one that ever held data of a running app is never removed.
//
// What is there is asked of the engine. The record in Options.Dir says what it
// means: which transaction's containers are to run, and which way a verb that was
// cut short was going.
package container

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/compose"
	"github.com/pawl-ota/pawl/ota/durable"
	"github.com/pawl-ota/pawl/ota/release"
)

// Kind is the kind of component that this package installs.
const Kind = compose.Kind

// Errors that a caller branches on.
var (
	// ErrEngine is returned where the engine could not be reached within
	// Options.EngineWait: nothing was asked of it.
	ErrEngine = errors.New("the engine does not answer")
	// ErrPlatform is returned by Stage for an image of another processor or
	// system than the engine's.
	ErrPlatform = errors.New("the image is for another platform")
	// ErrUnsupported is returned by Stage for an app that asks for what the engine
	// cannot do. Nothing was changed.
	ErrUnsupported = errors.New("the engine cannot do this")
	// ErrLost is returned by Activate when the engine has lost what Stage made.
	// Nothing was changed.
	ErrLost = errors.New("the engine has lost what was staged")
	// ErrImage is returned when the engine has another image than the release's
	// after it took that one in.
	ErrImage = errors.New("the engine has another image")
)

// Options configure a [Compose]. Name and Dir are needed.
type Options struct {
	// Name is the name of the component. No two backends of one engine have the
	// same.
	Name string
	// Dir is the folder of this backend's own record, of the files of configs
	// and secrets, and of the app documents that are in use. The engine mounts
	// files from it. It is made with mode 0700 if it is missing.
	Dir string
	// Host is where the engine listens, unix:///path or tcp://host:port; empty
	// means what DOCKER_HOST says, or the usual socket.
	Host string
	// DataRoot is the folder of the engine's store, for syncing it; empty means
	// what the engine says, and containerd's usual one too where images are there.
	DataRoot string
	// Values are put in where an app document leaves something to the device.
	Values compose.Values
	// Credentials, if set, is asked for the login at a registry, host or
	// host:port, before an image is pulled from there. What it returns is neither
	// stored nor part of any error.
	Credentials func(ctx context.Context, registry string) (Login, error)
	// CallLimit bounds each call to the engine that moves no image; 0 means 1
	// minute, beside the grace of a container that is stopped. TransferLimit
	// bounds one that does; 0 means 1 hour.
	CallLimit, TransferLimit time.Duration
	// EngineWait is how long a call waits for an engine that does not listen; 0
	// means 30 seconds.
	EngineWait time.Duration
	// DependLimit is how long a service waits for those that it depends on; 0
	// means 5 minutes.
	DependLimit time.Duration
	// Restart, if set, starts the engine anew: where it holds a port for nobody, as
	// one may after a power cut until then, and as a step of a Repair that other
	// steps did not help. Containers that are not ours may stop for a moment too.
	Restart func(ctx context.Context) error
	// Wipe, if set, is the last step of a Repair, when the engine does not answer or
	// stays broken and everything that it needs is on the device: it stops the
	// engine, empties its store but for the volumes, and starts it. Containers that
	// are not ours go too.
	Wipe func(ctx context.Context) error
	// Warn, if set, is told what went wrong and did not matter.
	Warn func(error)
}

// Compose is the backend of one component. One goroutine uses it at a time, but
// Healthy may be called at any time.
type Compose struct {
	opts   Options
	engine engine
	dir    *durable.Dir
	// before, when a test set it, is called before each record that is written.
	before func() error
	// syncRoot makes durable what lies below a folder.
	syncRoot func(root string) error
	// introduce tells the kernel of containers.
	introduce func([]address) error
	// pause is how long to wait between two looks at a container.
	pause time.Duration
	// downtime is of the last verb; began is when it stopped something that nothing
	// runs for yet, which a Revert goes on with.
	downtime time.Duration
	began    time.Time
	revived  bool // the verb that runs has started the engine anew

	mu        sync.Mutex
	sightings map[string]sighting // of Healthy, by container
}

var (
	_ ota.Backend  = (*Compose)(nil)
	_ ota.Budgeter = (*Compose)(nil)
	_ ota.Lister   = (*Compose)(nil)
	_ ota.Verifier = (*Compose)(nil)
	_ ota.Repairer = (*Compose)(nil)
	_ ota.Pruner   = (*Compose)(nil)
	_ ota.Reverter = (*Compose)(nil)
	_ ota.Outage   = (*Compose)(nil)
)

// New returns the backend of one component. It opens Dir and asks nothing of the
// engine. Close ends it.
func New(o Options) (*Compose, error) {
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("container: %w", err)
	}
	e, err := dial(o.Host)
	if err != nil {
		return nil, fmt.Errorf("container: option Host: %w", err)
	}
	return open(o, e)
}

func open(o Options, e engine) (*Compose, error) {
	dir, err := durable.OpenDir(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("container: option Dir: %w", err)
	}
	return &Compose{opts: o, engine: &limited{e: e, opts: o}, dir: dir, syncRoot: durable.SyncTree, introduce: introduce, pause: 100 * time.Millisecond}, nil
}

// Close lets go of Dir.
func (c *Compose) Close() error { return c.dir.Close() }

// Downtime implements [ota.Outage]: from the first container that the last Activate
// or Revert of this process stopped to the last one that it started. A Revert
// after an Activate that failed counts from what that one stopped.
func (c *Compose) Downtime() time.Duration { return c.downtime }

func (o *Options) validate() error {
	if err := release.CheckName(o.Name); err != nil {
		return fmt.Errorf("option Name: %w", err)
	}
	if o.Dir == "" {
		return errors.New("option Dir: it is empty")
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return fmt.Errorf("option Dir: %w", err)
	}
	o.Dir = dir
	for _, d := range []struct {
		name  string
		value *time.Duration
		other time.Duration
	}{
		{"CallLimit", &o.CallLimit, time.Minute},
		{"TransferLimit", &o.TransferLimit, time.Hour},
		{"EngineWait", &o.EngineWait, 30 * time.Second},
		{"DependLimit", &o.DependLimit, 5 * time.Minute},
	} {
		if *d.value < 0 {
			return fmt.Errorf("option %s: %v is negative", d.name, *d.value)
		}
		*d.value = cmp.Or(*d.value, d.other)
	}
	return nil
}

func (c *Compose) warn(err error) {
	if err != nil && c.opts.Warn != nil {
		c.opts.Warn(err)
	}
}

// check refuses what this backend cannot be meant for.
func (c *Compose) check(tx ota.TxID, comp release.Component) error {
	if comp.Kind != Kind {
		return fmt.Errorf("component %.80q is of kind %.40q, not %q", comp.Name, comp.Kind, Kind)
	}
	return c.checkName(tx, comp)
}

// checkName is check for the way back, for which a component whose document was
// lost has its name alone.
func (c *Compose) checkName(tx ota.TxID, comp release.Component) error {
	if comp.Name != c.opts.Name {
		return fmt.Errorf("component %.80q came to the backend of %q", comp.Name, c.opts.Name)
	}
	if err := release.CheckName(string(tx)); err != nil {
		return fmt.Errorf("transaction: %w", err)
	}
	return nil
}

// The labels of what this package makes.
const (
	labelComponent = compose.LabelPrefix + "component"
	labelRelease   = compose.LabelPrefix + "release" // the component's digest
	labelApp       = compose.LabelPrefix + "app"     // of the app document
	labelTx        = compose.LabelPrefix + "tx"
	labelService   = compose.LabelPrefix + "service"
	labelNetwork   = compose.LabelPrefix + "network" // the digest of its definition
)

// repository is what the tags of our images begin with: nobody can pull it.
func (c *Compose) repository() string { return "pawl.invalid/" + c.opts.Name }

func (c *Compose) tag(config release.Digest) string { return c.repository() + ":" + config.String() }

// app reads the document of a set.
func (c *Compose) app(s *set) (*compose.App, error) {
	data, err := c.dir.ReadFile(appName(s.App), compose.MaxApp)
	if err != nil {
		return nil, fmt.Errorf("cannot read an app document: %w", err)
	}
	if release.Sum(data) != s.App {
		return nil, fmt.Errorf("cannot read app document %s: %w", s.App.Short(), ota.ErrDigest)
	}
	return compose.Parse(data)
}

func appName(d release.Digest) string { return "apps/" + d.String() }

func digestOf(v any) (release.Digest, error) {
	data, err := json.Marshal(v)
	return release.Sum(data), err
}
