package main

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
	"github.com/stretchr/testify/require"
)

// programs is a release's content: one program for each component.
type programs map[release.Digest][]byte

func (p programs) Open(_ context.Context, b release.Blob) (io.ReadCloser, error) {
	data, ok := p[b.Digest]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

func (p programs) Each(context.Context, []release.Blob, func(release.Blob, io.Reader) error) error {
	panic("one program is opened, not many")
}

func (p programs) put(data []byte) release.Blob {
	b := release.Blob{Digest: release.Sum(data), Size: int64(len(data))}
	p[b.Digest] = data
	return b
}

// component adds a component with one program and, for more, further ones.
func (p programs) component(t *testing.T, program string, more ...string) release.Component {
	t.Helper()
	index := release.Index{Entries: []release.Entry{{Path: ".", Type: release.Dir, Mode: 0o755}}}
	for _, name := range append([]string{programName}, more...) {
		index.Entries = append(index.Entries, release.Entry{Path: name, Type: release.File, Mode: 0o755, Blob: p.put([]byte(program + name))})
	}
	var out bytes.Buffer
	require.NoError(t, index.Encode(&out))
	return release.Component{Name: "firmware", Kind: "files", Index: p.put(out.Bytes()), Keep: release.Keep{Repair: release.RepairNone}}
}

func (o *ownProgram) runs(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(o.current(), programName))
	require.NoError(t, err)
	return string(data)
}

// TestOwnProgram takes the verbs through their ways, each of them twice.
func TestOwnProgram(t *testing.T) {
	ctx, content, own := t.Context(), programs{}, &ownProgram{dir: t.TempDir()}
	require.NoError(t, os.Mkdir(filepath.Join(own.dir, "factory"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(own.dir, "factory", programName), []byte("factory"), 0o755))
	require.NoError(t, os.Symlink("factory", own.current()))
	one, two := content.component(t, "one "), content.component(t, "two ")
	twice := func(f func() error) {
		t.Helper()
		require.NoError(t, f())
		require.NoError(t, f())
	}
	stage := func(tx ota.TxID, c release.Component) func() error {
		return func() error {
			effect, err := own.Stage(ctx, tx, c, content)
			require.Equal(t, ota.NeedsRestart, effect)
			return err
		}
	}
	active := func() ota.Active {
		t.Helper()
		a, err := own.Active(ctx, "firmware")
		require.NoError(t, err)
		return a
	}
	require.Equal(t, ota.Mixed, active().State, "somebody else's program")

	twice(func() error { return own.Revert(ctx, "never", one) })
	require.Equal(t, "factory", own.runs(t))

	twice(stage("a", one))
	require.Equal(t, "factory", own.runs(t), "staging switched")
	twice(func() error { return own.Activate(ctx, "a", one) })
	require.True(t, active().Is(one.Digest()))
	twice(func() error { return own.Revert(ctx, "a", one) })
	require.Equal(t, "factory", own.runs(t))
	require.NoDirExists(t, own.slot(one.Digest().String()))

	twice(stage("b", one))
	twice(func() error { return own.Activate(ctx, "b", one) })
	twice(func() error { return own.Commit(ctx, "b", one) })
	require.Equal(t, "one firmware", own.runs(t))

	twice(stage("c", two))
	can, err := own.CanRevert(ctx, "c", two)
	require.NoError(t, err)
	require.True(t, can)
	twice(func() error { return own.Activate(ctx, "c", two) })
	require.NoError(t, own.Prune(ctx, "firmware", nil, []ota.TxID{"c"}))
	// The release document may be lost: the way back is in the note alone.
	twice(func() error { return own.Revert(ctx, "c", release.Component{Name: "firmware"}) })
	require.True(t, active().Is(one.Digest()))
	can, err = own.CanRevert(ctx, "c", two)
	require.NoError(t, err)
	require.False(t, can, "what was reverted can be reverted")

	twice(stage("d", two))
	twice(func() error { return own.Activate(ctx, "d", two) })
	twice(func() error { return own.Commit(ctx, "d", two) })
	require.NoError(t, own.Prune(ctx, "firmware", []release.Digest{one.Digest()}, nil))
	require.DirExists(t, own.slot(one.Digest().String()), "what is to be kept was dropped")
	require.NoError(t, own.Prune(ctx, "firmware", nil, nil))
	require.NoDirExists(t, own.slot(one.Digest().String()))
	require.Equal(t, "two firmware", own.runs(t))
}

// TestOwnProgramAfterACutStage begins with what a cut in the middle of staging
// leaves: half of a program under the transaction's name.
func TestOwnProgramAfterACutStage(t *testing.T) {
	ctx, content, own := t.Context(), programs{}, &ownProgram{dir: t.TempDir()}
	c := content.component(t, "one ")
	require.NoError(t, os.MkdirAll(own.partial("a"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(own.partial("a"), programName), []byte("on"), 0o755))
	_, err := own.Stage(ctx, "a", c, content)
	require.NoError(t, err)
	require.NoError(t, own.Activate(ctx, "a", c))
	require.Equal(t, "one firmware", own.runs(t))
	require.NoError(t, own.Revert(ctx, "a", c))
	require.NoFileExists(t, own.current(), "there was no program before")
}

// TestOwnProgramRefuses has releases that hold no one program.
func TestOwnProgramRefuses(t *testing.T) {
	ctx, content, own := t.Context(), programs{}, &ownProgram{dir: t.TempDir()}
	_, err := own.Stage(ctx, "a", content.component(t, "one ", "more"), content)
	require.ErrorIs(t, err, release.ErrInvalid)
	require.Error(t, own.Activate(ctx, "b", content.component(t, "never staged")))
}
