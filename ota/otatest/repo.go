package otatest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// Kind is the kind of component that a simulated device handles. Its index is
// a JSON list of two blobs.
const Kind = "simulated"

// Repo is a repository of releases for simulated devices. It is filled first,
// and may then be used by many devices at once.
type Repo struct {
	device   ota.Device
	memory   *Memory
	blobs    Blobs
	health   map[release.Digest]Health // by component
	releases map[uint64]*release.Release
	scripts  map[string]Script // by program
	change   func(*release.Release)
}

// NewRepo returns an empty repository.
func NewRepo() *Repo {
	return &Repo{
		device:   ota.Device{ID: "simulated", Product: "sim", Variant: "model", Hardware: "none"},
		memory:   NewMemory(),
		blobs:    Blobs{},
		health:   map[release.Digest]Health{},
		releases: map[uint64]*release.Release{},
		scripts:  map[string]Script{},
	}
}

// Content names what one part gets in a release. Equal labels give equal
// components.
type Content struct{ Part, Label string }

// Files returns the two files that a part runs once content is installed.
func (c Content) Files() [2]string {
	return [2]string{c.Part + " " + c.Label + ", first file", c.Part + " " + c.Label + ", second file"}
}

// Change has change make something else of each document that is added from now on.
func (r *Repo) Change(change func(*release.Release)) { r.change = change }

// Add makes a release, whose components are in the order of contents, and
// which answers health questions as h says. A component that an earlier
// release had keeps that one's answers. It panics where a name or seq is not
// valid.
func (r *Repo) Add(seq uint64, h Health, contents ...Content) *release.Release {
	return r.add(seq, h, false, contents)
}

// AddScripted is Add of a release in which it itself and each component has one
// [Script] at every point of the transaction, with an undo where there can be
// one. A script counts as run when both of its halves are: [Device.Scripts].
func (r *Repo) AddScripted(seq uint64, h Health, contents ...Content) *release.Release {
	return r.add(seq, h, true, contents)
}

func (r *Repo) add(seq uint64, h Health, scripted bool, contents []Content) *release.Release {
	rel := &release.Release{
		Format:  release.Format,
		ID:      release.ID{Product: r.device.Product, Variant: r.device.Variant, Seq: seq},
		Version: fmt.Sprintf("%d.0.0", seq),
		Issued:  epoch,
	}
	var blobs [][]byte
	for _, c := range contents {
		component, parts := newComponent(c)
		blobs = append(blobs, parts...)
		rel.Components = append(rel.Components, component)
		if _, ok := r.health[component.Digest()]; !ok {
			r.health[component.Digest()] = h
		}
	}
	if scripted {
		blobs = append(blobs, r.addScripts(rel)...)
	}
	if r.change != nil {
		r.change(rel)
	}
	r.releases[seq] = rel
	r.blobs.Add(blobs...)
	r.memory.Put(rel, blobs...)
	return rel
}

// Blobs returns the content of all releases, with their indexes.
func (r *Repo) Blobs() Blobs { return r.blobs }

// newComponent returns a component with its index and its two files.
func newComponent(c Content) (release.Component, [][]byte) {
	files := c.Files()
	blobs := [][]byte{nil, []byte(files[0]), []byte(files[1])}
	index, err := json.Marshal([]release.Blob{blobOf(blobs[1]), blobOf(blobs[2])})
	if err != nil {
		panic(err)
	}
	blobs[0] = index
	return release.Component{
		Name: c.Part, Kind: Kind, Index: blobOf(index),
		Keep: release.Keep{Previous: 1, Repair: release.RepairFull},
	}, blobs
}

func blobOf(data []byte) release.Blob {
	return release.Blob{Digest: release.Sum(data), Size: int64(len(data))}
}

// repoSource is the repository as one process reaches it.
type repoSource struct{ *process }

func (s repoSource) online() (offered *release.Release, err error) {
	off := false
	err = s.look(func(s *state) { offered, off = s.offered, s.offline })
	if off {
		err = fmt.Errorf("otatest: the device is offline: %w", io.ErrUnexpectedEOF)
	}
	return offered, err
}

func (s repoSource) Latest(context.Context, ota.Device) (*release.Release, error) {
	r, err := s.online()
	if err == nil && r == nil {
		return nil, ota.ErrNoRelease
	}
	return r, err
}

func (s repoSource) Locator(ctx context.Context, r *release.Release) (*release.Locator, error) {
	if _, err := s.online(); err != nil {
		return nil, err
	}
	return s.d.repo.memory.Locator(ctx, r)
}

func (s repoSource) Open(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	if _, err := s.online(); err != nil {
		return nil, err
	}
	r, err := s.d.repo.memory.Open(ctx, name, offset, length)
	if err != nil {
		return nil, err
	}
	return &onLine{s.process, r, name, offset}, nil
}
