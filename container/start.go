package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/pawl-ota/pawl/ota/compose"
)

// patience says what start does about a service that does not come up.
type patience bool

const (
	strict  patience = true  // it ends with an error
	lenient patience = false // it goes on: the old app comes back as far as it can
)

// start starts the containers of a set in the order of the document, each when
// what it depends on has been reached. What runs is left alone, and so is a
// one-shot service that has succeeded.
func (c *Compose) start(ctx context.Context, app *compose.App, s *set, how patience) error {
	var problems error
	for _, v := range app.Services {
		err := c.startOne(ctx, s, v, how)
		if err == nil && v.Strategy == compose.Handover && how == strict {
			err = c.reach(ctx, s, compose.Dependency{Service: v.Name, Condition: compose.Healthy})
		}
		if err == nil {
			continue
		}
		err = fmt.Errorf("service %s: %w", v.Name, err)
		if how == strict || ctx.Err() != nil {
			return err
		}
		problems = errors.Join(problems, err)
	}
	return problems
}

func (c *Compose) startOne(ctx context.Context, s *set, v compose.Service, how patience) error {
	b, err := c.engine.Box(ctx, s.Boxes[v.Name])
	if errors.Is(err, errMissing) {
		return fmt.Errorf("%w: %w", ErrLost, err)
	}
	if err != nil || b.up() || v.OneShot && b.succeeded() {
		return err
	}
	for _, d := range v.DependsOn {
		if err := c.reach(ctx, s, d); err != nil && (how == strict || ctx.Err() != nil) {
			return err
		}
	}
	err = c.engine.Start(ctx, b.ID)
	if errors.Is(err, errPort) && c.opts.Restart != nil && !c.revived {
		err = c.startAgain(ctx, v, b.ID, err)
	}
	if err == nil && len(v.Ports) > 0 {
		c.meet(ctx, b.ID)
	}
	return err
}

// meet has clients of a container's ports find it at once. Nothing depends on that.
func (c *Compose) meet(ctx context.Context, id string) {
	b, err := c.engine.Box(ctx, id)
	if err == nil {
		err = c.introduce(b.Addresses)
	}
	if !errors.Is(err, fs.ErrPermission) {
		c.warn(err)
	}
}

// startAgain starts the engine anew where it holds a port for nobody: for what it
// was about to start when the power went. It does so once in a verb.
func (c *Compose) startAgain(ctx context.Context, v compose.Service, id string, cause error) error {
	held, err := c.engine.Published(ctx)
	if err != nil || slices.ContainsFunc(v.Ports, func(p compose.Port) bool { return held[p.HostPort] }) {
		return errors.Join(cause, err)
	}
	c.warn(fmt.Errorf("the engine is started anew: %w", cause))
	c.revived = true
	if err := c.opts.Restart(ctx); err != nil {
		return errors.Join(cause, err)
	}
	return c.engine.Start(ctx, id)
}

// succeeded reports whether the container ran to its end, and ended well.
func (b box) succeeded() bool { return b.State == exited && !b.Started.IsZero() && b.Exit == 0 }

// reach waits until a service is as another one needs it.
func (c *Compose) reach(ctx context.Context, s *set, d compose.Dependency) error {
	ctx, cancel := context.WithTimeout(ctx, c.opts.DependLimit)
	defer cancel()
	tick := time.NewTicker(c.pause)
	defer tick.Stop()
	for {
		b, err := c.engine.Box(ctx, s.Boxes[d.Service])
		if err != nil {
			return err
		}
		done, err := b.reached(d.Condition)
		if done || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s is not %s: %s: %w", d.Service, d.Condition, b.describe(), ctx.Err())
		}
	}
}

// reached reports whether the container is what a dependency asks for; an error
// says that it will not be.
func (b box) reached(want compose.Condition) (bool, error) {
	switch {
	case want == compose.Completed && b.State == exited:
		if b.Exit != 0 {
			return false, fmt.Errorf("%s %s", b.Labels[labelService], b.describe())
		}
		return true, nil
	case want == compose.Completed:
		return false, notStarted(b)
	case !b.up():
		return false, fmt.Errorf("%s %s", b.Labels[labelService], b.describe())
	case want == compose.Healthy && b.Health == "unhealthy":
		return false, fmt.Errorf("%s is unhealthy", b.Labels[labelService])
	case want == compose.Healthy && b.Health == "starting":
		return false, nil
	}
	return b.State == running, nil
}

// notStarted is an error for a container that nobody has started: waiting does not
// help.
func notStarted(b box) error {
	if b.State != created {
		return nil
	}
	return fmt.Errorf("%s was not started", b.Labels[labelService])
}

// killed is the exit code of what SIGKILL ended.
const killed = 137

// describe says how a container is, for people.
func (b box) describe() string {
	switch {
	case b.Error != "":
		return "could not be started: " + b.Error
	case b.OOM:
		return fmt.Sprintf("was killed, out of memory (exit code %d)", b.Exit)
	case b.State == exited && b.Exit == killed && b.Limits.Memory > 0: // not every engine notices why
		return fmt.Sprintf("was killed, it seems out of memory, of which it may have %d MiB (exit code %d)", b.Limits.Memory>>20, b.Exit)
	case b.State == exited:
		return fmt.Sprintf("ended with exit code %d", b.Exit)
	case b.Health != "":
		return fmt.Sprintf("is %s and %s", b.State, b.Health)
	}
	return "is " + string(b.State)
}
