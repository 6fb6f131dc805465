// Package probe has the questions that devices are asked most: whether a port
// takes connections, a command succeeds, a unit, a process or a container runs, a
// file is fresh, and whether there is room, memory and no heat. Each is a
// [monitor.Ask] that says in one line what it saw.
//
// The question over HTTP is in package monitor/probe/web, because it links
// net/http.
package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/pawl-ota/pawl/monitor"
)

// TCP asks whether something takes connections at address, "host:port".
func TCP(address string) monitor.Ask {
	return func(ctx context.Context) (string, error) {
		began := time.Now()
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", address)
		if err != nil {
			return "", fmt.Errorf("cannot connect to %s: %w", address, err)
		}
		return fmt.Sprintf("%s answered in %v", address, time.Since(began).Round(time.Millisecond)), c.Close()
	}
}

// ContainerState is what an engine says of one container.
type ContainerState struct {
	Running bool
	// Health is "healthy", "unhealthy" or "starting" where the container has a
	// check of its own, and empty or "none" where it has none.
	Health string
	// Restarts is how often the engine has started it anew.
	Restarts int
	Detail   string // more for a person
}

// Container asks look for the state of the named container, which has to run
// and, where it says so itself, to be healthy. More than restarts new starts
// since the first question are a failure; a negative number allows any.
func Container(name string, restarts int, look func(ctx context.Context, name string) (ContainerState, error)) monitor.Ask {
	r := &rising{most: restarts}
	return func(ctx context.Context) (string, error) {
		s, err := look(ctx, name)
		if err != nil {
			return "", fmt.Errorf("cannot ask for container %s: %w", name, err)
		}
		saw := fmt.Sprintf("running %v, health %q, %d restarts %s", s.Running, s.Health, s.Restarts, s.Detail)
		switch {
		case !s.Running:
			return saw, errors.New("the container does not run")
		case s.Health != "" && s.Health != "none" && s.Health != "healthy":
			return saw, fmt.Errorf("the container is %s", s.Health)
		}
		return saw, r.check(s.Restarts)
	}
}

// rising watches a counter of restarts. It belongs to one question, which is
// asked once at a time.
type rising struct {
	most  int
	known bool
	base  int
}

func (r *rising) check(count int) error {
	if !r.known || count < r.base { // it begins anew when somebody resets it
		r.known, r.base = true, count
	}
	if n := count - r.base; r.most >= 0 && n > r.most {
		return fmt.Errorf("started anew %d times since the first look, more than %d", n, r.most)
	}
	return nil
}

// Fresh asks whether the file changed within the last age. The clock of the
// device may jump: only the first question compares with it, the later ones
// watch for changes.
func Fresh(path string, age time.Duration) monitor.Ask {
	var last, since time.Time
	return func(context.Context) (string, error) {
		info, err := os.Stat(path)
		if err != nil {
			return "", fmt.Errorf("cannot look at the file: %w", err)
		}
		now, changed := time.Now(), info.ModTime()
		switch {
		case since.IsZero() && changed.After(now): // its age is not known: as old as it may be
			last, since = changed, now.Add(-age)
		case since.IsZero():
			last, since = changed, now.Add(-now.Sub(changed))
		case !changed.Equal(last):
			last, since = changed, now
		}
		saw := fmt.Sprintf("%s changed %v ago", path, now.Sub(since).Round(time.Second))
		if now.Sub(since) > age {
			return saw, fmt.Errorf("the file did not change for more than %v", age)
		}
		return saw, nil
	}
}

// readFile reads at most max bytes of a small file, such as one of /proc.
func readFile(path string, max int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return io.ReadAll(io.LimitReader(f, max))
}
