package container

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pawl-ota/pawl/ota/compose"
	"github.com/pawl-ota/pawl/ota/release"
)

// fault is what happens at one call of a fake engine.
type fault string

const (
	fails     fault = "fails"      // it is not done, and says so
	failsLate fault = "fails late" // it is done, and an error is returned
	hangs     fault = "hangs"      // it is not done, and never returns by itself
	cutBefore fault = "cut before" // the power goes first
	cutAfter  fault = "cut after"  // the power goes when it is done
)

var (
	errFault = errors.New("the fake engine fails, as asked for")
	errPower = errors.New("the power is gone")
)

// fakeImage is an image of a fake engine.
type fakeImage struct {
	config []byte
	layers []string // diff IDs
	broken bool     // it is listed, and cannot be read or run
}

// fakeState is what a fake engine's disk holds.
type fakeState struct {
	images   map[string]fakeImage // by id
	tags     map[string]string    // ids by tag
	layers   map[string][]byte    // by diff ID
	unpacked map[string][]byte    // by diff ID: what containers find
	boxes    map[string]fakeBox
	networks map[string]network
	volumes  map[string]volume
}

type fakeBox struct {
	box
	spec   boxSpec
	manual bool // it was stopped by somebody
}

func (s fakeState) clone() fakeState {
	return fakeState{maps.Clone(s.images), maps.Clone(s.tags), maps.Clone(s.layers), maps.Clone(s.unpacked), maps.Clone(s.boxes), maps.Clone(s.networks), maps.Clone(s.volumes)}
}

// fake is a container engine in memory. It counts the calls that change
// something, and the others too, and can fail each of them.
type fake struct {
	mu        sync.Mutex
	snapshots bool // ids are those of the containerd store
	podman    bool
	fakeState
	synced fakeState
	n      int // ids given out
	calls  []string
	at     int // the call that the fault happens at; 0: none
	how    fault
	// changes has only those calls count that change something.
	changes bool
	lossy   bool // a cut takes what was not synced
	off     bool
	down    bool   // it does not listen
	stale   uint16 // a port that it holds for nobody
	// gone, if set, says that the power went elsewhere, and onCut is told that it
	// goes here.
	gone   func() bool
	onCut  func()
	broken []string // rules that were broken
	// behave, if set, says how a container is once it was started.
	behave func(boxSpec) (boxState, string, int)
	loads  []int  // layers in each archive
	cutOff int    // archives that were not read to their end
	watch  func() // is called after every call
}

func newFake(snapshots bool) *fake {
	s := fakeState{map[string]fakeImage{}, map[string]string{}, map[string][]byte{}, map[string][]byte{}, map[string]fakeBox{}, map[string]network{}, map[string]volume{}}
	return &fake{snapshots: snapshots, fakeState: s, synced: s.clone()}
}

// reads are the calls that change nothing.
var reads = map[string]bool{"info": true, "published": true, "image": true, "tagged": true, "save": true, "files": true, "boxes": true, "box": true, "networks": true, "volumes": true}

// step is one call: f is what it does.
func (f *fake) step(ctx context.Context, what string, do func() error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if f.off || f.gone != nil && f.gone() {
		return errPower
	}
	if f.down && what != "record" && what != "sync" {
		return ErrEngine
	}
	if f.changes && reads[what] {
		return do()
	}
	f.calls = append(f.calls, what)
	how := f.how
	if len(f.calls) != f.at {
		how = ""
	}
	switch how {
	case fails:
		return errFault
	case hangs:
		if ctx.Done() == nil {
			return errFault // a disk, of which nobody can wait for less
		}
		f.mu.Unlock()
		<-ctx.Done()
		f.mu.Lock()
		return ctx.Err()
	case cutBefore:
		f.cut()
		return errPower
	}
	err := do()
	if f.watch != nil {
		f.watch()
	}
	switch how {
	case failsLate:
		return errors.Join(errFault, err)
	case cutAfter:
		f.cut()
		return errPower
	}
	return err
}

// arm has call n from now on end so.
func (f *fake) arm(n int, how fault) {
	f.calls, f.at, f.how = nil, n, how
}

// struck reports whether the fault has happened.
func (f *fake) struck() bool { return f.at > 0 && len(f.calls) >= f.at }

// cut takes the power.
func (f *fake) cut() {
	f.off = true
	if f.onCut != nil {
		f.onCut()
	}
	if f.lossy {
		f.fakeState = f.synced.clone()
	}
	for id, b := range f.boxes {
		if b.up() {
			b.State, b.Exit = exited, 137
			f.boxes[id] = b
		}
	}
}

// boot starts the engine, which starts what it has a policy for.
func (f *fake) boot() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.off {
		f.cut()
	}
	f.off, f.at = false, 0
	for id, b := range f.boxes {
		policy := b.Restart.Policy
		if policy == compose.RestartAlways || policy == compose.RestartUnlessStopped && !b.manual && !b.Started.IsZero() {
			if err := f.run(id); err != nil {
				f.broken = append(f.broken, "after a boot: "+err.Error())
			}
		}
	}
}

// sync is what syncRoot is in tests.
func (f *fake) sync(ctx context.Context) error {
	return f.step(ctx, "sync", func() error {
		f.synced = f.clone()
		return nil
	})
}

func (f *fake) Info(ctx context.Context) (i engineInfo, err error) {
	err = f.step(ctx, "info", func() error {
		i = engineInfo{Root: "/", OS: "linux", Arch: "amd64", Snapshots: f.snapshots, Podman: f.podman}
		return nil
	})
	return i, err
}

func (f *fake) resolve(ref string) (string, bool) {
	if id, ok := f.tags[ref]; ok {
		return id, true
	}
	_, ok := f.images[ref]
	return ref, ok
}

func (f *fake) describe(id string) imageInfo {
	i := imageInfo{ID: id, Layers: f.images[id].layers, OS: "linux", Arch: "amd64"}
	for tag, to := range f.tags {
		if to == id {
			i.Tags = append(i.Tags, tag)
		}
	}
	slices.Sort(i.Tags)
	return i
}

func (f *fake) Image(ctx context.Context, ref string) (i imageInfo, err error) {
	err = f.step(ctx, "image", func() error {
		id, ok := f.resolve(ref)
		if !ok {
			return errMissing
		}
		i = f.describe(id)
		return nil
	})
	return i, err
}

func (f *fake) Tagged(ctx context.Context, repository string) (all []imageInfo, err error) {
	err = f.step(ctx, "tagged", func() error {
		for _, id := range slices.Sorted(maps.Keys(f.images)) {
			i := f.describe(id)
			if slices.ContainsFunc(i.Tags, func(t string) bool { return strings.HasPrefix(t, repository+":") }) {
				all = append(all, i)
			}
		}
		return nil
	})
	return all, err
}

func (f *fake) Load(ctx context.Context, archive io.Reader) error {
	data, err := io.ReadAll(archive)
	if err != nil {
		return err
	}
	return f.step(ctx, "load", func() error { return f.load(data) })
}

func (f *fake) load(archive []byte) error {
	files := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		data, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		files[h.Name] = data
	}
	var manifest []struct {
		Config           string
		RepoTags, Layers []string
	}
	if err := json.Unmarshal(files["manifest.json"], &manifest); err != nil {
		return err
	}
	sent := 0
	for _, m := range manifest {
		var config imageConfig
		if err := json.Unmarshal(files[m.Config], &config); err != nil {
			return err
		}
		for i, name := range m.Layers {
			id := config.RootFS.DiffIDs[i]
			data, ok := files[name]
			if ok {
				sent++
			}
			if !ok && !f.snapshots && !f.podman {
				data, ok = f.layers[id]
			}
			if !ok {
				return fmt.Errorf("layer %s is not there", name)
			}
			if "sha256:"+release.Sum(data).String() != id {
				return errors.New("invalid diffID")
			}
			if _, there := f.layers[id]; !there { // what is listed is not loaded again
				f.layers[id], f.unpacked[id] = data, data
			}
		}
		id := f.imageID(files[m.Config])
		if _, there := f.images[id]; !there {
			f.images[id] = fakeImage{config: files[m.Config], layers: config.RootFS.DiffIDs}
		}
		for _, tag := range m.RepoTags {
			f.tags[tag] = id
		}
	}
	f.loads = append(f.loads, sent)
	return nil
}

func (f *fake) imageID(config []byte) string {
	if f.snapshots {
		config = append([]byte("manifest of "), config...)
	}
	return "sha256:" + release.Sum(config).String()
}

func (f *fake) Save(ctx context.Context, ref string) (r io.ReadCloser, err error) {
	err = f.step(ctx, "save", func() error {
		id, ok := f.resolve(ref)
		if !ok {
			return errMissing
		}
		i := f.images[id]
		if i.broken {
			return errors.New("open /var/lib/docker/overlay2/x: no such file or directory")
		}
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for n, data := range append([][]byte{i.config}, f.contents(i.layers)...) {
			_ = w.WriteHeader(&tar.Header{Name: fmt.Sprint(n), Size: int64(len(data)), Mode: 0o600})
			_, _ = w.Write(data)
		}
		_ = w.Close()
		r = &saved{Reader: io.MultiReader(&b, bytes.NewReader(make([]byte, 8192))), f: f}
		return nil
	})
	return r, err
}

// Files lays the layers over each other, of which none takes anything away.
func (f *fake) Files(ctx context.Context, ref string, _ map[string]string) (r io.ReadCloser, err error) {
	err = f.step(ctx, "files", func() error {
		id, ok := f.resolve(ref)
		if !ok {
			return errMissing
		}
		var all []byte
		for _, l := range f.images[id].layers {
			all = append(all, bytes.TrimRight(f.unpacked[l], "\x00")...)
			all = append(all, make([]byte, (512-len(all)%512)%512)...)
		}
		r = io.NopCloser(bytes.NewReader(append(all, make([]byte, 1024)...)))
		return nil
	})
	return r, err
}

func (f *fake) contents(ids []string) (all [][]byte) {
	for _, id := range ids {
		all = append(all, f.layers[id])
	}
	return all
}

func (f *fake) Pull(ctx context.Context, ref string, _ Login) error {
	return f.step(ctx, "pull", func() error { return errMissing })
}

func (f *fake) Tag(ctx context.Context, id, tag string) error {
	return f.step(ctx, "tag", func() error {
		to, ok := f.resolve(id)
		if !ok {
			return errMissing
		}
		f.tags[tag] = to
		return nil
	})
}

func (f *fake) Untag(ctx context.Context, ref string, force bool) error {
	return f.step(ctx, "untag", func() error {
		id, ok := f.resolve(ref)
		if !ok {
			return nil
		}
		used := false
		for _, b := range f.boxes {
			used = used || b.Image == id && (b.up() || !force)
		}
		if i := f.describe(id); used && (force || len(i.Tags) < 2) {
			return errTaken
		}
		for tag, to := range f.tags {
			if tag == ref || force && to == id {
				delete(f.tags, tag)
			}
		}
		if len(f.describe(id).Tags) == 0 {
			layers := f.images[id].layers
			delete(f.images, id)
			f.dropLayers(layers)
		}
		return nil
	})
}

// dropLayers removes layers that no image has.
func (f *fake) dropLayers(ids []string) {
	for _, id := range ids {
		kept := false
		for _, i := range f.images {
			kept = kept || slices.Contains(i.layers, id)
		}
		if !kept {
			delete(f.layers, id)
			delete(f.unpacked, id)
		}
	}
}

func (f *fake) Boxes(ctx context.Context, label, value string) (all []box, err error) {
	err = f.step(ctx, "boxes", func() error {
		for _, id := range slices.Sorted(maps.Keys(f.boxes)) {
			if f.boxes[id].Labels[label] == value {
				all = append(all, f.boxes[id].box)
			}
		}
		return nil
	})
	return all, err
}

func (f *fake) Box(ctx context.Context, id string) (b box, err error) {
	err = f.step(ctx, "box", func() error {
		have, ok := f.boxes[id]
		if !ok {
			return errMissing
		}
		b = have.box
		return nil
	})
	return b, err
}

func (f *fake) Create(ctx context.Context, s boxSpec) (id string, err error) {
	err = f.step(ctx, "create", func() error {
		if _, ok := f.images[s.Image]; !ok {
			return errMissing
		}
		for _, b := range f.boxes {
			if b.Name == s.Name {
				return errTaken
			}
		}
		for _, a := range s.Networks {
			if _, ok := f.networks[a.ID]; !ok {
				return fmt.Errorf("network %q: %w", a.ID, errMissing)
			}
		}
		f.n++
		id = fmt.Sprintf("box-%04d", f.n)
		b := box{ID: id, Name: s.Name, Labels: maps.Clone(s.Labels), Image: s.Image, State: created, Restart: normal(s.Restart), Limits: s.Service.Limits}
		for _, a := range s.Networks {
			b.Networks = append(b.Networks, a.ID)
		}
		f.boxes[id] = fakeBox{box: b, spec: s}
		return nil
	})
	return id, err
}

func (f *fake) Start(ctx context.Context, id string) error {
	return f.step(ctx, "start", func() error { return f.run(id) })
}

// run starts a container. Two of one service, and two with one port, do not run
// at a time.
func (f *fake) run(id string) error {
	b, ok := f.boxes[id]
	if !ok {
		return errMissing
	}
	if b.up() {
		return nil
	}
	if f.images[b.Image].broken {
		return errors.New("exec format error")
	}
	for _, other := range f.boxes {
		if other.ID == id || !other.up() {
			continue
		}
		if other.Labels[labelService] == b.Labels[labelService] && b.spec.Service.Strategy != compose.Handover {
			f.broken = append(f.broken, fmt.Sprintf("%s and %s of one service run", b.Name, other.Name))
		}
		for _, p := range b.spec.Service.Ports {
			if slices.Contains(other.spec.Service.Ports, p) {
				return fmt.Errorf("port %d is already allocated: %w", p.HostPort, errPort)
			}
		}
	}
	if p := b.spec.Service.Ports; f.stale > 0 && len(p) > 0 && p[0].HostPort == f.stale {
		return fmt.Errorf("port %d is already allocated: %w", f.stale, errPort)
	}
	b.State, b.Exit, b.manual = running, 0, false
	f.n++
	b.Started = time.Unix(int64(1e9+f.n), 0)
	if b.spec.Service.Healthcheck != nil {
		b.Health = "healthy"
	}
	if b.spec.Service.OneShot {
		b.State = exited
	}
	if f.behave != nil {
		if state, health, code := f.behave(b.spec); state != "" {
			b.State, b.Health, b.Exit = state, health, code
		}
	}
	f.boxes[id] = b
	return nil
}

// change changes a container.
func (f *fake) change(ctx context.Context, what, id string, do func(*fakeBox) error) error {
	return f.step(ctx, what, func() error {
		b, ok := f.boxes[id]
		if !ok {
			return errMissing
		}
		err := do(&b)
		f.boxes[id] = b
		return err
	})
}

func (f *fake) Stop(ctx context.Context, id string, _ time.Duration) error {
	return f.change(ctx, "stop", id, func(b *fakeBox) error {
		if b.up() {
			b.State, b.Exit = exited, 143
		}
		b.manual = true
		return nil
	})
}

func (f *fake) SetName(ctx context.Context, id, name string) error {
	return f.change(ctx, "rename", id, func(b *fakeBox) error {
		for _, other := range f.boxes {
			if other.Name == name {
				return errTaken
			}
		}
		b.Name = name
		return nil
	})
}

func (f *fake) SetRestart(ctx context.Context, id string, r compose.Restart) error {
	return f.change(ctx, "policy", id, func(b *fakeBox) error {
		b.Restart = normal(r)
		return nil
	})
}

func (f *fake) Remove(ctx context.Context, id string) error {
	return f.step(ctx, "remove", func() error {
		delete(f.boxes, id)
		return nil
	})
}
