package monitor

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// script answers with what stands in words, one letter each: + is well, - is
// sick, s is slow and keeps to its context, p
// panics, g ends its goroutine. The last one stays.
func script(words string) Ask {
	n := 0
	return func(ctx context.Context) (string, error) {
		word := words[min(n, len(words)-1)]
		n++
		switch word {
		case '+':
			return "all there", nil
		case 's':
			<-ctx.Done()
			return "the first half", ctx.Err()
		case 'p':
			panic("out of range")
		case 'g':
			runtime.Goexit()
		}
		return "nothing there", errors.New("it is sick")
	}
}

func newHealth(t *testing.T, changed func(Answer), parts ...Part) *Health {
	t.Helper()
	h, err := NewHealth(HealthOptions{Changed: changed}, All(parts...))
	require.NoError(t, err)
	return h
}

// TestBadHealth: what becomes of each kind of bad health over six checks, as
// the answers of the check: + is nil.
func TestBadHealth(t *testing.T) {
	for _, c := range []struct {
		name, says          string
		successes, failures int
		want                string
	}{
		{"well", "+", 0, 0, "++++++"},
		{"never well", "-", 0, 0, "------"},
		{"never well, with patience", "-", 0, 3, "------"},
		{"well and then sick", "++-", 0, 0, "++----"},
		{"well and then sick, with patience", "++-", 0, 3, "++++--"},
		{"sick before, well later", "--+", 0, 0, "--++++"},
		{"sick before, sure only later", "--+", 3, 0, "----++"},
		{"flapping", "+-+-+-", 0, 0, "+-+-+-"},
		{"flapping, with patience", "+-+-+-", 0, 2, "++++++"},
		{"flapping, and never sure", "+-+-+-", 2, 0, "------"},
		{"panicking once", "+p+", 0, 0, "+-++++"},
		{"slow once", "+s+", 0, 0, "+-++++"},
		{"ending its goroutine", "+g", 0, 0, "+-----"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHealth(t, nil, Probe{Name: "x", Ask: script(c.says), Successes: c.successes, Failures: c.failures})
				got := ""
				for range len(c.want) {
					if h.Check(t.Context()) == nil {
						got += "+"
					} else {
						got += "-"
					}
				}
				require.Equal(t, c.want, got)
			})
		})
	}
}

// TestHang: a probe that hangs fails its check in its time, and the checks
// after that at once; no second goroutine waits for it, and its late answer is
// not one to a later question.
func TestHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free, calls := make(chan error), 0
		h := newHealth(t, nil, Probe{Name: "stuck", Timeout: 2 * time.Second, Ask: Func(func(context.Context) error {
			calls++
			return <-free
		})}, Probe{Name: "fine", Ask: script("+")})
		began := time.Now()
		require.ErrorContains(t, h.Check(t.Context()), "stuck: no answer within 2.")
		require.Less(t, time.Since(began), 2200*time.Millisecond)
		for range 50 {
			require.ErrorContains(t, h.Check(t.Context()), "stuck: still no answer")
		}
		require.Less(t, time.Since(began), 2200*time.Millisecond)
		synctest.Wait()
		require.Equal(t, 1, calls)

		free <- nil
		synctest.Wait()
		require.ErrorContains(t, h.Check(t.Context()), "no answer within", "the late answer is not taken for the next one")
		synctest.Wait()
		require.Equal(t, 2, calls)
		free <- nil
		synctest.Wait()
		go func() { free <- nil }()
		require.NoError(t, h.Check(t.Context()))
	})
}

// TestSlowProbeSays what it was waiting for, because it kept to its context.
func TestSlowProbeSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHealth(t, nil, Probe{Name: "slow", Timeout: time.Second, Ask: script("s")})
		require.ErrorContains(t, h.Check(t.Context()), "slow: context deadline exceeded (the first half)")
	})
}

// TestWithinTheDeadline: the answers are there before the check's own context
// ends, so that whoever asks is not left without one.
func TestWithinTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free := make(chan error)
		h := newHealth(t, nil, Probe{Name: "stuck", Timeout: time.Hour, Ask: Func(func(context.Context) error { return <-free })})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		require.ErrorContains(t, h.Check(ctx), "stuck: no answer")
		require.NoError(t, ctx.Err())
		free <- nil
	})
}

func TestCancelledCheckCountsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHealth(t, nil, Probe{Name: "x", Ask: script("+s+")})
		require.NoError(t, h.Check(t.Context()))
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-time.After(time.Second); cancel() }()
		require.ErrorIs(t, h.Check(ctx), context.Canceled)
		require.Equal(t, Well, h.Answers()[0].State)
		require.ErrorIs(t, h.Check(ctx), context.Canceled)
	})
}

func TestInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		h := newHealth(t, nil, Probe{Name: "rare", Interval: 10 * time.Second, Failures: 2, Ask: Func(func(context.Context) error {
			calls++
			return nil
		})})
		for range 60 {
			require.NoError(t, h.Check(t.Context()))
			<-time.After(time.Second)
		}
		require.Equal(t, 6, calls)
		require.Equal(t, 6, h.Answers()[0].InRow, "an answer counts once")
	})
}

func TestGroups(t *testing.T) {
	good := func(name string) Probe { return Probe{Name: name, Ask: script("+")} }
	bad := func(name string) Probe { return Probe{Name: name, Ask: script("-")} }
	for _, c := range []struct {
		name string
		part Part
		want string // part of the error, or empty
	}{
		{"nothing", All(), ""},
		{"all", All(good("a"), good("b")), ""},
		{"all but one", All(good("a"), bad("b")), "b: it is sick (nothing there)"},
		{"any", Any(bad("a"), good("b")), ""},
		{"none of any", Any(bad("a"), bad("b")), "a: it is sick (nothing there); b: it is sick"},
		{"two of three", AtLeast(2, good("a"), bad("b"), good("c")), ""},
		{"one of three", AtLeast(2, good("a"), bad("b"), bad("c")), "b: it is sick"},
		{"nested", All(good("a"), Any(bad("b"), All(good("c"), bad("d")))), "b: it is sick (nothing there); d: it is sick"},
		{"nested and well", All(good("a"), Any(bad("b"), All(good("c"), good("d")))), ""},
		{"advisory", All(good("a"), Advisory(bad("b"), All(bad("c")))), ""},
		{"advisory alone", Advisory(bad("b")), ""},
		{"advisory and bad", All(bad("a"), Advisory(bad("b"))), "a: it is sick (nothing there)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, err := NewHealth(HealthOptions{}, c.part)
			require.NoError(t, err)
			err = h.Check(t.Context())
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "all there")
		})
	}
}

func TestPartsThatAreNone(t *testing.T) {
	ok := Probe{Name: "a", Ask: script("+")}
	for name, p := range map[string]Part{
		"nil": nil, "nil part": All(nil), "no name": Probe{Ask: ok.Ask}, "no question": Probe{Name: "a"},
		"two of a name": All(ok, Any(ok)), "none of any": Any(), "too many": AtLeast(3, ok, Advisory(Probe{Name: "b", Ask: ok.Ask})),
		"negative": Probe{Name: "a", Ask: ok.Ask, Failures: -1}, "lines": Probe{Name: "a\nb", Ask: ok.Ask},
		"long name": Probe{Name: strings.Repeat("n", 65), Ask: ok.Ask},
	} {
		_, err := NewHealth(HealthOptions{}, p)
		require.Error(t, err, name)
	}
}

// TestChanged: each change is told once, and a listener that panics does no
// harm.
func TestChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		h := newHealth(t, func(a Answer) {
			told = append(told, string(a.State))
			panic("the listener is broken")
		}, Probe{Name: "x", Ask: script("-++--"), Successes: 2})
		for range 6 {
			_ = h.Check(t.Context())
		}
		require.Equal(t, []string{"sick", "well", "sick"}, told)
	})
}

// TestAnswersAreBounded: whatever a probe says ends in one line of text.
func TestAnswersAreBounded(t *testing.T) {
	var parts []Part
	for i := range 40 {
		parts = append(parts, Probe{Name: fmt.Sprint("p", i), Ask: func(context.Context) (string, error) {
			return strings.Repeat("ä\n\x1b[31m\xff", 1<<18), errors.New(strings.Repeat("\x00ü", 1<<18))
		}})
	}
	h := newHealth(t, nil, parts...)
	err := h.Check(t.Context())
	require.LessOrEqual(t, len(err.Error()), maxReason)
	for _, text := range []string{err.Error(), h.Answers()[0].Saw, h.Answers()[0].Error} {
		require.True(t, utf8.ValidString(text))
		require.NotContains(t, text, "\n")
		require.NotContains(t, text, "\x1b")
	}
	require.LessOrEqual(t, len(h.Answers()[0].Saw), maxText)
}

// TestConcurrentChecks wait for each other, and for no longer than their own
// context.
func TestConcurrentChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHealth(t, nil, Probe{Name: "slow", Timeout: time.Minute, Ask: Func(func(context.Context) error {
			<-time.After(10 * time.Second)
			return nil
		})})
		ended := make(chan error)
		go func() { ended <- h.Check(t.Context()) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, h.Check(ctx), context.DeadlineExceeded)
		require.NoError(t, <-ended)
	})
}
