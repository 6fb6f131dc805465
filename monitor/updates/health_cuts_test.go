package updates

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/monitor"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/otatest"
)

// badHealth is what a probe says of the new release, question by question since
// the start of the process: of the letters the last one stays. + well, - sick,
// h hanging, p panicking, s slow.
var badHealth = map[string]struct {
	says   string
	old    bool // whether the release before is well
	state  ota.State
	reason string
}{
	"well":                       {"+", true, ota.Committed, ""},
	"never":                      {"-", true, ota.Reverted, "app: it is cold (2 degrees)"},
	"well, and sick in the soak": {"+-", true, ota.Reverted, "app: it is cold (2 degrees)"},
	"flapping":                   {"+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-", true, ota.Reverted, "app: it is cold"},
	"hanging":                    {"+h", true, ota.Reverted, "app: still no answer"},
	"panicking":                  {"+p", true, ota.Reverted, "app: panicked: out of range"},
	"slow":                       {"s", true, ota.Committed, ""},
	"sick before the update":     {"+", false, ota.Committed, ""},
}

// TestHealthDecidesWhereverThePowerGoes: with each kind of bad health, and with
// the power gone at each step of the update, it ends as it does without that: for
// the same reason, and told so. What is sick only after the commit is in
// TestLateWhereverThePowerGoes.
func TestHealthDecidesWhereverThePowerGoes(t *testing.T) {
	step := 1
	if testing.Short() {
		step = 7
	}
	all := 0
	for name, c := range badHealth {
		for _, effect := range []ota.Effect{ota.Live, ota.NeedsReboot} {
			for cut, reached := 0, true; reached; cut += step {
				synctest.Test(t, func(t *testing.T) {
					p := newPatient(t, effect, c.says, c.old)
					defer close(p.free)
					if cut > 0 {
						p.d.At(cut, otatest.PowerCut)
					}
					history := p.live()
					reached = cut == 0 || p.d.Faults() > 0
					ends := map[ota.State]int{}
					for _, r := range history {
						if r.State == ota.Committed || r.Condemned {
							ends[r.State]++
							require.Contains(t, r.Reason, c.reason, "%s, %s, cut at %d", name, effect, cut)
						}
					}
					require.Equal(t, map[ota.State]int{c.state: 1}, ends, "%s, %s, cut at %d: %v", name, effect, cut, history)
					require.Equal(t, c.state == ota.Committed, p.newRuns(), "%s, %s, cut at %d", name, effect, cut)
					last := p.told()
					require.Equal(t, monitor.Kind(c.state), last.Kind, "%s, %s, cut at %d: %v", name, effect, cut, p.to.said)
					require.Contains(t, last.Reason, c.reason)
				})
				all++
			}
		}
	}
	t.Logf("%d kinds of health, %d runs", len(badHealth), all)
}

// patient is a device on which a second release is to come, whose health is as
// says has it.
type patient struct {
	t    *testing.T
	d    *otatest.Device
	to   *sink
	says string
	old  bool
	free chan bool
}

func newPatient(t *testing.T, effect ota.Effect, says string, old bool) *patient {
	repo := otatest.NewRepo()
	d := otatest.NewDevice(repo, otatest.Part{Name: "app", Effect: effect})
	d.Offer(repo.Add(1, otatest.Healthy(), otatest.Content{Part: "app", Label: "one"}))
	r, to := newReporter(t)
	drive(t, d, to, r)
	d.Offer(repo.Add(2, otatest.Healthy(), otatest.Content{Part: "app", Label: "two"}))
	return &patient{t: t, d: d, to: &sink{t: t, last: to.last}, says: says, old: old, free: make(chan bool)}
}

func (p *patient) newRuns() bool {
	return p.d.Runs("app") == otatest.Content{Part: "app", Label: "two"}.Files()
}

// ask is the probe of one process.
func (p *patient) ask() monitor.Ask {
	n := 0
	return func(context.Context) (string, error) {
		if !p.newRuns() {
			if p.old {
				return "", nil
			}
			return "", errors.New("the old one is sick")
		}
		word := p.says[min(n, len(p.says)-1)]
		n++
		switch word {
		case '-':
			return "2 degrees", errors.New("it is cold")
		case 'h':
			<-p.free
		case 'p':
			panic("out of range")
		case 's':
			<-time.After(4 * time.Second)
		}
		return "20 degrees", nil
	}
}

// live has processes go on, over restarts, boots and waiting for another try,
// until nothing happens any more.
func (p *patient) live() (history []ota.Result) {
	for range 9 {
		err := p.process(&history)
		switch {
		case !p.d.Alive(), errors.Is(err, ota.ErrRebootPending):
			p.d.Boot()
		case errors.Is(err, ota.ErrRestartPending):
			p.d.Restart()
		case err == nil, errors.Is(err, ota.ErrCondemned):
			return history
		default:
			p.d.Wait(24 * time.Hour)
		}
	}
	return history
}

func (p *patient) process(history *[]ota.Result) error {
	r, fresh := newReporter(p.t)
	health, err := monitor.NewHealth(monitor.HealthOptions{Changed: r.o.Stream.Probe}, monitor.Probe{Name: "app", Ask: p.ask()})
	require.NoError(p.t, err)
	o := p.d.Options()
	o.Health, o.Progress = health.Check, r.Progress
	o.Trial = ota.Trial{Soak: 5 * time.Second, Deadline: time.Minute, Interval: time.Second}
	u, err := ota.Open(p.d.Context(), o)
	if err != nil {
		return err
	}
	r.CatchUp(u.History(), p.to.last)
	res, err := u.Update(p.d.Context())
	r.Outcome(res, err)
	*history = u.History()[1:]
	_ = u.Close()
	p.to.said, p.to.all = append(p.to.said, fresh.said...), append(p.to.all, fresh.all...)
	if fresh.last != "" {
		p.to.last = fresh.last
	}
	return err
}

// told is the last end that was told.
func (p *patient) told() (last monitor.Event) {
	for _, e := range p.to.all {
		if e.Kind == monitor.Committed || e.Kind == monitor.Reverted {
			last = e
		}
	}
	return last
}
