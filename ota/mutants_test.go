package ota_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/testneeds"
)

// mutantsEnv says how many faults are put into the engine: with "all" each,
// and in CI, where it is not set, some.
const mutantsEnv = "PAWL_MUTANTS"

// mutant is one fault put into the source on purpose.
type mutant struct {
	name, file string
	old, new   string // old stands once in file
}

var mutants = []mutant{
	{"no intent before the switch", "switch.go",
		"	if err := u.save(); err != nil {\n		return err\n	}\n	var err error\n	if t.Armed",
		"	var err error\n	if t.Armed"},
	{"the boot loader's refusal is overlooked", "resume.go",
		"		case p.Effect == NeedsReboot:\n			return fmt", "		case p.Effect == NeedsReboot && u == nil:\n			return fmt"},
	{"the older journal record is taken", "../internal/journal/journal.go",
		"generation > j.generation", "generation < j.generation"},
	{"a switch cut short is left alone", "resume.go",
		"	case Activating:\n		return u.takeBack(", "	case Activating:\n		return nil\n		return u.takeBack("},
	{"no record at the commit point", "switch.go",
		"		t.State = Committing\n		if err := u.save(); err != nil {\n			return err\n		}\n", "		t.State = Committing\n"},
	{"the way back in the order of the way there", "revert.go",
		"range slices.Backward(activationOrder(t.Parts)) {", "range slices.All(activationOrder(t.Parts)) {"},
	{"apps before the system below them", "revert.go",
		"{isReboot, notReboot}", "{notReboot, isReboot}"},
	{"the process to be replaced commits", "switch.go",
		"case t.State == InTrial && t.By == u.process && t.needs(NeedsRestart):", "case false:"},
	{"a hung check feeds the watchdog", "trial.go",
		"if !errors.Is(err, errHung) {", "{"},
	{"a step that ended does not feed the watchdog", "switch.go",
		"	u.kick()\n	if p.Effect", "	if p.Effect"},
	{"the journal has one file", "../internal/journal/journal.go",
		"names[next%2]", "names[0]"},
	{"the checksum is not compared", "../internal/journal/journal.go",
		"if fields[3] != sum(", "if false && fields[3] != sum("},
	{"the way back needs no boot", "revert.go",
		"a.Next == p.Before.Next):\n			reboot = true", "a.Next == p.Before.Next):\n			reboot = false"},
	{"a failed release is not remembered", "revert.go",
		"if t.Blame != blameNone && !t.Back {", "if false {"},
	{"past the commit point nothing is activated again", "finish.go",
		"if err != nil || a.Is(p.Digest) {", "if err != nil || a.Is(p.Digest) || u != nil {"},
	{"whatever the trial shows, it is kept", "switch.go",
		"if !v.proved {", "if false {"},
	{"a lost record was not one further", "revert.go",
		"if u.fallback && t.Live == notBegun {", "if false {"},
	{"a commit whose record was lost is gone back on", "resume.go",
		"		if !sure {", "		if sure && !sure {"},
	{"starts without end", "resume.go",
		"if t.Starts >= u.opts.Trial.Starts {", "if false {"},
	{"what stays the same is installed again", "tx.go",
		"Same: a.Is(", "Same: u == nil && a.Is("},
	{"a stuck way back is given up", "resume.go",
		"	case Stuck:\n", "	case Stuck:\n		return fmt.Errorf(\"%w: %s\", ErrStuck, t.Reason)\n"},
	{"that a script begins is not recorded", "script.go",
		"s.Tries+1, s.Cuts+1\n	if err := u.save(); err != nil {\n		return err\n	}\n", "s.Tries+1, s.Cuts+1\n"},
	{"a script that was cut short is not undone", "undo.go",
		"if !s.ran() || ", "if !s.ran() || s.Outcome == ScriptBegun || "},
	{"scripts are undone in the order in which they ran", "undo.go",
		"range slices.Backward(t.Scripts) {", "range slices.All(t.Scripts) {"},
	{"before-activate is undone before the component", "revert.go",
		"at(release.AfterActivate, p.Name)", "func(s *txScript) bool { return s.Component == p.Name && s.At != release.BeforeStage }"},
	{"after-commit runs before the record", "switch.go",
		"		t.State = Committing\n		if", "		if err := u.runAfter(ctx, t, release.AfterCommit, activationOrder(t.Parts)); err != nil {\n			return err\n		}\n		t.State = Committing\n		if"},
	{"that a script ended is not recorded", "script.go",
		"s.Outcome, err == nil), u.save())", "s.Outcome, err == nil), nil)"},
	{"what Resume leaves staged keeps its scripts", "resume.go",
		"if err := u.standDown(ctx, t); err != nil {", "if err := error(nil); err != nil {"},
	{"a lost record began no script", "revert.go",
		"			u.suspectScripts(t)\n", ""},
	{"a stuck way back undoes what is below it", "revert.go",
		"			return u.stuck(t, false, err)\n		}\n		kept =", "			_ = u.undoScripts(ctx, t, beforeAny)\n			return u.stuck(t, false, err)\n		}\n		kept ="},
	{"nobody has the last word", "switch.go",
		"err = u.lastWord(ctx, t)", "err = nil"},
	{"a way back ends although a script was not undone", "revert.go",
		"	case kept != nil:\n", "	case kept != nil && u == nil:\n"},
}

// TestMutants puts faults into the engine, one at a time, and has the model
// find each of them.
func TestMutants(t *testing.T) {
	chosen := mutants
	switch {
	case os.Getenv(mutantsEnv) == "all":
	case os.Getenv("CI") == "true":
		chosen = mutants[1:2] // which is found in seconds
	default:
		testneeds.Missing(t, mutantsEnv+"=all: it takes minutes")
	}
	tool := testneeds.Program(t, "go")
	killed := 0
	for _, m := range chosen {
		t.Run(m.name, func(t *testing.T) {
			out, err := exec.Command(tool, "test", "-overlay", m.overlay(t), "-vet=off", "-count=1", "-short", "-failfast",
				"-timeout=10m", "-run=TestModel", ".").CombinedOutput()
			require.Error(t, err, "the model did not notice")
			require.Contains(t, string(out), "--- FAIL: TestModel", "another reason than the model's")
			line, _, _ := strings.Cut(string(out[max(0, bytes.Index(out, []byte("with ["))):]), "\n")
			t.Logf("killed: %.200s", line)
			killed++
		})
	}
	t.Logf("%d of %d faults in the engine were noticed", killed, len(chosen))
}

// overlay writes the mutated file and what tells the go command to use it.
func (m mutant) overlay(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs(m.file)
	require.NoError(t, err)
	source, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, 1, strings.Count(string(source), m.old), "%q in %s", m.old, m.file)
	dir := t.TempDir()
	changed := filepath.Join(dir, "mutant.go")
	require.NoError(t, os.WriteFile(changed, []byte(strings.Replace(string(source), m.old, m.new, 1)), 0o600))
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {path: changed}})
	require.NoError(t, err)
	name := filepath.Join(dir, "overlay.json")
	require.NoError(t, os.WriteFile(name, overlay, 0o600))
	return name
}

// TestMutantsApply checks that every fault can still be put in, without the
// minutes that it takes to find it.
func TestMutantsApply(t *testing.T) {
	for _, m := range mutants {
		m.overlay(t)
	}
}
