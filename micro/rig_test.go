//go:build linux

package micro

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/durable"
	"github.com/pawl-ota/pawl/ota/release"
)

// eitherLayout is the backend of one layout, with what both have in common.
type eitherLayout interface {
	layout
	common() *base
}

func (f *base) common() *base { return f }

// rig is a root with its backend.
type rig[F eitherLayout] struct {
	t    testing.TB
	root string
	f    F
	// without are calls that are not possible on this device: exchange, link.
	without []string
}

type (
	device      = rig[*treeFiles]
	placeDevice = rig[*inPlaceFiles]
)

func newDevice(t testing.TB) *device {
	t.Helper()
	d := &device{t: t, root: filepath.Join(tempDir(t), "srv", "app")}
	d.restart()
	return d
}

// newPlaceDevice makes the root, which the layout does not.
func newPlaceDevice(t testing.TB) *placeDevice {
	t.Helper()
	d := &placeDevice{t: t, root: filepath.Join(tempDir(t), "sys")}
	require.NoError(t, os.Mkdir(d.root, 0o755))
	d.restart()
	return d
}

// restart is a new process: a Files that knows nothing.
func (d *rig[F]) restart() {
	d.t.Helper()
	o := Options{Name: "app", Root: d.root}
	if _, is := any(d.f).(*inPlaceFiles); is {
		o.Layout = InPlace
	}
	f, err := New(o)
	require.NoError(d.t, err)
	d.f = f.layout.(F)
	if d.without != nil {
		d.f.common().cannot = func(call string) error {
			if slices.Contains(d.without, call) {
				return fmt.Errorf("%w: %w", durable.ErrNoExchange, unix.EINVAL)
			}
			return nil
		}
	}
}

func (d *rig[F]) stage(tx ota.TxID, s *shop) error {
	_, err := d.f.Stage(d.t.Context(), tx, s.c, s)
	return err
}

// activate stages and activates.
func (d *rig[F]) activate(tx ota.TxID, s *shop) {
	d.t.Helper()
	require.NoError(d.t, d.stage(tx, s))
	require.NoError(d.t, d.f.Activate(d.t.Context(), tx, s.c))
}

// install takes a release all the way.
func (d *rig[F]) install(tx ota.TxID, s *shop) {
	d.t.Helper()
	d.activate(tx, s)
	require.NoError(d.t, d.f.Commit(d.t.Context(), tx, s.c))
}

func (d *rig[F]) revert(tx ota.TxID, s *shop) {
	d.t.Helper()
	require.NoError(d.t, d.f.Revert(d.t.Context(), tx, s.c))
}

func (d *rig[F]) active() ota.Active {
	d.t.Helper()
	a, err := d.f.Active(d.t.Context(), "app")
	require.NoError(d.t, err)
	return a
}

func (d *rig[F]) isWhole(s *shop) {
	d.t.Helper()
	require.Equal(d.t, ota.Active{State: ota.Whole, Digest: s.c.Digest()}, d.active())
}

// quickest is how long it takes at best to see that a tree is whole: the machine
// has other things to do.
func (d *rig[F]) quickest(s *shop) (best time.Duration) {
	for i := 0; i == 0 || best >= time.Second && i < 20; i++ {
		begin := time.Now()
		d.isWhole(s)
		if took := time.Since(begin); i == 0 || took < best {
			best = took
		}
	}
	return best
}

// tidy checks that nothing of a transaction is left, and which releases are
// kept.
func (d *rig[F]) tidy(msg string, kept ...*shop) {
	d.t.Helper()
	f := d.f.common()
	require.Empty(d.t, listed(d.t, f.path(dirTx)), msg)
	require.Empty(d.t, listed(d.t, f.path(dirTrash)), msg)
	var want []string
	for _, s := range kept {
		want = append(want, s.c.Digest().String())
	}
	require.ElementsMatch(d.t, want, listed(d.t, f.path(dirKept)), msg)
}

// lends checks that all content of a release can be had from the device.
func (d *rig[F]) lends(s *shop, msg ...any) {
	d.t.Helper()
	for _, b := range s.ix.Blobs() {
		r, ok, err := d.f.Seed(d.t.Context(), "app", b)
		require.NoError(d.t, err)
		require.True(d.t, ok, msg...)
		require.NoError(d.t, r.Close())
	}
}

func (d *rig[F]) read(name string) string {
	d.t.Helper()
	data, err := os.ReadFile(filepath.Join(d.root, name))
	require.NoError(d.t, err)
	return string(data)
}

var errCut = errors.New("cut")

// cutAt makes step n and all after it fail, and counts the steps.
func (d *rig[F]) cutAt(n int) *int {
	count := new(int)
	d.f.common().before = func(string, string) error {
		if *count++; n > 0 && *count >= n {
			return errCut
		}
		return nil
	}
	return count
}

// fill fills the file system of dir to the last block.
func fill(t testing.TB, dir string) {
	t.Helper()
	file, err := os.Create(filepath.Join(dir, "fill"))
	require.NoError(t, err)
	_, err = io.Copy(file, zeros{})
	require.ErrorIs(t, err, unix.ENOSPC)
	require.NoError(t, file.Close())
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return min(len(p), 4096), nil }

// scene is a device on v1 with paths of its own, a v2 that changes entries in
// every way, and a v3 that goes on from there.
type scene[F eitherLayout] struct {
	*rig[F]
	s1, s2, s3 *shop
	look       func(t testing.TB, dir string) map[string]string // what a way back brings back
	want1      map[string]string                                // the root before, as look sees it
	want2      map[string]string                                // the root on trial
	own        []string                                         // what stays whatever is installed
}

// verb is one step of the update to v2.
func (sc *scene[F]) verb(name string) error {
	ctx := context.Background()
	switch name {
	case "stage":
		return sc.stage("t2", sc.s2)
	case "activate":
		return sc.f.Activate(ctx, "t2", sc.s2.c)
	case "commit":
		return sc.f.Commit(ctx, "t2", sc.s2.c)
	}
	return sc.f.Revert(ctx, "t2", sc.s2.c)
}

// upTo runs the verbs before the one that will be cut.
func (sc *scene[F]) upTo(name string) {
	sc.t.Helper()
	for _, v := range map[string][]string{
		"stage": nil, "activate": {"stage"}, "commit": {"stage", "activate"}, "revert": {"stage", "activate"},
	}[name] {
		require.NoError(sc.t, sc.verb(v))
	}
}

// isOld checks that the device is exactly as before.
func (sc *scene[F]) isOld(msg string) {
	sc.t.Helper()
	same(sc.t, sc.want1, sc.look(sc.t, sc.root), msg)
	sc.isWhole(sc.s1)
	sc.tidy(msg)
	require.Equal(sc.t, []string{sc.s1.c.Digest().String()}, indexesOf(sc.t, sc.f.common().path(dirIndex)), msg)
}

func (sc *scene[F]) isNew(msg string) {
	sc.t.Helper()
	same(sc.t, sc.want2, snapshot(sc.t, sc.root), msg)
	sc.isWhole(sc.s2)
}

// goesOn checks that good releases install afterwards.
func (sc *scene[F]) goesOn() {
	sc.t.Helper()
	sc.restart()
	sc.upTo("commit")
	sc.isNew("after all")
	require.NoError(sc.t, sc.verb("commit"))
	sc.isNew("committed after all")
	sc.installs3()
}

// installs3 checks that v3 installs, and leaves alone what is not v2's.
func (sc *scene[F]) installs3() {
	sc.t.Helper()
	sc.install("t9", sc.s3)
	sc.isWhole(sc.s3)
	for _, p := range sc.own {
		require.Equal(sc.t, sc.want2[p], snapshotLine(sc.t, sc.root, p), p)
	}
}

// long says that the tests of power cuts are to take the time they need.
func long() bool { return os.Getenv("PAWL_CRASH") == "long" }

// steps counts the steps of one verb.
func steps[F eitherLayout](t *testing.T, fresh func(testing.TB) *scene[F], name string) int {
	sc := fresh(t)
	sc.upTo(name)
	count := sc.cutAt(0)
	require.NoError(t, sc.verb(name))
	require.Greater(t, *count, 2, name)
	t.Logf("%s: %d steps", name, *count)
	return *count
}

// someSteps are the steps of a verb at which it is cut: of a long one every
// third, unless there is time for all.
func someSteps[F eitherLayout](t *testing.T, fresh func(testing.TB) *scene[F], name string) iter.Seq[int] {
	all, every := steps(t, fresh, name), 1
	if all > 30 && !long() {
		every = 3
	}
	return func(yield func(int) bool) {
		for n := 0; n < all && yield(n); n += every {
		}
	}
}

// everyOther steps over some of the second cuts of a pair, unless there is time
// for all.
func everyOther(n int) int {
	if long() {
		return 1
	}
	return 3 + n%3
}

// placeShop makes a release of single entries: the files of dir without their
// folders, the folders that nothing is in, and paths that are to be absent.
func placeShop(t testing.TB, dir string, options string, absent ...string) *shop {
	t.Helper()
	whole := newShop(t, dir)
	holds := map[string]bool{".": true}
	for _, e := range whole.ix.Entries {
		holds[filepath.Dir(e.Path)] = true
	}
	var all []release.Entry
	for _, e := range whole.ix.Entries {
		if e.Type != release.Dir || !holds[e.Path] {
			all = append(all, e)
		}
	}
	for _, p := range absent {
		all = append(all, release.Entry{Path: p, Type: release.Absent})
	}
	return entriesShop(t, whole.blobs, all, options)
}
