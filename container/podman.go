package container

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/compose"
)

// refuse says what of an app Podman would leave out without a word, or do otherwise
// than the document says. Its service keeps no container running and runs no health
// check by itself: timers of systemd do the one, and a unit at each boot the other,
// for containers whose restart policy can no more be changed once they exist. Settle
// starts an app there after a boot.
func refuse(ctx context.Context, app *compose.App, content ota.Content) error {
	for _, n := range app.Networks {
		if !plainNetwork(n) {
			return fmt.Errorf("network %s: attachable, driver_opts or ip_range: %w: it is Podman", n.Name, ErrUnsupported)
		}
	}
	for _, v := range app.Services {
		config, err := readConfig(ctx, app.Images[v.Image], content)
		if err != nil {
			return err
		}
		if what := podmanLacks(v, config); what != "" {
			return fmt.Errorf("service %s: %s: %w: it is Podman", v.Name, what, ErrUnsupported)
		}
	}
	return nil
}

// lacks are what Podman 4.3 leaves out, or does otherwise.
var lacks = []struct {
	key  string
	asks func(compose.Service) bool
}{
	{"restart", func(v compose.Service) bool { return normal(v.Restart).Policy != compose.RestartNo }},
	{"healthcheck", func(v compose.Service) bool { return v.Healthcheck != nil && !v.Healthcheck.Disabled }},
	{"logging: options", func(v compose.Service) bool { return v.Logging != nil && len(v.Logging.Options) > 0 }},
	{"ipc", func(v compose.Service) bool { return v.IPC != "" }},
	{"network_mode or pid of a service", func(v compose.Service) bool {
		return strings.HasPrefix(v.NetworkMode, "service:") || strings.HasPrefix(v.PID, "service:")
	}},
	{"sysctls", func(v compose.Service) bool { return len(v.Sysctls) > 0 }},
	{"device_cgroup_rules", func(v compose.Service) bool { return len(v.DeviceRules) > 0 }},
	{"devices: permissions", func(v compose.Service) bool {
		return slices.ContainsFunc(v.Devices, func(d compose.Device) bool { return d.Permissions != "rwm" })
	}},
	{"networks: a fixed address", func(v compose.Service) bool {
		return slices.ContainsFunc(v.Networks, func(a compose.Attachment) bool { return a.IPv4 != "" || a.IPv6 != "" })
	}},
	{"volumes: nocopy", func(v compose.Service) bool {
		return slices.ContainsFunc(v.Mounts, func(m compose.Mount) bool { return m.NoCopy })
	}},
}

// podmanLacks returns what a service asks Podman for in vain, or nothing.
func podmanLacks(v compose.Service, image imageConfig) string {
	for _, l := range lacks {
		if l.asks(v) {
			return l.key
		}
	}
	if v.Healthcheck == nil && image.Config.Healthcheck != nil {
		return "the image has a health check, which the app does not disable"
	}
	return ""
}

// plainNetwork reports whether Podman makes the network as the document says.
func plainNetwork(n compose.Network) bool {
	ranged := func(p compose.Pool) bool { return p.Range != "" }
	return !n.Attachable && len(n.DriverOpts) == 0 && !slices.ContainsFunc(n.Pools, ranged)
}

// afterBoot starts the services of s that an engine which starts nothing by itself
// has left.
func (c *Compose) afterBoot(ctx context.Context, s *set) error {
	info, err := c.engine.Info(ctx)
	if err != nil || !info.Podman {
		return err
	}
	app, err := c.app(s)
	if err != nil {
		return err
	}
	var problems error
	for _, v := range app.Services {
		if v.OneShot {
			continue
		}
		if err := c.startOne(ctx, s, v, lenient); err != nil {
			problems = errors.Join(problems, fmt.Errorf("service %s: %w", v.Name, err))
		}
	}
	return problems
}
