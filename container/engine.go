package container

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	docker "github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/mount"
	dockernet "github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/registry"
	dockervol "github.com/docker/docker/api/types/volume"
	"github.com/docker/docker/client"
	"github.com/docker/go-connections/nat"

	"github.com/pawl-ota/pawl/ota/compose"
)

// dockerEngine is the engine behind the Docker API. No other file knows it.
type dockerEngine struct{ cli *client.Client }

func dial(host string) (engine, error) {
	opts := []client.Opt{client.WithAPIVersionNegotiation()}
	if host != "" {
		opts = append(opts, client.WithHost(host))
	} else {
		opts = append(opts, client.FromEnv)
	}
	cli, err := client.NewClientWithOpts(opts...)
	if err != nil {
		return nil, err
	}
	return &dockerEngine{cli}, nil
}

// explain puts this package's errors in front of the client's.
func explain(err error) error {
	switch {
	case err == nil:
		return nil
	case client.IsErrConnectionFailed(err):
		return fmt.Errorf("%w: %w", ErrEngine, err)
	case errdefs.IsNotFound(err):
		return fmt.Errorf("%w: %w", errMissing, err)
	case errdefs.IsConflict(err):
		return fmt.Errorf("%w: %w", errTaken, err)
	}
	return err
}

// gone is explain for a removal, which what is not there needs no more.
func gone(err error) error {
	if errdefs.IsNotFound(err) {
		return nil
	}
	return explain(err)
}

func (e *dockerEngine) Info(ctx context.Context) (engineInfo, error) {
	i, err := e.cli.Info(ctx)
	if err != nil {
		return engineInfo{}, explain(err)
	}
	version, err := e.cli.ServerVersion(ctx)
	if err != nil {
		return engineInfo{}, explain(err)
	}
	out := engineInfo{Root: i.DockerRootDir, OS: i.OSType, Arch: architecture(i.Architecture)}
	for _, part := range version.Components {
		out.Podman = out.Podman || part.Name == "Podman Engine"
	}
	for _, s := range i.DriverStatus {
		out.Snapshots = out.Snapshots || s[0] == "driver-type" && strings.HasPrefix(s[1], "io.containerd.snapshotter")
	}
	return out, nil
}

func (e *dockerEngine) Image(ctx context.Context, ref string) (imageInfo, error) {
	i, err := e.cli.ImageInspect(ctx, ref)
	if err != nil {
		return imageInfo{}, explain(err)
	}
	return imageInfo{ID: i.ID, Tags: i.RepoTags, Layers: i.RootFS.Layers, OS: i.Os, Arch: i.Architecture}, nil
}

func (e *dockerEngine) Tagged(ctx context.Context, repository string) ([]imageInfo, error) {
	list, err := e.cli.ImageList(ctx, image.ListOptions{Filters: filters.NewArgs(filters.Arg("reference", repository))})
	if err != nil {
		return nil, explain(err)
	}
	var out []imageInfo
	for _, i := range list {
		out = append(out, imageInfo{ID: i.ID, Tags: i.RepoTags})
	}
	return out, nil
}

func (e *dockerEngine) Load(ctx context.Context, archive io.Reader) error {
	r, err := e.cli.ImageLoad(ctx, archive, client.ImageLoadWithQuiet(true))
	if err != nil {
		return explain(err)
	}
	return finish(r.Body)
}

func (e *dockerEngine) Save(ctx context.Context, ref string) (io.ReadCloser, error) {
	r, err := e.cli.ImageSave(ctx, []string{ref})
	return r, explain(err)
}

func (e *dockerEngine) Files(ctx context.Context, ref string, labels map[string]string) (io.ReadCloser, error) {
	c := &docker.Config{Image: ref, Labels: labels, Entrypoint: []string{"/"}}
	r, err := e.cli.ContainerCreate(ctx, c, &docker.HostConfig{NetworkMode: "none"}, nil, nil, "")
	if err != nil {
		return nil, explain(err)
	}
	f := &files{e: e, id: r.ID}
	if f.ReadCloser, err = e.cli.ContainerExport(ctx, r.ID); err != nil {
		return nil, errors.Join(explain(err), f.remove())
	}
	return f, nil
}

// files is the export of a container, which goes with it.
type files struct {
	io.ReadCloser
	e  *dockerEngine
	id string
}

func (f *files) Close() error { return errors.Join(f.ReadCloser.Close(), f.remove()) }

// remove takes the container away even where the time is up.
func (f *files) remove() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return gone(f.e.cli.ContainerRemove(ctx, f.id, docker.RemoveOptions{Force: true, RemoveVolumes: true}))
}

func (e *dockerEngine) Pull(ctx context.Context, ref string, login Login) error {
	auth, err := registry.EncodeAuthConfig(registry.AuthConfig{Username: login.Username, Password: login.Password, IdentityToken: login.Token})
	if err != nil {
		return errors.New("the credentials cannot be encoded")
	}
	r, err := e.cli.ImagePull(ctx, ref, image.PullOptions{RegistryAuth: auth})
	if err != nil {
		return explain(err)
	}
	return finish(r)
}

func (e *dockerEngine) Tag(ctx context.Context, id, tag string) error {
	return explain(e.cli.ImageTag(ctx, id, tag))
}

func (e *dockerEngine) Untag(ctx context.Context, ref string, force bool) error {
	_, err := e.cli.ImageRemove(ctx, ref, image.RemoveOptions{Force: force, PruneChildren: true})
	return gone(err)
}

func (e *dockerEngine) Boxes(ctx context.Context, label, value string) ([]box, error) {
	list, err := e.cli.ContainerList(ctx, docker.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", label+"="+value))})
	if err != nil {
		return nil, explain(err)
	}
	var all []box
	for _, c := range list {
		b, err := e.Box(ctx, c.ID)
		if errors.Is(err, errMissing) {
			continue // it went in between
		}
		if errors.Is(err, ErrEngine) || ctx.Err() != nil {
			return nil, err
		}
		if err != nil { // a store that is damaged: what the list says has to do
			b = box{ID: c.ID, Labels: c.Labels, Image: c.ImageID, State: stateOf(c.State), Broken: err.Error()}
		}
		all = append(all, b)
	}
	return all, nil
}

func (e *dockerEngine) Box(ctx context.Context, id string) (box, error) {
	c, err := e.cli.ContainerInspect(ctx, id)
	if err != nil {
		return box{}, explain(err)
	}
	if c.ContainerJSONBase == nil || c.State == nil || c.Config == nil || c.HostConfig == nil {
		return box{}, fmt.Errorf("the engine's description of container %.12s lacks parts", id)
	}
	b := box{
		ID: c.ID, Name: strings.TrimPrefix(c.Name, "/"), Labels: c.Config.Labels, Image: c.Image,
		State: stateOf(c.State.Status), Exit: c.State.ExitCode, OOM: c.State.OOMKilled, Error: c.State.Error,
		Restarts: c.RestartCount, Limits: limitsOf(c.HostConfig.Resources),
		Restart: compose.Restart{
			Policy: compose.RestartPolicy(cmp.Or(c.HostConfig.RestartPolicy.Name, "no")),
			Most:   c.HostConfig.RestartPolicy.MaximumRetryCount,
		},
	}
	if c.State.Health != nil && c.State.Health.Status != docker.NoHealthcheck {
		b.Health = c.State.Health.Status
	}
	if t, err := time.Parse(time.RFC3339Nano, c.State.StartedAt); err == nil && t.Year() > 1 {
		b.Started = t
	}
	if b.State == created && !b.Started.IsZero() {
		b.State, b.Exit = exited, lostExit // as Podman says of what ran when the power went
	}
	if c.NetworkSettings != nil {
		for _, n := range c.NetworkSettings.Networks {
			b.Networks = append(b.Networks, n.NetworkID)
			b.Addresses = addresses(b.Addresses, n.MacAddress, n.IPAddress, n.GlobalIPv6Address)
		}
		slices.Sort(b.Networks)
	}
	return b, nil
}

// lostExit is the exit code of a container of which the engine knows none.
const lostExit = 255

func limitsOf(r docker.Resources) compose.Limits {
	l := compose.Limits{
		Memory: r.Memory, MemorySwap: r.MemorySwap, MemoryReservation: r.MemoryReservation, NanoCPUs: r.NanoCPUs,
		CPUShares: r.CPUShares, CPUPeriod: r.CPUPeriod, CPUQuota: r.CPUQuota, CPUSet: r.CpusetCpus,
	}
	if r.PidsLimit != nil {
		l.Pids = *r.PidsLimit
	}
	return l
}

func (e *dockerEngine) Create(ctx context.Context, s boxSpec) (string, error) {
	host, err := hostConfig(s)
	if err != nil {
		return "", err
	}
	var first *dockernet.NetworkingConfig
	if len(s.Networks) > 0 {
		first = &dockernet.NetworkingConfig{EndpointsConfig: map[string]*dockernet.EndpointSettings{s.Networks[0].ID: endpoint(s.Networks[0])}}
	}
	r, err := e.cli.ContainerCreate(ctx, config(s), host, first, nil, s.Name)
	if err != nil {
		return "", explain(err)
	}
	for _, n := range s.Networks[min(1, len(s.Networks)):] {
		if err := e.cli.NetworkConnect(ctx, n.ID, r.ID, endpoint(n)); err != nil {
			return "", explain(err)
		}
	}
	return r.ID, nil
}

func endpoint(a attachment) *dockernet.EndpointSettings {
	s := &dockernet.EndpointSettings{Aliases: a.Aliases}
	if a.IPv4 != "" || a.IPv6 != "" {
		s.IPAMConfig = &dockernet.EndpointIPAMConfig{IPv4Address: a.IPv4, IPv6Address: a.IPv6}
	}
	return s
}

func config(s boxSpec) *docker.Config {
	v := s.Service
	c := &docker.Config{
		Image: s.Image, Hostname: v.Hostname, User: v.User, WorkingDir: v.WorkingDir, StopSignal: v.StopSignal,
		Entrypoint: v.Entrypoint, Cmd: v.Command, Labels: maps.Clone(v.Labels), ExposedPorts: nat.PortSet{},
	}
	if c.Labels == nil {
		c.Labels = map[string]string{}
	}
	maps.Copy(c.Labels, s.Labels)
	for _, k := range slices.Sorted(maps.Keys(v.Environment)) {
		c.Env = append(c.Env, k+"="+v.Environment[k])
	}
	for _, p := range v.Ports {
		c.ExposedPorts[port(p.Container, p.Protocol)] = struct{}{}
	}
	for _, p := range v.Expose {
		c.ExposedPorts[port(p.Container, p.Protocol)] = struct{}{}
	}
	grace := seconds(v.StopGrace)
	c.StopTimeout = &grace
	if h := v.Healthcheck; h != nil {
		c.Healthcheck = &docker.HealthConfig{Test: h.Test, Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod, StartInterval: h.StartInterval, Retries: h.Retries}
		if h.Disabled {
			c.Healthcheck.Test = []string{"NONE"}
		}
	}
	return c
}

func port(n uint16, p compose.Protocol) nat.Port {
	return nat.Port(strconv.Itoa(int(n)) + "/" + string(cmp.Or(p, compose.TCP)))
}

func hostConfig(s boxSpec) (*docker.HostConfig, error) {
	v := s.Service
	h := &docker.HostConfig{
		NetworkMode: docker.NetworkMode(s.NetworkMode), PidMode: docker.PidMode(s.PID), IpcMode: docker.IpcMode(s.IPC),
		PortBindings: nat.PortMap{}, RestartPolicy: policy(s.Restart), Init: v.Init,
		ExtraHosts: v.ExtraHosts, DNS: v.DNS, DNSSearch: v.DNSSearch, DNSOptions: v.DNSOptions,
		ReadonlyRootfs: v.ReadOnly, ShmSize: v.ShmSize, Privileged: v.Privileged, CapAdd: v.CapAdd, CapDrop: v.CapDrop,
		GroupAdd: v.GroupAdd, SecurityOpt: v.SecurityOpt, Sysctls: v.Sysctls, Tmpfs: map[string]string{}, Resources: resources(v),
	}
	if len(s.Networks) > 0 {
		h.NetworkMode = docker.NetworkMode(s.Networks[0].ID)
	}
	for _, p := range v.Ports {
		b := nat.PortBinding{HostIP: p.HostIP}
		if p.HostPort != 0 {
			b.HostPort = strconv.Itoa(int(p.HostPort))
		}
		h.PortBindings[port(p.Container, p.Protocol)] = append(h.PortBindings[port(p.Container, p.Protocol)], b)
	}
	if v.Logging != nil {
		h.LogConfig = docker.LogConfig{Type: v.Logging.Driver, Config: v.Logging.Options}
	}
	return h, mounts(h, s)
}

// mounts adds what is mounted. A bind whose folder the engine is to make is
// written in the older way, which does that on every engine.
func mounts(h *docker.HostConfig, s boxSpec) error {
	for _, m := range s.Service.Mounts {
		switch m.Type {
		case compose.MountVolume:
			h.Mounts = append(h.Mounts, mount.Mount{
				Type: mount.TypeVolume, Source: s.Volumes[m.Source], Target: m.Target, ReadOnly: m.ReadOnly,
				VolumeOptions: &mount.VolumeOptions{NoCopy: m.NoCopy},
			})
		case compose.MountBind:
			spread := cmp.Or(m.Propagation, string(mount.PropagationRPrivate))
			if m.Create && !strings.Contains(m.Source+m.Target, ":") {
				access := "rw"
				if m.ReadOnly {
					access = "ro"
				}
				h.Binds = append(h.Binds, m.Source+":"+m.Target+":"+access+","+spread)
				continue
			}
			h.Mounts = append(h.Mounts, bind(m.Source, m.Target, m.ReadOnly, spread))
		case compose.MountTmpfs:
			h.Tmpfs[m.Target] = m.Options
		default:
			return fmt.Errorf("a mount of type %.40q is not known", m.Type)
		}
	}
	for _, f := range s.Files {
		h.Mounts = append(h.Mounts, bind(f.Source, f.Target, true, string(mount.PropagationRPrivate)))
	}
	return nil
}

func bind(source, target string, readOnly bool, spread string) mount.Mount {
	return mount.Mount{
		Type: mount.TypeBind, Source: source, Target: target, ReadOnly: readOnly,
		BindOptions: &mount.BindOptions{Propagation: mount.Propagation(spread)},
	}
}

func resources(v compose.Service) docker.Resources {
	l := v.Limits
	r := docker.Resources{
		Memory: l.Memory, MemorySwap: l.MemorySwap, MemoryReservation: l.MemoryReservation, NanoCPUs: l.NanoCPUs,
		CPUShares: l.CPUShares, CPUPeriod: l.CPUPeriod, CPUQuota: l.CPUQuota, CpusetCpus: l.CPUSet,
		DeviceCgroupRules: v.DeviceRules,
	}
	pids := cmp.Or(l.Pids, -1) // no limit, where an engine has one of its own
	r.PidsLimit = &pids
	for _, d := range v.Devices {
		r.Devices = append(r.Devices, docker.DeviceMapping{PathOnHost: d.Host, PathInContainer: d.Container, CgroupPermissions: d.Permissions})
	}
	for _, u := range v.Ulimits {
		r.Ulimits = append(r.Ulimits, &docker.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard})
	}
	return r
}

func policy(r compose.Restart) docker.RestartPolicy {
	return docker.RestartPolicy{Name: docker.RestartPolicyMode(cmp.Or(r.Policy, compose.RestartNo)), MaximumRetryCount: r.Most}
}

func (e *dockerEngine) Start(ctx context.Context, id string) error {
	err := explain(e.cli.ContainerStart(ctx, id, docker.StartOptions{}))
	if err != nil && strings.Contains(err.Error(), "port is already allocated") {
		return fmt.Errorf("%w: %w", errPort, err)
	}
	return err
}

func (e *dockerEngine) Published(ctx context.Context) (map[uint16]bool, error) {
	list, err := e.cli.ContainerList(ctx, docker.ListOptions{})
	if err != nil {
		return nil, explain(err)
	}
	all := map[uint16]bool{}
	for _, c := range list {
		for _, p := range c.Ports {
			all[p.PublicPort] = true
		}
	}
	return all, nil
}

func (e *dockerEngine) Stop(ctx context.Context, id string, grace time.Duration) error {
	limit := seconds(grace)
	return explain(e.cli.ContainerStop(ctx, id, docker.StopOptions{Timeout: &limit}))
}

func (e *dockerEngine) SetName(ctx context.Context, id, name string) error {
	return explain(e.cli.ContainerRename(ctx, id, name))
}

func (e *dockerEngine) SetRestart(ctx context.Context, id string, r compose.Restart) error {
	_, err := e.cli.ContainerUpdate(ctx, id, docker.UpdateConfig{RestartPolicy: policy(r)})
	return explain(err)
}

func (e *dockerEngine) Remove(ctx context.Context, id string) error {
	return gone(e.cli.ContainerRemove(ctx, id, docker.RemoveOptions{Force: true}))
}

func (e *dockerEngine) Networks(ctx context.Context) ([]network, error) {
	list, err := e.cli.NetworkList(ctx, dockernet.ListOptions{})
	if err != nil {
		return nil, explain(err)
	}
	var all []network
	for _, n := range list {
		all = append(all, network{n.ID, n.Name, n.Labels})
	}
	return all, nil
}

func (e *dockerEngine) CreateNetwork(ctx context.Context, name string, n compose.Network, labels map[string]string) (string, error) {
	o := dockernet.CreateOptions{
		Driver: cmp.Or(n.Driver, "bridge"), Options: n.DriverOpts, Internal: n.Internal, Attachable: n.Attachable, Labels: labels,
	}
	if n.IPv6 {
		o.EnableIPv6 = &n.IPv6
	}
	if len(n.Pools) > 0 {
		o.IPAM = &dockernet.IPAM{}
	}
	for _, p := range n.Pools {
		o.IPAM.Config = append(o.IPAM.Config, dockernet.IPAMConfig{Subnet: p.Subnet, IPRange: p.Range, Gateway: p.Gateway})
	}
	r, err := e.cli.NetworkCreate(ctx, name, o)
	return r.ID, explain(err)
}

func (e *dockerEngine) RemoveNetwork(ctx context.Context, id string) error {
	err := gone(e.cli.NetworkRemove(ctx, id))
	if errdefs.IsPermissionDenied(err) { // as the engine says that somebody is attached
		return fmt.Errorf("%w: %w", errTaken, err)
	}
	return err
}

func (e *dockerEngine) Volumes(ctx context.Context) ([]volume, error) {
	list, err := e.cli.VolumeList(ctx, dockervol.ListOptions{})
	if err != nil {
		return nil, explain(err)
	}
	var all []volume
	for _, v := range list.Volumes {
		all = append(all, volume{v.Name, v.Labels})
	}
	return all, nil
}

func (e *dockerEngine) CreateVolume(ctx context.Context, v compose.Volume, labels map[string]string) error {
	_, err := e.cli.VolumeCreate(ctx, dockervol.CreateOptions{Name: v.Engine, Driver: v.Driver, DriverOpts: v.DriverOpts, Labels: labels})
	return explain(err)
}

func (e *dockerEngine) RemoveVolume(ctx context.Context, name string) error {
	return gone(e.cli.VolumeRemove(ctx, name, false))
}
