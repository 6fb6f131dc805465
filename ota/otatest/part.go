package otatest

import (
	"maps"
	"slices"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// image is what can be installed as a part: two files, so that a switch can be
// caught half way.
type image [2]half

// half is one file, with the component that it was installed for.
type half struct {
	of   release.Digest
	data string
}

func (i image) empty() bool { return i == image{} }

func (i image) text() [2]string { return [2]string{i[0].data, i[1].data} }

// digest returns the component that i is, if it is one in whole.
func (i image) digest() (d release.Digest, whole bool) {
	return i[0].of, !i.empty() && i[0].of == i[1].of
}

// part is all that there is of one component on a device.
type part struct {
	Part
	live    image // the files, of a part that needs no reboot
	loaded  image // what live was when the process started
	stopped bool  // nobody started it since the boot
	touched int   // calls of verbs

	permanent, armed, booted image // of a part that needs a reboot

	works map[ota.TxID]work
	kept  []image // what commits replaced, newest last
}

// work is what a transaction has set aside for a part.
type work struct {
	of     release.Digest
	staged image
	whole  bool
	undo   bool // before is set
	before image
}

func newPart(p Part) *part { return &part{Part: p, works: map[ota.TxID]work{}} }

func (p *part) clone() *part {
	c := *p
	c.works, c.kept = maps.Clone(p.works), slices.Clone(p.kept)
	return &c
}

func (p *part) reboots() bool { return p.Effect == ota.NeedsReboot }

// runs returns what runs now.
func (p *part) runs() image {
	switch {
	case p.reboots():
		return p.booted
	case p.Effect == ota.NeedsRestart:
		return p.loaded
	case p.stopped:
		return image{}
	}
	return p.live
}

// installed returns what runs after everything was started anew.
func (p *part) installed() image {
	if p.reboots() {
		return p.permanent
	}
	return p.live
}

// boot is the boot loader: what is armed has one boot. An app on trial is
// started by nobody; a committed one starts by itself.
func (p *part) boot(refuse func() bool) {
	if !p.reboots() {
		p.stopped = slices.ContainsFunc(slices.Collect(maps.Values(p.works)), p.onTrial)
		return
	}
	p.booted = p.permanent
	if !p.armed.empty() && !refuse() {
		p.booted = p.armed
	}
	p.armed = image{}
}

// onTrial reports whether what is there is what w activated, or a piece of it.
func (p *part) onTrial(w work) bool {
	d, whole := p.live.digest()
	return w.undo && (!whole || d == w.of)
}

// active is the answer of the part's backend.
func (p *part) active() ota.Active {
	if !p.reboots() {
		return presence(p.live)
	}
	a, next := presence(p.booted), p.armed
	if next.empty() {
		next = p.permanent
	}
	if d, _ := next.digest(); d != a.Digest {
		a.Next = d
	}
	return a
}

func presence(i image) ota.Active {
	d, whole := i.digest()
	switch {
	case i.empty():
		return ota.Active{State: ota.None}
	case !whole:
		return ota.Active{State: ota.Mixed}
	}
	return ota.Active{State: ota.Whole, Digest: d}
}

// find returns bytes that are somewhere on the device.
func (p *part) find(d release.Digest) (string, bool) {
	for _, i := range append(slices.Clone(p.kept), p.live, p.permanent, p.booted) {
		for _, h := range i {
			if h.data != "" && release.Sum([]byte(h.data)) == d {
				return h.data, true
			}
		}
	}
	return "", false
}

// Spoil changes a byte of the first file of what is installed as a part,
// behind everybody's back.
func (d *Device) Spoil(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.state.parts[name]
	for _, i := range []*image{&p.live, &p.permanent, &p.booted} {
		if !i.empty() {
			i[0].data = "spoiled" + i[0].data[1:]
		}
	}
}
