//go:build monitor

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota"
)

// TestMark has the app itself decide: a release that it marks good is kept, one
// that it marks bad is taken back with its words, and so is one of which it says
// nothing.
func TestMark(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.config["health"] = []any{map[string]any{"marked": true}}
	f.config["trial"] = map[string]any{"interval": "10ms", "deadline": "20s"}
	code, ans, _ := f.agent("mark-good")
	require.Equal(t, exitOther, code)
	require.Contains(t, ans.Error, "no release was installed")

	update := func(version string, says ...string) answer {
		t.Helper()
		f.release(version, "clear")
		done := make(chan answer, 1)
		go func() {
			_, ans, _ := f.agent("update")
			done <- ans
		}()
		if len(says) > 0 {
			require.Eventually(t, func() bool {
				st, err := ota.ReadStatus(f.to.state)
				return err == nil && st.State == ota.InTrial
			}, time.Minute, 5*time.Millisecond)
			code, ans, text := f.agent(says...)
			require.Equal(t, exitOK, code, text)
			require.True(t, strings.HasPrefix(ans.Line, version+" (seq "), ans.Line)
		}
		return <-done
	}
	require.Equal(t, ota.Committed, update("1", "mark-good").Result.State)
	f.config["trial"] = map[string]any{"interval": "10ms", "deadline": "300ms"}
	silent := update("2").Result
	require.Equal(t, ota.Reverted, silent.State)
	require.Contains(t, silent.Reason, "the app has not marked it good yet", "what it said of another release does not count")

	f.config["trial"] = map[string]any{"interval": "10ms", "deadline": "5s"}
	bad := update("3", "mark-bad", "the lens is cracked").Result
	require.Equal(t, ota.Reverted, bad.State)
	require.Contains(t, bad.Reason, "marked: marked bad: the lens is cracked")
	_, ans, _ = f.agent("status")
	require.True(t, ans.Health.Well, "what runs was marked good")
	_, _, _ = f.agent("mark-bad", "it fogs up")
	_, ans, _ = f.agent("status")
	require.Contains(t, ans.Health.Reason, "it fogs up", "which a late rollback heeds")
}
