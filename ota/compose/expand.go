package compose

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pawl-ota/pawl/ota/release"
)

// Values are what only the device knows.
type Values struct {
	DeviceID string // PAWL_DEVICE_ID: the id of the device
	Hardware string // PAWL_HARDWARE: its hardware id
	Hostname string // PAWL_HOSTNAME: its host name
}

// deviceValues are the names that a placeholder can have.
var deviceValues = [...]string{"PAWL_DEVICE_ID", "PAWL_HARDWARE", "PAWL_HOSTNAME"}

// DeviceValues returns the names that placeholders can have.
func DeviceValues() []string { return slices.Clone(deviceValues[:]) }

// Placeholder returns the text that stands for a device value in a template.
func Placeholder(name string) string { return "${" + name + "}" }

// Escape returns the template for s as it is.
func Escape(s string) string { return strings.ReplaceAll(s, "$", "$$") }

// Expand returns the text of a template: each ${NAME} is replaced by the value
// of that name, and $$ by one $. Any other $ is an error that wraps
// [release.ErrInvalid]. What a value holds is not looked at again.
func (v Values) Expand(template string) (string, error) {
	var b strings.Builder
	for rest := template; ; {
		before, after, found := strings.Cut(rest, "$")
		b.WriteString(before)
		if !found {
			return b.String(), nil
		}
		if text, ok := strings.CutPrefix(after, "$"); ok {
			b.WriteByte('$')
			rest = text
			continue
		}
		name, text, ok := strings.Cut(strings.TrimPrefix(after, "{"), "}")
		value, known := v.value(name)
		if !strings.HasPrefix(after, "{") || !ok || !known {
			return "", fmt.Errorf("%w: %.80q: $ is neither doubled nor begins a value of the device", release.ErrInvalid, template)
		}
		b.WriteString(value)
		rest = text
	}
}

func (v Values) value(name string) (string, bool) {
	switch name {
	case deviceValues[0]:
		return v.DeviceID, true
	case deviceValues[1]:
		return v.Hardware, true
	case deviceValues[2]:
		return v.Hostname, true
	}
	return "", false
}

// Expand returns s with the templates in Entrypoint, Command, Environment, Labels
// and Hostname replaced by their texts. s itself stays as it is.
func (s Service) Expand(v Values) (Service, error) {
	var err error
	expand := func(what, template string) string {
		text, problem := v.Expand(template)
		if problem == nil && strings.Contains(text, "\x00") {
			problem = fmt.Errorf("%w: a value holds a zero byte", release.ErrInvalid)
		}
		if problem != nil && err == nil {
			err = fmt.Errorf("service %q: %s: %w", s.Name, what, problem)
		}
		return text
	}
	list := func(what string, in []string) []string {
		out := slices.Clone(in)
		for i := range out {
			out[i] = expand(what, out[i])
		}
		return out
	}
	dict := func(what string, in map[string]string) map[string]string {
		out := maps.Clone(in)
		for _, k := range slices.Sorted(maps.Keys(out)) {
			out[k] = expand(what, out[k])
		}
		return out
	}
	s.Entrypoint, s.Command = list("entrypoint", s.Entrypoint), list("command", s.Command)
	s.Environment, s.Labels = dict("environment", s.Environment), dict("labels", s.Labels)
	s.Hostname = expand("hostname", s.Hostname)
	if err == nil {
		err = checkHostname(s.Hostname)
	}
	if err != nil {
		return Service{}, err
	}
	return s, nil
}
