package compose

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

func (v *serviceCheck) network() error {
	if err := v.namespace("networkMode", v.NetworkMode, "none", "host", "bridge"); err != nil {
		return err
	}
	if err := v.namespace("pid", v.PID, "host"); err != nil {
		return err
	}
	if err := v.namespace("ipc", v.IPC, "none", "private", "shareable", "host"); err != nil {
		return err
	}
	if (v.NetworkMode == "") != (len(v.Service.Networks) > 0) {
		return invalid("it needs networks or a networkMode, and not both")
	}
	shared := v.NetworkMode == "host" || strings.HasPrefix(v.NetworkMode, "service:")
	if (shared || v.NetworkMode == "none") && len(v.Ports) > 0 {
		return invalid("it publishes ports with networkMode %q", v.NetworkMode)
	}
	if err := unique("networks", v.Service.Networks, func(a Attachment) string { return a.Network }); err != nil {
		return err
	}
	for _, a := range v.Service.Networks {
		if err := v.attachment(a); err != nil {
			return fmt.Errorf("network %.80q: %w", a.Network, err)
		}
	}
	return v.names()
}

// namespace checks whose namespace the service is in: empty, one of words, or
// that of a service that starts before it.
func (v *serviceCheck) namespace(what, mode string, words ...string) error {
	name, ok := strings.CutPrefix(mode, "service:")
	if !ok {
		return oneOf(what, mode, append(words, "")...)
	}
	other, err := v.earlier(name)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if other.OneShot || other.Strategy == Handover {
		return invalid("%s: %q does not stay: it is one-shot or handed over", what, name)
	}
	return nil
}

func (v *serviceCheck) attachment(a Attachment) error {
	if !slices.ContainsFunc(v.App.Networks, func(n Network) bool { return n.Name == a.Network }) {
		return invalid("it is not there")
	}
	if err := sortedLines("aliases", a.Aliases); err != nil {
		return err
	}
	if a.IPv4 != "" {
		if err := checkAddr("ipv4", a.IPv4, true, false); err != nil {
			return err
		}
	}
	if a.IPv6 != "" {
		return checkAddr("ipv6", a.IPv6, false, true)
	}
	return nil
}

// names checks what the service is called and how it finds others.
func (v *serviceCheck) names() error {
	if err := checkTemplate("hostname", v.Hostname); err != nil {
		return err
	}
	// With the shortest values it has to be a host name already.
	plain, err := Values{DeviceID: "x", Hardware: "x", Hostname: "x"}.Expand(v.Hostname)
	if err == nil {
		err = checkHostname(plain)
	}
	if err != nil {
		return err
	}
	if err := sortedLines("extraHosts", v.ExtraHosts); err != nil {
		return err
	}
	for _, h := range v.ExtraHosts {
		name, addr, _ := strings.Cut(h, ":")
		if checkLine(name) != nil || addr != "host-gateway" && checkAddr("extraHosts", addr, true, true) != nil {
			return invalid("extraHosts: %.80q is not a name and an address", h)
		}
	}
	for _, s := range v.DNS {
		if err := checkAddr("dns", s, true, true); err != nil {
			return err
		}
	}
	for what, list := range map[string][]string{"dns": v.DNS, "dnsSearch": v.DNSSearch, "dnsOptions": v.DNSOptions} {
		if err := checkLines(what, list); err != nil {
			return err
		}
	}
	return nil
}

// checkHostname takes what the engine takes; empty is its own choice.
func checkHostname(s string) error {
	if len(s) > 63 || !only(s, letters+digits+".-_") || strings.HasPrefix(s, "-") {
		return invalid("hostname: %.80q cannot be one", s)
	}
	return nil
}

func (v *serviceCheck) ports() error {
	if !slices.IsSortedFunc(v.Ports, ComparePorts) {
		return invalid("ports are not in order")
	}
	for i, p := range v.Ports {
		if i > 0 && v.Ports[i-1] == p && p.HostPort != 0 || i >= MaxItems {
			return invalid("ports: %d stands twice, or there are more than %d", p.Container, MaxItems)
		}
		if p.HostIP != "" {
			if err := checkAddr("ports", p.HostIP, true, true); err != nil {
				return err
			}
		}
		if err := checkPort(p.Container, p.Protocol); err != nil {
			return err
		}
	}
	for i, e := range v.Expose {
		if i > 0 && CompareExpose(v.Expose[i-1], e) >= 0 || len(v.Expose) > MaxItems {
			return invalid("expose: not in order, or more than %d", MaxItems)
		}
		if err := checkPort(e.Container, e.Protocol); err != nil {
			return err
		}
	}
	return nil
}

// ComparePorts orders published ports: by the port of the container, then by the
// rest.
func ComparePorts(a, b Port) int {
	return cmp.Or(cmp.Compare(a.Container, b.Container), cmp.Compare(a.Protocol, b.Protocol),
		cmp.Compare(a.HostIP, b.HostIP), cmp.Compare(a.HostPort, b.HostPort))
}

// CompareExpose orders exposed ports by number and protocol.
func CompareExpose(a, b Expose) int {
	return cmp.Or(cmp.Compare(a.Container, b.Container), cmp.Compare(a.Protocol, b.Protocol))
}

func checkPort(n uint16, p Protocol) error {
	if n == 0 {
		return invalid("port 0 of a container")
	}
	return oneOf("protocol", p, TCP, UDP, SCTP)
}

func (v *serviceCheck) rights() error {
	for what, list := range map[string][]string{"capAdd": v.CapAdd, "capDrop": v.CapDrop, "deviceRules": v.DeviceRules,
		"groupAdd": v.GroupAdd, "securityOpt": v.SecurityOpt} {
		if err := sortedLines(what, list); err != nil {
			return err
		}
	}
	for _, c := range slices.Concat(v.CapAdd, v.CapDrop) {
		if !only(c, upper+digits+"_") || strings.HasPrefix(c, "CAP_") {
			return invalid("capability %.80q is not written as NET_ADMIN is", c)
		}
	}
	if err := ascending("devices", v.Devices, func(d Device) string { return d.Container }); err != nil {
		return err
	}
	for _, d := range v.Devices {
		if err := cmp.Or(checkAbs("device", d.Host), checkAbs("device", d.Container)); err != nil {
			return err
		}
		if err := oneOf("device permissions", d.Permissions, "r", "w", "m", "rw", "rm", "wm", "rwm"); err != nil {
			return err
		}
	}
	return checkMap("sysctls", v.Sysctls)
}

func (v *serviceCheck) limits() error {
	if err := ascending("ulimits", v.Ulimits, func(u Ulimit) string { return u.Name }); err != nil {
		return err
	}
	for _, u := range v.Ulimits {
		if u.Name == "" || !only(u.Name, lower) || u.Soft < -1 || u.Hard < -1 || u.Hard != -1 && (u.Soft == -1 || u.Soft > u.Hard) {
			return invalid("ulimit %.40q: %d and %d", u.Name, u.Soft, u.Hard)
		}
	}
	l := v.Limits
	if l.CPUSet != "" && (!only(l.CPUSet, digits+",-") || len(l.CPUSet) > 1024) {
		return invalid("limits: cpuSet %.80q", l.CPUSet)
	}
	if l.NanoCPUs > 0 && (l.CPUPeriod > 0 || l.CPUQuota > 0) {
		return invalid("limits: nanoCPUs and a quota of time")
	}
	return cmp.Or(
		within("limits: memory", l.Memory, 0, maxBytes),
		within("limits: memorySwap", l.MemorySwap, -1, maxBytes),
		within("limits: memoryReservation", l.MemoryReservation, 0, maxBytes),
		within("limits: nanoCPUs", l.NanoCPUs, 0, 1<<50),
		within("limits: cpuShares", l.CPUShares, 0, 1<<20),
		within("limits: cpuPeriod", l.CPUPeriod, 0, 1_000_000),
		within("limits: cpuQuota", l.CPUQuota, 0, 1<<50),
		within("limits: pids", l.Pids, -1, 1<<40),
	)
}
