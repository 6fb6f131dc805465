package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/pawl-ota/pawl/examples/bar"
	"github.com/pawl-ota/pawl/ota"
)

// show plays all acts, one after the other.
func show(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "pawl-quickstart-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s := newScreen(os.Stdout)
	m := &maker{dir: filepath.Join(dir, "maker"), screen: s}
	if err := m.begin(ctx); err != nil {
		return err
	}
	defer m.stop()
	d := &machine{dir: filepath.Join(dir, "device"), url: m.url, maker: m, screen: s}
	if err := d.build(m.root()); err != nil {
		return err
	}
	for _, act := range []func(context.Context, *maker, *machine) error{first, good, bad, powerLost} {
		if err := act(ctx, m, d); err != nil {
			return err
		}
	}
	s.say("", "that was all of it, in %s; every folder is removed again", bar.Seconds(s.elapsed()))
	return nil
}

// The app of this show: 12 sounds of 1 MB, 200 small files, and a program that
// says whether it works.
const (
	sounds, soundSize = 12, 1 << 20
	pages, pageSize   = 200, 4 << 10
)

// first puts 1.0.0 on an empty device.
func first(ctx context.Context, m *maker, d *machine) error {
	d.screen.act("a new device installs its first release")
	tree := m.tree("1.0.0", "")
	for i := range sounds {
		tree.add(fmt.Sprintf("sounds/%02d.wav", i), noise(int64(i), soundSize))
	}
	for i := range pages {
		tree.add(fmt.Sprintf("pages/%03d.html", i), text(i, pageSize))
	}
	tree.program("exit 0")
	if err := m.publish(ctx, tree); err != nil {
		return err
	}
	return d.update(ctx, "1.0.0", ota.Committed)
}

// good changes little: little is fetched and written.
func good(ctx context.Context, m *maker, d *machine) error {
	d.screen.act("a good release: tried for a second, then kept")
	tree := m.tree("1.1.0", "1.0.0")
	tree.add("pages/007.html", text(1007, pageSize))
	tree.add("sounds/03.wav", noise(1003, soundSize))
	tree.remove("pages/100.html")
	if err := m.publish(ctx, tree); err != nil {
		return err
	}
	return d.update(ctx, "1.1.0", ota.Committed)
}

// bad does not work on the device.
func bad(ctx context.Context, m *maker, d *machine) error {
	d.screen.act("a release that does not work: taken back by the device itself")
	tree := m.tree("1.2.0", "1.1.0")
	tree.program("echo no microphone found; exit 1")
	if err := m.publish(ctx, tree); err != nil {
		return err
	}
	if err := d.update(ctx, "1.1.0", ota.Reverted); err != nil {
		return err
	}
	return d.heldBack(ctx)
}

// powerLost cuts the power twice: while 1.3.0 is fetched, and right after the
// switch to it.
func powerLost(ctx context.Context, m *maker, d *machine) error {
	d.screen.act("the power goes in the middle of a release, twice")
	tree := m.tree("1.3.0", "1.1.0")
	for i := range sounds {
		tree.add(fmt.Sprintf("sounds/more-%02d.wav", i), noise(int64(2000+i), soundSize))
	}
	if err := m.publish(ctx, tree); err != nil {
		return err
	}
	half := func(p ota.Progress) bool { return p.State == ota.Staging && p.Total > 0 && p.Done > p.Total/2 }
	if err := d.cut(ctx, "1.1.0", "half of 1.3.0 was fetched", half); err != nil {
		return err
	}
	trial := func(p ota.Progress) bool { return p.State == ota.InTrial && p.Step == "health" }
	if err := d.cut(ctx, "1.3.0", "1.3.0 was on trial", trial); err != nil {
		return err
	}
	return d.update(ctx, "1.3.0", ota.Committed)
}
