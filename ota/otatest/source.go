package otatest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// SourceHarness is what [TestSource] needs to know of a source under test.
type SourceHarness struct {
	// New returns a Source over one repository, which stays the same for the
	// whole test. It is called for each part of the suite; the Source is a fresh
	// one, with nothing stored from before.
	New func(t *testing.T) ota.Source
	// Device is one for which Newest is the newest of several releases. Newest
	// lists its hardware.
	Device ota.Device
	Newest *release.Release
	// Content are files that Open can read, by name. One of them has at least
	// 1000 bytes.
	Content map[string][]byte
}

// TestSource checks the whole contract of [ota.Source].
func TestSource(t *testing.T, h SourceHarness) {
	for name, part := range map[string]func(*testing.T, SourceHarness){
		"Latest": sourceLatest, "OtherDevices": sourceOtherDevices, "Locator": sourceLocator,
		"Open": sourceOpen, "OpenBeyond": sourceOpenBeyond, "OpenOutside": sourceOpenOutside,
		"Cancel": sourceCancel, "Bytes": sourceBytes,
	} {
		t.Run(name, func(t *testing.T) { part(t, h) })
	}
}

// sourceLimit is how long a call may take after its context has ended.
const sourceLimit = 10 * time.Second

func sourceLatest(t *testing.T, h SourceHarness) {
	s := h.New(t)
	for range 2 {
		r, err := s.Latest(t.Context(), h.Device)
		if err != nil {
			t.Fatalf("Latest: %v", err)
		}
		if r.Digest() != h.Newest.Digest() {
			t.Fatalf("Latest returned %v (%s), want %v (%s)", r.ID, r.Version, h.Newest.ID, h.Newest.Version)
		}
	}
}

func sourceOtherDevices(t *testing.T, h SourceHarness) {
	s := h.New(t)
	for _, c := range []struct {
		what   string
		change func(*ota.Device)
		want   error
	}{
		{"another product", func(d *ota.Device) { d.Product = "no-such-product" }, ota.ErrNoRelease},
		{"another variant", func(d *ota.Device) { d.Variant = "no-such-variant" }, ota.ErrNoRelease},
		{"other hardware", func(d *ota.Device) { d.Hardware = "no such hardware" }, ota.ErrHardware},
		{"unnamed hardware", func(d *ota.Device) { d.Hardware = "" }, ota.ErrHardware},
	} {
		dev := h.Device
		c.change(&dev)
		if r, err := s.Latest(t.Context(), dev); !errors.Is(err, c.want) || r != nil {
			t.Errorf("Latest for %s returned %v and the error %v, want one that is %q", c.what, r, err, c.want)
		}
	}
	if _, err := s.Latest(t.Context(), h.Device); err != nil {
		t.Errorf("Latest for the device itself afterwards: %v", err)
	}
}

func sourceLocator(t *testing.T, h SourceHarness) {
	check := func(s ota.Source, when string) {
		l, err := s.Locator(t.Context(), h.Newest)
		if err != nil {
			t.Fatalf("Locator %s: %v", when, err)
		}
		if l.ID != h.Newest.ID || l.Release != h.Newest.Digest() {
			t.Errorf("Locator %s is of %v (%s)", when, l.ID, l.Release.Short())
		}
	}
	s := h.New(t)
	check(s, "before Latest")
	if _, err := s.Latest(t.Context(), h.Device); err != nil {
		t.Fatalf("Latest: %v", err)
	}
	check(s, "after Latest")
	foreign := *h.Newest
	foreign.Version += " changed"
	if l, err := s.Locator(t.Context(), &foreign); err == nil {
		t.Errorf("Locator of a release that the repository does not hold returned %v", l.ID)
	}
}

func sourceOpen(t *testing.T, h SourceHarness) {
	s := h.New(t)
	for name, want := range h.Content {
		size := int64(len(want))
		for _, r := range [][2]int64{{0, -1}, {0, size}, {0, 0}, {size, -1}, {size, 0}, {size / 2, -1}, {size / 2, size - size/2}, {size / 3, size / 3}, {max(0, size-1), min(1, size)}} {
			got, err := readSource(t.Context(), s, name, r[0], r[1])
			if err != nil {
				t.Errorf("Open(%s, %d, %d): %v", name, r[0], r[1], err)
				continue
			}
			part := want[r[0]:]
			if r[1] >= 0 {
				part = part[:r[1]]
			}
			if !bytes.Equal(got, part) {
				t.Errorf("Open(%s, %d, %d) gave %d bytes that are not the %d bytes there", name, r[0], r[1], len(got), len(part))
			}
		}
	}
}

func readSource(ctx context.Context, s ota.Source, name string, offset, length int64) ([]byte, error) {
	r, err := s.Open(ctx, name, offset, length)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r)
	return data, errors.Join(err, r.Close())
}

// sourceOpenBeyond: where there are fewer bytes than asked for, the read ends
// in an error and not in io.EOF.
func sourceOpenBeyond(t *testing.T, h SourceHarness) {
	s := h.New(t)
	for name, want := range h.Content {
		size := int64(len(want))
		for _, r := range [][2]int64{{0, size + 1}, {size, 1}, {size + 10, 1}, {size / 2, size + 1}, {1 << 40, 1 << 40}} {
			if got, err := readSource(t.Context(), s, name, r[0], r[1]); err == nil {
				t.Errorf("Open(%s, %d, %d) gave %d bytes and no error; the file has %d bytes", name, r[0], r[1], len(got), size)
			}
		}
	}
	if _, err := readSource(t.Context(), s, "content/00/no-such-file.pack", 0, -1); err == nil {
		t.Error("Open of a file that is not there gave no error")
	}
}

func sourceOpenOutside(t *testing.T, h SourceHarness) {
	s := h.New(t)
	for _, name := range []string{"", ".", "..", "/", "/etc/passwd", "../etc/passwd", "content/../../etc/passwd", "content//x", "content/\x00"} {
		if got, err := readSource(t.Context(), s, name, 0, -1); err == nil {
			t.Errorf("Open(%q) gave %d bytes and no error", name, len(got))
		}
	}
}

// sourceCancel: no call outlives its context for long.
func sourceCancel(t *testing.T, h SourceHarness) {
	s := h.New(t)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	start := time.Now()
	if _, err := s.Latest(ended, h.Device); err == nil {
		t.Error("Latest with a context that has ended gave no error")
	}
	for name, want := range h.Content {
		if _, err := readSource(ended, s, name, 0, -1); err == nil && len(want) > 0 {
			t.Error("Open with a context that has ended gave no error")
		}
		ctx, cancel := context.WithCancel(t.Context())
		r, err := s.Open(ctx, name, 0, -1)
		if err != nil {
			t.Fatalf("Open(%s): %v", name, err)
		}
		cancel()
		_, _ = io.Copy(io.Discard, r) // what was buffered may still come
		if err := r.Close(); err != nil {
			t.Errorf("Close in the middle of %s: %v", name, err)
		}
	}
	if took := time.Since(start); took > sourceLimit {
		t.Errorf("calls with a context that had ended took %s", took)
	}
}

// sourceBytes: a source that counts what it reads counts at least what it gave.
func sourceBytes(t *testing.T, h SourceHarness) {
	s := h.New(t)
	counter, ok := s.(interface{ Bytes() int64 })
	if !ok {
		return // counting is not part of the interface
	}
	if n := counter.Bytes(); n != 0 {
		t.Errorf("a new source has read %d bytes", n)
	}
	for name, want := range h.Content {
		before := counter.Bytes()
		if _, err := readSource(t.Context(), s, name, 0, -1); err != nil {
			t.Fatalf("Open(%s): %v", name, err)
		}
		if n := counter.Bytes() - before; n < int64(len(want)) {
			t.Errorf("reading %s counted %d bytes of %d", name, n, len(want))
		}
	}
}
