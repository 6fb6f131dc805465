package alert

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const document = `{"format": "pawl-alerts/0", "rules": [
  {"name": "hot", "say": "cool it", "sample": "device", "value": "temperature.max", "above": 85, "until": 75, "for": "1m", "calm": "2m"},
  {"name": "flat", "sample": "device", "value": "battery", "below": 10, "until": 20, "every": "6h"},
  {"name": "restarts", "sample": "unit/app.service", "value": "restarts", "rises": 3, "within": "10m"},
  {"name": "silent", "sample": "app", "value": "pumped", "absent": "5m"},
  {"name": "port", "probe": "port", "for": "30s"},
  {"name": "oom", "log": "unit/app.service", "match": "(?i)out of memory"},
  {"name": "retries", "log": "container/web", "match": "retry", "count": 5, "within": "1m"}
]}`

func TestParse(t *testing.T) {
	rules, err := Parse([]byte(document))
	require.NoError(t, err)
	require.Len(t, rules, 7)
	require.Equal(t, "temperature.max", rules[0].Value)
	require.Equal(t, 85.0, *rules[0].Above)
	require.Equal(t, Duration(2*time.Minute), rules[0].Calm)
	require.Equal(t, 5, rules[6].Count)

	again, err := json.Marshal(map[string]any{"format": Format, "rules": rules})
	require.NoError(t, err)
	same, err := Parse(again)
	require.NoError(t, err)
	require.Equal(t, rules, same)

	path := filepath.Join(t.TempDir(), "alerts.json")
	require.NoError(t, os.WriteFile(path, []byte(document), 0o600))
	same, err = Load(path)
	require.NoError(t, err)
	require.Equal(t, rules, same)
	_, err = Load(path + ".not")
	require.ErrorIs(t, err, os.ErrNotExist)

	none, err := Parse([]byte(`{"format":"pawl-alerts/0"}`))
	require.NoError(t, err)
	require.Empty(t, none)
}

// TestKeys: every field of a rule has its key among those that are known.
func TestKeys(t *testing.T) {
	var keys []string
	for f := range reflect.TypeFor[Rule]().Fields() {
		key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		keys = append(keys, key)
	}
	require.ElementsMatch(t, ruleKeys, keys)
}

// TestRefused: what a document may not be, and what is said of it.
func TestRefused(t *testing.T) {
	rule := func(text string) string { return `{"format":"pawl-alerts/0","rules":[` + text + `]}` }
	for text, want := range map[string]string{
		``:                             "unexpected end",
		`[]`:                           "cannot unmarshal",
		`{}`:                           `it says ""`,
		`{"format":"pawl-alerts/1"}`:   `it says "pawl-alerts/1"`,
		`{"format":"pawl-alerts/0"} x`: "invalid character",
		`{"format":"pawl-alerts/0","rules":null}`:                                                                  "null",
		`{"format":"pawl-alerts/0","rules":{}}`:                                                                    "cannot unmarshal",
		`{"format":"pawl-alerts/0","rules":[],"rules":[]}`:                                                         "stands twice",
		`{"format":"pawl-alerts/0","Rules":[]}`:                                                                    `"Rules" is not known`,
		`{"format":"pawl-alerts/0","ruleſ":[]}`:                                                                    "is not known",
		rule(`7`):                                                                                                  "not an object",
		rule(`{}`):                                                                                                 "one of sample with value, probe and log",
		rule(`{"name":"a","probe":"p","name":"b"}`):                                                                `"name" stands twice`,
		rule(`{"name":"a","probe":"p","FOR":"1s"}`):                                                                `"FOR" is not known`,
		rule(`{"name":"a","probe":"p","for":90}`):                                                                  `90 is not a time`,
		rule(`{"name":"a","probe":"p","for":"soon"}`):                                                              `"soon" is not a time`,
		rule(`{"name":"a","probe":"p","for":"-1s"}`):                                                               "field for is negative",
		rule(`{"name":"a","probe":"p","for":"9000h"}`):                                                             "field for is negative or above",
		rule(`{"name":"a","probe":"p","every":"1s"}`):                                                              "field every is below 1m",
		rule(`{"name":"a","probe":"p","count":2}`):                                                                 "field count does not go with probe",
		rule(`{"name":"a","probe":"p","log":"l","match":"x"}`):                                                     "one of sample with value, probe and log",
		rule(`{"probe":"p"}`):                                                                                      "field name is empty",
		rule(`{"name":"a\nb","probe":"p"}`):                                                                        "not one line",
		rule(`{"name":"` + strings.Repeat("a", 129) + `","probe":"p"}`):                                            "longer than 128",
		rule(`{"name":"a","probe":"p"},{"name":"a","probe":"q"}`):                                                  `rule 2 ("a"): another rule has that name`,
		rule(`{"name":"a","sample":"s","above":1}`):                                                                "sample and value belong together",
		rule(`{"name":"a","sample":"s","value":"v"}`):                                                              "one of above, below, rises and absent",
		rule(`{"name":"a","sample":"s","value":"v","above":1,"below":0}`):                                          "one of above, below, rises and absent",
		rule(`{"name":"a","sample":"s","value":"v","above":null,"below":0}`):                                       `"above" is null`,
		rule(`{"name":"a","sample":"s","value":"v","above":1e999}`):                                                "cannot unmarshal",
		rule(`{"name":"a","sample":"s","value":"v","above":1,"until":2}`):                                          "wrong side",
		rule(`{"name":"a","sample":"s","value":"v","below":2,"until":1}`):                                          "wrong side",
		rule(`{"name":"a","sample":"s","value":"v","rises":2}`):                                                    "within is missing",
		rule(`{"name":"a","sample":"s","value":"v","rises":0,"within":"1m"}`):                                      "rises is not above 0",
		rule(`{"name":"a","sample":"s","value":"v","rises":2,"within":"1m","for":"1m"}`):                           "field for does not go with",
		rule(`{"name":"a","sample":"s","value":"v","absent":"1m","until":1}`):                                      "field until does not go with",
		rule(`{"name":"a","log":"l"}`):                                                                             "field match is empty",
		rule(`{"name":"a","log":"l","match":"("}`):                                                                 "field match: error parsing regexp",
		rule(`{"name":"a","log":"l","match":"x","count":2}`):                                                       "field within is missing",
		rule(`{"name":"a","log":"l","match":"x","count":-1}`):                                                      "field count is negative",
		rule(`{"name":"a","log":"l","match":"` + strings.Repeat("x", 1025) + `"}`):                                 "longer than 1024",
		rule(`{"name":"a","log":"l","match":"` + strings.Repeat("x{1000}", 20) + `"}`):                             "too large",
		rule(strings.Repeat(`{"name":"a","probe":"p"},`, 300) + `{"name":"a","probe":"p"}`):                        "more than 256",
		`{"format":"pawl-alerts/0","rules":[` + strings.Repeat(" ", maxDocument) + `]}`:                            "more than 262144 bytes",
		rule(`{"name":"a","sample":"s","value":"v","above":` + strings.Repeat("[", 20000) + `}`):                   "",
		rule(`{"name":"a","log":"l","match":"` + strings.Repeat("(", 1001) + strings.Repeat(")", 1001) + `"}`):     "longer than 1024",
		rule(`{"name":"a","log":"l","match":"((((((((((x{30}){30}){30}){30}){30}){30}){30}){30}){30}){30}){30}"}`): "field match",
	} {
		_, err := Parse([]byte(text))
		require.ErrorContains(t, err, want, "%.200s", text)
		require.Less(t, len(err.Error()), 400)
	}
	_, err := Parse([]byte(`{"format":"pawl-alerts/1","rules":7,"more":8}`))
	require.ErrorIs(t, err, ErrFormat, "before anything else")
}

// TestPatternsAreBoundedTogether: many that are allowed one by one.
func TestPatternsAreBoundedTogether(t *testing.T) {
	var rules []Rule
	for n := range 40 {
		rules = append(rules, Rule{Name: fmt.Sprint(n), Log: "l", Match: "x{900}"})
	}
	_, err := compile(rules)
	require.ErrorContains(t, err, "with those before it")
	_, err = compile(rules[:10])
	require.NoError(t, err)
}

func TestMerge(t *testing.T) {
	release := []Rule{{Name: "a", Probe: "of the release"}, {Name: "b", Probe: "of the release"}}
	device := []Rule{{Name: "b", Probe: "of the device"}, {Name: "c", Probe: "of the device"}}
	require.Equal(t, []Rule{device[0], device[1], release[0]}, Merge(release, device))
	require.Equal(t, release, Merge(release, nil))
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(document))
	f.Add([]byte(`{"format":"pawl-alerts/0","rules":[{"name":"a","log":"l","match":"[^x]{9}","count":2,"within":"1h"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		rules, err := Parse(data)
		if err != nil {
			return
		}
		again, err := json.Marshal(map[string]any{"format": Format, "rules": rules})
		require.NoError(t, err)
		same, err := Parse(again)
		require.NoError(t, err)
		require.Equal(t, len(rules), len(same))
	})
}
