package container

import (
	"context"
	"errors"
	"fmt"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/compose"
)

// refuse says what of an app Podman would leave out without a word, or do otherwise
// than the document says. Its service keeps no container running and runs no health
// check by itself: timers of systemd do the one, and a unit at each boot the other,
// for containers whose restart policy can no more be changed once they exist. Settle
// starts an app there after a boot.
func refuse(ctx context.Context, app *compose.App, content ota.Content) error {
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

// podmanLacks returns what a service asks Podman for in vain, or nothing.
func podmanLacks(v compose.Service, image imageConfig) string {
	own := v.Healthcheck
	switch {
	case normal(v.Restart).Policy != compose.RestartNo:
		return fmt.Sprintf("restart: %s", v.Restart.Policy)
	case own != nil && !own.Disabled:
		return "healthcheck"
	case own == nil && image.Config.Healthcheck != nil:
		return "the image has a health check, which the app does not disable"
	}
	return ""
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
