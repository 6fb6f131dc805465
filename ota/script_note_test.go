package ota

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/seam"
	"github.com/pawl-ota/pawl/ota/release"
)

// TestWhatAScriptSaid takes exit codes at their word only from a script that
// ended by itself, and condemns no release for what the device did.
func TestWhatAScriptSaid(t *testing.T) {
	for name, c := range map[string]struct {
		ran  seam.Ran
		err  error
		want ScriptOutcome
		says blame
	}{
		"refuses":                {seam.Ran{Exit: ExitRefuse}, nil, ScriptRefused, blameRelease},
		"fails":                  {seam.Ran{Exit: 1}, nil, ScriptFailed, blameRelease},
		"is killed":              {seam.Ran{Exit: -1, Signal: "SIGSEGV"}, nil, ScriptFailed, blameRelease},
		"hangs":                  {seam.Ran{Exit: -1, TimedOut: true}, nil, ScriptFailed, blameRelease},
		"hangs, and refuses":     {seam.Ran{Exit: ExitRefuse, TimedOut: true}, nil, ScriptFailed, blameRelease},
		"hangs, and asks":        {seam.Ran{Exit: ExitLater, TimedOut: true}, nil, ScriptFailed, blameRelease},
		"cannot be started":      {seam.Ran{}, errors.New("no memory"), ScriptFailed, blameCut},
		"cannot be ended":        {seam.Ran{Exit: ExitRefuse}, errors.New("one is left"), ScriptFailed, blameCut},
		"asks for later":         {seam.Ran{Exit: ExitLater}, nil, ScriptLater, blameRelease},
		"succeeds, as to itself": {seam.Ran{}, nil, ScriptOK, ""},
	} {
		t.Run(name, func(t *testing.T) {
			u := &Updater{}
			u.rec = &record{}
			s := &txScript{ScriptRun: ScriptRun{Name: "x", At: release.BeforeCommit, Outcome: ScriptBegun}}
			s.note(c.ran, c.err)
			require.Equal(t, c.want, s.Outcome)
			if failed := u.reportScript("script", s, s.Outcome, c.err == nil); failed != nil {
				require.Equal(t, c.says, blameFor(failed))
			} else {
				require.Equal(t, ScriptOK, c.want)
			}
		})
	}
}
