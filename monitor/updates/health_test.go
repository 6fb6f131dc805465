package updates

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/monitor"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/otatest"
)

// TestHealthDecides: what becomes of a release whose probes answer so; of the
// letters the last one stays: + well, - sick, h hanging, p panicking. The reason
// says which probe it was, and what it saw.
func TestHealthDecides(t *testing.T) {
	for name, c := range map[string]struct {
		says     string
		advisory bool
		failures int
		state    ota.State
		reason   string
	}{
		"well":                       {"+", false, 0, ota.Committed, ""},
		"never":                      {"-", false, 0, ota.Reverted, "app: it is cold (2 degrees)"},
		"late":                       {"---+", false, 0, ota.Committed, ""},
		"well, and sick in the soak": {"+++-", false, 0, ota.Reverted, "unhealthy: app: it is cold"},
		"once sick":                  {"++-+", false, 2, ota.Committed, ""},
		"flapping":                   {"+-+-+-+-+-+-+-+-+-+-+-", false, 0, ota.Reverted, "app: it is cold"},
		"hanging":                    {"+h", false, 0, ota.Reverted, "app: still no answer"},
		"hanging from the start":     {"h", false, 0, ota.Reverted, "app: still no answer"},
		"panicking":                  {"+p", false, 0, ota.Reverted, "app: panicked: out of range"},
		"sick, and only advisory":    {"-", true, 0, ota.Committed, ""},
		"hanging, and only advisory": {"h", true, 0, ota.Committed, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			repo := otatest.NewRepo()
			d := otatest.NewDevice(repo, otatest.Part{Name: "app", Effect: ota.Live})
			d.Offer(repo.Add(1, otatest.Healthy(), otatest.Content{Part: "app", Label: "one"}))
			r, to := newReporter(t)
			drive(t, d, to, r)
			d.Offer(repo.Add(2, otatest.Healthy(), otatest.Content{Part: "app", Label: "two"}))

			free, n, limit := make(chan bool), 0, time.Minute
			defer close(free)
			if strings.Contains(c.says, "h") {
				limit = 20 * time.Millisecond
			}
			var part monitor.Part = monitor.Probe{Name: "app", Timeout: limit, Failures: c.failures, Ask: func(context.Context) (string, error) {
				word := c.says[min(n, len(c.says)-1)]
				n++
				switch word {
				case '-':
					return "2 degrees", errors.New("it is cold")
				case 'h':
					<-free
				case 'p':
					panic("out of range")
				}
				return "20 degrees", nil
			}}
			if c.advisory {
				part = monitor.Advisory(part)
			}
			health, err := monitor.NewHealth(monitor.HealthOptions{Changed: r.o.Stream.Probe}, part)
			require.NoError(t, err)
			o := d.Options()
			o.Health, o.Progress = health.Check, r.Progress
			o.Trial = ota.Trial{Soak: 5 * time.Second, Deadline: time.Minute, Interval: time.Second}
			u, err := ota.Open(d.Context(), o)
			require.NoError(t, err)
			res, err := u.Update(d.Context())
			require.NoError(t, u.Close())
			require.Equal(t, c.state, res.State, "%v", err)
			require.Contains(t, res.Reason, c.reason)
			last := to.all[len(to.all)-1]
			require.Equal(t, monitor.Kind(c.state), last.Kind)
			require.Equal(t, res.Reason, last.Reason)
			require.Contains(t, to.said, "probe")
		})
	}
}
