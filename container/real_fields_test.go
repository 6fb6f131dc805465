//go:build linux

package container

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	docker "github.com/docker/docker/api/types/container"
	dockernet "github.com/docker/docker/api/types/network"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/dockerd"
	"github.com/pawl-ota/pawl/ota/compose"
)

// fieldsApp is an app whose services say together everything that one can say.
func fieldsApp(t testing.TB, folder string) testApp {
	yes := true
	return realApp(t, 1).changed(t, func(a *compose.App) {
		rangeOf, opts := "10.215.0.0/25", map[string]string{"com.docker.network.driver.mtu": "1400"}
		if engineKind == "podman" {
			rangeOf, opts = "", nil
		}
		conf := a.Files[0]
		conf.Kind, conf.Name = compose.Config, "text"
		a.Files = []compose.File{conf, a.Files[0]}
		a.Networks = append([]compose.Network{{
			Name: "back", Engine: "shop_back", Driver: "bridge", Internal: true, Attachable: engineKind != "podman", Labels: map[string]string{"tier": "back"}, DriverOpts: opts,
			Pools: []compose.Pool{{Subnet: "10.215.0.0/24", Range: rangeOf, Gateway: "10.215.0.9"}},
		}}, a.Networks...)
		a.Volumes = append(a.Volumes, compose.Volume{Name: "scratch.anon", Engine: "shop_scratch.anon", Anonymous: true}, compose.Volume{
			Name: "site", Engine: "shop_site", Driver: "local", DriverOpts: map[string]string{"type": "tmpfs", "device": "tmpfs"}, Labels: map[string]string{"a": "b"}})
		job, host, joins := testService("job", 0), testService("host", 0), testService("joins", 0)
		job.OneShot, job.Restart, job.Command, job.Networks, job.NetworkMode = true, compose.Restart{Policy: compose.RestartOnFailure, Most: 3}, []string{}, nil, "none"
		full := compose.Service{
			Name: "full", Container: "shop-full", Strategy: compose.Recreate, StopGrace: 1500 * time.Millisecond, StopSignal: "SIGQUIT",
			Restart: compose.Restart{Policy: compose.RestartUnlessStopped}, Trial: compose.Trial{Uptime: time.Millisecond, Restarts: 1},
			DependsOn:  []compose.Dependency{{Service: "job", Condition: compose.Completed}},
			Entrypoint: []string{"/app"}, Command: []string{"-after", "1h", "-text", "${PAWL_DEVICE_ID} $$5"},
			Environment: map[string]string{"EMPTY": "", "ID": "${PAWL_DEVICE_ID}/${PAWL_HARDWARE}"},
			User:        "1000:1000", WorkingDir: "/srv", Init: &yes, Hostname: "gw-${PAWL_DEVICE_ID}", Labels: map[string]string{"host": "${PAWL_HOSTNAME}"},
			Healthcheck: &compose.Healthcheck{Test: []string{"CMD", "/app"}, Interval: time.Hour, Timeout: time.Minute, StartPeriod: time.Second, Retries: 4},
			Logging:     &compose.Logging{Driver: "json-file", Options: map[string]string{"max-size": "1m"}},
			Networks:    []compose.Attachment{{Network: "back", Aliases: []string{"cache", "full"}, IPv4: "10.215.0.77"}, {Network: "default", Aliases: []string{"full", "other"}}},
			Ports: []compose.Port{{HostIP: "127.0.0.1", HostPort: 8080, Container: 80, Protocol: compose.TCP},
				{HostPort: 8081, Container: 81, Protocol: compose.UDP}, {Container: 82, Protocol: compose.TCP}},
			Expose:     []compose.Expose{{Container: 99, Protocol: compose.TCP}},
			ExtraHosts: []string{"broker:10.0.0.1", "host:host-gateway"}, DNS: []string{"9.9.9.9"}, DNSSearch: []string{"example.org"}, DNSOptions: []string{"ndots:2"},
			Mounts: []compose.Mount{
				{Type: compose.MountVolume, Source: "data", Target: "/data", ReadOnly: true, NoCopy: true}, {Type: compose.MountVolume, Source: "scratch.anon", Target: "/scratch"},
				{Type: compose.MountVolume, Source: "site", Target: "/site"}, {Type: compose.MountBind, Source: folder, Target: "/there", ReadOnly: true, Propagation: "private"},
				{Type: compose.MountBind, Source: folder + "/new", Target: "/made", Create: true}, {Type: compose.MountTmpfs, Target: "/cache", Options: "size=65536,mode=700,noexec"},
			},
			Files: []compose.FileMount{{Kind: compose.Config, Name: "text", Target: "/etc/text", Mode: 0o444},
				{Kind: compose.Secret, Name: "conf", Target: "/run/secrets/conf", UID: 1000, GID: 1001, Mode: 0o400}},
			ReadOnly: true, ShmSize: 1 << 20, IPC: "shareable", CapAdd: []string{"NET_ADMIN"}, CapDrop: []string{"ALL"},
			Devices:     []compose.Device{{Host: "/dev/null", Container: "/dev/modem", Permissions: "rw"}},
			DeviceRules: []string{"c 1:3 mr"}, GroupAdd: []string{"20"}, SecurityOpt: []string{"no-new-privileges"},
			Sysctls: map[string]string{"net.ipv4.ip_unprivileged_port_start": "80"},
			Ulimits: []compose.Ulimit{{Name: "nofile", Soft: 1024, Hard: 4096}},
			Limits: compose.Limits{Memory: 64 << 20, MemorySwap: 128 << 20, MemoryReservation: 32 << 20, CPUShares: 512, CPUPeriod: 100_000, CPUQuota: 50_000,
				CPUSet: "0", Pids: 100},
		}
		host.Privileged, host.NetworkMode, host.Networks, host.PID, host.IPC, host.Limits.NanoCPUs = true, "host", nil, "host", "host", 500_000_000
		host.Command, host.Healthcheck = []string{"-after", "1h"}, &compose.Healthcheck{Disabled: true}
		host.DependsOn = []compose.Dependency{{Service: "full", Condition: compose.Started}}
		joins.NetworkMode, joins.Networks, joins.PID, joins.IPC = "service:full", nil, "service:full", "service:full"
		joins.Command = []string{"-after", "1h"}
		a.Services = []compose.Service{job, full, host, joins}
		for i := range a.Services {
			plain(&a.Services[i])
			slices.SortFunc(a.Services[i].Mounts, func(a, b compose.Mount) int { return strings.Compare(a.Target, b.Target) })
		}
	})
}

// fieldsOfAnEngine has an engine hold every field of a service as the document says
// it.
func fieldsOfAnEngine(t *testing.T, e *dockerd.Engine) {
	r, ctx := newRealRig(t, e), t.Context()
	r.b.opts.Values = compose.Values{DeviceID: "d7", Hardware: "rev-b", Hostname: "kitchen"}
	folder := t.TempDir()
	a := fieldsApp(t, folder)
	everyFieldIsSaid(t, a.app)
	_, err := r.b.Stage(ctx, "fields", a.c, a.blobs)
	require.NoError(t, err)
	inspect := func(service string) docker.InspectResponse {
		rec, err := r.b.load(ctx)
		require.NoError(t, err)
		c, err := r.b.engine.(*limited).e.(*dockerEngine).cli.ContainerInspect(ctx, rec.Sets["fields"].Boxes[service])
		require.NoError(t, err)
		return c
	}
	full, host, joins, job := inspect("full"), inspect("host"), inspect("joins"), inspect("job")
	back := full.NetworkSettings.Networks["shop_back"]
	require.NotNil(t, back, "%s", text(full.NetworkSettings))
	secret, err := os.Stat(fileIn(full.Mounts, "/run/secrets/conf"))
	require.NoError(t, err)
	for _, c := range []struct{ field, is, want string }{
		{"image", text(full.Image == inspect("job").Image, full.Config.Image != ""), "[true,true]"},
		{"entrypoint", text(full.Config.Entrypoint), `[["/app"]]`},
		{"command", text(full.Config.Cmd), `[["-after","1h","-text","d7 $5"]]`},
		{"environment", text(has(full.Config.Env, "EMPTY="), has(full.Config.Env, "ID=d7/rev-b")), "[true,true]"},
		{"user", full.Config.User, "1000:1000"},
		{"working_dir", full.Config.WorkingDir, "/srv"},
		{"init", text(full.HostConfig.Init), "[true]"},
		{"hostname", full.Config.Hostname, "gw-d7"},
		{"labels", full.Config.Labels["host"], "kitchen"},
		{"stop_signal", full.Config.StopSignal, "SIGQUIT"},
		{"stop_grace_period", text(full.Config.StopTimeout), "[2]"},
		{"restart in the trial", string(full.HostConfig.RestartPolicy.Name), "no"},
		{"healthcheck", text(full.Config.Healthcheck), `[{"Test":["CMD","/app"],"Interval":3600000000000,"Timeout":60000000000,"StartPeriod":1000000000,"Retries":4}]`},
		{"no healthcheck", text(host.Config.Healthcheck), `[{"Test":["NONE"]}]`},
		{"logging", text(full.HostConfig.LogConfig), `[{"Type":"json-file","Config":{"max-size":"1m"}}]`},
		{"static address", text(back.IPAMConfig), `[{"IPv4Address":"10.215.0.77"}]`},
		{"aliases", text(has(back.Aliases, "cache"), has(full.NetworkSettings.Networks["shop_default"].Aliases, "other")), "[true,true]"},
		{"ports", text(full.HostConfig.PortBindings), `[{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"8080"}],"81/udp":[{"HostIp":"","HostPort":"8081"}],"82/tcp":[{"HostIp":"","HostPort":""}]}]`},
		{"expose", text(full.Config.ExposedPorts), `[{"80/tcp":{},"81/udp":{},"82/tcp":{},"99/tcp":{}}]`},
		{"network_mode: none", string(job.HostConfig.NetworkMode), "none"},
		{"network_mode: host", string(host.HostConfig.NetworkMode), "host"},
		{"network_mode: service", string(joins.HostConfig.NetworkMode), "container:" + full.ID},
		{"pid: host", string(host.HostConfig.PidMode), "host"},
		{"pid: service", string(joins.HostConfig.PidMode), "container:" + full.ID},
		{"ipc", string(full.HostConfig.IpcMode), "shareable"},
		{"ipc: host", string(host.HostConfig.IpcMode), "host"},
		{"ipc: service", string(joins.HostConfig.IpcMode), "container:" + full.ID},
		{"extra_hosts", text(full.HostConfig.ExtraHosts), `[["broker:10.0.0.1","host:host-gateway"]]`},
		{"dns", text(full.HostConfig.DNS, full.HostConfig.DNSSearch, full.HostConfig.DNSOptions), `[["9.9.9.9"],["example.org"],["ndots:2"]]`},
		{"volumes: named", mountAt(full.Mounts, "/data"), "volume shop_data false"},
		{"volumes: anonymous", mountAt(full.Mounts, "/scratch"), "volume shop_scratch.anon true"},
		{"volumes: driver", mountAt(full.Mounts, "/site"), "volume shop_site true"},
		{"volumes: nocopy", text(strings.Contains(text(full.HostConfig.Mounts), `"NoCopy":true`)), "[true]"},
		{"volumes: bind", mountAt(full.Mounts, "/there"), "bind " + folder + " false private"},
		{"volumes: bind that is made", mountAt(full.Mounts, "/made"), "bind " + folder + "/new true rprivate"},
		{"tmpfs", text(full.HostConfig.Tmpfs), `[{"/cache":"size=65536,mode=700,noexec"}]`},
		{"configs", mountAt(full.Mounts, "/etc/text"), "bind " + fileIn(full.Mounts, "/etc/text") + " false rprivate"},
		{"secrets", text(secret.Mode().Perm(), fileIn(full.Mounts, "/run/secrets/conf") != ""), "[256,true]"},
		{"read_only", text(full.HostConfig.ReadonlyRootfs), "[true]"},
		{"shm_size", text(full.HostConfig.ShmSize), "[1048576]"},
		{"cap_add, cap_drop", text(full.HostConfig.CapAdd, full.HostConfig.CapDrop), `[["CAP_NET_ADMIN"],["ALL"]]`},
		{"privileged", text(full.HostConfig.Privileged, host.HostConfig.Privileged), "[false,true]"},
		{"devices", text(full.HostConfig.Devices), `[[{"PathOnHost":"/dev/null","PathInContainer":"/dev/modem","CgroupPermissions":"rw"}]]`},
		{"device_cgroup_rules", text(full.HostConfig.DeviceCgroupRules), `[["c 1:3 mr"]]`},
		{"group_add", text(full.HostConfig.GroupAdd), `[["20"]]`},
		{"security_opt", text(full.HostConfig.SecurityOpt), `[["no-new-privileges"]]`},
		{"sysctls", text(full.HostConfig.Sysctls), `[{"net.ipv4.ip_unprivileged_port_start":"80"}]`},
		{"ulimits", text(full.HostConfig.Ulimits), `[[{"Name":"nofile","Hard":4096,"Soft":1024}]]`},
		{"memory", text(full.HostConfig.Memory, full.HostConfig.MemorySwap, full.HostConfig.MemoryReservation), "[67108864,134217728,33554432]"},
		{"cpu", text(full.HostConfig.CPUShares, full.HostConfig.CPUPeriod, full.HostConfig.CPUQuota, full.HostConfig.CpusetCpus), `[512,100000,50000,"0"]`},
		{"cpus", text(host.HostConfig.NanoCPUs), "[500000000]"},
		{"pids_limit", text(full.HostConfig.PidsLimit), "[100]"},
	} {
		if says, other := podmanSays[c.field]; other && engineKind == "podman" {
			c.want = says
		}
		assert.Equal(t, c.want, chosen.ReplaceAllString(c.is, `"HostPort":"PORT"`), c.field)
	}
	if engineKind != "podman" {
		r.networkFields(t)
	}
	// The engine takes it all, and starts it, privileged where the machine has all that
	// such a container is to have; the commit gives each its policy.
	require.NoError(t, r.b.Revert(ctx, "fields", a.c))
	a = a.changed(t, func(a *compose.App) { a.Services[2].Privileged = allCapabilities(t) })
	_, err = r.b.Stage(ctx, "fields", a.c, a.blobs)
	require.NoError(t, err)
	require.NoError(t, r.b.Activate(ctx, "fields", a.c))
	require.NoError(t, r.b.Commit(ctx, "fields", a.c))
	assert.DirExists(t, filepath.Join(folder, "new"))
	for service, want := range map[string]string{"job": "on-failure 3", "full": "unless-stopped 0", "host": "always 0"} {
		if engineKind == "podman" {
			want = "no 0"
		}
		p := inspect(service).HostConfig.RestartPolicy
		assert.Equal(t, want, fmt.Sprint(p.Name, " ", p.MaximumRetryCount), "restart")
	}
	found, err := r.b.Verify(ctx, a.c, a.blobs)
	require.NoError(t, err)
	require.Empty(t, found)
	r.empty()
}

// allCapabilities reports whether programs of this machine can have every capability
// that its kernel knows.
func allCapabilities(t *testing.T) bool {
	last, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	require.NoError(t, err)
	n, err := strconv.Atoi(strings.TrimSpace(string(last)))
	require.NoError(t, err)
	status, err := os.ReadFile("/proc/self/status")
	require.NoError(t, err)
	_, after, _ := strings.Cut(string(status), "CapBnd:")
	set, err := strconv.ParseUint(strings.Fields(after)[0], 16, 64)
	require.NoError(t, err)
	t.Logf("the machine gives capabilities %#x", set)
	return set == 1<<(n+1)-1
}

// podmanSays is what Podman says otherwise: the same in other words, or nothing, where
// the app of it asks for nothing because that is refused.
var podmanSays = map[string]string{
	"stop_signal": "3", "healthcheck": "[null]", "no healthcheck": `[{"Test":["NONE"],"Interval":30000000000,"Timeout":30000000000,"Retries":3}]`,
	"logging": `[{"Type":"json-file","Config":null}]`, "static address": "[null]", "network_mode: service": "none", "pid: service": "private",
	"ports":     `[{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"8080"}],"81/udp":[{"HostIp":"","HostPort":"8081"}],"82/tcp":[{"HostIp":"","HostPort":"PORT"}],"99/tcp":null}]`,
	"ipc: host": "shareable", "ipc: service": "shareable", "volumes: nocopy": "[false]",
	"tmpfs":               `[{"/cache":"size=65536,mode=700,noexec,rw,rprivate,nosuid,nodev,tmpcopyup","/run":"rw,rprivate,nosuid,nodev,tmpcopyup","/tmp":"rw,rprivate,nosuid,nodev,tmpcopyup","/var/tmp":"rw,rprivate,nosuid,nodev,tmpcopyup"}]`,
	"cap_add, cap_drop":   `[["NET_ADMIN"],["AUDIT_WRITE","CHOWN","DAC_OVERRIDE","FOWNER","FSETID","KILL","MKNOD","NET_BIND_SERVICE","NET_RAW","SETFCAP","SETGID","SETPCAP","SETUID","SYS_CHROOT"]]`,
	"devices":             `[[{"PathOnHost":"/dev/null","PathInContainer":"/dev/modem","CgroupPermissions":""}]]`,
	"device_cgroup_rules": "[null]", "sysctls": "[null]", "ulimits": "[[]]",
}

// chosen takes the ports from a text that an engine chose.
var chosen = regexp.MustCompile(`"HostPort":"[34][0-9]{4}"`)

// networkFields are those of the network and of the volume.
func (r *realRig) networkFields(t *testing.T) {
	cli := r.b.engine.(*limited).e.(*dockerEngine).cli
	n, err := cli.NetworkInspect(t.Context(), "shop_back", dockernet.InspectOptions{})
	require.NoError(t, err)
	assert.Equal(t, `["bridge",true,true,"back","1400",[{"Subnet":"10.215.0.0/24","IPRange":"10.215.0.0/25","Gateway":"10.215.0.9"}]]`,
		text(n.Driver, n.Internal, n.Attachable, n.Labels["tier"], n.Options["com.docker.network.driver.mtu"], n.IPAM.Config), "networks")
	v, err := cli.VolumeInspect(t.Context(), "shop_site")
	require.NoError(t, err)
	assert.Equal(t, `["local","b",{"device":"tmpfs","type":"tmpfs"}]`, text(v.Driver, v.Labels["a"], v.Options), "volumes")
}

// everyFieldIsSaid fails for a field of the document that no service of the app has.
func everyFieldIsSaid(t *testing.T, a compose.App) {
	for i := range reflect.TypeFor[compose.Service]().NumField() {
		name, said := reflect.TypeFor[compose.Service]().Field(i).Name, false
		for _, v := range a.Services {
			said = said || !reflect.ValueOf(v).Field(i).IsZero()
		}
		assert.True(t, said || name == "Image" || engineKind == "podman", "no service says %s", name)
	}
	for i := range reflect.TypeFor[compose.Limits]().NumField() {
		said := false
		for _, v := range a.Services {
			said = said || !reflect.ValueOf(v.Limits).Field(i).IsZero()
		}
		assert.True(t, said, "no service says %s", reflect.TypeFor[compose.Limits]().Field(i).Name)
	}
}

func text(values ...any) string {
	data, _ := json.Marshal(values)
	return string(data)
}

func has(all []string, one string) bool {
	return strings.Contains("\n"+strings.Join(all, "\n")+"\n", "\n"+one+"\n")
}

func mountAt(all []docker.MountPoint, target string) string {
	for _, m := range all {
		if m.Destination == target && m.Type == "volume" {
			return fmt.Sprint(m.Type, " ", m.Name, " ", m.RW)
		}
		if m.Destination == target {
			return fmt.Sprint(m.Type, " ", m.Source, " ", m.RW, " ", m.Propagation)
		}
	}
	return ""
}

func fileIn(all []docker.MountPoint, target string) string {
	for _, m := range all {
		if m.Destination == target {
			return m.Source
		}
	}
	return ""
}
