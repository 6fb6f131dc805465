package probe

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/pawl-ota/pawl/monitor"
)

// Unit is a unit of systemd that has to be active; one that runs to its end
// each time has to have ended well. It is asked for by "systemctl show".
type Unit struct {
	Name string
	// Restarts is how many automatic restarts are allowed since the first
	// question; 0 none, a negative number any.
	Restarts int
	// Args come before all others, such as --user; Env is added to the
	// environment of systemctl.
	Args, Env []string
}

const unitProperties = "LoadState,ActiveState,SubState,Type,Result,NRestarts,ExecMainExitTimestampMonotonic"

// Ask returns the question.
func (u Unit) Ask() monitor.Ask {
	args := append([]string{"systemctl", "--no-ask-password", "--no-pager"}, u.Args...)
	command := Exec{Args: append(args, "show", "--property="+unitProperties, "--", u.Name), Env: u.Env}
	r := &rising{most: u.Restarts}
	return func(ctx context.Context) (string, error) {
		out := &tail{max: 4096}
		if err := command.run(ctx, out); err != nil {
			return lastLine(out.text()), fmt.Errorf("cannot ask systemd for %s: %w", u.Name, err)
		}
		return unitState(out.text(), r)
	}
}

func unitState(output string, r *rising) (string, error) {
	is := map[string]string{}
	for l := range strings.Lines(output) {
		key, value, _ := strings.Cut(strings.TrimSpace(l), "=")
		is[key] = value
	}
	restarts, _ := strconv.Atoi(is["NRestarts"])
	saw := fmt.Sprintf("%s (%s), result %s, %d restarts", is["ActiveState"], is["SubState"], is["Result"], restarts)
	ended := is["Type"] == "oneshot" && is["Result"] == "success" && is["ExecMainExitTimestampMonotonic"] != "0"
	switch state := is["ActiveState"]; {
	case state == "":
		return saw, errors.New("systemd gave no answer")
	case is["LoadState"] == "not-found":
		return saw, errors.New("systemd does not know the unit")
	case state == "active", state == "reloading", state == "refreshing", state == "inactive" && ended:
		return saw, r.check(restarts)
	default:
		return saw, fmt.Errorf("the unit is %s", state)
	}
}
