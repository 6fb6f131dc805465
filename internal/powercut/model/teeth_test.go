//go:build linux && (amd64 || arm64)

package model

import (
	"context"
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

	"github.com/pawl-ota/pawl/internal/powercut"
	"github.com/pawl-ota/pawl/internal/powercut/site"
	"github.com/pawl-ota/pawl/internal/testneeds"
)

// recorded is a workload with its recording, and the orders that it keeps.
type recorded struct {
	Workload
	*sited
	folder string
	stand  *Stand
	orders []Order
}

// recordAll records all workloads with their sites.
func recordAll(t *testing.T) (all []*recorded) {
	t.Helper()
	scene := powercut.New(t, inMemory(t)) // before the stand, which has its own way with inodes
	stand := newStand(t)
	repos := newRepos(t)
	t.Setenv(envRepos, repos.dir)
	add := func(w Workload, orders []Order) {
		r := &recorded{Workload: w, folder: filepath.Join(stand.dir, fmt.Sprint("recorded", len(all))), stand: stand, orders: orders}
		require.NoError(t, os.Mkdir(r.folder, 0o755))
		h, err := w.Record(t.Context(), r.folder, envSites+"=1")
		require.NoError(t, err)
		r.sited, err = newSited(h)
		require.NoError(t, err)
		all = append(all, r)
	}
	for _, w := range append(Devices(scene, 16), KilledDevices(scene, 16)...) {
		add(w, append(Orders(), DeviceOrders()...))
	}
	add(trusting(repos), Orders())
	add(distrusting(repos), Orders())
	add(journaling(), Orders())
	return all
}

// TestTeeth takes out each sync that the engine, the journal, the trust store
// and micro ask for, one place in the code after the other, and has some test
// notice: an order of the recordings, a crash of the model that leaves a broken
// device, or the tests of micro for a second try. What package durable does for
// one call is in its own TestTeeth.
func TestTeeth(t *testing.T) {
	began := time.Now()
	all := recordAll(t)
	var sites []Site
	for _, r := range all {
		require.NoError(t, r.ordered(r.base), r.Name)
		for _, at := range r.all() {
			if !slices.Contains(sites, at) && !at.ofTests() && !at.ofSpool() && !at.ofLocator() {
				sites = append(sites, at)
			}
		}
	}
	killed, late := map[string]int{}, 0
	for _, at := range sites {
		by, why := kill(t, all, at)
		if by == "" {
			t.Errorf("nothing notices that this is left out: %s", at)
			continue
		}
		killed[by]++
		t.Logf("%s: by %s: %.200s", at, by, why)
		if lateIsNoticed(t, all, at) {
			late++
		}
	}
	n := killed["order"] + killed["crash"] + killed["test"]
	t.Logf("teeth: %d of %d places that ask for a sync, %d %% (%d by an order, %d by a crash, %d by a test of micro); %d of them also when it comes late; in %.1f s",
		n, len(sites), 100*n/len(sites), killed["order"], killed["crash"], killed["test"], late, time.Since(began).Seconds())
}

// kill returns what notices that the syncs of a place are left out, and how.
func kill(t *testing.T, all []*recorded, at Site) (by, why string) {
	t.Helper()
	for _, by := range []string{"order", "crash"} {
		for _, r := range all {
			if !slices.Contains(r.sites, at) {
				continue
			}
			h, index, err := r.without(at)
			require.NoError(t, err)
			bad := r.ordered(h)
			if by == "crash" {
				bad = r.crashed(t, h, index)
			}
			if bad != nil {
				return by, r.Name + ": " + bad.Error()
			}
		}
	}
	if err := secondTry(t, at); err != nil {
		return "test", err.Error()
	}
	return "", ""
}

// ordered returns an order that is not kept.
func (r *recorded) ordered(h *History) error {
	for _, o := range r.orders {
		if err := o.check(h); err != nil {
			return err
		}
	}
	return nil
}

// maxCrashes is how many of the crashes of one workload that can only come so
// are looked at.
const maxCrashes = 40

// crashed returns what is wrong after one of them.
func (r *recorded) crashed(t *testing.T, h *History, index []int) error {
	t.Helper()
	l := newLayout(filepath.Join(r.folder, diskName), r.stand.x)
	n := 0
	for s := range r.only(h, index) {
		if n++; n > maxCrashes {
			break
		}
		require.NoError(t, l.lay(s.Entries()))
		if err := r.Check(t.Context(), l.root, s.Facts(), 1); err != nil {
			return fmt.Errorf("%w; lost: %q", err, s.Lost())
		}
	}
	return nil
}

// secondTry runs the tests of micro in which a sync fails and the verb is
// called again: they are about syncs that do nothing the first time.
func secondTry(t *testing.T, at Site) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, testneeds.Program(t, "go"), "test", "-count=1", "-run", "SyncedBeforeItIsDropped", "github.com/pawl-ota/pawl/micro")
	cmd.Env = append(os.Environ(), site.Env+"="+string(at))
	out, err := cmd.CombinedOutput()
	require.NoError(t, ctx.Err())
	if err != nil && !strings.Contains(string(out), "--- FAIL: Test") {
		require.NoError(t, err, "%s", out)
	}
	if err == nil {
		return nil
	}
	return errors.New("SyncedBeforeItIsDropped fails")
}

// lateIsNoticed reports whether an order notices that the syncs of a place come
// behind the call that they have to come before.
func lateIsNoticed(t *testing.T, all []*recorded, at Site) bool {
	t.Helper()
	return slices.ContainsFunc(all, func(r *recorded) bool {
		if !slices.Contains(r.sites, at) {
			return false
		}
		h, err := r.late(at, r.orders)
		require.NoError(t, err)
		return r.ordered(h) != nil
	})
}
