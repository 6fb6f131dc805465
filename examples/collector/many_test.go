package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/monitor"
	"github.com/pawl-ota/pawl/monitor/cloudevents"
	"github.com/pawl-ota/pawl/monitor/outbox"
)

// TestManyDevices has a fleet report for hours, which pass as fast as they can: real
// streams, outboxes on a disk and senders, as they are by default, against this
// collector. Every 50th answer is lost after the events were stored, every 100th
// asks to come again later, and for a tenth of the time there is no network.
// Everything arrives, and is stored once.
//
// PAWL_FLEET is the number of devices, and PAWL_HOURS of hours, of a long one
// through an nginx with TLS; see .ci/run fleet.
func TestManyDevices(t *testing.T) {
	f := &many{devices: 25, span: 2 * time.Hour, groups: 4}
	many, _ := strconv.Atoi(os.Getenv("PAWL_FLEET"))
	f.open(t)
	if many > 0 {
		hours, err := strconv.Atoi(os.Getenv("PAWL_HOURS"))
		require.NoError(t, err)
		f.devices, f.span, f.groups = many, time.Duration(hours)*time.Hour, 16
		f.throughNginx(t)
	}
	f.minutes = make([]atomic.Int64, int(f.span/time.Minute)+24*60)
	f.line = newLine(t, f.address)
	f.url += f.line.listener.Addr().String() + "/events"
	began := time.Now()
	t.Run("groups", func(t *testing.T) {
		for g := range f.groups {
			t.Run(strconv.Itoa(g), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) { f.group(t, g) })
			})
		}
	})
	if !t.Failed() {
		f.check(t, time.Since(began))
	}
}

// many is a fleet, in groups with a clock each.
type many struct {
	devices, groups int
	span            time.Duration

	store   *store
	address string // of what devices connect to, behind the line
	url     string
	trust   cloudevents.Options
	line    *line

	emitted, samples atomic.Int64
	reverted         atomic.Int64
	requests, lost   atomic.Int64   // that reached the collector, and whose answer was lost
	delivered        atomic.Int64   // events, each as often as the outbox had it sent
	minutes          []atomic.Int64 // requests in each minute of the fleet's own time
}

// open serves the collector, with answers that fail.
func (f *many) open(t *testing.T) {
	s, err := openStore(filepath.Join(t.TempDir(), "fleet.db"), 1_000_000)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.close()) })
	h := newHandler(s)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := f.requests.Add(1)
		if n%100 == 7 {
			w.Header().Set("Retry-After", "60")
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		h.ServeHTTP(w, r)
		if n%50 == 0 {
			f.lost.Add(1)
			panic(http.ErrAbortHandler)
		}
	}))
	t.Cleanup(server.Close)
	f.store, f.address, f.url = s, server.Listener.Addr().String(), "http://"
}

// group is some of the devices.
func (f *many) group(t *testing.T, g int) {
	var all sync.WaitGroup
	for n := g; n < f.devices; n += f.groups {
		d := &simulated{many: f, t: t, n: n, random: rand.New(rand.NewPCG(7, uint64(n))), began: time.Now(), dir: t.TempDir()}
		all.Go(d.live)
	}
	all.Wait()
}

// simulated is one device.
type simulated struct {
	*many
	t       *testing.T
	n       int
	dir     string
	random  *rand.Rand
	began   time.Time
	box     *outbox.Outbox
	stream  *monitor.Stream
	up, off *cloudevents.Sender
}

// live switches it on some time within the first minutes, and lets it be.
func (d *simulated) live() {
	d.until(time.Duration(d.random.Int64N(int64(15 * time.Minute))))
	var err error
	now := func() (time.Time, bool) { return time.Now(), true }
	d.box, err = outbox.Open(d.t.Context(), outbox.Options{Dir: filepath.Join(d.dir, "box"), Now: now})
	if d.no(err) {
		return
	}
	d.stream, err = monitor.NewStream(monitor.StreamOptions{
		Device: fmt.Sprintf("pump-%05d", d.n), Sink: d, Now: now, Boot: fmt.Sprintf("5b3c8b9e-5a5e-4d4f-9f57-%012d", d.n),
		Uptime: func() time.Duration { return time.Since(d.began) },
	})
	d.no(err)
	d.stream.Running(*release(4))
	d.no(d.senders())
	ctx, cancel := context.WithCancel(d.t.Context())
	var sending sync.WaitGroup
	sending.Go(func() { _ = d.box.Run(ctx, d) })
	d.day()
	d.drain()
	cancel()
	sending.Wait()
	d.no(d.box.Close())
}

func (d *simulated) no(err error) bool {
	if err != nil {
		d.t.Errorf("device %d: %v", d.n, err)
	}
	return err != nil
}

// until waits for a time since the beginning.
func (d *simulated) until(at time.Duration) { <-time.After(time.Until(d.began.Add(at))) }

// senders makes them. A connection is not kept: the next time is a quarter of an
// hour away, and the clock stands still while one is open.
func (d *simulated) senders() (err error) {
	o := d.trust
	o.URL, o.Header = d.url, http.Header{"Connection": {"close"}}
	if d.up, err = cloudevents.New(o); err != nil {
		return err
	}
	o.URL = "http://127.0.0.1:1/events"
	d.off, err = cloudevents.New(o)
	return err
}

// Append is the sink of the stream.
func (d *simulated) Append(keep bool, key string, data []byte) {
	d.emitted.Add(1)
	if !keep {
		d.samples.Add(1)
	}
	d.box.Append(keep, key, data)
}

// Send sends where there is a network.
func (d *simulated) Send(ctx context.Context, items []outbox.Item) error {
	at := time.Since(d.began)
	if at > d.span*4/10 && at < d.span/2 {
		return d.off.Send(ctx, items)
	}
	d.minutes[min(int(at/time.Minute), len(d.minutes)-1)].Add(1)
	d.delivered.Add(int64(len(items)))
	return d.up.Send(ctx, items)
}

// drain waits until everything was sent, which is soon.
func (d *simulated) drain() {
	d.no(d.box.Flush(d.t.Context()))
	for range 20 * 60 {
		s := d.box.Stats()
		if s.Lost != (outbox.Lost{}) || s.Errors > 0 {
			d.t.Errorf("device %d: %+v", d.n, s)
		}
		if s.Results+s.Metrics == 0 {
			return
		}
		<-time.After(time.Minute)
	}
	d.t.Errorf("device %d has something left: %+v", d.n, d.box.Stats())
}

// check looks at what the collector has, and says what it took.
func (f *many) check(t *testing.T, took time.Duration) {
	var stored, devices, ok, back int64
	row := f.store.db.QueryRow(`SELECT (SELECT max(n) FROM events), count(*), sum(seq = 5 AND state = 'ok'), sum(seq = 4 AND state = 'rolled back') FROM devices`)
	require.NoError(t, row.Scan(&stored, &devices, &ok, &back)) // n counts what was stored, also of what went since
	require.Equal(t, f.emitted.Load(), stored, "each event once")
	require.EqualValues(t, f.devices, devices)
	require.Equal(t, f.reverted.Load(), back)
	require.Equal(t, devices, ok+back)
	require.Greater(t, f.delivered.Load(), stored, "some came again")
	require.Positive(t, f.lost.Load())
	all, peak := int64(0), int64(0)
	for i := range f.minutes {
		all, peak = all+f.minutes[i].Load(), max(peak, f.minutes[i].Load())
	}
	day := float64(24*time.Hour) / float64(f.span) / float64(f.devices)
	t.Logf("fleet: %d devices, %v: %d events (%d samples), all stored once; %d were sent again, %d answers were lost; per device and day %.0f events, %.1f requests, %.0f bytes up, %.0f down",
		f.devices, f.span, stored, f.samples.Load(), f.delivered.Load()-stored, f.lost.Load(), float64(stored)*day, float64(all)*day, float64(f.line.up.Load())*day, float64(f.line.down.Load())*day)
	t.Logf("fleet: %d requests, %.2f a second, %.1f in the busiest minute; served here in %v, %.0f a second",
		all, float64(all)/f.span.Seconds(), float64(peak)/60, took.Round(time.Second), float64(f.requests.Load())/took.Seconds())
}
