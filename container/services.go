package container

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Service is a service of what is in effect, as the engine has it.
type Service struct {
	Name      string `json:"name"`
	Container string `json:"container"` // its name at the engine
	Image     string `json:"image"`     // as the app document names it
	// State is the engine's word, such as "running" or "exited", or "missing".
	State string `json:"state"`
	// Health is "starting", "healthy" or "unhealthy", and empty without a check.
	Health string `json:"health,omitempty"`
	// Exit is the exit code of one that ended.
	Exit int `json:"exit,omitempty"`
	// Restarts is how often the engine started it again by itself.
	Restarts int `json:"restarts,omitempty"`
	// Started is the last start, by the engine's clock; zero: never.
	Started time.Time `json:"started,omitzero"`
}

// String returns the service as one line.
func (s Service) String() string {
	text := s.Name + " " + s.State
	switch {
	case s.State == string(exited):
		text += fmt.Sprintf(" with code %d", s.Exit)
	case s.Health != "":
		text += ", " + s.Health
	}
	if s.Restarts > 0 {
		text += fmt.Sprintf(", started again %d times", s.Restarts)
	}
	return text
}

// Services returns the services of what is in effect, in the order in which they
// are started; none where nothing is. It changes nothing and may be called at any
// time, while another process updates too.
func (c *Compose) Services(ctx context.Context) ([]Service, error) {
	rec, err := c.read()
	if err != nil {
		return nil, err
	}
	s := rec.current()
	if s == nil {
		return nil, nil
	}
	app, err := c.app(s)
	if err != nil {
		return nil, err
	}
	var all []Service
	for _, v := range app.Services {
		one := Service{Name: v.Name, Container: v.Container, Image: app.Images[v.Image].Name, State: "missing"}
		b, err := c.engine.Box(ctx, s.Boxes[v.Name])
		if err != nil && !errors.Is(err, errMissing) {
			return nil, err
		}
		if err == nil {
			one.Container, one.State, one.Health, one.Exit = b.Name, string(b.State), b.Health, b.Exit
			one.Restarts, one.Started = b.Restarts, b.Started
		}
		all = append(all, one)
	}
	return all, nil
}
