package monitor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Ask puts one question. It returns what it saw, for a person, and nil when
// that is well. It should return soon after ctx ends; one that does not, or that
// panics, has failed.
type Ask func(ctx context.Context) (saw string, err error)

// Func makes an Ask of a function that sees nothing but what is wrong.
func Func(f func(context.Context) error) Ask {
	return func(ctx context.Context) (string, error) { return "", f(ctx) }
}

// Probe is a question that is asked again and again. It is a [Part].
type Probe struct {
	// Name is told apart by in answers and messages; at most 64 bytes.
	Name string
	Ask  Ask
	// Interval is the least time from one question to the next. A check that
	// comes earlier goes by the last answer; 0 asks at every check.
	Interval time.Duration
	// Timeout is how long one answer may take; 0 means 5 s. The end of the
	// check's own context makes it shorter.
	Timeout time.Duration
	// Successes is how many good answers in a row make the probe well, at the
	// beginning and after it was sick; 0 means 1.
	Successes int
	// Failures is how many bad answers in a row make it sick; 0 means 1.
	Failures int
}

// State says what the answers of a probe add up to. It is stored as its word.
type State string

// The values of [State].
const (
	Unknown State = "unknown" // not enough answers yet; a check takes it for sick
	Well    State = "well"
	Sick    State = "sick"
)

// Answer is what a probe said last.
type Answer struct {
	Probe string `json:"probe"`
	State State  `json:"state"`
	// Saw is what it saw, and Error what is wrong with that; one line each, of
	// at most 256 bytes.
	Saw   string `json:"saw,omitempty"`
	Error string `json:"error,omitempty"`
	// InRow is how many answers in a row were like this one, good or bad.
	InRow int `json:"inRow"`
	// Took is how long the answer took, in nanoseconds.
	Took time.Duration `json:"tookNs"`
	// Advisory probes do not decide a check.
	Advisory bool `json:"advisory,omitempty"`
}

// String says it in one line.
func (a Answer) String() string {
	s := a.Probe + ": "
	switch {
	case a.Error == "" && a.State != Well:
		s += fmt.Sprintf("well %d times in a row, which is not enough yet", a.InRow)
	case a.Error == "":
		s += "well"
	default:
		s += a.Error
	}
	if a.Saw != "" {
		s += " (" + a.Saw + ")"
	}
	return s
}

const (
	maxName = 64
	maxText = 256 // bytes of what a probe saw, and of what is wrong
)

func (p Probe) check() error {
	switch {
	case p.Name == "" || len(p.Name) > maxName || p.Name != line(p.Name, maxName):
		return fmt.Errorf("name %.70q is empty, longer than %d bytes or not one line of text", p.Name, maxName)
	case p.Ask == nil:
		return fmt.Errorf("probe %s asks nothing", p.Name)
	case p.Interval < 0 || p.Timeout < 0 || p.Successes < 0 || p.Failures < 0:
		return fmt.Errorf("probe %s: a time or a number is negative", p.Name)
	}
	return nil
}

func (p Probe) withDefaults() Probe {
	p.Timeout = cmp.Or(p.Timeout, 5*time.Second)
	p.Successes = cmp.Or(p.Successes, 1)
	p.Failures = cmp.Or(p.Failures, 1)
	return p
}

// line makes one printable line of at most max bytes of a text from outside.
func line(text string, max int) string {
	cut := len(text) > 4*max
	if cut {
		text = text[:4*max]
	}
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "?")), " ")
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, text)
	if len(text) <= max && !cut {
		return text
	}
	const more = "…"
	n := min(len(text), max-len(more))
	for n > 0 && n < len(text) && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n] + more
}

// asked is one answer as it came.
type asked struct {
	saw  string
	err  error
	took time.Duration
}

// running is a probe with its answers. One check at a time works on it, but
// for open, which the goroutine of a question sends to.
type running struct {
	Probe
	advisory bool
	open     chan asked // of a question that was not answered in time
	since    time.Time  // when the last question was put
	ever     bool
	good     int
	bad      int
	last     Answer
}

func (p *running) due(now time.Time) bool {
	return !p.ever || now.Sub(p.since) >= p.Interval
}

// ask puts the question, and returns within its time. ok is false when ctx was
// cancelled, which says nothing of the probe.
func (p *running) ask(ctx context.Context, now time.Time) (a asked, ok bool) {
	if p.open != nil {
		select {
		case <-p.open:
			p.open = nil
		default:
			return asked{err: fmt.Errorf("still no answer to the question of %v ago", now.Sub(p.since).Round(time.Second))}, true
		}
	}
	p.since, p.ever = now, true
	within, cancel := context.WithTimeout(ctx, p.limit(ctx, now))
	defer cancel()
	answer := make(chan asked, 1)
	go put(within, p.Ask, answer)
	select {
	case a = <-answer:
	case <-within.Done():
		a, ok = p.late(answer, now)
		if !ok {
			p.open = answer
		}
	}
	return a, !errors.Is(ctx.Err(), context.Canceled)
}

// limit is how long the answer may take: less than ctx has left, so that the
// check ends in time.
func (p *running) limit(ctx context.Context, now time.Time) time.Duration {
	limit := p.Timeout
	if deadline, ok := ctx.Deadline(); ok {
		left := deadline.Sub(now)
		limit = min(limit, left-left/10)
	}
	return max(limit, 0)
}

// late waits a moment more for one that keeps to its context: it can say what
// it was waiting for.
func (p *running) late(answer chan asked, now time.Time) (asked, bool) {
	t := time.NewTimer(min(100*time.Millisecond, p.Timeout/20))
	defer t.Stop()
	select {
	case a := <-answer:
		return a, true
	case <-t.C:
		took := time.Since(now)
		return asked{err: fmt.Errorf("no answer within %v", took.Round(time.Millisecond)), took: took}, false
	}
}

// put asks, and always answers: a panic and a runtime.Goexit are answers too.
func put(ctx context.Context, ask Ask, answer chan<- asked) {
	began := time.Now()
	a := asked{err: errors.New("ended without an answer")}
	defer func() {
		if p := recover(); p != nil {
			a = asked{err: fmt.Errorf("panicked: %v", p)}
		}
		a.took = time.Since(began)
		answer <- a
	}()
	a.saw, a.err = ask(ctx)
}

// take counts an answer, and reports whether the probe changed between well
// and sick, or failed for the first time.
func (p *running) take(a asked) (changed bool) {
	before := p.last
	p.last = Answer{Probe: p.Name, State: before.State, Saw: line(a.saw, maxText), Took: a.took, Advisory: p.advisory}
	if a.err == nil {
		p.good, p.bad = p.good+1, 0
		p.last.InRow = p.good
		if p.good >= p.Successes {
			p.last.State = Well
		}
	} else {
		p.good, p.bad = 0, p.bad+1
		p.last.InRow, p.last.Error = p.bad, line(a.err.Error(), maxText)
		if p.bad >= p.Failures {
			p.last.State = Sick
		}
	}
	return p.last.State != before.State
}
