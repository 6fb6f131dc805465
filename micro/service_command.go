//go:build linux

package micro

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/pawl-ota/pawl/micro/internal/command"
)

// CommandSupervisor drives a supervisor by its commands. A command is a program
// with its arguments, in which {} stands for the name of the service; there is
// no shell. What it prints is part of the error if it fails. One that runs
// longer than there is time is killed.
//
// It holds for every supervisor: a Stop has to return when the service is
// gone, and a Start when it is up.
type CommandSupervisor struct {
	// Commands has the command of each action. Start and Stop are needed.
	// Without StartLater Start is taken, which then should not wait for long,
	// because the way back waits for it; without Restart, Stop and Start.
	Commands map[Action][]string
	// Status is the command that says how a service is. It is needed.
	Status []string
	// Parse makes out how the service is from the exit code and the output of
	// Status. Where it is nil, 0 means running, and anything else not.
	Parse func(exit int, output string) ServiceState
	// Reread has the supervisor look for services that came or went, where it
	// does not do so by itself.
	Reread []string
	// Env is added to the environment of the commands, which holds PATH, HOME
	// and LANG.
	Env []string
}

var _ Supervisor = (*CommandSupervisor)(nil)

// maxDetail is what is kept of an output for people.
const maxDetail = 200

// Do implements [Supervisor].
func (s *CommandSupervisor) Do(ctx context.Context, a Action, name string) error {
	argv := s.Commands[a]
	switch {
	case len(argv) > 0:
		return s.run(ctx, argv, name)
	case a == StartLater:
		return s.Do(ctx, Start, name)
	case a == Restart:
		return errors.Join(s.Do(ctx, Stop, name), s.Do(ctx, Start, name))
	}
	return fmt.Errorf("there is no command for %q", a)
}

// State implements [Supervisor].
func (s *CommandSupervisor) State(ctx context.Context, name string) (ServiceState, error) {
	if len(s.Status) == 0 {
		return ServiceState{}, errors.New("there is no command that says how a service is")
	}
	exit, output, err := command.Run(ctx, named(s.Status, name), s.Env)
	if err != nil {
		return ServiceState{}, fmt.Errorf("%w: %w", ErrSupervisor, err)
	}
	if s.Parse != nil {
		return s.Parse(exit, output), nil
	}
	detail, _, _ := strings.Cut(output[:min(len(output), maxDetail)], "\n")
	return ServiceState{Running: exit == 0, Detail: detail}, nil
}

// Refresh implements [Supervisor].
func (s *CommandSupervisor) Refresh(ctx context.Context) error {
	if len(s.Reread) == 0 {
		return nil
	}
	return s.run(ctx, s.Reread, "")
}

func (s *CommandSupervisor) run(ctx context.Context, argv []string, name string) error {
	argv = named(argv, name)
	exit, output, err := command.Run(ctx, argv, s.Env)
	if err == nil && exit != 0 {
		err = command.Failed(argv, exit, output)
	}
	return err
}

// named puts the name of a service into a command.
func named(argv []string, name string) []string {
	all := make([]string, len(argv))
	for i, a := range argv {
		all[i] = strings.ReplaceAll(a, "{}", name)
	}
	return all
}
