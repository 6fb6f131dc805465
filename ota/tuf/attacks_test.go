package tuf_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/otatest"
	"github.com/pawl-ota/pawl/ota/tuf"
)

// TestAttacks plays every attack, and holds the table in SECURITY.md to what
// came of it. With PAWL_UPDATE=1 it writes the table.
func TestAttacks(t *testing.T) {
	if testing.Short() {
		return // one goroutine, many disks
	}
	outcomes := otatest.TestHostile(t, harness(func(*testing.T, *tuf.Options) {}))
	tries := 0
	for _, a := range otatest.Attacks() {
		tries += 4 * a.Tries
	}
	if t.Failed() || len(outcomes) < tries {
		return
	}
	const file, begin, end = "../../SECURITY.md", "<!-- attacks: written by go test -run TestAttacks ./ota/tuf with PAWL_UPDATE=1 -->\n", "<!-- end of attacks -->\n"
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	head, rest, ok := strings.Cut(string(data), begin)
	old, tail, ok2 := strings.Cut(rest, end)
	require.True(t, ok && ok2, "%s has no place for the table", file)
	table := attackTable(outcomes)
	if os.Getenv("PAWL_UPDATE") == "1" {
		require.NoError(t, os.WriteFile(file, []byte(head+begin+table+end+tail), 0o644))
		return
	}
	require.Equal(t, table, old, "%s is stale: run this with PAWL_UPDATE=1", file)
}

// harness is that of a device, which change may weaken.
func harness(change func(*testing.T, *tuf.Options)) otatest.HostileHarness {
	return otatest.HostileHarness{
		New: func(t *testing.T, d otatest.HostileDevice) ota.Source {
			o := tuf.Options{URL: d.URL, Root: d.Root, Dir: d.Dir, Client: client(t), Now: func() time.Time { return d.Now }}
			change(t, &o)
			return source(t, o)
		},
		Untrusted: tuf.ErrUntrusted, Unavailable: tuf.ErrUnavailable, Expired: []error{tuf.ErrExpired, tuf.ErrClockUntrusted},
		Threshold: tuf.ErrThreshold, Rollback: tuf.ErrRollback, TooLarge: tuf.ErrTooLarge,
	}
}

// weak are devices with one weakness each, by the attack that finds it.
func weak() map[string]func(t *testing.T, o *tuf.Options) {
	return map[string]func(t *testing.T, o *tuf.Options){
		"rollback":          func(t *testing.T, o *tuf.Options) { o.Dir = filepath.Join(t.TempDir(), "new each time") },
		"indefinite freeze": func(_ *testing.T, o *tuf.Options) { o.Now = func() time.Time { return time.Unix(0, 0) } },
		"malicious mirror": func(t *testing.T, o *tuf.Options) {
			if data, err := os.ReadFile(filepath.Join(o.URL, "metadata", "1.root.json")); err == nil {
				o.Root, o.Dir = data, filepath.Join(t.TempDir(), "new each time")
			}
		},
	}
}

const weakEnv = "PAWL_TEST_WEAK"

// TestWeak runs the suite on a device that TestAttacksFindWeakness names.
func TestWeak(t *testing.T) {
	if change := weak()[os.Getenv(weakEnv)]; change != nil {
		otatest.TestHostile(t, harness(change))
	}
}

// TestAttacksFindWeakness: what TestHostile is to find, it finds.
func TestAttacksFindWeakness(t *testing.T) {
	for attack := range weak() {
		t.Run(attack, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(os.Args[0], "-test.run=^TestWeak$/^play$/^"+strings.ReplaceAll(attack, " ", "_")+"$", "-test.timeout=2m")
			cmd.Env = append(os.Environ(), weakEnv+"="+attack)
			out, err := cmd.CombinedOutput()
			require.Error(t, err, "%s", out)
			require.Contains(t, string(out), "--- FAIL: TestWeak/play/"+strings.ReplaceAll(attack, " ", "_"))
			require.NotContains(t, string(out), "panic:")
		})
	}
}

func attackTable(all []otatest.HostileOutcome) string {
	var b strings.Builder
	b.WriteString("| attack | it would | tries | online, new device | online, device that knows the repository | folder, new device | folder, device that knows the repository |\n|---|---|---|---|---|---|---|\n")
	for _, a := range otatest.Attacks() {
		var cells [4][]string
		for _, o := range all {
			if o.Attack == a.Name {
				i := 0
				if !o.Online {
					i = 2
				}
				if o.Warm {
					i++
				}
				cells[i] = append(cells[i], errorName(o.Err))
			}
		}
		fmt.Fprintf(&b, "| %s | %s | %d ", a.Name, a.Aim, 4*a.Tries)
		for _, names := range cells {
			slices.Sort(names)
			fmt.Fprintf(&b, "| %s ", strings.Join(slices.Compact(names), ", "))
		}
		b.WriteString("|\n")
	}
	fmt.Fprintf(&b, "\n%d tries of %d attacks, 0 went through.\n", len(all), len(otatest.Attacks()))
	return b.String()
}

// errorName is the error by which a caller tells the outcome, the closest one first.
func errorName(err error) string {
	if err == nil {
		return "nothing to refuse"
	}
	for _, e := range []struct {
		err  error
		name string
	}{
		{tuf.ErrThreshold, "ErrThreshold"}, {tuf.ErrRollback, "ErrRollback"}, {tuf.ErrTooLarge, "ErrTooLarge"},
		{ota.ErrLength, "ErrLength"}, {ota.ErrDigest, "ErrDigest"}, {ota.ErrHardware, "ErrHardware"},
		{tuf.ErrExpired, "ErrExpired"}, {tuf.ErrClockUntrusted, "ErrClockUntrusted"},
		{tuf.ErrUnavailable, "ErrUnavailable"}, {tuf.ErrUntrusted, "ErrUntrusted"},
	} {
		if errors.Is(err, e.err) {
			return e.name
		}
	}
	return "no type"
}
