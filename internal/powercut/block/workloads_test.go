package block

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"github.com/pawl-ota/pawl/internal/powercut"
	"github.com/pawl-ota/pawl/internal/powercut/check"
	"github.com/pawl-ota/pawl/internal/powercut/firmware"
	"github.com/pawl-ota/pawl/internal/seam"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/durable"
	"github.com/pawl-ota/pawl/ota/tuf"
)

// campaign is a program that is recorded, and what must hold after it.
type campaign struct {
	from check.Version // the device that it begins with
	work workload
	look Look
}

var campaigns = map[string]campaign{
	"update":   {check.V1, device(powercut.Update, check.V2), settle},
	"sick":     {check.V1, device(sick, check.V1), settle},
	"rollback": {check.V2, device(powercut.Rollback, check.V1), settle},
	"install":  {check.None, device(powercut.Update, check.V2), settle},
	"resume":   {check.None, resuming, settle}, // begins with a state of another one
	"trust":    {check.V1, refreshing, lookRefreshed},
	"file":     {check.None, replacing(durable.WriteFile), lookReplaced},

	// What the machinery has to notice.
	"bare renameio":         {check.None, replacing(bare), lookReplaced},
	"file without fsync":    {check.None, without("fsync", replacing(durable.WriteFile)), lookReplaced},
	"file without fsyncdir": {check.None, without("fsyncdir", replacing(durable.WriteFile)), lookReplaced},
	"update without fsync":  {check.V1, without("fsync", device(powercut.Update, check.V2)), settle},
}

// without is a workload from which every step of that kind is left out.
func without(left string, w workload) workload {
	return func(ctx context.Context, dir string, ack func(string) error) error {
		step := func(op, _ string, call func() error) error {
			if op == left {
				return nil
			}
			return call()
		}
		seam.Step.Store(&step)
		return w(ctx, dir, ack)
	}
}

func bare(path string, data []byte, perm os.FileMode) error {
	return renameio.WriteFile(path, data, perm)
}

// device takes a device through its verbs, and says after each how it ended, and
// what the device is from then on: after a commit, and at last.
func device(verbs func(ctx context.Context, run powercut.Run, dir string) error, to check.Version) workload {
	return func(ctx context.Context, dir string, ack func(string) error) (err error) {
		run := func(ctx context.Context, dir, verb string) firmware.Answer {
			a := powercut.InProcess(ctx, dir, verb)
			mark := fmt.Sprintf("%s: %d %s", verb, a.Code, a.Result)
			if a.Code == firmware.ExitDone && a.Result.State == ota.Committed {
				mark = check.Version(a.Result.To.Seq).String()
			}
			err = errors.Join(err, ack(mark))
			return a
		}
		return errors.Join(verbs(ctx, run, dir), err, ack(to.String()))
	}
}

// sick takes a device to a release on which it is sick, and so back.
func sick(ctx context.Context, run powercut.Run, dir string) error {
	if err := durable.WriteFile(filepath.Join(dir, "health"), []byte("sick\n"), 0o644); err != nil {
		return err
	}
	a := run(ctx, dir, firmware.VerbUpdate)
	for boots := 0; a.Code == firmware.ExitBoot && boots < 8; boots++ {
		run(ctx, dir, firmware.VerbBoot)
		a = run(ctx, dir, firmware.VerbFinish)
	}
	_, err := check.Device(dir, check.V1)
	return err
}

// resuming has a device settle after a power cut. When nothing is open then, it
// stays what it is.
func resuming(ctx context.Context, dir string, ack func(string) error) error {
	s, err := powercut.Settle(ctx, powercut.InProcess, dir)
	if err == nil && s.State == ota.Idle {
		err = ack(s.Version().String())
	}
	return err
}

// goodUpdate is how many states there are for each that is updated afterwards.
const goodUpdate = 10

// settle boots a device as often as it asks for, and once more, and looks what
// it is. Some have to take an update then.
func settle(disk string, v Visit) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var want []check.Version
	for _, version := range []check.Version{check.None, check.V1, check.V2} {
		if v.Last == version.String() {
			want = append(want, version)
		}
	}
	dir := deviceOn(disk)
	for range 2 {
		s, err := powercut.Settle(ctx, powercut.InProcess, dir, want...)
		if err != nil {
			return err
		}
		if s.State == ota.Idle { // and so it stays
			want = []check.Version{s.Version()}
			if err := check.Tidy(dir); err != nil {
				return err
			}
		}
	}
	if v.N%goodUpdate == 0 {
		return update(ctx, dir)
	}
	return nil
}

// update has a device take a release on which it is not sick.
func update(ctx context.Context, dir string) error {
	if err := os.WriteFile(filepath.Join(dir, "health"), []byte("ok\n"), 0o644); err != nil {
		return err
	}
	return powercut.Update(ctx, powercut.InProcess, dir)
}

// replaced is how often a file is replaced.
const replaced = 30

// replacing replaces one file again and again.
func replacing(write func(path string, data []byte, perm os.FileMode) error) workload {
	return func(_ context.Context, dir string, ack func(string) error) error {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		for i := range replaced {
			if err := write(filepath.Join(dir, "file"), numbered(i+1), 0o600); err != nil {
				return err
			}
			if err := ack(strconv.Itoa(i + 1)); err != nil {
				return err
			}
		}
		return nil
	}
}

// numbered is the content of the file after i replacements, of a length of its
// own.
func numbered(i int) []byte {
	return fmt.Appendf(nil, "%d\n%s", i, strings.Repeat(strconv.Itoa(i)+"\n", i*37%3000))
}

// lookReplaced wants the file of the last call that returned, or of the one
// after it.
func lookReplaced(disk string, v Visit) error {
	acked := v.Marks
	data, err := os.ReadFile(filepath.Join(deviceOn(disk), "file"))
	if os.IsNotExist(err) && acked == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	word, _, _ := strings.Cut(string(data), "\n")
	i, _ := strconv.Atoi(word)
	if string(data) != string(numbered(i)) && i+acked > 0 {
		return fmt.Errorf("the file holds %d bytes that nobody wrote", len(data))
	}
	if i < acked {
		return fmt.Errorf("the file is number %d, and WriteFile had returned for number %d", i, acked)
	}
	return nil
}

// refreshes is how many versions of the repository there are, beside the first,
// in folders below the device.
const refreshes = 12

// refreshing brings the trust store up to date with one version of the
// repository after the other.
func refreshing(ctx context.Context, dir string, ack func(string) error) error {
	for i := range refreshes {
		if err := refresh(ctx, dir, i+1); err != nil {
			return err
		}
		if err := ack(strconv.Itoa(i + 1)); err != nil {
			return err
		}
	}
	return nil
}

func refresh(ctx context.Context, dir string, version int) error {
	s, err := tuf.New(tuf.Options{
		URL:      filepath.Join(dir, "versions", strconv.Itoa(version)),
		RootFile: filepath.Join(dir, "root.json"),
		Dir:      filepath.Join(dir, "state", "trust"),
	})
	if err != nil {
		return err
	}
	return errors.Join(s.Refresh(ctx), s.Close())
}

// lookRefreshed wants that nothing older than what was refreshed to is taken
// any more, that the newest is, and that an update still finds its way.
func lookRefreshed(disk string, v Visit) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dir := deviceOn(disk)
	if v.Marks > 0 {
		if err := refresh(ctx, dir, v.Marks-1); !errors.Is(err, tuf.ErrRollback) {
			return fmt.Errorf("version %d was taken, and now %d: %w", v.Marks, v.Marks-1, err)
		}
	}
	if err := refresh(ctx, dir, refreshes); err != nil {
		return fmt.Errorf("the newest version is not taken: %w", err)
	}
	if v.N%goodUpdate == 0 {
		return update(ctx, dir)
	}
	return nil
}
