package compose

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/pawl-ota/pawl/ota/release"
)

// Limits of an app document.
const (
	MaxServices = 256
	MaxImages   = 256
	MaxLayers   = 128      // of one image
	MaxItems    = 4096     // of any other list
	MaxText     = 64 << 10 // bytes of any text
	MaxFile     = 1 << 20  // bytes of a config or secret
	MaxConfig   = 4 << 20  // bytes of the configuration of an image
)

// Validate checks a against the rules that stand with its fields. Its error
// names the service and the field and wraps [release.ErrInvalid],
// [release.ErrName] or [release.ErrFormat].
func (a *App) Validate() error {
	if a.Format != Format {
		return fmt.Errorf("app document: %w %.80q, not %q", release.ErrFormat, a.Format, Format)
	}
	if err := a.validate(); err != nil {
		return fmt.Errorf("app document: %w", err)
	}
	return nil
}

func (a *App) validate() error {
	if err := release.CheckName(a.Name); err != nil {
		return fmt.Errorf("name: %w", err)
	}
	for _, check := range []func() error{a.checkImages, a.checkNetworks, a.checkVolumes, a.checkFiles, a.checkServices} {
		if err := check(); err != nil {
			return err
		}
	}
	return a.checkPorts()
}

func (a *App) checkImages() error {
	if len(a.Images) == 0 || len(a.Images) > MaxImages {
		return invalid("%d images; 1 to %d are allowed", len(a.Images), MaxImages)
	}
	for i, image := range a.Images {
		same := func(o Image) bool { return o.Config.Digest == image.Config.Digest && o.Ref == image.Ref }
		if slices.ContainsFunc(a.Images[:i], same) {
			return invalid("image %.80q stands twice", image.Name)
		}
		if err := image.validate(); err != nil {
			return fmt.Errorf("image %.80q: %w", image.Name, err)
		}
	}
	return nil
}

func (i Image) validate() error {
	if i.Name == "" || len(i.Name) > 512 || checkText(i.Name) != nil {
		return invalid("no name that can be shown")
	}
	if err := checkBlob(i.Config, MaxConfig); err != nil {
		return fmt.Errorf("config: %w", err)
	}
	if i.Ref != "" && len(i.Layers) > 0 {
		return invalid("it has layers and a ref")
	}
	if i.Ref != "" {
		if err := checkRef(i.Ref); err != nil {
			return err
		}
	}
	if len(i.Layers) > MaxLayers {
		return invalid("%d layers are more than %d", len(i.Layers), MaxLayers)
	}
	sum := int64(0)
	for _, l := range i.Layers {
		if err := checkBlob(l, release.MaxBlob); err != nil {
			return fmt.Errorf("layer: %w", err)
		}
		sum += l.Size
	}
	if i.Size < 0 || i.Ref == "" && i.Size != sum || i.Size > MaxLayers*release.MaxBlob {
		return invalid("size %d is not that of its layers", i.Size)
	}
	for _, word := range []string{i.OS, i.Architecture} {
		if err := release.CheckName(word); err != nil {
			return fmt.Errorf("platform: %w", err)
		}
	}
	if i.Variant == "" {
		return nil
	}
	return release.CheckName(i.Variant)
}

// checkRef takes host/path@sha256:<digest>. The host is always written out, so
// that no engine adds one of its own.
func checkRef(ref string) error {
	name, digest, _ := strings.Cut(ref, "@sha256:")
	if _, err := release.ParseDigest(digest); err != nil {
		return invalid("ref %.200q has no digest: %v", ref, err)
	}
	host, path, _ := strings.Cut(name, "/")
	okHost := host == "localhost" || strings.ContainsAny(host, ".:")
	if !okHost || len(name) > 255 || !only(host, letters+digits+".:-[]") {
		return invalid("ref %.200q does not begin with a host", ref)
	}
	for part := range strings.SplitSeq(path, "/") {
		if part == "" || !only(part, lower+digits+"._-") || strings.ContainsAny(part[:1], "._-") {
			return invalid("ref %.200q: %.80q is no part of a name", ref, part)
		}
	}
	return nil
}

func (a *App) checkNetworks() error {
	if err := ascending("networks", a.Networks, func(n Network) string { return n.Name }); err != nil {
		return err
	}
	for _, n := range a.Networks {
		if err := n.validate(); err != nil {
			return fmt.Errorf("network %.80q: %w", n.Name, err)
		}
	}
	return unique("networks at the engine", a.Networks, func(n Network) string { return n.Engine })
}

func (n Network) validate() error {
	if err := checkNames(n.Name, n.Engine); err != nil {
		return err
	}
	if slices.Contains([]string{"host", "none", "bridge", "default"}, n.Engine) && !(n.External && n.Engine == "bridge") {
		return invalid("%q is a network of the engine's own", n.Engine)
	}
	if n.External {
		plain := n.Driver == "" && len(n.DriverOpts) == 0 && !n.Internal && !n.Attachable && !n.IPv6 && len(n.Pools) == 0 && len(n.Labels) == 0
		if !plain {
			return invalid("it is external and something is said of it")
		}
		return nil
	}
	if n.Driver == "host" || n.Driver == "null" {
		return invalid("driver %q cannot be used for a network of an app", n.Driver)
	}
	for _, p := range n.Pools {
		if err := p.validate(); err != nil {
			return err
		}
	}
	if err := ascending("pools", n.Pools, func(p Pool) string { return p.Subnet }); err != nil {
		return err
	}
	return checkDriver(n.Driver, n.DriverOpts, n.Labels)
}

func (p Pool) validate() error {
	subnet, err := netip.ParsePrefix(p.Subnet)
	if err != nil || subnet.Masked().String() != p.Subnet {
		return invalid("subnet %.80q is not written as 172.20.0.0/16 is", p.Subnet)
	}
	if p.Range != "" {
		r, err := netip.ParsePrefix(p.Range)
		if err != nil || r.Masked().String() != p.Range || r.Bits() < subnet.Bits() || !subnet.Contains(r.Addr()) {
			return invalid("range %.80q is not within %s", p.Range, p.Subnet)
		}
	}
	if p.Gateway == "" {
		return nil
	}
	if gw, err := netip.ParseAddr(p.Gateway); err != nil || gw.String() != p.Gateway || !subnet.Contains(gw) {
		return invalid("gateway %.80q is not within %s", p.Gateway, p.Subnet)
	}
	return nil
}

func (a *App) checkVolumes() error {
	if err := ascending("volumes", a.Volumes, func(v Volume) string { return v.Name }); err != nil {
		return err
	}
	for _, v := range a.Volumes {
		err := checkNames(v.Name, v.Engine)
		if err == nil && v.External && (v.Driver != "" || v.Anonymous || len(v.DriverOpts) > 0 || len(v.Labels) > 0) {
			err = invalid("it is external and something is said of it")
		}
		if err == nil {
			err = checkDriver(v.Driver, v.DriverOpts, v.Labels)
		}
		if err != nil {
			return fmt.Errorf("volume %.80q: %w", v.Name, err)
		}
	}
	return unique("volumes at the engine", a.Volumes, func(v Volume) string { return v.Engine })
}

func (a *App) checkFiles() error {
	key := func(f File) string { return string(f.Kind) + " " + f.Name }
	if err := ascending("files", a.Files, key); err != nil {
		return err
	}
	for _, f := range a.Files {
		err := release.CheckName(f.Name)
		if err == nil && f.Kind != Config && f.Kind != Secret {
			err = invalid("kind %.40q is not %q or %q", f.Kind, Config, Secret)
		}
		if err == nil {
			err = checkBlob(f.Blob, MaxFile)
		}
		if err != nil {
			return fmt.Errorf("file %.80q: %w", f.Name, err)
		}
	}
	return nil
}

func (a *App) checkServices() error {
	if len(a.Services) == 0 || len(a.Services) > MaxServices {
		return invalid("%d services; 1 to %d are allowed", len(a.Services), MaxServices)
	}
	for i := range a.Services {
		v := &serviceCheck{App: a, Service: &a.Services[i], before: a.Services[:i]}
		if err := v.run(); err != nil {
			return fmt.Errorf("service %.80q: %w", v.Name(), err)
		}
	}
	if err := unique("services", a.Services, func(s Service) string { return s.Name }); err != nil {
		return err
	}
	return unique("containers", a.Services, func(s Service) string { return s.Container })
}

// checkPorts refuses two services, or one twice, on the same port of the device.
func (a *App) checkPorts() error {
	type place struct {
		port     uint16
		protocol Protocol
	}
	taken := map[place][]string{}
	for _, s := range a.Services {
		for _, p := range s.Ports {
			at := place{p.HostPort, p.Protocol}
			if p.HostPort == 0 {
				continue
			}
			for _, ip := range taken[at] {
				if ip == p.HostIP || ip == "" || p.HostIP == "" {
					return invalid("service %q: port %d/%s of the device is published twice", s.Name, p.HostPort, p.Protocol)
				}
			}
			taken[at] = append(taken[at], p.HostIP)
		}
	}
	return nil
}
