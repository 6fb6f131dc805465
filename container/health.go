package container

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/compose"
)

// Healthy is an [ota.Check] for the trial: nil once every service of what is in
// effect has run as long as its document asks for since it was last started, is
// healthy where it has a check, and, if it is a one-shot service, has ended with
// exit code 0. A container that ended is started again here, as often as the
// document allows: until Commit the engine does not. One that may not be started
// again is [ota.ErrHopeless]. It may be called at any time.
func (c *Compose) Healthy(ctx context.Context) error {
	rec, err := c.load(ctx)
	if err != nil {
		return err
	}
	s := rec.current()
	if s == nil {
		return errors.New("nothing is in effect")
	}
	app, err := c.app(s)
	if err != nil {
		return err
	}
	var sick error
	for _, v := range app.Services {
		if err := c.healthy(ctx, s, v); err != nil {
			sick = errors.Join(sick, fmt.Errorf("service %s: %w", v.Name, err))
		}
	}
	return sick
}

func (c *Compose) healthy(ctx context.Context, s *set, v compose.Service) error {
	b, err := c.engine.Box(ctx, s.Boxes[v.Name])
	if err != nil {
		return err
	}
	if v.OneShot && b.succeeded() {
		return nil
	}
	if b.State == exited {
		return c.again(ctx, s, v, b)
	}
	seen := c.seen(b, false)
	starts, ran := seen.starts+b.Restarts, time.Since(seen.since)
	switch {
	case v.OneShot:
		return errors.New("it has not ended yet")
	case b.State != running:
		return errors.New("its container " + b.describe())
	case b.Health != "" && b.Health != "healthy":
		return errors.New("its container " + b.describe())
	case s.State != committed && starts > v.Trial.Restarts:
		return fmt.Errorf("it was started again %d times; %d are allowed: %w", starts, v.Trial.Restarts, ota.ErrHopeless)
	case ran < v.Trial.Uptime:
		return fmt.Errorf("it has run for %v of %v", ran.Round(time.Second), v.Trial.Uptime)
	}
	return nil
}

// again starts a container that ended during the trial, as often as is allowed.
func (c *Compose) again(ctx context.Context, s *set, v compose.Service, b box) error {
	sick := errors.New("its container " + b.describe())
	if s.State != trial {
		return sick
	}
	if c.seen(b, false).starts >= v.Trial.Restarts {
		return fmt.Errorf("%w: %w", sick, ota.ErrHopeless)
	}
	c.seen(b, true)
	err := c.engine.Start(ctx, b.ID)
	if err == nil && len(v.Ports) > 0 {
		c.meet(ctx, b.ID)
	}
	return errors.Join(sick, err)
}

// sighting is what this process knows of a container of the trial.
type sighting struct {
	started time.Time // by the engine's clock, which may jump
	since   time.Time // when it was first seen to have started then, by ours
	starts  int       // that Healthy made
}

// seen returns what is known of a container, and counts a start of it.
func (c *Compose) seen(b box, start bool) sighting {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sightings == nil || len(c.sightings) > 10*compose.MaxServices {
		c.sightings = map[string]sighting{}
	}
	s := c.sightings[b.ID]
	if s.since.IsZero() || !s.started.Equal(b.Started) {
		s.started, s.since = b.Started, time.Now()
	}
	if start {
		s.starts++
	}
	c.sightings[b.ID] = s
	return s
}
