package powercut

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/powercut/check"
	"github.com/pawl-ota/pawl/ota"
)

func TestWorkload(t *testing.T) {
	s := New(t, "")
	for _, v := range []check.Version{check.None, check.V1, check.V2} {
		dir := filepath.Join(t.TempDir(), "device")
		s.Copy(t, dir, v)
		settled, err := Settle(t.Context(), InProcess, dir, v)
		require.NoError(t, err)
		require.Equal(t, ota.Idle, settled.State)
		require.Equal(t, 1, settled.Boots)
		require.NoError(t, Update(t.Context(), InProcess, dir))
		if v == check.None {
			continue
		}
		require.NoError(t, Rollback(t.Context(), InProcess, dir))
		require.NoError(t, Update(t.Context(), InProcess, dir))
	}
}

func TestInstall(t *testing.T) {
	s := New(t, "")
	for _, v := range []check.Version{check.V1, check.V2} {
		dir := t.TempDir()
		s.Install(t, dir, v)
		_, err := Settle(t.Context(), InProcess, dir, v)
		require.NoError(t, err)
		require.NoError(t, Update(t.Context(), InProcess, dir))
	}
}

// TestProgram has a program for each verb.
func TestProgram(t *testing.T) {
	s, run, dir := New(t, ""), Process(Program(t)), filepath.Join(t.TempDir(), "device")
	s.Copy(t, dir, check.V1)
	require.NoError(t, Update(t.Context(), run, dir))
	require.NoError(t, Rollback(t.Context(), run, dir))
	_, err := Settle(t.Context(), run, dir, check.V1)
	require.NoError(t, err)
}
