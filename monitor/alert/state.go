package alert

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"time"

	"github.com/pawl-ota/pawl/monitor"
)

// state is a rule and what was seen of it. Everything that it does follows from
// what it is told and the times that come with that, which never go back.
//
//	well ──bad for For──► firing ──well for Calm──► well
//
// A rule that fires is told when it was not told within Every, if need be later,
// and that it is over only when it was told that it fires.
type state struct {
	Rule
	pattern *regexp.Regexp
	window  window

	bad    bool
	turned time.Time // when it turned bad, or well
	firing bool
	told   bool      // that it fires
	at     time.Time // when that was told last
	ever   bool      // told
	untold int       // firings that ended before they could be told

	value   float64
	counter *float64 // as it was seen last
	seen    time.Time
	saw     string
}

// turn notes whether it is bad now.
func (s *state) turn(now time.Time, bad bool) {
	if bad != s.bad {
		s.bad, s.turned = bad, now
	}
}

// measured takes a value.
func (s *state) measured(now time.Time, v float64) {
	if math.IsNaN(v) {
		return
	}
	s.seen = now
	switch {
	case s.Rises != nil:
		if s.counter != nil {
			s.window.add(now, rise(*s.counter, v))
		}
		s.counter = &v
	case s.Absent == 0:
		s.value = v
		s.turn(now, s.beyond(v))
	}
}

func rise(from, to float64) float64 {
	if to < from {
		return to
	}
	return to - from
}

// beyond reports whether v is on the bad side: of the limit, and while the rule
// fires of Until.
func (s *state) beyond(v float64) bool {
	limit := s.limit()
	if s.firing && s.Until != nil {
		limit = *s.Until
	}
	if s.Above != nil {
		return v > limit
	}
	return v < limit
}

func (s *state) limit() float64 {
	switch {
	case s.Above != nil:
		return *s.Above
	case s.Below != nil:
		return *s.Below
	case s.Rises != nil:
		return *s.Rises
	case s.Absent != 0:
		return time.Duration(s.Absent).Seconds()
	}
	return float64(s.Count)
}

// line takes a line of the log.
func (s *state) line(now time.Time, text string) {
	if s.pattern.MatchString(text) {
		s.saw = text
		s.window.add(now, 1)
	}
}

// answered takes the answer of a probe.
func (s *state) answered(now time.Time, a monitor.Answer) {
	if a.State == monitor.Unknown {
		return
	}
	s.saw = a.String()
	s.turn(now, a.State == monitor.Sick)
}

// step brings the rule to where it is now, and returns what there is to tell.
func (s *state) step(now time.Time) (tell []monitor.Event) {
	s.look(now)
	switch {
	case !s.firing && s.bad && now.Sub(s.turned) >= time.Duration(s.For):
		s.firing, s.told = true, false
		s.untold++
	case s.firing && !s.bad && now.Sub(s.turned) >= time.Duration(s.Calm):
		s.firing = false
		if s.told {
			tell = append(tell, s.event(now, false))
		}
	}
	if s.firing && !s.told && (!s.ever || now.Sub(s.at) >= time.Duration(s.Every)) {
		s.untold--
		tell = append(tell, s.event(now, true))
		s.told, s.ever, s.at, s.untold = true, true, now, 0
	}
	return tell
}

// look decides what only time decides.
func (s *state) look(now time.Time) {
	switch {
	case s.Log != "":
		s.value = s.window.sum(now)
		s.turn(now, s.value >= float64(s.Count))
	case s.Rises != nil:
		s.value = s.window.sum(now)
		s.turn(now, s.value >= *s.Rises)
	case s.Absent != 0:
		s.value = now.Sub(s.seen).Seconds()
		s.turn(now, now.Sub(s.seen) >= time.Duration(s.Absent))
	}
}

// due is when the rule has to be looked at again though nothing comes; false
// when there is no such time.
func (s *state) due(now time.Time) (time.Time, bool) {
	var first time.Time
	at := func(when bool, t time.Time) {
		if when && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	at(!s.firing && s.bad, s.turned.Add(time.Duration(s.For)))
	at(s.firing && !s.bad, s.turned.Add(time.Duration(s.Calm)))
	at(s.firing && !s.told, s.at.Add(time.Duration(s.Every)))
	at(s.Absent != 0 && !s.bad, s.seen.Add(time.Duration(s.Absent)))
	if expires, ok := s.window.expires(); s.bad && ok {
		at(true, expires)
	}
	if first.Before(now) {
		return now, !first.IsZero()
	}
	return first, true
}

// event says that the rule fires, or that it is over.
func (s *state) event(now time.Time, fires bool) monitor.Event {
	e := monitor.Event{Kind: monitor.Alert, Name: s.Name, Values: map[string]float64{"firing": 0, "value": s.value, "limit": s.limit()}}
	text := "over: " + s.what()
	if fires {
		e.Values["firing"] = 1
		text = s.what()
		if lasted := now.Sub(s.turned); s.For > 0 {
			text += ", for " + lasted.Round(time.Second).String()
		}
		if s.untold > 0 {
			e.Values["untold"] = float64(s.untold)
			text += fmt.Sprintf("; %d times since the last event", s.untold)
		}
	}
	if s.Say != "" {
		text = s.Say + ": " + text
	}
	e.Reason = text
	return e
}

func (s *state) what() string {
	of, within := s.Sample+" "+s.Value, time.Duration(s.Within)
	switch {
	case s.Above != nil:
		return fmt.Sprintf("%s is %s, limit %s", of, number(s.value), number(*s.Above))
	case s.Below != nil:
		return fmt.Sprintf("%s is %s, lower limit %s", of, number(s.value), number(*s.Below))
	case s.Rises != nil:
		return fmt.Sprintf("%s rose by %s within %v, limit %s", of, number(s.value), within, number(*s.Rises))
	case s.Absent != 0:
		return fmt.Sprintf("%s was not measured for %v", of, time.Duration(s.value*1e9).Round(time.Second))
	case s.Probe != "":
		return s.saw
	case s.Count > 1:
		return fmt.Sprintf("%s has %s such lines within %v: %s", s.Log, number(s.value), within, s.saw)
	}
	return s.Log + ": " + s.saw
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', 6, 64) }

// window sums up what came within a time, in at most 33 steps.
type window struct {
	within  time.Duration
	buckets []bucket
}

type bucket struct {
	since time.Time
	sum   float64
}

func (w *window) add(now time.Time, n float64) {
	if n == 0 {
		return
	}
	if last := len(w.buckets) - 1; last >= 0 && now.Sub(w.buckets[last].since) <= w.within/32 {
		w.buckets[last].sum += n
		return
	}
	w.sum(now)
	w.buckets = append(w.buckets, bucket{now, n})
}

// sum lets go of what is too old, and returns the rest.
func (w *window) sum(now time.Time) (sum float64) {
	old := 0
	for old < len(w.buckets) && now.Sub(w.buckets[old].since) >= w.within {
		old++
	}
	w.buckets = append(w.buckets[:0], w.buckets[old:]...)
	for _, b := range w.buckets {
		sum += b.sum
	}
	return sum
}

// expires is when the sum falls next.
func (w *window) expires() (time.Time, bool) {
	if len(w.buckets) == 0 {
		return time.Time{}, false
	}
	return w.buckets[0].since.Add(w.within), true
}
