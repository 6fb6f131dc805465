package tuf_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/otatest"
	"github.com/pawl-ota/pawl/ota/tuf"
)

// FuzzMetadata: no file in the place of a role's stops the program, or is taken
// unless it says what the signed one says.
func FuzzMetadata(f *testing.F) {
	r := otatest.NewTUFRepo(f, today)
	r.Rotate(func() {})
	r.AddRelease("targets", 1, nil)
	r.Publish()
	names := []string{"2.root.json", "timestamp.json", "2.snapshot.json", "2.targets.json"}
	for i, name := range names {
		f.Add(byte(i), read1(r, name))
		f.Add(byte(i), []byte(`{"signed":{"_type":"root","roles":null,"keys":{"a":null}},"signatures":[null]}`))
	}
	f.Fuzz(func(t *testing.T, which byte, data []byte) {
		mirror := t.TempDir()
		require.NoError(t, os.CopyFS(mirror, os.DirFS(r.Dir)))
		name := names[int(which)%len(names)]
		whole := read1(r, name)
		require.NoError(t, os.WriteFile(filepath.Join(mirror, "metadata", name), data, 0o600))
		o := tuf.Options{URL: mirror, Root: r.First, Dir: filepath.Join(t.TempDir(), "trust"), Now: func() time.Time { return today }, TrustClock: true}
		s, err := tuf.New(o)
		require.NoError(t, err)
		defer s.Close()
		_, err = s.Latest(t.Context(), device)
		if err == nil && !sameSigned(whole, data) {
			t.Fatalf("%s was taken: %q", name, data)
		}
		o.URL = r.Dir
		_, err = latest(t, o)
		require.NoError(t, err)
	})
}

// sameSigned reports whether two files have the same signed part.
func sameSigned(a, b []byte) bool {
	var x, y struct{ Signed any }
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return false
	}
	left, _ := json.Marshal(x.Signed)
	right, _ := json.Marshal(y.Signed)
	return string(left) == string(right)
}

// FuzzCustom: whatever a target says of itself, only what agrees with its name and
// its document is taken.
func FuzzCustom(f *testing.F) {
	f.Add([]byte(`{"pawl":{"kind":"release","product":"kiosk","variant":"arm","seq":1,"hardware":["rev-a","rev-b"]}}`))
	f.Add([]byte(`{"pawl":{"kind":"release","product":"kiosk","variant":"arm","seq":1.0,"hardware":[null]}}`))
	f.Add([]byte(`{"pawl":null}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, custom []byte) {
		var value any
		if json.Unmarshal(custom, &value) != nil || value == nil {
			return
		}
		r := otatest.NewTUFRepo(t, today)
		want := r.AddRelease("targets", 1, nil)
		r.Roles["targets"].Signed["targets"].(object)["releases/kiosk/arm/1.json"].(object)["custom"] = value
		r.Publish()
		got, err := source(t, optionsFor(t, r, r.Dir)).Latest(t.Context(), device)
		if err != nil {
			require.True(t, isRefusal(err), "%v", err)
			return
		}
		require.Equal(t, want.ID, got.ID)
	})
}

func isRefusal(err error) bool {
	for _, family := range []error{tuf.ErrUntrusted, ota.ErrHardware, ota.ErrNoRelease} {
		if errors.Is(err, family) {
			return true
		}
	}
	return false
}

// TestRootOfTheFactoryImage is read from a file, and limited.
func TestRootOfTheFactoryImage(t *testing.T) {
	r := otatest.NewTUFRepo(t, today)
	r.AddRelease("targets", 1, nil)
	r.Publish()
	file := filepath.Join(t.TempDir(), "root.json")
	require.NoError(t, os.WriteFile(file, r.First, 0o600))
	o := optionsFor(t, r, r.Dir)
	o.Root, o.RootFile = nil, file
	_, err := latest(t, o)
	require.NoError(t, err)
	o.Limits.Root = int64(len(r.First))
	_, err = tuf.New(o)
	require.NoError(t, err)
	o.Limits.Root--
	_, err = tuf.New(o)
	require.ErrorIs(t, err, tuf.ErrTooLarge)
	for name, c := range map[string]tuf.Options{
		"both":    {Root: r.First, RootFile: file},
		"missing": {RootFile: file + ".away"},
		"no root": {RootFile: filepath.Join(r.Dir, "metadata", "timestamp.json")},
	} {
		c.URL, c.Dir = r.Dir, t.TempDir()
		_, err := tuf.New(c)
		require.ErrorContains(t, err, "Options.RootFile", name)
	}
}
