package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/otatest"
	"github.com/pawl-ota/pawl/ota/release"
	"github.com/stretchr/testify/require"
)

// component adds a component with one program and, for more, further ones.
func component(t *testing.T, content otatest.Blobs, program string, more ...string) release.Component {
	t.Helper()
	put := func(data []byte) release.Blob {
		content.Add(data)
		return release.Blob{Digest: release.Sum(data), Size: int64(len(data))}
	}
	index := release.Index{Entries: []release.Entry{{Path: ".", Type: release.Dir, Mode: 0o755}}}
	for _, name := range append([]string{programName}, more...) {
		index.Entries = append(index.Entries, release.Entry{Path: name, Type: release.File, Mode: 0o755, Blob: put([]byte(program + " " + name))})
	}
	var out bytes.Buffer
	require.NoError(t, index.Encode(&out))
	return release.Component{Name: "firmware", Kind: "files", Index: put(out.Bytes()), Keep: release.Keep{Repair: release.RepairNone}}
}

// TestOwnProgramKeepsTheContract runs the suite for backends.
func TestOwnProgramKeepsTheContract(t *testing.T) {
	content := otatest.NewBlobs()
	var versions []release.Component
	for i := range 3 {
		versions = append(versions, component(t, content, fmt.Sprint("version ", i)))
	}
	otatest.TestBackend(t, func(t *testing.T) otatest.Subject {
		own := &ownProgram{dir: t.TempDir()}
		return otatest.Subject{
			Backend:   own,
			Component: func(n int) release.Component { return versions[n] },
			Blobs:     content,
			Look:      func() string { return own.runs() },
			Reopen:    func() ota.Backend { own = &ownProgram{dir: own.dir}; return own },
		}
	})
}

// runs is what would be started, and empty where that is nothing.
func (o *ownProgram) runs() string {
	data, err := os.ReadFile(filepath.Join(o.current(), programName))
	if err != nil {
		return ""
	}
	return string(data)
}

// TestOwnProgramFromTheFactory goes over a program that pawl did not put there,
// and back to it.
func TestOwnProgramFromTheFactory(t *testing.T) {
	ctx, content, own := t.Context(), otatest.NewBlobs(), &ownProgram{dir: t.TempDir()}
	require.NoError(t, os.Mkdir(filepath.Join(own.dir, "factory"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(own.dir, "factory", programName), []byte("factory"), 0o755))
	require.NoError(t, os.Symlink("factory", own.current()))
	one := component(t, content, "one")
	active, err := own.Active(ctx, "firmware")
	require.NoError(t, err)
	require.Equal(t, ota.Mixed, active.State)

	_, err = own.Stage(ctx, "a", one, content)
	require.NoError(t, err)
	require.NoError(t, own.Activate(ctx, "a", one))
	require.Equal(t, "one firmware", own.runs())
	// The release document may be lost: the way back is in the note alone.
	require.NoError(t, own.Revert(ctx, "a", release.Component{Name: "firmware"}))
	require.Equal(t, "factory", own.runs())
	require.NoDirExists(t, own.slot(one.Digest().String()))
}

// TestOwnProgramAfterACutStage begins with what a cut in the middle of staging
// leaves: half of a program under the transaction's name.
func TestOwnProgramAfterACutStage(t *testing.T) {
	ctx, content, own := t.Context(), otatest.NewBlobs(), &ownProgram{dir: t.TempDir()}
	c := component(t, content, "one")
	require.NoError(t, os.MkdirAll(own.partial("a"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(own.partial("a"), programName), []byte("on"), 0o755))
	_, err := own.Stage(ctx, "a", c, content)
	require.NoError(t, err)
	require.NoError(t, own.Activate(ctx, "a", c))
	require.Equal(t, "one firmware", own.runs())
}

// TestOwnProgramRefuses has releases that hold no one program.
func TestOwnProgramRefuses(t *testing.T) {
	ctx, content, own := t.Context(), otatest.NewBlobs(), &ownProgram{dir: t.TempDir()}
	_, err := own.Stage(ctx, "a", component(t, content, "one", "more"), content)
	require.ErrorIs(t, err, release.ErrInvalid)
	require.Error(t, own.Activate(ctx, "b", component(t, content, "never staged")))
}
