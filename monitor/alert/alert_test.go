package alert

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/monitor"
)

func f(v float64) *float64 { return &v }

// TestRules plays to one rule what comes, second by second, and compares with
// what is told: "12 hot" or "30 over". A value that is "-" does not come.
func TestRules(t *testing.T) {
	s := Duration(time.Second)
	value := Rule{Sample: "s", Value: "v"}
	for name, c := range map[string]struct {
		rule  Rule
		comes string // what, times how many seconds
		want  string
	}{
		"above at once":                   {Rule{Above: f(10)}, "10x3 11x3 10x3", "3 on, 6 over"},
		"below at once":                   {Rule{Below: f(10)}, "10x3 9x3 10x3", "3 on, 6 over"},
		"above for long":                  {Rule{Above: f(10), For: 5 * s}, "0x3 11x4 0 11x4 0", ""},
		"above for long enough":           {Rule{Above: f(10), For: 5 * s}, "0x3 11x6 0", "8 on, 9 over"},
		"one sample, and none since":      {Rule{Above: f(10), For: 5 * s}, "11 -x9", "5 on"},
		"until":                           {Rule{Above: f(10), Until: f(5)}, "0 11 7x5 5 7 11 5", "1 on, 7 over"},
		"until, from below":               {Rule{Below: f(10), Until: f(15)}, "20 9 12x5 15 12", "1 on, 7 over"},
		"until counts only when it fires": {Rule{Above: f(10), Until: f(5), For: 3 * s}, "11x2 7x9", ""},
		"calm":                            {Rule{Above: f(10), Calm: 3 * s}, "11 0x2 11 0x4", "0 on, 7 over"},
		"not too often":                   {Rule{Above: f(10), Every: 60 * s}, "11 0 11 0 11 0 -x60 11 0", "0 on, 1 over, 66 on 2, 67 over"},
		"told later":                      {Rule{Above: f(10), Every: 60 * s}, "11 0x9 11 -x60 0", "0 on, 1 over, 60 on, 71 over"},
		"rises":                           {Rule{Rises: f(3), Within: 64 * s}, "5 5 6 -x5 8 -x80", "8 on, 66 over"},
		"rises too slowly":                {Rule{Rises: f(3), Within: 64 * s}, "5 6 7 -x64 8 -x64 9", ""},
		"begins anew":                     {Rule{Rises: f(3), Within: 64 * s}, "5 3 -x70 3 6", "1 on, 65 over, 73 on"},
		"absent from the start":           {Rule{Absent: 10 * s, Every: 60 * s}, "-x12 1 -x9 1 -x5", "10 on, 12 over"},
		"absent":                          {Rule{Absent: 10 * s, Every: 60 * s}, "1 -x12 1", "10 on, 13 over"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.rule.Name, c.rule.Sample, c.rule.Value = "r", value.Sample, value.Value
				if strings.HasPrefix(name, "begins anew") {
					c.rule.Every = 60 * s
				}
				began, told := time.Now(), []string{}
				a := start(t, began, &told, c.rule)
				for part := range strings.FieldsSeq(c.comes) {
					what, times, _ := strings.Cut(part, "x")
					n, err := strconv.Atoi(times)
					require.True(t, err == nil || times == "")
					for range max(n, 1) {
						if v, err := strconv.ParseFloat(what, 64); err == nil {
							a.Sample("s", map[string]float64{"v": v, "w": 1e9})
							a.Sample("other", map[string]float64{"v": 1e9})
						}
						second(t)
					}
				}
				require.Equal(t, c.want, strings.Join(told, ", "))
			})
		})
	}
}

func second(t *testing.T) {
	t.Helper()
	<-time.After(time.Second)
	synctest.Wait()
}

// start returns Alerts that run, and say what they tell.
func start(t *testing.T, began time.Time, told *[]string, rules ...Rule) *Alerts {
	t.Helper()
	a, err := New(Options{Emit: func(e monitor.Event) {
		word := "over"
		if e.Values["firing"] == 1 {
			word = "on"
		}
		if n := e.Values["untold"]; n > 0 {
			word += fmt.Sprintf(" %g", n)
		}
		*told = append(*told, fmt.Sprintf("%g %s", time.Since(began).Truncate(time.Second).Seconds(), word))
	}}, rules)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); a.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	synctest.Wait()
	return a
}

// TestEvents: what is said, of each kind of rule, through a stream.
func TestEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stream, err := monitor.NewStream(monitor.StreamOptions{Device: "pump-7"})
		require.NoError(t, err)
		rules, err := Parse([]byte(document))
		require.NoError(t, err)
		a, err := New(Options{Emit: stream.Emit}, rules)
		require.NoError(t, err)
		require.Equal(t, []string{"unit/app.service", "container/web"}, a.Logs())
		ctx, cancel := context.WithCancel(t.Context())
		var mu sync.Mutex
		all := map[string]string{}
		said := func(name string) string {
			mu.Lock()
			defer mu.Unlock()
			return all[name]
		}
		stream.Tell(ctx, a.Event)
		stream.Tell(ctx, func(e monitor.Event) {
			if e.Kind == monitor.Alert {
				mu.Lock()
				defer mu.Unlock()
				all[e.Name] = e.Reason
				require.Equal(t, "pump-7", e.Device)
			}
		})
		go a.Run(ctx)
		stream.Sample("device", map[string]float64{"temperature.max": 90.5, "battery": 9})
		stream.Sample("unit/app.service", map[string]float64{"restarts": 1})
		stream.Sample("app", map[string]float64{"pumped": 1})
		stream.Sample("unit/app.service", map[string]float64{"restarts": 4})
		stream.Probe(monitor.Answer{Probe: "port", State: monitor.Sick, Error: "refused"})
		a.Line("unit/app.service", "all is well")
		a.Line("container/web", "Out of memory")
		a.Line("unit/app.service", "worker: OUT OF MEMORY "+strings.Repeat("x", 2*maxLine))
		for n := range 5 {
			a.Line("container/web", fmt.Sprintf("retry %d", n))
		}
		synctest.Wait()
		require.Contains(t, said("oom"), "unit/app.service: worker: OUT OF MEMORY xx")
		require.LessOrEqual(t, len(said("oom")), 512)
		require.Equal(t, "device battery is 9, lower limit 10", said("flat"))
		require.Equal(t, "unit/app.service restarts rose by 3 within 10m0s, limit 3", said("restarts"))
		require.Equal(t, "container/web has 5 such lines within 1m0s: retry 4", said("retries"))
		require.ElementsMatch(t, []string{"flat", "restarts", "oom", "retries"}, a.Firing())
		<-time.After(time.Minute)
		synctest.Wait()
		require.Equal(t, "cool it: device temperature.max is 90.5, limit 85, for 1m0s", said("hot"))
		require.Equal(t, "port: refused, for 1m0s", strings.Replace(said("port"), "30s", "1m0s", 1))
		require.Contains(t, said("oom"), "over: ", "one line counts for a minute")
		<-time.After(4 * time.Minute)
		synctest.Wait()
		require.Equal(t, "app pumped was not measured for 5m0s", said("silent"))
		stream.Probe(monitor.Answer{Probe: "port", State: monitor.Unknown})
		stream.Probe(monitor.Answer{Probe: "other", State: monitor.Well})
		synctest.Wait()
		require.Contains(t, a.Firing(), "port")
		stream.Probe(monitor.Answer{Probe: "port", State: monitor.Well})
		synctest.Wait()
		require.Equal(t, "over: port: well", said("port"))
		cancel()
		synctest.Wait()
	})
}

// TestSet: a rule that stays goes on, one that changed begins anew, and an error
// changes nothing.
func TestSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		hot := func(limit float64) Rule {
			return Rule{Name: "hot", Sample: "s", Value: "v", Above: &limit, For: Duration(10 * time.Second)}
		}
		a := start(t, time.Now(), &told, hot(5))
		a.Sample("s", map[string]float64{"v": 9})
		<-time.After(6 * time.Second)
		require.NoError(t, a.Set([]Rule{{Name: "other", Probe: "p"}, hot(5)}))
		require.Error(t, a.Set([]Rule{{}}))
		<-time.After(6 * time.Second)
		synctest.Wait()
		require.Equal(t, []string{"10 on"}, told)
		require.Equal(t, []string{"hot"}, a.Firing())
		require.NoError(t, a.Set([]Rule{hot(6)}))
		require.Empty(t, a.Firing())
	})
	_, err := New(Options{}, nil)
	require.ErrorContains(t, err, "Emit")
}

// TestStormIsBounded: whatever comes, a rule tells twice in the time, and keeps
// little.
func TestStormIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		a := start(t, time.Now(), &told,
			Rule{Name: "flaps", Sample: "s", Value: "v", Above: f(0)},
			Rule{Name: "lines", Log: "l", Match: "x", Count: 1000, Within: Duration(time.Hour)})
		for n := range 20000 {
			a.Sample("s", map[string]float64{"v": float64(n % 2)})
			a.Line("l", "x")
			if n%5 == 0 {
				<-time.After(time.Second)
			}
		}
		synctest.Wait()
		require.Len(t, told, 5, "%v", told)
		require.LessOrEqual(t, len(a.rules[1].window.buckets), 33)
	})
}

// collect has the lines of a log until enough have come.
func collect(t *testing.T, from Lines, enough int) ([]string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var lines []string
	err := from(ctx, func(l string) {
		if lines = append(lines, l); len(lines) == enough {
			cancel()
		}
	})
	return lines, err
}

func TestCommand(t *testing.T) {
	lines, err := collect(t, Command("sh", "-c", "echo one; echo two; printf three; echo why >&2; exit 3"), 9)
	require.Equal(t, []string{"one", "two", "three"}, lines)
	require.ErrorContains(t, err, `exit status 3: "why\n"`)
	lines, err = collect(t, Command("sh", "-c", "echo one; sleep 60 & sleep 60"), 1)
	require.Equal(t, []string{"one"}, lines)
	require.Error(t, err)
	_, err = collect(t, Command("/no/such/program"), 1)
	require.ErrorContains(t, err, "cannot run")
	_, err = collect(t, Command(), 1)
	require.ErrorContains(t, err, "no command")
}

func TestReader(t *testing.T) {
	long := strings.Repeat("x", 3*maxLine)
	lines, err := collect(t, Reader(func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader("one\r\n" + long + "\ntwo\n\n")), nil
	}), 9)
	require.Equal(t, []string{"one", long[:maxLine], "two", ""}, lines)
	require.ErrorIs(t, err, io.EOF)
	_, err = collect(t, Reader(func(context.Context) (io.ReadCloser, error) { return nil, errors.New("no engine") }), 1)
	require.ErrorContains(t, err, "no engine")
	r, _ := io.Pipe() // says nothing, and is closed when the time is over
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.Error(t, Reader(func(context.Context) (io.ReadCloser, error) { return r, nil })(ctx, nil))
}

// TestFile: what is added, after the file was turned over too, and after it was
// cut; nothing twice, and nothing of before.
func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	add := func(text string) {
		out, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		require.NoError(t, err)
		_, err = out.WriteString(text)
		require.NoError(t, err)
		require.NoError(t, out.Close())
	}
	add("before\n")
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var lines []string
		ended := make(chan error, 1)
		go func() { ended <- File(path)(ctx, func(l string) { lines = append(lines, l) }) }()
		synctest.Wait()
		add("one\ntw")
		add("o\n")
		second(t)
		add("three\n")
		require.NoError(t, os.Rename(path, path+".1"))
		second(t)
		add("four\n")
		second(t)
		require.NoError(t, os.Truncate(path, 0))
		second(t)
		add("five\n")
		second(t)
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
		require.Equal(t, []string{"one", "two", "three", "four", "five"}, lines)
	})
	_, err := collect(t, File(path+".not"), 1)
	require.ErrorIs(t, err, os.ErrNotExist)
}

// TestFollow: a log that ends is followed again, ever more slowly, and that it
// cannot be is told.
func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		began := time.Now()
		a := start(t, began, &told, Rule{Name: "r", Log: "l", Match: "bad", Every: Duration(time.Minute)})
		ctx, cancel := context.WithCancel(t.Context())
		tries, ended := 0, make(chan struct{})
		go func() {
			defer close(ended)
			a.Follow(ctx, "l", func(ctx context.Context, line func(string)) error {
				if tries++; tries == 8 {
					line("bad")
					line("good")
					<-ctx.Done()
				}
				return errors.New("no journal")
			})
		}()
		<-time.After(10 * time.Minute)
		synctest.Wait()
		require.Equal(t, 8, tries)
		require.Equal(t, []string{"3 on", "123 over", "123 on", "183 over"}, told)
		cancel()
		<-ended
	})
}
