package container

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/compose"
	"github.com/pawl-ota/pawl/ota/release"
)

// Stage implements [ota.Backend]. Containers of an earlier try are made anew:
// an engine that died while it made one may have left a part.
func (c *Compose) Stage(ctx context.Context, tx ota.TxID, comp release.Component, content ota.Content) (ota.Effect, error) {
	if err := c.check(tx, comp); err != nil {
		return "", err
	}
	rec, err := c.load(ctx)
	if err != nil {
		return "", err
	}
	s := rec.Sets[tx]
	if s != nil && s.Component != comp.Digest() && s.State != staging && s.State != staged || s != nil && s.State == reverting {
		return "", fmt.Errorf("cannot stage %s: %w: transaction %s is %s", comp.Name, ota.ErrState, tx, s.State)
	}
	if s != nil && s.Component == comp.Digest() && s.State != staging {
		if there, err := c.allThere(ctx, s); err != nil || there || s.State != staged {
			return ota.Live, err
		}
	}
	app, err := c.readApp(ctx, comp, content)
	if err != nil {
		return "", err
	}
	s = &set{Tx: tx, State: staging, Component: comp.Digest(), App: comp.Index.Digest, Values: c.opts.Values}
	if old := rec.Sets[tx]; old != nil {
		s.Volumes = old.Volumes
	}
	rec.Sets[tx] = s
	if err := c.save(rec); err != nil {
		return "", err
	}
	err = c.build(ctx, rec, s, app, content)
	if errors.Is(err, errMissing) {
		// The containerd store can drop what it was just given, with an image that was
		// removed before. What it lists now is read before it is trusted.
		c.warn(err)
		err = c.build(ctx, rec, s, app, content)
	}
	return ota.Live, err
}

// readApp reads the app document of a component, checks that it can run here, and
// keeps it for as long as a set refers to it.
func (c *Compose) readApp(ctx context.Context, comp release.Component, content ota.Content) (*compose.App, error) {
	data, err := readBlob(ctx, comp.Index, compose.MaxApp, content)
	if err != nil {
		return nil, fmt.Errorf("the app document: %w", err)
	}
	app, err := compose.Parse(data)
	if err != nil {
		return nil, err
	}
	info, err := c.engine.Info(ctx)
	if err != nil {
		return nil, err
	}
	for _, i := range app.Images {
		if i.OS != info.OS || i.Architecture != info.Arch {
			return nil, fmt.Errorf("%w: %.80q is for %.40s/%.40s, and the engine runs %s/%s", ErrPlatform, i.Name, i.OS, i.Architecture, info.OS, info.Arch)
		}
	}
	for _, s := range app.Services {
		if _, err := s.Expand(c.opts.Values); err != nil {
			return nil, err
		}
	}
	if info.Podman {
		if err := refuse(ctx, app, content); err != nil {
			return nil, err
		}
	}
	return app, c.dir.WriteFile(appName(comp.Index.Digest), data)
}

// build makes everything that a set consists of, durable before the record says
// so.
func (c *Compose) build(ctx context.Context, rec *record, s *set, app *compose.App, content ota.Content) error {
	ids := make([]string, len(app.Images))
	for i, image := range app.Images {
		var err error
		if ids[i], err = c.provide(ctx, rec, image, content); err != nil {
			return err
		}
	}
	if err := c.writeFiles(ctx, app, content); err != nil {
		return err
	}
	if err := c.clear(ctx, s.Tx); err != nil {
		return err
	}
	made, err := c.surround(ctx, rec, s, app)
	if err != nil {
		return err
	}
	s.Boxes, s.Images = map[string]string{}, map[string]string{}
	for _, v := range app.Services {
		s.Images[v.Name] = ids[v.Image]
	}
	for _, v := range app.Services {
		if err := c.make(ctx, s, app, v, made); err != nil {
			return err
		}
	}
	if err := c.sync(ctx); err != nil {
		return err
	}
	for i, image := range app.Images {
		rec.Images[image.Config.Digest] = ids[i]
	}
	s.State = staged
	return c.save(rec)
}

// containerdRoot is where containerd keeps images that are Docker's too, unless it is
// dockerd that has started it.
const containerdRoot = "/var/lib/containerd"

// sync makes durable what the engine holds.
func (c *Compose) sync(ctx context.Context) error {
	roots := []string{c.opts.DataRoot}
	if c.opts.DataRoot == "" {
		info, err := c.engine.Info(ctx)
		if err != nil {
			return err
		}
		roots = []string{info.Root}
		if _, err := os.Stat(containerdRoot); err == nil && info.Snapshots {
			roots = append(roots, containerdRoot)
		}
	}
	for _, root := range roots {
		if err := c.syncRoot(root); err != nil {
			return fmt.Errorf("cannot make durable what the engine holds: %w", err)
		}
	}
	return nil
}

// clear removes all containers of a transaction.
func (c *Compose) clear(ctx context.Context, tx ota.TxID) error {
	w, err := c.look(ctx)
	if err != nil {
		return err
	}
	for _, b := range w.of(tx) {
		if err := c.engine.Remove(ctx, b.ID); err != nil {
			return err
		}
	}
	return nil
}

// allThere reports whether the engine has all containers of a set.
func (c *Compose) allThere(ctx context.Context, s *set) (bool, error) {
	w, err := c.look(ctx)
	if err != nil {
		return false, err
	}
	for _, id := range s.Boxes {
		if _, ok := w.box(id); !ok {
			return false, nil
		}
	}
	return true, nil
}

// make makes the container of one service under the name of its transaction, and
// notes its id.
func (c *Compose) make(ctx context.Context, s *set, app *compose.App, v compose.Service, made surrounds) error {
	spec, err := c.spec(s, app, v, made)
	if err != nil {
		return err
	}
	id, err := c.engine.Create(ctx, spec)
	if err != nil {
		return fmt.Errorf("service %s: %w", v.Name, err)
	}
	s.Boxes[v.Name] = id
	return nil
}

// asideName is what a container is called while it is not the one in effect.
func asideName(v compose.Service, tx ota.TxID) string { return v.Container + "." + string(tx) }

// spec is the container of one service: made of the document, never of what is
// there.
func (c *Compose) spec(s *set, app *compose.App, v compose.Service, made surrounds) (boxSpec, error) {
	v, err := v.Expand(s.Values)
	if err != nil {
		return boxSpec{}, err
	}
	spec := boxSpec{
		Name: asideName(v, s.Tx), Image: s.Images[v.Name], Service: v, Restart: compose.Restart{Policy: compose.RestartNo},
		Labels:  c.labels(s, v.Name),
		Volumes: made.volumes,
	}
	for _, n := range v.Networks {
		spec.Networks = append(spec.Networks, attachment{made.networks[n.Network], n})
	}
	for _, join := range []struct {
		mode string
		to   *string
	}{{v.NetworkMode, &spec.NetworkMode}, {v.PID, &spec.PID}, {v.IPC, &spec.IPC}} {
		if *join.to, err = joined(s, join.mode); err != nil {
			return boxSpec{}, err
		}
	}
	for _, f := range v.Files {
		spec.Files = append(spec.Files, fileMount{c.filePath(app, f), f.Target})
	}
	return spec, nil
}

// joined puts the id of a container in the place of the name of a service.
func joined(s *set, mode string) (string, error) {
	const service = "service:"
	if len(mode) < len(service) || mode[:len(service)] != service {
		return mode, nil
	}
	id, ok := s.Boxes[mode[len(service):]]
	if !ok {
		return "", fmt.Errorf("%w: %.80q is not made yet", release.ErrInvalid, mode)
	}
	return "container:" + id, nil
}

func (c *Compose) labels(s *set, service string) map[string]string {
	return map[string]string{
		labelComponent: c.opts.Name, labelRelease: s.Component.String(), labelApp: s.App.String(), labelTx: string(s.Tx), labelService: service,
	}
}

// world is what the engine has of this component's containers.
type world []box

func (c *Compose) look(ctx context.Context) (world, error) {
	return c.engine.Boxes(ctx, labelComponent, c.opts.Name)
}

func (w world) of(tx ota.TxID) world {
	return slices.DeleteFunc(slices.Clone(w), func(b box) bool { return b.Labels[labelTx] != string(tx) })
}

// others returns those that belong to another transaction.
func (w world) others(tx ota.TxID) world {
	return slices.DeleteFunc(slices.Clone(w), func(b box) bool { return b.Labels[labelTx] == string(tx) })
}

func (w world) box(id string) (box, bool) {
	i := slices.IndexFunc(w, func(b box) bool { return b.ID == id })
	if i < 0 {
		return box{}, false
	}
	return w[i], true
}

// surrounds are the networks and volumes of an app at the engine.
type surrounds struct {
	networks map[string]string // ids by name
	volumes  map[string]string // engine names by name
}

// surround makes the networks and volumes that are not there. A network of ours
// with the same definition is shared with the old app.
func (c *Compose) surround(ctx context.Context, rec *record, s *set, app *compose.App) (surrounds, error) {
	made := surrounds{map[string]string{}, map[string]string{}}
	if len(app.Networks) > 0 {
		there, err := c.engine.Networks(ctx)
		if err != nil {
			return made, err
		}
		for _, n := range app.Networks {
			if made.networks[n.Name], err = c.network(ctx, there, n); err != nil {
				return made, err
			}
		}
	}
	if len(app.Volumes) == 0 {
		return made, nil
	}
	return made, c.volumes(ctx, rec, s, app, made)
}

func (c *Compose) network(ctx context.Context, there []network, n compose.Network) (string, error) {
	if t, ok := c.findNetwork(there, n); ok {
		return t.ID, nil
	}
	definition, err := digestOf(n)
	if err != nil {
		return "", err
	}
	name := n.Engine
	if slices.ContainsFunc(there, func(t network) bool { return t.Name == n.Engine }) {
		name += "-" + definition.Short()
	}
	if n.External {
		return "", fmt.Errorf("network %.80q: %w: it is external, and has to be there", n.Engine, errMissing)
	}
	labels := map[string]string{}
	maps.Copy(labels, n.Labels)
	labels[labelComponent], labels[labelNetwork] = c.opts.Name, definition.String()
	return c.engine.CreateNetwork(ctx, name, n, labels)
}

func (c *Compose) ownsNetwork(n network, definition release.Digest) bool {
	return n.Labels[labelComponent] == c.opts.Name && n.Labels[labelNetwork] == definition.String()
}

// volumes makes the volumes that are not there. That it will is recorded first:
// the way back removes those that nothing ever wrote to.
func (c *Compose) volumes(ctx context.Context, rec *record, s *set, app *compose.App, made surrounds) error {
	there, err := c.engine.Volumes(ctx)
	if err != nil {
		return err
	}
	var missing []compose.Volume
	for _, v := range app.Volumes {
		made.volumes[v.Name] = v.Engine
		if slices.ContainsFunc(there, func(t volume) bool { return t.Name == v.Engine }) {
			continue
		}
		if v.External {
			return fmt.Errorf("volume %.80q: %w: it is external, and has to be there", v.Engine, errMissing)
		}
		missing = append(missing, v)
	}
	for _, v := range missing {
		if !slices.Contains(s.Volumes, v.Engine) {
			s.Volumes = append(s.Volumes, v.Engine)
		}
	}
	if len(missing) > 0 {
		if err := c.save(rec); err != nil {
			return err
		}
	}
	for _, v := range missing {
		labels := map[string]string{}
		maps.Copy(labels, v.Labels)
		labels[labelComponent], labels[labelTx] = c.opts.Name, string(s.Tx)
		if err := c.engine.CreateVolume(ctx, v, labels); err != nil {
			return err
		}
	}
	return nil
}
