package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/pawl-ota/pawl/micro"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// plan is what an update would do.
type plan struct {
	Changes  []ota.Change     `json:"changes"`
	Scripts  []plannedScript  `json:"scripts,omitempty"`
	Services []plannedService `json:"services,omitempty"`
}

// plannedScript is a script that would run.
type plannedScript struct {
	Component string        `json:"component,omitempty"` // empty for one of the release
	At        release.Point `json:"at"`
	Name      string        `json:"name"`
	Undo      bool          `json:"undo"`            // it can be taken back
	Limit     int           `json:"limit,omitempty"` // in seconds; 0: the usual one
}

// plannedService is a service that would be stopped, started or told.
type plannedService struct {
	Component string         `json:"component"`
	Name      string         `json:"name"`
	Do        micro.Handling `json:"do"`
}

// diff answers as check does, and says of a release that could be installed
// what it would change.
func diff(ctx context.Context, a *agent) answer {
	r, err := a.updater.Check(ctx)
	ans := checked(a, r, err)
	if r == nil || err != nil && !errors.Is(err, ota.ErrHeld) {
		return ans
	}
	p, err := a.plan(ctx, r)
	if err != nil {
		bad := failed("cannot tell what "+ans.Available.String()+" would change", err)
		bad.Available = ans.Available
		return bad
	}
	ans.Plan = p
	ans.Line += fmt.Sprintf(": %d changes, %d scripts, %d services", len(p.Changes), len(p.Scripts), len(p.Services))
	ans.more = p.lines()
	return ans
}

func (a *agent) plan(ctx context.Context, r *release.Release) (*plan, error) {
	changes, err := a.updater.Diff(ctx, r)
	if err != nil {
		return nil, err
	}
	p := &plan{Changes: changes, Scripts: scriptsOf("", r.Scripts)}
	for _, c := range r.Components {
		now, err := a.backends[c.Name].Active(ctx, c.Name)
		if err != nil {
			return nil, err
		}
		if now.Is(c.Digest()) {
			continue // nothing of it would run
		}
		p.Scripts = append(p.Scripts, scriptsOf(c.Name, c.Scripts)...)
		if c.Kind != kindFiles {
			continue // it has no services of a supervisor
		}
		options, err := micro.ParseOptions(c.Options)
		if err != nil {
			return nil, err
		}
		for _, s := range options.Services {
			do := s.Do
			if do == "" {
				do = micro.Around
			}
			p.Services = append(p.Services, plannedService{c.Name, s.Name, do})
		}
	}
	slices.SortStableFunc(p.Scripts, plannedScript.compare)
	return p, nil
}

// compare puts scripts into the order of a transaction: by point, and there
// the release's first, or last at a point that is called after.
func (s plannedScript) compare(o plannedScript) int {
	points := release.Points()
	if d := slices.Index(points, s.At) - slices.Index(points, o.At); d != 0 {
		return d
	}
	mine, other := s.Component == "", o.Component == ""
	switch {
	case mine == other:
		return 0
	case mine == strings.HasPrefix(string(s.At), "before-"):
		return -1
	}
	return 1
}

func scriptsOf(component string, scripts []release.Script) (planned []plannedScript) {
	for _, s := range scripts {
		planned = append(planned, plannedScript{component, s.At, s.Name, !s.Undo.Digest.IsZero(), s.Limit})
	}
	return planned
}

// lines put the plan into a table for people.
func (p *plan) lines() []string {
	var rows [][]string
	for _, c := range p.Changes {
		rows = append(rows, []string{string(c.What), c.Component, quoted(c.Path), c.Detail})
	}
	for _, s := range p.Scripts {
		rows = append(rows, []string{"script", s.Component, s.Name, s.detail()})
	}
	for _, s := range p.Services {
		rows = append(rows, []string{"service", s.Component, s.Name, string(s.Do)})
	}
	return columns(rows)
}

func (s plannedScript) detail() string {
	text := string(s.At)
	if s.Limit > 0 {
		text += ", at most " + (time.Duration(s.Limit) * time.Second).String()
	}
	if s.Undo {
		text += ", with an undo"
	}
	return text
}

// quoted returns a path as it is where it is plain to read.
func quoted(path string) string {
	odd := func(r rune) bool { return !unicode.IsPrint(r) || unicode.IsSpace(r) || r == '"' }
	if strings.ContainsFunc(path, odd) {
		return strconv.Quote(path)
	}
	return path
}

// widest is the width that a column is padded to at most.
const widest = 60

// columns pads all but the last column of a table.
func columns(rows [][]string) (lines []string) {
	var width [4]int
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], min(len([]rune(cell)), widest))
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			fmt.Fprintf(&line, "%-*s  ", width[i], cell)
		}
		lines = append(lines, strings.TrimRight(line.String(), " "))
	}
	return lines
}
