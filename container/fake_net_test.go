package container

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/pawl-ota/pawl/ota/compose"
)

func (f *fake) Published(ctx context.Context) (all map[uint16]bool, err error) {
	err = f.step(ctx, "published", func() error {
		all = map[uint16]bool{}
		for _, b := range f.boxes {
			for _, p := range b.spec.Service.Ports {
				all[p.HostPort] = all[p.HostPort] || b.up()
			}
		}
		return nil
	})
	return all, err
}

func (f *fake) Networks(ctx context.Context) (all []network, err error) {
	err = f.step(ctx, "networks", func() error {
		for _, id := range slices.Sorted(maps.Keys(f.networks)) {
			all = append(all, f.networks[id])
		}
		return nil
	})
	return all, err
}

func (f *fake) CreateNetwork(ctx context.Context, name string, _ compose.Network, labels map[string]string) (id string, err error) {
	err = f.step(ctx, "create network", func() error {
		for _, n := range f.networks {
			if n.Name == name {
				return errTaken
			}
		}
		f.n++
		id = fmt.Sprintf("net-%04d", f.n)
		f.networks[id] = network{id, name, labels}
		return nil
	})
	return id, err
}

func (f *fake) RemoveNetwork(ctx context.Context, id string) error {
	return f.step(ctx, "remove network", func() error {
		for _, b := range f.boxes {
			if b.up() && slices.Contains(b.Networks, id) {
				return errTaken
			}
		}
		delete(f.networks, id)
		return nil
	})
}

func (f *fake) Volumes(ctx context.Context) (all []volume, err error) {
	err = f.step(ctx, "volumes", func() error {
		for _, name := range slices.Sorted(maps.Keys(f.volumes)) {
			all = append(all, f.volumes[name])
		}
		return nil
	})
	return all, err
}

func (f *fake) CreateVolume(ctx context.Context, v compose.Volume, labels map[string]string) error {
	return f.step(ctx, "create volume", func() error {
		if _, ok := f.volumes[v.Engine]; !ok {
			f.volumes[v.Engine] = volume{v.Engine, labels}
		}
		return nil
	})
}

func (f *fake) RemoveVolume(ctx context.Context, name string) error {
	return f.step(ctx, "remove volume", func() error {
		for _, b := range f.boxes {
			for _, m := range b.spec.Service.Mounts {
				if b.spec.Volumes[m.Source] == name {
					return errTaken
				}
			}
		}
		delete(f.volumes, name)
		return nil
	})
}
