//go:build monitor

package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// with parses the good configuration with one more section.
func with(text string) (*config, error) {
	return parseConfig([]byte(strings.Replace(goodConfig, `"trial"`, text+`, "trial"`, 1)))
}

func TestReportRefused(t *testing.T) {
	for text, want := range map[string]string{
		`"run": {"lok": "1h"}`:                                        `run: json: unknown field "lok"`,
		`"run": {"late": {"failures": -1}}`:                           "run.late.failures is negative",
		`"report": {}`:                                                "report.url: one of url, mqtt, otlp and prometheus",
		`"report": {"url": "ftp://x"}`:                                "report.url is not one",
		`"report": {"otlp": {"url": "x"}}`:                            "report.otlp.url is not one",
		`"report": {"url": "https://x", "cert": "c"}`:                 "report.cert: cert and key",
		`"report": {"mqtt": {"url": "mqtt://x", "key": "k"}}`:         "report.mqtt.cert: cert and key",
		`"report": {"url": "https://x", "mqtt": {"url": "mqtt://x"}}`: "only one of url and mqtt",
		`"report": {"url": "https://x", "prometheus": "x.txt"}`:       "report.prometheus does not end",
		`"report": {"url": "https://x", "maxBytes": -1}`:              "report.maxBytes is negative",
		`"report": {"url": "https://x", "metrics": {"units": "x"}}`:   "report: json",
	} {
		_, err := with(text)
		require.ErrorContains(t, err, want, text)
	}
	_, err := parseConfig([]byte(strings.NewReplacer(`"id": "d1", `, ``, `"trial"`, `"report": {"url": "https://x"}, "trial"`).Replace(goodConfig)))
	require.ErrorContains(t, err, "report: device.id is empty")
}

func TestReportPaths(t *testing.T) {
	c, err := with(`"run": {"watchdog": "dog"}, "report": {"url": "https://x", "ca": "ca", "alerts": {"file": "a", "release": "app/a"}, "otlp": {"url": "http://y", "cert": "c", "key": "k"}}`)
	require.NoError(t, err)
	c.resolve("/etc")
	m := c.monitor
	require.Equal(t, []string{"/etc/dog", "/etc/ca", "/etc/a", "/etc/app/a", "/etc/c", "/etc/k"},
		[]string{m.run.Watchdog, m.report.CA, m.report.Alerts.File, m.report.Alerts.Release, m.report.OTLP.Cert, m.report.OTLP.Key})
}

// TestSenders makes each kind, and none of what is broken.
func TestSenders(t *testing.T) {
	password := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(password, []byte("x\n"), 0o600))
	for text, want := range map[string]string{
		`{"url": "https://x"}`: "*cloudevents.Sender", `{"otlp": {"url": "https://x"}}`: "*otlp.Sender",
		`{"mqtt": {"url": "mqtt://x", "passwordFile": "` + password + `"}}`: "*mqtt.Sender", `{"prometheus": "x.prom"}`: "",
		`{"mqtt": {"url": "mqtt://x", "passwordFile": "/nowhere"}}`: "no such file", `{"url": "https://x", "ca": "/nowhere"}`: "ca: ",
		`{"otlp": {"url": "https://x", "cert": "/nowhere", "key": "/nowhere"}}`: "otlp: cert: ",
	} {
		c, err := with(`"report": ` + text)
		require.NoError(t, err)
		to, err := c.monitor.report.sender("d1")
		switch {
		case err != nil:
			require.ErrorContains(t, err, want, text)
		case want == "":
			require.Nil(t, to.Sender)
		default:
			require.Equal(t, want, typeOf(to.Sender), text)
		}
	}
	c, err := with(`"report": {"url": "https://x", "otlp": {"url": "https://y"}}`)
	require.NoError(t, err)
	to, err := c.monitor.report.sender("d1")
	require.NoError(t, err)
	require.NotContains(t, typeOf(to.Sender), "cloudevents", "results go to one, measurements to the other")
}

func typeOf(v any) string { return fmt.Sprintf("%T", v) }

// TestMoreProbes asks what only this agent knows to ask, where it is well and
// where it is sick. No secret of a URL is in an answer.
func TestMoreProbes(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "all is well") }))
	defer server.Close()
	port := strings.TrimPrefix(server.URL, "http://")
	self := filepath.Join(t.TempDir(), "pid")
	require.NoError(t, os.WriteFile(self, fmt.Append(nil, os.Getpid()), 0o600))
	for name, c := range map[string]struct{ well, sick, saw string }{
		"http":        {`{"http": {"url": "` + server.URL + `/x", "body": "^all"}}`, `{"http": {"url": "http://me:secret@` + port + `/x?t=secret", "status": [204]}}`, "http " + port + "/x: "},
		"ca":          {`{"http": {"url": "` + server.URL + `"}}`, `{"http": {"url": "` + server.URL + `", "ca": "/nowhere"}}`, "no such file"},
		"process":     {`{"process": {"pidFile": "` + self + `"}}`, `{"process": {"name": "nobody has it"}}`, "process nobody has it: there should be 1 or more"},
		"file":        {`{"file": {"path": "` + self + `", "age": "1h"}}`, `{"file": {"path": "/nowhere", "age": "1h"}}`, "no such file"},
		"disk":        {`{"disk": {"path": "/", "freeBytes": 1}}`, `{"disk": {"path": "/", "freePercent": 101}}`, "disk /: less than 101 % are free"},
		"memory":      {`{"memory": {"availablePercent": 0.01}}`, `{"memory": {"availablePercent": 101}}`, "memory: less than 101 %"},
		"temperature": {`{"temperature": {"max": 1, "sensors": "/no*"}, "advisory": true}`, `{"temperature": {"max": 1, "sensors": "/no*"}}`, "no sensor"},
		"unit":        {`{"unit": "no-such-thing.service", "advisory": true}`, `{"unit": "no-such-thing.service", "restarts": 2}`, "unit no-such-thing.service: "},
	} {
		require.NoError(t, checkOf(t, "["+c.well+"]")(t.Context()), name)
		err := checkOf(t, "["+c.sick+"]")(t.Context())
		require.ErrorContains(t, err, c.saw, name)
		require.NotContains(t, err.Error(), "secret", name)
	}
}

func TestMoreProbesRefused(t *testing.T) {
	for text, want := range map[string]string{
		`{}`:                                     "health[0].exec, http, tcp",
		`{"exec": ["a"], "tcp": "b:1"}`:          "health[0].tcp: it asks by exec already",
		`{"tcp": "a:1", "restarts": 1}`:          "health[0].restarts: it belongs to unit",
		`{"tcp": "a:1", "least": 1}`:             "health[0].least: it belongs to any",
		`{"any": []}`:                            "cannot be well",
		`{"any": [{"exec": [""]}]}`:              "health[0].any[0].exec: it is empty",
		`{"any": [{"tcp": "a:1"}], "name": "x"}`: "belong to the entries of a group",
		`{"disk": {"path": "/"}}`:                "health[0].disk: path, and", `{"memory": {}}`: "health[0].memory: ", `{"temperature": {}}`: "max is needed",
		`{"process": {}}`: "name or pidFile", `{"http": {"url": "ftp://x"}}`: "health[0].http: url is not one", `{"http": {"url": "http://x", "body": "("}}`: "health[0].http: body: ",
		`{"file": {"path": "x"}}`: "path and age are needed",
	} {
		_, err := parseConfig([]byte(strings.Replace(goodConfig, `{"exec": ["/bin/true"]}`, text, 1)))
		require.ErrorContains(t, err, want, text)
	}
}

// TestGroups asks groups and a port, where they are well and where they are sick.
func TestGroups(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	port := strings.TrimPrefix(server.URL, "http://")
	for name, c := range map[string]struct{ well, sick, saw string }{
		"tcp":      {`{"tcp": "` + port + `"}`, `{"tcp": "127.0.0.1:1"}`, "connection refused"},
		"any":      {`{"any": [{"tcp": "127.0.0.1:1"}, {"tcp": "` + port + `"}]}`, `{"any": [{"tcp": "127.0.0.1:1"}, {"tcp": "` + port + `"}], "least": 2}`, "tcp 127.0.0.1:1: "},
		"all":      {`{"any": [{"all": [{"exec": ["/bin/false"]}]}, {"all": [{"exec": ["/bin/true"]}]}]}`, `{"all": [{"exec": ["/bin/true"]}, {"exec": ["/bin/false"]}]}`, "exec false: "},
		"advisory": {`{"exec": ["/bin/false"], "advisory": true}`, `{"exec": ["/bin/false"]}`, "exec false: "},
	} {
		require.NoError(t, checkOf(t, "["+c.well+"]")(t.Context()), name)
		require.ErrorContains(t, checkOf(t, "["+c.sick+"]")(t.Context()), c.saw, name)
	}
}
