package otatest

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"testing"
)

func newDir() (*Device, stateDir) {
	d := NewDevice(NewRepo(), Part{Name: "part"})
	return d, stateDir{&process{d: d, id: d.state.starts, ctx: d.ctx}}
}

// place puts data under a name without making it durable.
func place(t *testing.T, dir stateDir, name, data string) {
	t.Helper()
	f, err := dir.Create(name)
	if err == nil {
		_, err = f.Write([]byte(data))
	}
	if err == nil {
		err = f.Place()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestPlacedIsNotDurable: a power cut does all that it may do to a file that
// was placed and not synced, and nothing to one that was synced or written.
func TestPlacedIsNotDurable(t *testing.T) {
	found := map[string]int{}
	for padding := range 10 {
		d, dir := newDir()
		for i := range padding {
			if err := dir.WriteFile(fmt.Sprint("padding", i), nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := dir.WriteFile("written", []byte("old")); err != nil {
			t.Fatal(err)
		}
		place(t, dir, "blobs/synced", "synced")
		if err := dir.Sync(); err != nil {
			t.Fatal(err)
		}
		place(t, dir, "written", "new!")
		place(t, dir, "blobs/placed", "placed")
		d.Cut(PowerCut)
		d.Boot()
		dir = stateDir{&process{d: d, id: d.state.starts, ctx: d.ctx}}
		if data, err := dir.ReadFile("blobs/synced", 10); string(data) != "synced" {
			t.Fatalf("what was synced is %q, %v", data, err)
		}
		for _, name := range []string{"written", "blobs/placed"} {
			data, err := dir.ReadFile(name, 10)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			found[fmt.Sprintf("%s %q %v", name, data, err != nil)]++
		}
	}
	for _, want := range []string{
		`written "old" false`, `written "new!" false`, `written "ne" false`, `written "" false`, `written "\x00\x00\x00\x00" false`,
		`blobs/placed "" true`, `blobs/placed "placed" false`, `blobs/placed "pla" false`,
	} {
		if found[want] == 0 {
			t.Errorf("no cut left %s; there was %v", want, found)
		}
	}
}

func TestKillKeepsWhatWasPlaced(t *testing.T) {
	d, dir := newDir()
	place(t, dir, "blobs/placed", "placed")
	d.Restart()
	dir = stateDir{&process{d: d, id: d.state.starts, ctx: d.ctx}}
	if data, err := dir.ReadFile("blobs/placed", 10); string(data) != "placed" {
		t.Fatalf("there is %q, %v", data, err)
	}
}

func TestList(t *testing.T) {
	_, dir := newDir()
	for _, name := range []string{"b", "a", "blobs/y", "blobs/x"} {
		if err := dir.WriteFile(name, nil); err != nil {
			t.Fatal(err)
		}
	}
	for folder, want := range map[string][]string{".": {"a", "b", "blobs"}, "": {"a", "b", "blobs"}, "blobs": {"x", "y"}, "none": nil} {
		if got, err := dir.List(folder); err != nil || !slices.Equal(got, want) {
			t.Errorf("List(%q) returned %v, %v", folder, got, err)
		}
	}
}

// TestAppendedIsNotDurable: a power cut does all that it may do to what was not
// persisted of a file, and nothing to what was.
func TestAppendedIsNotDurable(t *testing.T) {
	found := map[string]bool{}
	for padding := range 20 {
		d, dir := newDir()
		for i := range padding {
			if err := dir.WriteFile(fmt.Sprint("padding", i), nil); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range []string{"spool/new", "spool/kept"} {
			l, err := dir.Append(name, 0)
			if err != nil {
				t.Fatal(err)
			}
			if name == "spool/kept" {
				_, _ = l.Write([]byte("kept"))
				if err := l.Persist(); err != nil {
					t.Fatal(err)
				}
			}
			_, _ = l.Write([]byte("lost"))
		}
		d.Cut(PowerCut)
		d.Boot()
		dir = stateDir{&process{d: d, id: d.state.starts, ctx: d.ctx}}
		for _, name := range []string{"spool/new", "spool/kept"} {
			data, err := dir.ReadFile(name, 10)
			found[fmt.Sprintf("%s %q %v", name[6:], data, err != nil)] = true
		}
	}
	for _, want := range []string{
		`new "" true`, `new "lo" false`, `new "lost" false`, `new "\x00\x00\x00\x00" false`, `new "lo&!" false`,
		`kept "kept" false`, `kept "keptlo" false`, `kept "keptlost" false`, `kept "kept\x00\x00\x00\x00" false`, `kept "keptlo&!" false`,
	} {
		if !found[want] {
			t.Errorf("no cut left %s; there was %v", want, found)
		}
	}
	if len(found) != 10 {
		t.Errorf("more than that was left: %v", found)
	}
}

// TestClearIsNotDurable: what was durable may come back.
func TestClearIsNotDurable(t *testing.T) {
	back := map[bool]bool{}
	for padding := range 2 {
		d, dir := newDir()
		for i := range padding {
			_ = dir.WriteFile(fmt.Sprint("padding", i), nil)
		}
		if err := dir.WriteFile("spool/a", []byte("a")); err != nil {
			t.Fatal(err)
		}
		if err := dir.Clear("spool"); err != nil {
			t.Fatal(err)
		}
		if names, _ := dir.List("spool"); len(names) != 0 {
			t.Fatalf("Clear left %v", names)
		}
		d.Cut(PowerCut)
		d.Boot()
		back[len(d.Written("spool/")) == 1] = true
	}
	if len(back) != 2 {
		t.Errorf("cleared files came back: %v", back)
	}
}
