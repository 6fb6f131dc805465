package otatest_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/otatest"
)

// device returns a device of the three effects, that is offered release 1.
func device(h otatest.Health) (*otatest.Device, *otatest.Repo) {
	repo := otatest.NewRepo()
	r := repo.Add(1, h, otatest.Content{Part: "app", Label: "v1"}, otatest.Content{Part: "os", Label: "v1"})
	d := otatest.NewDevice(repo, otatest.Part{Name: "app", Effect: ota.Live}, otatest.Part{Name: "os", Effect: ota.NeedsReboot})
	d.Offer(r)
	return d, repo
}

// update runs Update in the process that runs now.
func update(t *testing.T, d *otatest.Device) (ota.Result, error) {
	t.Helper()
	u, err := ota.Open(d.Context(), d.Options())
	if err != nil {
		return ota.Result{}, err
	}
	defer func() { _ = u.Close() }()
	return u.Update(d.Context())
}

func Example() {
	repo := otatest.NewRepo()
	first := repo.Add(1, otatest.Healthy(), otatest.Content{Part: "app", Label: "v1"})
	d := otatest.NewDevice(repo, otatest.Part{Name: "app", Effect: ota.Live})
	d.Offer(first)
	for step := 1; ; step++ {
		cut := d.Clone()
		cut.At(step, otatest.PowerCut)
		for done := false; !done; {
			u, err := ota.Open(cut.Context(), cut.Options())
			if err == nil {
				_, err = u.Update(cut.Context())
				_ = u.Close()
			}
			done = err == nil
			if !cut.Up() {
				cut.Boot()
			}
		}
		if cut.Faults() == 0 {
			fmt.Println("every step was cut, and", cut.Runs("app")[0], "runs")
			return
		}
	}
	// Output: every step was cut, and app v1, first file runs
}

func TestRebootBringsUpWhatIsArmed(t *testing.T) {
	d, repo := device(otatest.Healthy())
	if _, err := update(t, d); !errors.Is(err, ota.ErrRebootPending) {
		t.Fatalf("Update returned %v", err)
	}
	nothing := [2]string{}
	if d.Runs("os") != nothing || d.Runs("app") != nothing {
		t.Fatalf("before the boot there is %q, %q", d.Runs("os"), d.Runs("app"))
	}
	refused := d.Clone()
	refused.Refuse("os", 1)
	refused.Boot()
	if refused.Runs("os") != nothing {
		t.Fatal("a boot that was refused came up")
	}
	d.Boot()
	want := otatest.Content{Part: "os", Label: "v1"}.Files()
	if d.Runs("os") != want || d.Installed("os") != nothing {
		t.Fatalf("on trial there is %q, and permanent is %q", d.Runs("os"), d.Installed("os"))
	}
	again := d.Clone()
	again.Boot()
	if again.Runs("os") != nothing {
		t.Fatal("a trial has two boots")
	}
	if res, err := update(t, d); err != nil || res.State != ota.Committed {
		t.Fatalf("Update returned %v, %v", res, err)
	}
	d.Boot()
	if d.Runs("os") != want {
		t.Fatal("what was committed did not come up")
	}
	d.Offer(repo.Add(2, otatest.Healthy(), otatest.Content{Part: "app", Label: "v2"}))
	if res, err := update(t, d); err != nil || res.State != ota.Committed {
		t.Fatalf("Update returned %v, %v", res, err)
	}
}

func TestAfterTheCutNothingHappens(t *testing.T) {
	for _, f := range []otatest.Fault{otatest.PowerCut, otatest.Kill} {
		d, _ := device(otatest.Healthy())
		d.At(5, f)
		o, ctx := d.Options(), d.Context()
		u, err := ota.Open(ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := u.Update(ctx); err == nil {
			t.Fatal("Update succeeded without power")
		}
		if d.Alive() || d.Steps() != 5 || d.Faults() != 1 || ctx.Err() == nil {
			t.Fatalf("%s: alive %v after %d steps, context %v", f, d.Alive(), d.Steps(), ctx.Err())
		}
		if d.Up() != (f == otatest.Kill) {
			t.Fatalf("%s: power is %v", f, d.Up())
		}
		d.Restart()
		if _, err := u.Update(context.Background()); err == nil {
			t.Fatal("a process that ended came back")
		}
		if _, err := o.Backends["app"].Active(context.Background(), "app"); err == nil {
			t.Fatal("a backend of a process that ended answers")
		}
		if err := o.Watchdog.Arm(time.Second); err == nil {
			t.Fatal("a process that ended arms the watchdog")
		}
	}
}

func TestFailLetsTheProcessLive(t *testing.T) {
	d, _ := device(otatest.Healthy())
	d.At(1, otatest.Fail)
	if _, err := update(t, d); err == nil || !d.Alive() {
		t.Fatalf("Update returned %v, alive %v", err, d.Alive())
	}
	if _, err := update(t, d); !errors.Is(err, ota.ErrRebootPending) {
		t.Fatalf("Update returned %v", err)
	}
}

func TestWatchdogBites(t *testing.T) {
	d, _ := device(otatest.Healthy())
	w := d.Options().Watchdog
	for _, step := range []func() error{
		func() error { return w.Arm(10 * time.Second) },
		func() error { d.Wait(9 * time.Second); return w.Kick() },
		func() error { d.Wait(9 * time.Second); return w.Disarm() },
		func() error { d.Wait(time.Hour); return w.Kick() },
		func() error { d.Wait(time.Hour); return w.Arm(10 * time.Second) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	d.Wait(10 * time.Second)
	if d.Up() || d.Resets() != 1 {
		t.Fatalf("up %v after %d resets", d.Up(), d.Resets())
	}
	d.Boot()
	d.Wait(time.Hour)
	if !d.Up() {
		t.Fatal("a boot does not disarm")
	}
}

func TestOneProcessHoldsTheFolder(t *testing.T) {
	d, _ := device(otatest.Healthy())
	u, err := ota.Open(d.Context(), d.Options())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ota.Open(d.Context(), d.Options()); !errors.Is(err, ota.ErrLocked) {
		t.Fatalf("a second Open returned %v", err)
	}
	d.Restart() // a process that ended holds nothing
	if _, err := ota.Open(d.Context(), d.Options()); err != nil {
		t.Fatal(err)
	}
	if err := u.Close(); err == nil {
		t.Log("closing what has ended succeeds")
	}
}

// TestRulesAreSeen breaks rules on purpose.
func TestRulesAreSeen(t *testing.T) {
	d, _ := device(otatest.Sick())
	if _, err := update(t, d); !errors.Is(err, ota.ErrRebootPending) {
		t.Fatalf("Update returned %v", err)
	}
	d.Boot()
	u, err := ota.Open(d.Context(), d.Options())
	if err != nil {
		t.Fatal(err)
	}
	res, err := u.Resume(d.Context())
	if err != nil || len(d.Broken()) > 0 {
		t.Fatalf("Resume returned %v, broken are %q", err, d.Broken())
	}
	c, _ := u.Tx().Release().Component("app")
	o := d.Options()
	b := o.Backends["app"]
	if err := o.Watchdog.Disarm(); err != nil {
		t.Fatal(err)
	}
	if err := b.Commit(d.Context(), res.Tx, c); err != nil {
		t.Fatal(err)
	}
	if err := b.Revert(d.Context(), res.Tx, c); err != nil {
		t.Fatal(err)
	}
	if len(d.Broken()) != 2 {
		t.Fatalf("broken are %q", d.Broken())
	}
}
