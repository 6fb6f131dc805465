//go:build monitor

package main

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/monitor"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/publish"
	"github.com/pawl-ota/pawl/ota/release"
)

// fleet is a repository, a device with an agent, and who is told of it.
type fleet struct {
	t      *testing.T
	dir    string
	repo   *publish.Repository
	config map[string]any
	to     *receiver
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{t: t, dir: t.TempDir(), to: newReceiver(t)}
	keys, err := publish.KeyDir{Path: filepath.Join(f.dir, "keys")}.Make(1, false)
	require.NoError(t, err)
	f.repo, err = publish.Open(publish.Options{Dir: filepath.Join(f.dir, "repo"), Keys: keys})
	require.NoError(t, err)
	require.NoError(t, f.repo.Create(t.Context(), "camera", 1))
	f.to.state = filepath.Join(f.dir, "state", "updates")
	f.config = map[string]any{
		"state":      "state",
		"device":     map[string]any{"id": "cam-1", "product": "camera", "variant": "arm"},
		"source":     map[string]any{"url": filepath.Join(f.dir, "repo"), "root": filepath.Join(f.dir, "repo", "metadata", "1.root.json")},
		"components": map[string]any{"app": map[string]any{"kind": "files", "root": "app", "layout": "tree"}},
		"trial":      map[string]any{"interval": "10ms", "deadline": "300ms"},
		"health":     []any{map[string]any{"name": "lens", "exec": []string{"/bin/sh", "-c", "cat " + f.dir + "/app/lens; grep -q clear " + f.dir + "/app/lens"}}},
		"report":     map[string]any{"url": f.to.server.URL, "headers": map[string]string{"Authorization": "Bearer s3cret"}, "wait": "2s", "interval": "1ms"},
	}
	return f
}

// release publishes a camera whose lens is clear, or not.
func (f *fleet) release(version, lens string) {
	f.t.Helper()
	tree := filepath.Join(f.dir, "tree-"+version)
	require.NoError(f.t, os.MkdirAll(tree, 0o755))
	for name, text := range map[string]string{"lens": lens + "\n", "version": version + "\n", "alerts.json": rulesOf(version)} {
		require.NoError(f.t, os.WriteFile(filepath.Join(tree, name), []byte(text), 0o644))
	}
	_, err := f.repo.Release(f.t.Context(), publish.Spec{
		Version: version, Variant: "arm", Components: []publish.Component{{Name: "app", From: tree, Keep: release.Keep{Previous: 1, Repair: "changed"}}},
	})
	require.NoError(f.t, err)
}

// rulesOf are rules that fire as soon as the device is measured.
func rulesOf(version string) string {
	return `{"format": "pawl-alerts/0", "rules": [{"name": "up in ` + version + `", "sample": "device", "value": "uptime", "above": 0}, {"name": "lens in ` + version + `", "probe": "lens"}]}`
}

// agent runs the agent, and returns what it said.
func (f *fleet) agent(words ...string) (code int, ans answer, text string) {
	f.t.Helper()
	data, err := json.Marshal(f.config)
	require.NoError(f.t, err)
	path := filepath.Join(f.dir, "agent.json")
	require.NoError(f.t, os.WriteFile(path, data, 0o600))
	var stdout, stderr strings.Builder
	code = run(f.t.Context(), append([]string{"-config", path, "-json"}, words...), &stdout, &stderr)
	require.NoError(f.t, json.Unmarshal([]byte(stdout.String()), &ans), stdout.String()+stderr.String())
	return code, ans, stdout.String()
}

// set changes a key of a section of the configuration.
func (f *fleet) set(section, key string, value any) {
	f.config[section].(map[string]any)[key] = value
}

// receiver takes CloudEvents over HTTP, as examples/collector does.
type receiver struct {
	t      *testing.T
	server *httptest.Server
	state  string // folder of the updater

	mu     sync.Mutex
	answer func() int // asked when a batch was stored; 0 is 204
	early  []string   // ends that came before they were durable
	asked  http.Header
	ids    map[string]int
	events []monitor.Event
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{t: t, ids: map[string]int{}, answer: func() int { return 0 }}
	r.server = httptest.NewServer(r)
	t.Cleanup(r.server.Close)
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = req.Header
	body := io.Reader(req.Body)
	if req.Header.Get("Content-Encoding") == "gzip" {
		body, _ = gzip.NewReader(req.Body)
	}
	var batch []struct {
		Source, ID string
		Data       monitor.Event
	}
	if err := json.NewDecoder(body).Decode(&batch); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	for _, c := range batch {
		key := c.Source + " " + c.ID
		if r.ids[key]++; r.ids[key] == 1 {
			r.events = append(r.events, c.Data)
			r.check(c.Data)
		}
	}
	if code := r.answer(); code != 0 {
		w.WriteHeader(code)
	}
}

// check looks whether the end of a transaction is durable when it is told.
func (r *receiver) check(e monitor.Event) {
	if e.Kind != monitor.Committed && e.Kind != monitor.Reverted {
		return
	}
	past, err := ota.ReadHistory(r.state)
	for _, res := range past {
		if string(res.Tx) == e.Tx && string(res.State) == string(e.Kind) {
			return
		}
	}
	r.early = append(r.early, fmt.Sprint(e.Kind, " ", e.Tx, " ", err))
}

// told returns what came, each once: kind, version, and why.
func (r *receiver) told(kinds ...monitor.Kind) (all []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	require.Empty(r.t, r.early, "nothing is told before it is durable")
	for _, e := range r.events {
		for _, k := range kinds {
			if e.Kind == k {
				all = append(all, strings.Join(strings.Fields(strings.Join([]string{string(e.Kind), version(e.Release), e.Name, e.Reason}, " ")), " "))
			}
		}
	}
	return all
}

// reported is the most that an event says reporting has cost by then.
func (r *receiver) reported() (most int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if e.Bytes != nil {
			most = max(most, e.Bytes.Report)
		}
	}
	return most
}

func version(r *monitor.Release) string {
	if r == nil {
		return "-"
	}
	return r.Version
}

func (r *receiver) answers(f func() int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = f
}

// steps are the kinds of a transaction.
var steps = []monitor.Kind{monitor.Begin, monitor.Staged, monitor.Activated, monitor.Committed, monitor.Reverted, monitor.Held, monitor.Failed}

// story is what somebody reads of two good releases and a bad one.
var story = []string{
	"begin 1", "staged 1", "activated 1", "committed 1",
	"begin 2", "staged 2", "activated 2", "committed 2",
	"begin 3", "staged 3", "activated 3", "reverted 3 not healthy for 0s within 300ms: lens: /bin/sh: exit status 1 (dirty)",
}

// play has the device take three releases, the last of which is bad.
func (f *fleet) play() (outcomes []string) {
	for n, lens := range []string{"clear", "clear", "dirty"} {
		f.release(fmt.Sprint(n+1), lens)
		code, ans, _ := f.agent("update")
		require.NotNil(f.t, ans.Result, ans.Error)
		require.Empty(f.t, ans.Warnings)
		outcomes = append(outcomes, fmt.Sprintf("%d%s%s%s%s", code, ans.Result.State, ans.Result.From.Version, ans.Result.To.Version, ans.Result.Reason))
	}
	return outcomes
}

// TestReports has a device updated twice and a bad release taken back: the
// receiver reads that, with the reason, each once, and in that order.
func TestReports(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.play()
	require.Equal(t, story, f.to.told(steps...))
	require.Equal(t, "Bearer s3cret", f.to.asked.Get("Authorization"))
	require.Len(t, f.to.told(monitor.Boot), 1, "one boot, whatever ran in it")
	require.Contains(t, f.to.told(monitor.Changed)[0], "probe 1")

	code, _, _ := f.agent("update")
	require.Equal(t, exitHeld, code)
	require.NotZero(t, f.to.reported(), "what reporting costs is told too")
	require.Contains(t, f.to.told(steps...)[12], "held 2 3 (seq 3): the release failed its trial on this device")
}

// ways are how a receiver can be: each returns what makes it well again. The
// first few are enough for CI; the others are tried with PAWL_CRASH=long.
var ways = []struct {
	name string
	set  func(*fleet) (mend func())
}{
	{"well", func(*fleet) func() { return func() {} }},
	{"500 after it took them", answering(500)},
	{"slow", func(f *fleet) func() {
		wake := make(chan struct{})
		f.to.answers(func() int { <-wake; return 0 })
		mend := sync.OnceFunc(func() { close(wake) })
		f.t.Cleanup(mend)
		return mend
	}},
	{"down", elsewhereThan("http://127.0.0.1:1/events")},
	{"no host", elsewhereThan("https://nowhere.invalid/events")},
	{"503", answering(503)},
	{"404", answering(404)},
	{"401", answering(401)},
}

func answering(code int) func(*fleet) func() {
	return func(f *fleet) func() {
		f.to.answers(func() int { return code })
		return func() { f.to.answers(func() int { return 0 }) }
	}
}

func elsewhereThan(url string) func(*fleet) func() {
	return func(f *fleet) func() {
		f.set("report", "url", url)
		return func() { f.set("report", "url", f.to.server.URL) }
	}
}

// TestReceiversThatFail has the receiver be down, slow, out of order or of
// another opinion: what becomes of the updates is the same, and when it is well
// again it is told everything, each once.
func TestReceiversThatFail(t *testing.T) {
	some := ways[:4]
	if os.Getenv("PAWL_CRASH") == "long" {
		some = ways
	}
	for _, way := range some {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t)
			f.set("report", "wait", "20ms")
			mend := way.set(f)
			require.Equal(t, []string{
				"0committed1", "0committed12", "10reverted23not healthy for 0s within 300ms: lens: /bin/sh: exit status 1 (dirty)",
			}, f.play())
			_, ans, _ := f.agent("status")
			require.Equal(t, way.name != "well", ans.Outbox.Results > 0)
			mend()
			f.set("report", "wait", "20s")
			code, _, _ := f.agent("update")
			require.Equal(t, exitHeld, code)
			require.Equal(t, story, f.to.told(steps...)[:12])
			_, ans, _ = f.agent("status")
			require.Zero(t, ans.Outbox.Results+ans.Outbox.Lost)
		})
	}
}

// TestNobodyLoses has an agent killed before it could report: the next one
// finds the ends in the history. Another process that has the outbox is no
// reason to wait, and what happened meanwhile is told later.
func TestNobodyLoses(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	reports := f.config["report"]
	delete(f.config, "report")
	f.play()
	require.Empty(t, f.to.told(steps...))
	f.config["report"] = reports
	_, _, _ = f.agent("update")
	require.Equal(t, []string{"committed 1", "committed 2", story[11]}, f.to.told(monitor.Committed, monitor.Reverted))
	_, _, _ = f.agent("update")
	require.Len(t, f.to.told(monitor.Committed, monitor.Reverted), 3)

	c, err := loadConfig(filepath.Join(f.dir, "agent.json"))
	require.NoError(t, err)
	other, err := newReport(t.Context(), &agent{config: c}, c.monitor.report, time.Second)
	require.NoError(t, err)
	begin := time.Now()
	f.release("4", "clear")
	code, ans, _ := f.agent("update")
	require.Equal(t, exitOK, code)
	require.Empty(t, ans.Warnings)
	require.Less(t, time.Since(begin), 8*time.Second, "nobody waits for the other process")
	other.close(t.Context())
	_, _, _ = f.agent("update")
	require.Contains(t, f.to.told(monitor.Committed), "committed 4")
}
