package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/pawl-ota/pawl/examples/bar"
)

// screen prints one line per step, with the time since the start.
type screen struct {
	w     io.Writer
	bar   *bar.Bar
	began time.Time
	acts  int
}

func newScreen(f *os.File) *screen {
	return &screen{w: f, bar: bar.New(f), began: time.Now()}
}

func (s *screen) elapsed() time.Duration { return time.Since(s.began) }

// act begins a new act.
func (s *screen) act(title string) {
	s.acts++
	s.bar.Clear()
	fmt.Fprintf(s.w, "\n%d. %s\n", s.acts, title)
}

// say prints one line of somebody.
func (s *screen) say(who, format string, args ...any) {
	s.bar.Clear()
	fmt.Fprintf(s.w, "%5.1f s  %-7s %s\n", s.elapsed().Seconds(), who, fmt.Sprintf(format, args...))
}
