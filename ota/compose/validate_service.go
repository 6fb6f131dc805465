package compose

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/pawl-ota/pawl/ota/release"
)

const (
	maxTime  = int64(365 * 24 * time.Hour)
	maxBytes = int64(1) << 50
)

// serviceCheck is the check of one service.
type serviceCheck struct {
	*App
	*Service
	before []Service // those that start before it
}

// Name returns the service's name; App has one too.
func (v *serviceCheck) Name() string { return v.Service.Name }

func (v *serviceCheck) run() error {
	checks := []func() error{v.head, v.waits, v.process, v.health, v.network, v.ports, v.mounts, v.files, v.rights, v.limits, v.handover}
	for _, check := range checks {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (v *serviceCheck) head() error {
	if err := checkNames(v.Name(), v.Container); err != nil {
		return err
	}
	if v.Image < 0 || v.Image >= len(v.Images) {
		return invalid("image %d is not there", v.Image)
	}
	if err := oneOf("strategy", v.Strategy, Recreate, Handover); err != nil {
		return err
	}
	if err := oneOf("restart", v.Restart.Policy, RestartNo, RestartAlways, RestartOnFailure, RestartUnlessStopped); err != nil {
		return err
	}
	if v.Restart.Most < 0 || v.Restart.Most > 0 && v.Restart.Policy != RestartOnFailure {
		return invalid("restart: at most %d times does not go with %q", v.Restart.Most, v.Restart.Policy)
	}
	if v.OneShot && (v.Restart.Policy == RestartAlways || v.Restart.Policy == RestartUnlessStopped || v.Trial.Uptime != 0) {
		return invalid("a one-shot service has restart %q and uptime %v", v.Restart.Policy, v.Trial.Uptime)
	}
	if err := within("trial: restarts", v.Trial.Restarts, 0, 1000); err != nil {
		return err
	}
	return within("trial: uptime", int64(v.Trial.Uptime), 0, maxTime)
}

// earlier finds a service that starts before this one.
func (v *serviceCheck) earlier(name string) (Service, error) {
	i := slices.IndexFunc(v.before, func(s Service) bool { return s.Name == name })
	if i < 0 {
		return Service{}, invalid("service %.80q does not start before it", name)
	}
	return v.before[i], nil
}

func (v *serviceCheck) waits() error {
	if err := ascending("dependsOn", v.DependsOn, func(d Dependency) string { return d.Service }); err != nil {
		return err
	}
	for _, d := range v.DependsOn {
		on, err := v.earlier(d.Service)
		if err != nil {
			return fmt.Errorf("dependsOn: %w", err)
		}
		if err := oneOf("dependsOn", d.Condition, Started, Healthy, Completed); err != nil {
			return err
		}
		if d.Condition == Completed && !on.OneShot {
			return invalid("dependsOn: %q is not a one-shot service", on.Name)
		}
	}
	return nil
}

func (v *serviceCheck) process() error {
	for what, list := range map[string][]string{"entrypoint": v.Entrypoint, "command": v.Command} {
		if len(list) > MaxItems {
			return invalid("%s: %d are more than %d", what, len(list), MaxItems)
		}
		for _, s := range list {
			if err := checkTemplate(what, s); err != nil {
				return err
			}
		}
	}
	for what, m := range map[string]map[string]string{"environment": v.Environment, "labels": v.Labels} {
		if err := checkMap(what, m); err != nil {
			return err
		}
		for _, k := range slices.Sorted(maps.Keys(m)) {
			if err := checkTemplate(what+": "+k, m[k]); err != nil {
				return err
			}
		}
	}
	if err := checkLabels(v.Labels); err != nil {
		return err
	}
	for what, s := range map[string]string{"user": v.User, "stopSignal": v.StopSignal} {
		if s != "" && (checkLine(s) != nil || len(s) > 128) {
			return invalid("%s: %.80q is not a word", what, s)
		}
	}
	if v.WorkingDir != "" && v.WorkingDir != "/" {
		if err := checkAbs("workingDir", v.WorkingDir); err != nil {
			return err
		}
	}
	if v.Logging != nil {
		if v.Logging.Driver == "" && len(v.Logging.Options) == 0 {
			return invalid("logging: nothing is said")
		}
		if err := checkDriver(v.Logging.Driver, v.Logging.Options, nil); err != nil {
			return fmt.Errorf("logging: %w", err)
		}
	}
	return within("stopGrace", int64(v.StopGrace), 0, maxTime)
}

func checkTemplate(what, s string) error {
	if err := checkText(s); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if _, err := (Values{}).Expand(s); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func (v *serviceCheck) health() error {
	h := v.Healthcheck
	if h == nil {
		return nil
	}
	times := []time.Duration{h.Interval, h.Timeout, h.StartPeriod, h.StartInterval}
	said := len(h.Test) > 0 || h.Retries != 0 || slices.ContainsFunc(times, func(d time.Duration) bool { return d != 0 })
	if h.Disabled == said {
		return invalid("healthcheck: disabled is %v, and something is said of it is %v", h.Disabled, said)
	}
	for _, d := range times {
		if d != 0 {
			// The engine takes no time below a millisecond.
			if err := within("healthcheck: time", int64(d), int64(time.Millisecond), maxTime); err != nil {
				return err
			}
		}
	}
	for _, s := range h.Test {
		if err := checkText(s); err != nil {
			return fmt.Errorf("healthcheck: test: %w", err)
		}
	}
	shape := len(h.Test) == 0 || h.Test[0] == "CMD" && len(h.Test) > 1 || h.Test[0] == "CMD-SHELL" && len(h.Test) == 2
	if !shape || len(h.Test) > MaxItems {
		return invalid("healthcheck: test is not CMD with a program or CMD-SHELL with a line")
	}
	return within("healthcheck: retries", h.Retries, 0, 1000)
}

func (v *serviceCheck) mounts() error {
	if err := ascending("mounts", v.Mounts, func(m Mount) string { return m.Target }); err != nil {
		return err
	}
	for _, m := range v.Mounts {
		if err := m.validate(v.App); err != nil {
			return fmt.Errorf("mount %.80q: %w", m.Target, err)
		}
	}
	return within("shmSize", v.ShmSize, 0, maxBytes)
}

func (m Mount) validate(a *App) error {
	if err := checkAbs("target", m.Target); err != nil {
		return err
	}
	if err := oneOf("type", m.Type, MountVolume, MountBind, MountTmpfs); err != nil {
		return err
	}
	if m.NoCopy && m.Type != MountVolume || (m.Create || m.Propagation != "") && m.Type != MountBind || m.Options != "" && m.Type != MountTmpfs {
		return invalid("something is said that does not go with type %q", m.Type)
	}
	switch m.Type {
	case MountVolume:
		if !slices.ContainsFunc(a.Volumes, func(v Volume) bool { return v.Name == m.Source }) {
			return invalid("volume %.80q is not there", m.Source)
		}
		return nil
	case MountBind:
		if m.Propagation != "" {
			if err := oneOf("propagation", m.Propagation, "private", "rshared", "shared", "rslave", "slave"); err != nil {
				return err
			}
		}
		if m.Source == "/" {
			return nil
		}
		return checkAbs("source", m.Source)
	}
	if m.Source != "" || m.ReadOnly {
		return invalid("a tmpfs has a source or is read-only")
	}
	return checkTmpfs(m.Options)
}

// checkTmpfs takes a closed list of options, each once.
func checkTmpfs(options string) error {
	if options == "" {
		return nil
	}
	seen := map[string]bool{}
	for option := range strings.SplitSeq(options, ",") {
		name, value, has := strings.Cut(option, "=")
		if seen[name] {
			return invalid("option %.40q stands twice", name)
		}
		seen[name] = true
		switch name {
		case "size", "nr_inodes", "uid", "gid", "mode":
			allowed := digits
			if name == "mode" {
				allowed = digits[:8]
			}
			if value == "" || len(value) > 16 || !only(value, allowed) {
				return invalid("option %.80q: not a number", option)
			}
		case "exec", "noexec", "suid", "nosuid", "dev", "nodev", "ro", "rw":
			if has {
				return invalid("option %.80q has a value", option)
			}
		default:
			return invalid("option %.80q is not known", option)
		}
	}
	return nil
}

func (v *serviceCheck) files() error {
	if err := ascending("files", v.Service.Files, func(f FileMount) string { return f.Target }); err != nil {
		return err
	}
	for _, f := range v.Service.Files {
		if err := checkAbs("file", f.Target); err != nil {
			return err
		}
		if !slices.ContainsFunc(v.App.Files, func(o File) bool { return o.Kind == f.Kind && o.Name == f.Name }) {
			return invalid("%s %.80q is not there", f.Kind, f.Name)
		}
		if f.Mode > 0o777 {
			return invalid("file %.80q: mode %o has other bits than 0777", f.Target, f.Mode)
		}
		if slices.ContainsFunc(v.Mounts, func(m Mount) bool { return m.Target == f.Target }) {
			return invalid("%.80q is mounted and a file", f.Target)
		}
	}
	return nil
}

// handover checks that the old container and the new one can run at once.
func (v *serviceCheck) handover() error {
	if v.Strategy != Handover {
		return nil
	}
	if v.OneShot {
		return invalid("handover: it is a one-shot service")
	}
	if len(v.Ports) > 0 {
		return invalid("handover: it publishes ports")
	}
	if v.NetworkMode != "" {
		return invalid("handover: it has networkMode %q and no network of its own", v.NetworkMode)
	}
	if v.PID != "" || v.IPC != "" && v.IPC != "private" && v.IPC != "none" {
		return invalid("handover: it shares a namespace")
	}
	for _, n := range v.Service.Networks {
		if n.IPv4 != "" || n.IPv6 != "" {
			return invalid("handover: it has a fixed address in %q", n.Network)
		}
	}
	for _, m := range v.Mounts {
		if m.Type != MountTmpfs && !m.ReadOnly {
			return invalid("handover: it writes to what is mounted at %q", m.Target)
		}
	}
	return nil
}

// checkAddr takes an address in its usual form.
func checkAddr(what, s string, want4, want6 bool) error {
	a, err := netip.ParseAddr(s)
	if err != nil || a.String() != s || a.Zone() != "" || a.Is4In6() || a.Is4() && !want4 || a.Is6() && !want6 {
		return fmt.Errorf("%s: %w: %.80q is not such an address", what, release.ErrInvalid, s)
	}
	return nil
}
