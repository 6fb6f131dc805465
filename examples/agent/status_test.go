//go:build monitor

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/journal"
	"github.com/pawl-ota/pawl/monitor"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// sections are where STATUS.md lists the fields of a type.
var sections = map[reflect.Type]string{
	reflect.TypeFor[answer](): "answer", reflect.TypeFor[ota.Status](): "status", reflect.TypeFor[ota.Installed](): "release",
	reflect.TypeFor[ota.Result](): "result", reflect.TypeFor[ota.Fetched](): "fetched", reflect.TypeFor[ota.ScriptRun](): "script", reflect.TypeFor[ota.Held](): "held",
	reflect.TypeFor[ota.Device](): "device", reflect.TypeFor[trialNow](): "trial", reflect.TypeFor[healthNow](): "health",
	reflect.TypeFor[monitor.Answer](): "probe", reflect.TypeFor[service](): "service", reflect.TypeFor[clockNow](): "clock",
	reflect.TypeFor[outboxNow](): "outbox", reflect.TypeFor[bootNow](): "boot",
}

// elsewhere are fields of other commands.
var elsewhere = []string{"available", "plan", "need", "result", "history", "damage", "file"}

// TestEveryFieldIsDocumented has STATUS.md name exactly the fields that can be
// printed, in their sections.
func TestEveryFieldIsDocumented(t *testing.T) {
	text, err := os.ReadFile("STATUS.md")
	require.NoError(t, err)
	for kind, section := range sections {
		_, rest, ok := strings.Cut(string(text), "\n## "+section+"\n")
		require.True(t, ok, section)
		rest, _, _ = strings.Cut(rest, "\n## ")
		var documented []string
		for _, row := range regexp.MustCompile("(?m)^\\| (`.*?`) \\|").FindAllStringSubmatch(rest, -1) {
			for _, name := range strings.Split(row[1], ", ") {
				documented = append(documented, strings.Trim(name, "`"))
			}
		}
		slices.Sort(documented)
		require.Equal(t, fieldsOf(t, kind), documented, section)
	}
}

// fieldsOf are the names in JSON, those of embedded types too. What a field
// holds has to have a section of its own.
func fieldsOf(t *testing.T, kind reflect.Type) (names []string) {
	t.Helper()
	for _, f := range reflect.VisibleFields(kind) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous || !f.IsExported() || slices.Contains(elsewhere, name) {
			continue
		}
		require.NotEmpty(t, name, "%s.%s", kind, f.Name)
		names = append(names, name)
		of := f.Type
		for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice {
			of = of.Elem()
		}
		if of.Kind() == reflect.Struct && of != reflect.TypeFor[time.Time]() {
			require.Contains(t, sections, of, "%s.%s", kind, f.Name)
		}
	}
	slices.Sort(names)
	return names
}

// TestStatusGolden keeps the names and forms of all fields: what reads them now
// reads them for ever.
func TestStatusGolden(t *testing.T) {
	at := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	installed := func(seq uint64) ota.Installed {
		return ota.Installed{ID: release.ID{Product: "camera", Variant: "arm", Seq: seq}, Version: "1.2.0", Digest: release.Sum([]byte("x"))}
	}
	res := ota.Result{
		Tx: "7-abc", State: ota.Reverted, Needs: ota.NeedsReboot, From: installed(6), To: installed(7), Back: true, Reason: "lens: dirty", Condemned: true, Bytes: 28,
		Fetched: ota.Fetched{Metadata: 1, Index: 2, Patches: 3, Pieces: 4, Whole: 5, Between: 6, Again: 7},
		Scripts: []ota.ScriptRun{{Name: "s", Component: "app", At: release.BeforeStage, Outcome: ota.ScriptFailed, Undo: ota.ScriptOK, Why: "w", UndoWhy: "u", Tries: 2, Took: 3, Output: "o"}},
		Starts:  4, Began: at, Ended: at, Took: 5, Downtime: 6,
	}
	ans := answer{
		Command: "status", Line: "runs", Warnings: []string{"w"}, Kind: "k", Error: "e", Hint: "h",
		Status: &ota.Status{
			State: ota.InTrial, Running: installed(6), Tx: &res, Kept: []ota.Installed{installed(5)}, SecurityFloor: 1, DataFloor: 2,
			Held: []ota.Held{{ID: release.ID{Product: "camera", Variant: "arm", Seq: 7}, Attempt: 1, Condemned: true, Count: 2, Until: at, Reason: "r"}}, Notes: []string{"n"},
		},
		Services: []service{{App: "a", Name: "n", Container: "c", Image: "i", State: "running", Health: "healthy", Exit: 1, Restarts: 2, Started: at}},
		condition: condition{
			Device: &ota.Device{ID: "cam-1", Product: "camera", Variant: "arm", Hardware: "rev-b"}, Last: &res, Trial: &trialNow{7, 8},
			Health: &healthNow{true, "r", []monitor.Answer{{Probe: "p", State: monitor.Well, Saw: "s", Error: "e", InRow: 1, Took: 9, Advisory: true}}},
			Clock:  &clockNow{at, true}, Outbox: &outboxNow{1, 2, 3, 4}, Boot: &bootNow{"id", 10, "r"},
		},
	}
	got, err := json.MarshalIndent(ans, "", "  ")
	require.NoError(t, err)
	path := filepath.Join("testdata", "status.json")
	if os.Getenv("PAWL_GOLDEN") != "" {
		require.NoError(t, os.WriteFile(path, append(got, '\n'), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got)+"\n")
}

// TestStatusSays has status tell a person and a program what is going on: in a
// trial, after it, with a device that is sick.
func TestStatusSays(t *testing.T) {
	f := newFleet(t)
	f.play()
	f.config["health"].([]any)[0].(map[string]any)["successes"] = 5
	_, ans, _ := f.agent("status")
	require.True(t, ans.Health.Well, "it asks once, and that counts")
	require.NoError(t, os.WriteFile(filepath.Join(f.dir, "app", "lens"), []byte("broken\n"), 0o644))
	code, ans, _ := f.agent("status")
	require.Equal(t, exitOK, code)
	require.Equal(t, "reverted", string(ans.Last.State))
	require.Contains(t, ans.Last.Reason, "dirty")
	require.Equal(t, uint64(3), ans.Status.Held[0].Seq)
	require.False(t, ans.Health.Well)
	require.Contains(t, ans.Health.Reason, "lens: /bin/sh: exit status 1 (broken)")
	require.Equal(t, monitor.Sick, ans.Health.Probes[0].State)
	require.Equal(t, "cam-1", ans.Device.ID)
	require.NotEmpty(t, ans.Boot.ID)
	require.Contains(t, ans.Boot.Reason, "the first boot that is watched")
	require.Zero(t, ans.Outbox.Results)
	require.Nil(t, ans.Trial)

	var stdout, stderr strings.Builder
	require.Equal(t, exitOK, run(t.Context(), []string{"-config", filepath.Join(f.dir, "agent.json"), "status"}, &stdout, &stderr))
	require.Empty(t, stderr.String())
	for _, want := range []string{
		"runs 2 (seq 2), idle\n", "last: ", "reverted 3", "health: sick: lens: ", "kept: 1 (seq 1)", "held back: seq 3: ", "outbox: 0 results", "boot: ",
	} {
		require.Contains(t, stdout.String(), want)
	}
}

// writable is a journal.Dir of a folder.
type writable string

func (w writable) ReadFile(name string, max int64) ([]byte, error) {
	return folder(w).ReadFile(name, max)
}

func (w writable) WriteFile(name string, data []byte) error {
	return os.WriteFile(filepath.Join(string(w), name), data, 0o600)
}

// TestTrialLeft reads from a journal how long a trial may take still.
func TestTrialLeft(t *testing.T) {
	a := &agent{config: &config{State: t.TempDir(), Trial: trial{Deadline: duration(time.Minute)}}}
	require.Nil(t, a.trialNow(ota.Status{State: ota.Idle}))
	require.NoError(t, os.MkdirAll(a.config.stateDir(), 0o700))
	now := a.trialNow(ota.Status{State: ota.InTrial})
	require.Equal(t, trialNow{0, time.Minute}, *now)
	j, _, err := journal.Open(writable(a.config.stateDir()))
	require.NoError(t, err)
	require.NoError(t, j.Write([]byte(`{"tx":{"elapsed":45000000000}}`)))
	require.Equal(t, trialNow{45 * time.Second, 15 * time.Second}, *a.trialNow(ota.Status{State: ota.InTrial}))
	a.config.Trial = trial{Soak: duration(time.Minute)}
	require.Equal(t, 11*time.Minute-45*time.Second, a.trialNow(ota.Status{State: ota.InTrial}).Left)
}
