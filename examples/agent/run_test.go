package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pawl-ota/pawl/ota"
	"github.com/stretchr/testify/require"
)

func TestCommandLine(t *testing.T) {
	for line, want := range map[string]args{
		"-config f update":               {config: "f", verb: "update"},
		"-config f update -json":         {config: "f", verb: "update", json: true},
		"-json -config f update -retry":  {config: "f", verb: "update", json: true, retry: true},
		"-config f rollback":             {config: "f", verb: "rollback"},
		"rollback 3 -config f":           {config: "f", verb: "rollback", seq: 3},
		"-config f reset shop -data":     {config: "f", verb: "reset", name: "shop", data: true},
		"-config f rollback -json 12345": {config: "f", verb: "rollback", seq: 12345, json: true},
	} {
		got, err := parseArgs(strings.Fields(line), os.Stderr)
		require.NoError(t, err, line)
		require.Equal(t, want, got, line)
	}
}

func TestUsageErrors(t *testing.T) {
	for line, want := range map[string]string{
		"":                          "a command is needed",
		"-config f":                 "a command is needed",
		"-config f upgrade":         `"upgrade" is not a command`,
		"-config f status now":      `status takes no "now"`,
		"-config f rollback 0":      `"0" is not the seq`,
		"-config f rollback x":      `"x" is not the seq`,
		"-config f rollback 1 2":    `rollback takes no "1"`,
		"-config f reset":           "reset takes the name of one app",
		"-config f reset a b":       "reset takes the name of one app",
		"-config f verify -data":    "-data belongs to reset",
		"-config f check -retry":    "-retry belongs to update",
		"-config f check -frobozz":  "-frobozz",
		"check":                     "-config FILE is needed",
		"-config /nowhere/at check": "no such file",
	} {
		var stdout, stderr strings.Builder
		code := run(t.Context(), strings.Fields(line), &stdout, &stderr)
		require.Equal(t, exitUsage, code, line)
		require.Contains(t, stderr.String(), want, line)
		require.Equal(t, 1, strings.Count(stdout.String(), "\n"), "one line on standard output for %q", line)
	}
}

func TestHelp(t *testing.T) {
	var stdout, stderr strings.Builder
	require.Equal(t, exitOK, run(t.Context(), []string{"-h"}, &stdout, &stderr))
	for verb := range commands {
		require.Contains(t, stderr.String(), verb)
	}
}

func TestExitCodes(t *testing.T) {
	wrap := func(err error) error { return fmt.Errorf("cannot: %w", err) }
	for _, c := range []struct {
		r    ota.Result
		err  error
		want int
	}{
		{ota.Result{State: ota.Committed}, nil, 0},
		{ota.Result{State: ota.Idle}, nil, 0},
		{ota.Result{State: ota.Reverted}, wrap(ota.ErrUnhealthy), 10},
		{ota.Result{}, wrap(ota.ErrCondemned), 11},
		{ota.Result{}, wrap(ota.ErrBackoff), 11},
		{ota.Result{}, wrap(ota.ErrHeld), 11},
		{ota.Result{State: ota.Stuck}, wrap(ota.ErrUnhealthy), 12},
		{ota.Result{}, wrap(ota.ErrStuck), 12},
		{ota.Result{State: ota.InTrial, Needs: ota.NeedsRestart}, wrap(ota.ErrRestartPending), 13},
		{ota.Result{State: ota.InTrial, Needs: ota.NeedsReboot}, wrap(ota.ErrRebootPending), 13},
		{ota.Result{State: ota.Committed, Needs: ota.NeedsReboot}, nil, 13},
		{ota.Result{State: ota.Staged}, wrap(ota.ErrLater), 14},
		{ota.Result{State: ota.Reverted, Reason: "clipped"}, wrap(ota.ErrScript), 10},
		{ota.Result{State: ota.Reverted, Reason: "clipped"}, wrap(ota.ErrRefused), 10},
		{ota.Result{State: ota.Staging}, wrap(ota.ErrScript), 1},
		{ota.Result{State: ota.Stuck}, wrap(ota.ErrScript), 12},
		{ota.Result{State: ota.Reverting, Needs: ota.NeedsReboot}, errors.Join(ota.ErrRebootPending, ota.ErrScript), 13},
		{ota.Result{}, errUsage{errors.New("x")}, 2},
		{ota.Result{}, wrap(ota.ErrLocked), 1},
		{ota.Result{}, context.Canceled, 1},
		{ota.Result{}, errors.New("x"), 1},
	} {
		code, _, _ := outcome(c.r, c.err)
		require.Equal(t, c.want, code, "%v %v", c.r, c.err)
	}
}

func TestJSONAnswer(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "agent.json")
	require.NoError(t, os.WriteFile(path, []byte(goodConfig), 0o600))
	var stdout, stderr strings.Builder
	code := run(t.Context(), []string{"-config", path, "-json", "status"}, &stdout, &stderr)
	require.Equal(t, exitOK, code)
	require.Empty(t, stderr.String())
	var got struct {
		Command string
		Code    *int
		Status  ota.Status
	}
	require.NoError(t, json.Unmarshal([]byte(stdout.String()), &got))
	require.Equal(t, "status", got.Command)
	require.Equal(t, 0, *got.Code)
	require.Equal(t, ota.Idle, got.Status.State)
}
