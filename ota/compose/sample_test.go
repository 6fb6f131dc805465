package compose_test

import (
	"time"

	"github.com/pawl-ota/pawl/ota/compose"
	"github.com/pawl-ota/pawl/ota/release"
)

func blob(text string, size int64) release.Blob {
	return release.Blob{Digest: release.Sum([]byte(text)), Size: size}
}

// sample returns an app in which every field says something somewhere.
func sample() *compose.App {
	yes := true
	return &compose.App{
		Format: compose.Format,
		Name:   "gateway",
		Images: []compose.Image{
			{Name: "acme/app:7", Config: blob("config", 1500), Layers: []release.Blob{blob("base", 100<<20), blob("app", 6<<20)},
				Size: 106 << 20, OS: "linux", Architecture: "arm64", Variant: "v8"},
			{Name: "redis:7", Config: blob("redis", 2000), Ref: "docker.io/library/redis@sha256:" + release.Sum([]byte("manifest")).String(),
				Size: 40 << 20, OS: "linux", Architecture: "arm64", Variant: "v8"},
		},
		Networks: []compose.Network{
			{Name: "back", Engine: "gateway_back", Driver: "bridge", DriverOpts: map[string]string{"com.docker.network.driver.mtu": "1400"},
				Internal: true, Attachable: true, IPv6: true, Labels: map[string]string{"tier": "back"},
				Pools: []compose.Pool{{Subnet: "172.20.0.0/16", Range: "172.20.5.0/24", Gateway: "172.20.5.254"}, {Subnet: "fd00:1::/64"}}},
			{Name: "default", Engine: "gateway_default"},
			{Name: "site", Engine: "SITE", External: true},
		},
		Volumes: []compose.Volume{
			{Name: "data", Engine: "gateway_data", Driver: "local", DriverOpts: map[string]string{"type": "tmpfs"}, Labels: map[string]string{"a": "b"}},
			{Name: "redis.anon-0123456789ab", Engine: "gateway_redis.anon-0123456789ab", Anonymous: true},
			{Name: "shared", Engine: "shared", External: true},
		},
		Files: []compose.File{
			{Name: "app.conf", Kind: compose.Config, Blob: blob("conf", 20)},
			{Name: "key", Kind: compose.Secret, Blob: blob("key", 32)},
		},
		Services: []compose.Service{
			{Name: "migrate", Container: "gateway-migrate-1", Image: 0, Strategy: compose.Recreate, OneShot: true,
				Restart: compose.Restart{Policy: compose.RestartOnFailure, Most: 3}, Command: []string{"/migrate", "--id=${PAWL_DEVICE_ID}"},
				Entrypoint: []string{}, NetworkMode: "none", StopGrace: 10 * time.Second},
			{Name: "redis", Container: "gateway-redis-1", Image: 1, Strategy: compose.Recreate, Trial: compose.Trial{Uptime: 10 * time.Second},
				Restart: compose.Restart{Policy: compose.RestartAlways}, StopGrace: 10 * time.Second,
				Healthcheck: &compose.Healthcheck{Disabled: true},
				Networks:    []compose.Attachment{{Network: "back", Aliases: []string{"cache", "redis"}, IPv4: "172.20.5.7", IPv6: "fd00:1::7"}},
				Mounts:      []compose.Mount{{Type: compose.MountVolume, Source: "redis.anon-0123456789ab", Target: "/data", NoCopy: true}}},
			full(&yes),
			{Name: "web", Container: "gateway-web-1", Image: 0, Strategy: compose.Handover, Trial: compose.Trial{Uptime: 10 * time.Second},
				Restart: compose.Restart{Policy: compose.RestartUnlessStopped}, StopGrace: 10 * time.Second,
				Networks: []compose.Attachment{{Network: "default", Aliases: []string{"web"}}},
				Mounts:   []compose.Mount{{Type: compose.MountVolume, Source: "shared", Target: "/srv", ReadOnly: true}}},
			{Name: "sniff", Container: "sniff", Image: 0, Strategy: compose.Recreate, Restart: compose.Restart{Policy: compose.RestartNo},
				StopGrace: 10 * time.Second, NetworkMode: "service:app", PID: "service:app", IPC: "service:app"},
		},
	}
}

// full returns a service with everything that does not exclude the rest.
func full(yes *bool) compose.Service {
	return compose.Service{
		Name: "app", Container: "gateway-app-1", Image: 0, Strategy: compose.Recreate,
		Trial: compose.Trial{Uptime: 30 * time.Second, Restarts: 2},
		DependsOn: []compose.Dependency{
			{Service: "migrate", Condition: compose.Completed},
			{Service: "redis", Condition: compose.Healthy},
		},
		Restart:    compose.Restart{Policy: compose.RestartUnlessStopped},
		Entrypoint: []string{"/app"}, Command: []string{"--price", "5$$", ""},
		Environment: map[string]string{"EMPTY": "", "ID": "${PAWL_DEVICE_ID}/${PAWL_HARDWARE}"},
		User:        "1000:1000", WorkingDir: "/srv", Init: yes, StopSignal: "SIGQUIT", StopGrace: 20 * time.Second,
		Healthcheck: &compose.Healthcheck{Test: []string{"CMD-SHELL", "wget -q localhost"}, Interval: 5 * time.Second, Timeout: time.Second,
			StartPeriod: 3 * time.Second, StartInterval: 500 * time.Millisecond, Retries: 4},
		Labels:  map[string]string{"device": "${PAWL_HOSTNAME}"},
		Logging: &compose.Logging{Driver: "json-file", Options: map[string]string{"max-size": "1m"}},
		Networks: []compose.Attachment{
			{Network: "default", Aliases: []string{"app"}}, {Network: "back", Aliases: []string{"app"}}, {Network: "site", Aliases: []string{"app"}},
		},
		Ports: []compose.Port{
			{HostPort: 8080, Container: 80, Protocol: compose.TCP},
			{HostIP: "127.0.0.1", HostPort: 8443, Container: 443, Protocol: compose.TCP},
			{Container: 9999, Protocol: compose.UDP},
		},
		Expose:   []compose.Expose{{Container: 80, Protocol: compose.TCP}, {Container: 132, Protocol: compose.SCTP}},
		Hostname: "gw-${PAWL_DEVICE_ID}", ExtraHosts: []string{"broker:10.0.0.1", "host:host-gateway", "six:::1"},
		DNS: []string{"9.9.9.9"}, DNSSearch: []string{"example.org"}, DNSOptions: []string{"ndots:2"},
		Mounts: []compose.Mount{
			{Type: compose.MountTmpfs, Target: "/run", Options: "size=67108864,mode=1777,noexec"},
			{Type: compose.MountVolume, Source: "data", Target: "/var/lib/app"},
			{Type: compose.MountBind, Source: "/var/log/app", Target: "/var/log", Create: true, Propagation: "rslave", ReadOnly: true},
		},
		Files: []compose.FileMount{
			{Kind: compose.Config, Name: "app.conf", Target: "/etc/app.conf", Mode: 0o444},
			{Kind: compose.Secret, Name: "key", Target: "/run/secrets/key", UID: 1000, GID: 1000, Mode: 0o400},
		},
		ReadOnly: true, ShmSize: 64 << 20, PID: "host", IPC: "shareable", Privileged: true,
		CapAdd: []string{"NET_ADMIN"}, CapDrop: []string{"ALL"},
		Devices:     []compose.Device{{Host: "/dev/ttyUSB0", Container: "/dev/modem", Permissions: "rw"}},
		DeviceRules: []string{"c 1:3 mr"}, GroupAdd: []string{"20", "dialout"},
		SecurityOpt: []string{"apparmor=unconfined", "no-new-privileges"},
		Sysctls:     map[string]string{"net.core.somaxconn": "1024"},
		Ulimits:     []compose.Ulimit{{Name: "memlock", Soft: -1, Hard: -1}, {Name: "nofile", Soft: 1024, Hard: 4096}},
		Limits: compose.Limits{Memory: 256 << 20, MemorySwap: -1, MemoryReservation: 64 << 20, CPUShares: 512, CPUPeriod: 100_000,
			CPUQuota: 50_000, CPUSet: "0-1,3", Pids: 100},
	}
}
