package otatest_test

import (
	"strings"
	"testing"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/otatest"
	"github.com/pawl-ota/pawl/ota/release"
)

// The simulated backends pass the suite that they are there to serve.
func TestSimulatedBackends(t *testing.T) {
	for _, effect := range []ota.Effect{ota.Live, ota.NeedsRestart, ota.NeedsReboot} {
		t.Run(string(effect), func(t *testing.T) {
			otatest.TestBackend(t, func(*testing.T) otatest.Subject { return simulated(effect) })
		})
	}
}

func simulated(effect ota.Effect) otatest.Subject {
	repo := otatest.NewRepo()
	var versions []release.Component
	for i, label := range []string{"one", "two", "three"} {
		r := repo.Add(uint64(i+1), otatest.Healthy(), otatest.Content{Part: "part", Label: label})
		versions = append(versions, r.Components[0])
	}
	d := otatest.NewDevice(repo, otatest.Part{Name: "part", Effect: effect})
	backend := func() ota.Backend { return d.Options().Backends["part"] }
	faults := 0
	return otatest.Subject{
		Backend:   backend(),
		Component: func(n int) release.Component { return versions[n] },
		Blobs:     repo.Blobs(),
		Look:      func() string { files := d.Runs("part"); return strings.Join(files[:], "") },
		Reopen:    func() ota.Backend { d.Restart(); return backend() },
		Reboot:    func() ota.Backend { d.Boot(); return backend() },
		Crash:     func(n int) { faults = d.Faults(); d.At(n, otatest.PowerCut) },
		Crashed:   func() bool { return d.Faults() > faults },
	}
}
