//go:build linux

package micro

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Supervisor starts and stops the services of the device: systemd, runit, s6,
// or the maker's own. Package micro/systemd has the one for systemd, and
// [CommandSupervisor] drives any that has a command. It is used by one
// goroutine at a time, but State may be called while another call runs.
//
// Every call returns soon after its ctx ends, whose deadline is the time that
// there is for it.
type Supervisor interface {
	// Do carries out a, and waits as far as a says. Doing again what is done
	// is no error.
	Do(ctx context.Context, a Action, name string) error
	// State asks the supervisor how the service is. One that it does not know
	// is not running, and that is no error; a name that it could never know is
	// one.
	State(ctx context.Context, name string) (ServiceState, error)
	// Refresh has the supervisor read again what its services are. It is
	// called after every switch of a release with services, either way: a file
	// that went back to what it was has its old time again, so that nothing but
	// the switch itself says that it has changed.
	Refresh(ctx context.Context) error
}

// Action is what a [Supervisor] does to a service. It is a word for people to
// read in errors.
type Action string

// The values of [Action].
const (
	// Stop ends the service and returns when none of its processes is left. A
	// service that is not there or not running is no error. One that does not
	// end in its time is killed.
	Stop Action = "stop"
	// Start starts the service and returns when the supervisor says that it is
	// up, or why it is not. While the device boots, the supervisor may only
	// note the start, as StartLater does: what calls this may run before
	// everything else, and would wait for itself.
	Start Action = "start"
	// StartLater has the service started, and returns without waiting for it.
	StartLater Action = "start later"
	// Restart stops and starts the service, with the waiting of Start.
	Restart Action = "restart"
	// Reload has the running service read its configuration again.
	Reload Action = "reload"
)

// ServiceState is how a service is.
type ServiceState struct {
	Running bool // it is up
	Failed  bool // it ended in a way it should not have, or could not be started
	// Starting: it is neither up nor down: on its way, or between two tries.
	Starting bool
	// Queued: nothing of it runs, and the boot that is going on will start it.
	Queued bool
	// Finished: it is not up because it ran to its end, as it is meant to.
	Finished bool
	// Restarts is how often the supervisor started it again by itself since it
	// was last started on request; 0 where that is not known.
	Restarts int
	// Detail says how it is in the supervisor's own words, for people.
	Detail string
}

// alive reports whether anything of the service is there or will be.
func (s ServiceState) alive() bool { return s.Running || s.Starting || s.Queued }

// Handling is what happens to a service around the switch. It is stored as its
// word.
type Handling string

// The values of [Handling]. The empty one is Around.
const (
	// Around stops the service before the switch and starts it after it.
	Around Handling = "around"
	// AfterRestart restarts the service after the switch, if it runs then.
	AfterRestart Handling = "restart"
	// AfterReload reloads the service after the switch, if it runs then.
	AfterReload Handling = "reload"
	// AfterStart starts the service after the switch, if it does not run then.
	AfterStart Handling = "start"
)

// Service is one service that a component names in its options. They are
// started in the order in which they are listed, and stopped in the reverse
// order.
//
// Those with Around and AfterStart are the release's own: one that the next
// release does not list any more is stopped for good before the switch to it,
// and comes back with a Revert. The others belong to the device, and are left
// alone by a release that does not list them.
//
// What each of them was is written down before the first one is stopped. After
// a power cut at any point, in the same boot or in a later one, what ran before
// runs again with the old files, or what the release lists with the new ones,
// and nothing else does.
type Service struct {
	// Name is what the supervisor knows it by, such as camera.service: at most
	// 255 letters, digits and characters of :-_.\@, the first no - and no dot.
	Name string   `json:"name"`
	Do   Handling `json:"do,omitempty"`
}

func (s Service) handling() Handling {
	if s.Do == "" {
		return Around
	}
	return s.Do
}

// own reports whether the service runs because the release says so.
func (s Service) own() bool { return s.handling() == Around || s.handling() == AfterStart }

const (
	maxServices    = 64
	maxServiceName = 255
)

func checkServices(all []Service) error {
	if len(all) > maxServices {
		return fmt.Errorf("option services: %d are more than %d", len(all), maxServices)
	}
	seen := map[string]bool{}
	for i, s := range all {
		if err := checkServiceName(s.Name); err != nil {
			return fmt.Errorf("option services[%d].name: %w", i, err)
		}
		if seen[s.Name] {
			return fmt.Errorf("option services[%d].name: %s is listed twice", i, s.Name)
		}
		seen[s.Name] = true
		switch s.Do {
		case "", Around, AfterRestart, AfterReload, AfterStart:
		default:
			return fmt.Errorf("option services[%d].do: %.40q is not known", i, s.Do)
		}
	}
	return nil
}

// checkServiceName takes the names of systemd's units, which are file names,
// without those that a command could take for an option.
func checkServiceName(s string) error {
	switch {
	case s == "":
		return errors.New("it is empty")
	case len(s) > maxServiceName:
		return fmt.Errorf("%.80q... is longer than %d bytes", s, maxServiceName)
	case s[0] == '-' || s[0] == '.':
		return fmt.Errorf("%.80q begins with %q", s, s[0])
	}
	for _, c := range []byte(s) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && !strings.ContainsRune(`:-_.\@`, rune(c)) {
			return fmt.Errorf("%.80q holds the character %q", s, c)
		}
	}
	return nil
}
