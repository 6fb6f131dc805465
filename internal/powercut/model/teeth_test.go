//go:build linux && (amd64 || arm64)

package model

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/powercut"
	"github.com/pawl-ota/pawl/internal/powercut/check"
	"github.com/pawl-ota/pawl/internal/powercut/firmware"
	"github.com/pawl-ota/pawl/ota"
)

// recorded is a workload with its recording.
type recorded struct {
	Workload
	*sited
	base string
}

func TestTeeth(t *testing.T) {
	dir := inMemory(t)
	scene := powercut.New(t, dir)
	var all []*recorded
	var sites []Site
	for _, w := range Devices(scene) {
		base := filepath.Join(dir, strings.ReplaceAll(w.Name, " ", "-"))
		require.NoError(t, os.Mkdir(base, 0o755))
		h, err := w.Record(t.Context(), base, envSites+"=1")
		require.NoError(t, err)
		s, err := newSited(h)
		require.NoError(t, err)
		all = append(all, &recorded{w, s, base})
		for _, site := range s.all() {
			if !slices.Contains(sites, site) {
				sites = append(sites, site)
			}
		}
	}
	x := &known{}
	defer x.install()()
	killed := 0
	for _, site := range sites {
		if only := os.Getenv("PAWL_TEETH"); only != "" && !regexp.MustCompile(only).MatchString(string(site)) {
			continue
		}
		began := time.Now()
		states, why := 0, ""
		for _, deep := range []bool{false, true} {
			for _, r := range all {
				if why != "" {
					break
				}
				n, bad, err := r.kill(t.Context(), x, site, deep)
				require.NoError(t, err)
				if states += n; bad != nil {
					why = fmt.Sprintf("%s, deep %v: %.300s", r.Name, deep, bad)
					killed++
				}
			}
		}
		t.Logf("%d states in %.1f s: %s\n   %s", states, time.Since(began).Seconds(), site, why)
	}
	t.Logf("teeth: %d of %d", killed, len(sites))
}

// maxStates is how many states of one site and workload are looked at.
const maxStates = 60

// kill looks for a state that breaks a promise without the syncs of a site.
func (r *recorded) kill(ctx context.Context, x *known, site Site, deep bool) (states int, bad, err error) {
	if !slices.Contains(r.sites, site) {
		return 0, nil, nil
	}
	h, index, err := r.without(site)
	if err != nil {
		return 0, nil, err
	}
	l := newLayout(filepath.Join(r.base, diskName), x)
	for s := range r.only(h, index) {
		if states++; states > maxStates {
			break
		}
		if err := l.lay(s.Entries()); err != nil {
			return states, nil, err
		}
		bad := r.Check(ctx, l.root, s.Facts(), 1)
		if bad == nil && deep {
			bad = deeper(ctx, l.root, r.Name != "first install")
		}
		if bad != nil {
			return states, fmt.Errorf("%w; lost: %q", bad, s.Lost()), nil
		}
	}
	return states, nil, nil
}

// deeper looks at what the device keeps for later: the content that it verifies
// by, the release that it can go back to without a network, and the way on.
func deeper(ctx context.Context, disk string, kept bool) error {
	s, err := powercut.Settle(ctx, powercut.InProcess, disk)
	if err != nil {
		return err
	}
	if s.State == ota.Idle && s.Version() != check.None {
		if a := powercut.InProcess(ctx, disk, firmware.VerbVerify); a.Code != 0 || len(a.Damage) > 0 {
			return fmt.Errorf("verify: %s %v", a.Error, a.Damage)
		}
	}
	if s.State == ota.Idle && s.Version() == check.V2 && kept {
		repo := filepath.Join(disk, "repo")
		target, err := os.Readlink(repo)
		if err != nil {
			return err
		}
		if err := os.Remove(repo); err != nil {
			return err
		}
		if err := powercut.Rollback(ctx, powercut.InProcess, disk); err != nil {
			return err
		}
		if err := os.Symlink(target, repo); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(disk, "health"), []byte("ok\n"), 0o644); err != nil {
		return err
	}
	return powercut.Update(ctx, powercut.InProcess, disk)
}
