package otatest_test

import (
	"context"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/otatest"
	"github.com/pawl-ota/pawl/ota/release"
)

// brokenEnv names the broken backend that this program, started again by
// TestSuiteHasTeeth, runs the suite on.
const brokenEnv = "PAWL_TEST_BROKEN"

// real is a simulated backend without the optional interfaces, which would
// otherwise hide those that a broken one brings.
type real struct{ otatest.Backend }

// broken are backends that each break one rule of the contract.
var broken = map[string]func(real) ota.Backend{
	"activate does nothing": func(b real) ota.Backend { return noActivate{b} },
	"activate invents":      func(b real) ota.Backend { return invents{b} },
	"bad content is taken":  func(b real) ota.Backend { return gullible{b} },
	"commit does nothing":   func(b real) ota.Backend { return noCommit{b} },
	"needs the document":    func(b real) ota.Backend { return bookish{b} },
	"prune takes all":       func(b real) ota.Backend { return pruner{b} },
	"revert does nothing":   func(b real) ota.Backend { return noRevert{b} },
	"revert only once":      func(b real) ota.Backend { return once{b} },
	"seed lies":             func(b real) ota.Backend { return liar{b} },
	"stage switches":        func(b real) ota.Backend { return eager{b} },
	"verify is blind":       func(b real) ota.Backend { return blind{b} },
}

type noActivate struct{ real }

func (noActivate) Activate(context.Context, ota.TxID, release.Component) error { return nil }

type invents struct{ real }

func (b invents) Activate(ctx context.Context, tx ota.TxID, c release.Component) error {
	if err := b.real.Activate(ctx, tx, c); err != nil && ctx.Err() == nil {
		return nil
	}
	return nil
}

type gullible struct{ real }

func (b gullible) Stage(ctx context.Context, tx ota.TxID, c release.Component, content ota.Content) (ota.Effect, error) {
	effect, err := b.real.Stage(ctx, tx, c, content)
	if err != nil {
		return ota.Live, nil
	}
	return effect, nil
}

type noCommit struct{ real }

func (noCommit) Commit(context.Context, ota.TxID, release.Component) error { return nil }

type pruner struct{ real }

func (b pruner) Prune(ctx context.Context, name string, keep []release.Digest, _ []ota.TxID) error {
	return b.real.Prune(ctx, name, keep, nil)
}

type bookish struct{ real }

func (b bookish) Revert(ctx context.Context, tx ota.TxID, c release.Component) error {
	if c.Kind == "" {
		return io.ErrUnexpectedEOF
	}
	return b.real.Revert(ctx, tx, c)
}

type noRevert struct{ real }

func (noRevert) Revert(context.Context, ota.TxID, release.Component) error { return nil }

type once struct{ real }

func (b once) Revert(ctx context.Context, tx ota.TxID, c release.Component) error {
	a, err := b.Active(ctx, c.Name)
	if err != nil || !a.Is(c.Digest()) {
		return io.ErrUnexpectedEOF
	}
	return b.real.Revert(ctx, tx, c)
}

type liar struct{ real }

func (liar) Seed(context.Context, string, release.Blob) (io.ReadCloser, bool, error) {
	return io.NopCloser(strings.NewReader("a lie")), true, nil
}

type eager struct{ real }

func (b eager) Stage(ctx context.Context, tx ota.TxID, c release.Component, content ota.Content) (ota.Effect, error) {
	effect, err := b.real.Stage(ctx, tx, c, content)
	if err == nil {
		err = b.Activate(ctx, tx, c)
	}
	return effect, err
}

type blind struct{ real }

func (blind) Verify(context.Context, release.Component, ota.Content) ([]ota.Damage, error) {
	return nil, nil
}

// TestBroken runs the suite on a backend that TestSuiteHasTeeth names.
func TestBroken(t *testing.T) {
	breaks := broken[os.Getenv(brokenEnv)]
	if breaks == nil {
		return
	}
	otatest.TestBackend(t, func(*testing.T) otatest.Subject {
		s := simulated(ota.Live)
		wrap := func(b ota.Backend) ota.Backend { return breaks(real{b.(otatest.Backend)}) }
		reopen, reboot := s.Reopen, s.Reboot
		s.Backend = wrap(s.Backend)
		s.Reopen = func() ota.Backend { return wrap(reopen()) }
		s.Reboot = func() ota.Backend { return wrap(reboot()) }
		return s
	})
}

// TestSuiteHasTeeth: every broken backend fails the suite.
func TestSuiteHasTeeth(t *testing.T) {
	for name := range broken {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(os.Args[0], "-test.run=^TestBroken$", "-test.timeout=1m")
			cmd.Env = append(os.Environ(), brokenEnv+"="+name)
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), "--- FAIL: TestBroken") || strings.Contains(string(out), "panic:") {
				t.Fatalf("the suite did not notice: %v\n%s", err, out)
			}
		})
	}
}
