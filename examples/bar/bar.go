// Package bar draws one line of progress on a terminal, for the example
// programs.
package bar

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/pawl-ota/pawl/ota"
	"golang.org/x/term"
)

// Bar draws on one terminal. A nil Bar draws nothing.
type Bar struct {
	w     io.Writer
	width func() int // columns
	now   func() time.Time

	label  string
	began  time.Time // of label
	from   int64     // what was done already when label began
	drawn  time.Time
	onLine bool
}

// New returns a Bar for f, or nil when f is not a terminal.
func New(f *os.File) *Bar {
	if !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	width := func() int {
		w, _, err := term.GetSize(int(f.Fd()))
		if err != nil || w == 0 {
			return 80
		}
		return w
	}
	return &Bar{w: f, width: width, now: time.Now}
}

// every is the least time between two drawings of the same step.
const every = 100 * time.Millisecond

// Show draws p, at most ten times a second. It fits ota.Options.Progress.
func (b *Bar) Show(p ota.Progress) {
	if b == nil || p.Total <= 0 {
		return
	}
	label := strings.TrimSpace(p.Component + " " + p.Step)
	now := b.now()
	if label != b.label || p.Done < b.from {
		b.label, b.began, b.from, b.drawn = label, now, p.Done, time.Time{}
	}
	if now.Sub(b.drawn) < every && p.Done < p.Total {
		return
	}
	b.drawn, b.onLine = now, true
	fmt.Fprintf(b.w, "\r\x1b[K%s", b.line(p, now))
}

// Clear takes the line away, so that something else can be printed.
func (b *Bar) Clear() {
	if b == nil || !b.onLine {
		return
	}
	b.onLine = false
	fmt.Fprint(b.w, "\r\x1b[K")
}

// line puts the parts of one drawing together, the bar taking what is left of
// the width.
func (b *Bar) line(p ota.Progress, now time.Time) string {
	share := min(max(float64(p.Done)/float64(p.Total), 0), 1)
	right := fmt.Sprintf(" %3.0f%%  %s", 100*share, b.amount(p, now))
	room := b.width() - 1 - len(right) - len(b.label) - 3
	if room < 4 {
		return b.label + right
	}
	room = min(room, 40)
	full := int(share * float64(room))
	return b.label + " [" + strings.Repeat("#", full) + strings.Repeat(".", room-full) + "]" + right
}

// amount says how much is done, how fast it goes and how long it will take.
func (b *Bar) amount(p ota.Progress, now time.Time) string {
	if p.Step == "health" {
		return Seconds(time.Duration(p.Done)) + " of " + Seconds(time.Duration(p.Total))
	}
	text := Size(p.Done) + " of " + Size(p.Total)
	took := now.Sub(b.began)
	if took < time.Second || p.Done <= b.from {
		return text
	}
	rate := float64(p.Done-b.from) / took.Seconds()
	left := time.Duration(float64(p.Total-p.Done) / rate * float64(time.Second))
	return text + "  " + Size(int64(rate)) + "/s  " + Seconds(left) + " left"
}

// Size returns n bytes in decimal units: "999 B", "1.2 kB", "34.0 MB".
func Size(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n)/1000, 0
	for f >= 999.95 && unit < len("kMGT")-1 {
		f, unit = f/1000, unit+1
	}
	return fmt.Sprintf("%.1f %cB", f, "kMGT"[unit])
}

// Seconds returns d as people say it: "0.4 s", "12 s", "3m20s".
func Seconds(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	}
	return d.Round(time.Second).String()
}
