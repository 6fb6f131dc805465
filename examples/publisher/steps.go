package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/pawl-ota/pawl/examples/bar"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/publish"
)

// steps prints a line for each step that ended, and draws a bar for the one
// that runs where standard error is a terminal.
type steps struct {
	out   io.Writer // nil prints nothing
	bar   *bar.Bar
	last  publish.Progress
	began time.Time
}

func newSteps(out io.Writer) *steps { return &steps{out: out, bar: bar.New(os.Stderr)} }

func (s *steps) show(p publish.Progress) {
	if p.Step == "delta" {
		p.Name = "deltas" // of several components at a time
	}
	if p.Step != s.last.Step || p.Step != "verify" && p.Step != "prune" && p.Name != s.last.Name {
		s.end(true)
		s.began = time.Now()
	}
	s.last = p
	s.bar.Show(ota.Progress{Step: p.Step, Component: p.Name, Done: p.Done, Total: p.Total})
}

// past are the steps as their lines name them.
var past = map[string]string{"scan": "scanned", "image": "brought", "pack": "packed", "delta": "compared", "sign": "signed"}

// end prints the line of the step that ran last, if it went well.
func (s *steps) end(good bool) {
	s.bar.Clear()
	if good && s.out != nil && s.last.Step != "" {
		line := fmt.Sprintf("%-12s", past[s.last.Step])
		if s.last.Name != "" {
			line += fmt.Sprintf("%s, %s", s.last.Name, bar.Size(s.last.Done))
		} else {
			line += "the metadata"
		}
		fmt.Fprintf(s.out, "%s in %s\n", line, bar.Seconds(time.Since(s.began)))
	}
	s.last = publish.Progress{}
}
