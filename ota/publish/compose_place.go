package publish

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/pawl-ota/pawl/ota/compose"
)

// networks takes over all networks of the file.
func (b *composing) networks() error {
	for _, key := range slices.Sorted(maps.Keys(b.project.Networks)) {
		in := b.project.Networks[key]
		n := compose.Network{Name: key, Engine: in.Name, External: bool(in.External)}
		if in.Ipam.Driver != "" && in.Ipam.Driver != "default" {
			return b.walk.fail("networks."+key+".ipam.driver", "%q is not supported", in.Ipam.Driver)
		}
		if !n.External {
			n.Driver, n.DriverOpts, n.Internal, n.Attachable, n.Labels = in.Driver, in.DriverOpts, in.Internal, in.Attachable, in.Labels
			n.IPv6 = in.EnableIPv6 != nil && *in.EnableIPv6
			for _, p := range in.Ipam.Config {
				n.Pools = append(n.Pools, compose.Pool{Subnet: p.Subnet, Range: p.IPRange, Gateway: p.Gateway})
			}
			slices.SortFunc(n.Pools, func(x, y compose.Pool) int { return strings.Compare(x.Subnet, y.Subnet) })
		}
		b.app.Networks = append(b.app.Networks, n)
	}
	return nil
}

// volumes takes over all named volumes of the file.
func (b *composing) volumes() {
	for _, key := range slices.Sorted(maps.Keys(b.project.Volumes)) {
		in := b.project.Volumes[key]
		v := compose.Volume{Name: key, Engine: in.Name, External: bool(in.External)}
		if !v.External {
			v.Driver, v.DriverOpts, v.Labels = in.Driver, in.DriverOpts, in.Labels
		}
		b.app.Volumes = append(b.app.Volumes, v)
	}
}

// attach puts the service into its networks.
func (s *serving) attach() error {
	if s.in.NetworkMode != "" {
		return nil
	}
	for _, name := range s.in.NetworksByPriority() {
		a := compose.Attachment{Network: name, Aliases: []string{s.in.Name}}
		if in := s.in.Networks[name]; in != nil {
			a.Aliases = append(a.Aliases, in.Aliases...)
			a.IPv4, a.IPv6 = in.Ipv4Address, in.Ipv6Address
		}
		a.Aliases = sorted(a.Aliases)
		s.out.Networks = append(s.out.Networks, a)
	}
	return nil
}

func (s *serving) ports() error {
	for i, in := range s.in.Ports {
		at := "ports." + strconv.Itoa(i)
		if in.Target == 0 || in.Target > 65535 {
			return s.fail(at, "%d is not a port", in.Target)
		}
		if in.Mode != "" && in.Mode != "ingress" && in.Mode != "host" {
			return s.fail(at, "mode %q is not supported", in.Mode)
		}
		p := compose.Port{HostIP: in.HostIP, Container: uint16(in.Target), Protocol: compose.Protocol(cmp.Or(in.Protocol, "tcp"))}
		if in.Published != "" {
			n, err := number(in.Published, 16)
			if err != nil {
				return s.fail(at, "published port %q is not one port: write a range out, or leave it to the engine", in.Published)
			}
			p.HostPort = uint16(n)
		}
		s.out.Ports = append(s.out.Ports, p)
	}
	slices.SortFunc(s.out.Ports, compose.ComparePorts)
	if len(s.out.Ports) > 0 && s.out.Strategy == compose.Handover {
		return s.fail("ports", "a service that is handed over cannot publish ports: two containers would need them at once")
	}
	return nil
}

func (s *serving) expose() error {
	for i, text := range s.in.Expose {
		ports, protocol, _ := strings.Cut(text, "/")
		from, to, ranged := strings.Cut(ports, "-")
		if !ranged {
			to = from
		}
		first, err := number(from, 16)
		last, err2 := number(to, 16)
		if err != nil || err2 != nil || first == 0 || first > last {
			return s.fail("expose."+strconv.Itoa(i), "%q is not a port", text)
		}
		for n := first; n <= last; n++ {
			s.out.Expose = append(s.out.Expose, compose.Expose{Container: uint16(n), Protocol: compose.Protocol(cmp.Or(protocol, "tcp"))})
		}
	}
	slices.SortFunc(s.out.Expose, compose.CompareExpose)
	s.out.Expose = slices.Compact(s.out.Expose)
	return nil
}

func (s *serving) hosts() error {
	s.out.ExtraHosts = sorted(s.in.ExtraHosts.AsList(":"))
	return nil
}

// mounts resolves what is mounted, anonymous volumes and those of the image too.
func (s *serving) mounts() error {
	taken := map[string]bool{}
	for i, in := range s.in.Volumes {
		m, err := s.mount(i, in)
		if err != nil {
			return err
		}
		taken[m.Target] = true
		s.out.Mounts = append(s.out.Mounts, m)
	}
	for i, text := range s.in.Tmpfs {
		target, options, _ := strings.Cut(text, ":")
		options, err := tmpfsOptions(options)
		if err != nil {
			return s.fail("tmpfs."+strconv.Itoa(i), "%v", err)
		}
		taken[path.Clean(target)] = true
		s.out.Mounts = append(s.out.Mounts, compose.Mount{Type: compose.MountTmpfs, Target: path.Clean(target), Options: options})
	}
	image := s.app.Images[s.out.Image]
	for _, target := range slices.Sorted(maps.Keys(s.images.configs[image.Config.Digest].Config.Volumes)) {
		if target = path.Clean("/" + target); !taken[target] {
			s.out.Mounts = append(s.out.Mounts, compose.Mount{Type: compose.MountVolume, Source: s.anonymous(target), Target: target})
		}
	}
	slices.SortFunc(s.out.Mounts, func(x, y compose.Mount) int { return strings.Compare(x.Target, y.Target) })
	if s.out.Strategy == compose.Handover {
		return s.shared()
	}
	return nil
}

// shared refuses what the old and the new container would write to at once.
func (s *serving) shared() error {
	for _, m := range s.out.Mounts {
		if m.Type != compose.MountTmpfs && !m.ReadOnly {
			return s.fail("volumes", "a service that is handed over cannot write to %s: two containers would do so at once; mount it read-only", m.Target)
		}
	}
	return nil
}

func (s *serving) mount(i int, in types.ServiceVolumeConfig) (compose.Mount, error) {
	at := "volumes." + strconv.Itoa(i)
	m := compose.Mount{Type: compose.MountType(in.Type), Source: in.Source, Target: path.Clean(in.Target), ReadOnly: in.ReadOnly}
	switch m.Type {
	case compose.MountBind:
		if !path.IsAbs(in.Source) {
			return m, s.fail(at, "%q is a path of the publisher's: write an absolute path of the device, or take a config or a volume", in.Source)
		}
		m.Source = path.Clean(in.Source)
		m.Create = in.Bind == nil || bool(in.Bind.CreateHostPath)
		if in.Bind != nil && in.Bind.SELinux != "" {
			return m, s.fail(at, "the option %s is not supported", in.Bind.SELinux)
		}
		if in.Bind != nil && in.Bind.Propagation != types.PropagationRPrivate {
			m.Propagation = in.Bind.Propagation
		}
	case compose.MountVolume:
		m.NoCopy = in.Volume != nil && in.Volume.NoCopy
		if m.Source == "" {
			m.Source = s.anonymous(m.Target)
		}
	case compose.MountTmpfs:
		m.Source, m.ReadOnly = "", false
		if in.ReadOnly {
			m.Options = "ro"
		}
		if in.Tmpfs != nil && in.Tmpfs.Size > 0 {
			m.Options += fmt.Sprintf(",size=%d", in.Tmpfs.Size)
		}
		if in.Tmpfs != nil && in.Tmpfs.Mode > 0 {
			m.Options += fmt.Sprintf(",mode=%o", in.Tmpfs.Mode)
		}
		m.Options = strings.TrimPrefix(m.Options, ",")
	default:
		return m, s.fail(at, "type %q is not supported", in.Type)
	}
	return m, nil
}

// anonymous adds a volume without a name, and returns the name that it has from
// release to release.
func (s *serving) anonymous(target string) string {
	sum := sha256.Sum256([]byte(s.in.Name + "\x00" + target))
	name := "anon-" + hex.EncodeToString(sum[:6])
	s.app.Volumes = append(s.app.Volumes, compose.Volume{Name: name, Engine: s.app.Name + "_" + s.in.Name + "-" + name, Anonymous: true})
	return name
}

// tmpfsOptions writes sizes as bytes.
func tmpfsOptions(options string) (string, error) {
	if options == "" {
		return "", nil
	}
	list := strings.Split(options, ",")
	for i, o := range list {
		if text, ok := strings.CutPrefix(o, "size="); ok {
			var n types.UnitBytes
			if err := n.DecodeMapstructure(text); err != nil {
				return "", fmt.Errorf("size %q: %w", text, err)
			}
			list[i] = fmt.Sprintf("size=%d", int64(n))
		}
		if text, ok := strings.CutPrefix(o, "mode="); ok {
			list[i] = "mode=" + cmp.Or(strings.TrimLeft(text, "0"), "0")
		}
	}
	return strings.Join(list, ","), nil
}

// files mounts the configs and secrets.
func (s *serving) files() error {
	for i, c := range s.in.Configs {
		in := types.FileReferenceConfig(c)
		err := s.fileMount(compose.Config, "configs."+strconv.Itoa(i), in, types.FileObjectConfig(s.project.Configs[in.Source]), "/")
		if err != nil {
			return err
		}
	}
	for i, c := range s.in.Secrets {
		in := types.FileReferenceConfig(c)
		err := s.fileMount(compose.Secret, "secrets."+strconv.Itoa(i), in, types.FileObjectConfig(s.project.Secrets[in.Source]), "/run/secrets")
		if err != nil {
			return err
		}
	}
	slices.SortFunc(s.out.Files, func(x, y compose.FileMount) int { return strings.Compare(x.Target, y.Target) })
	return nil
}

func (s *serving) fileMount(kind compose.FileKind, at string, in types.FileReferenceConfig, content types.FileObjectConfig, below string) error {
	if err := s.file(kind, in.Source, content); err != nil {
		return err
	}
	m := compose.FileMount{Kind: kind, Name: in.Source, Target: cmp.Or(in.Target, in.Source), Mode: 0o444}
	if !path.IsAbs(m.Target) {
		m.Target = path.Join(below, m.Target)
	}
	m.Target = path.Clean(m.Target)
	if in.Mode != nil {
		m.Mode = uint32(*in.Mode)
	}
	var err error
	if m.UID, err = owner(in.UID); err == nil {
		m.GID, err = owner(in.GID)
	}
	if err != nil {
		return s.fail(at, "owner: %v", err)
	}
	s.out.Files = append(s.out.Files, m)
	return nil
}

func owner(text string) (uint32, error) {
	if text == "" {
		return 0, nil
	}
	n, err := number(text, 32)
	return uint32(n), err
}
