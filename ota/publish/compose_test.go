package publish

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/compose"
	"github.com/pawl-ota/pawl/ota/release"
)

// kitchen makes apps out of compose files.
type kitchen struct {
	t     testing.TB
	image string // an archive
	disk  *disk
}

func newKitchen(t testing.TB) *kitchen {
	image := testImage(t, "linux/amd64", layer("bin/app", "the app"))
	return &kitchen{t: t, image: archive(t, true, map[string]v1.Image{"acme/app:7": image}), disk: &disk{dir: t.TempDir()}}
}

// options are what the files of these tests need.
func (k *kitchen) options() ComposeOptions {
	return ComposeOptions{Platform: "linux/amd64", Env: map[string]string{"TAG": "7"},
		Images: map[string]ImageSource{"*": {From: FromArchive, Path: k.image}}}
}

// app makes the app of compose.yaml among the files.
func (k *kitchen) app(files tree, o ComposeOptions) (*compose.App, error) {
	dir := files.write(k.t)
	f, err := k.disk.scratch()
	require.NoError(k.t, err)
	defer f.Close()
	a := &adding{ctx: k.t.Context(), r: &Repository{disk: *k.disk, opts: Options{Progress: func(Progress) {}}}}
	app, err := a.composeApp(Component{Name: "gateway", From: filepath.Join(dir, "compose.yaml"), Compose: o},
		map[string]string{"PAWL_PRODUCT": "gw", "PAWL_VARIANT": "default", "PAWL_VERSION": "1.2.3", "PAWL_SEQ": "7"}, newSpool(f))
	if err != nil {
		return nil, shortError{err, dir + "/"}
	}
	data, err := app.Encode()
	require.NoError(k.t, err)
	again, err := compose.Parse(data)
	require.NoError(k.t, err)
	require.Equal(k.t, app, again)
	return app, nil
}

// shortError leaves a folder out of an error.
type shortError struct {
	error
	dir string
}

func (e shortError) Error() string { return strings.ReplaceAll(e.error.Error(), e.dir, "") }
func (e shortError) Unwrap() error { return e.error }

// service makes the app of one service "app" that says text, with rest behind
// it.
func (k *kitchen) service(text, rest string) (*compose.App, error) {
	file := "services:\n  app:\n    image: acme/app:7\n" + indent(text, 4) + rest
	return k.app(tree{"compose.yaml": file, "vars.env": "A=1\nB=${TAG}\nC='$$x'\n", "key.pem": "KEY", "seccomp.json": "{ \"a\": 1 }\n"}, k.options())
}

func indent(text string, n int) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(strings.Repeat(" ", n) + strings.TrimSuffix(line, "\n") + "\n")
	}
	return b.String()
}

// TestComposeKeys has each key come out as the document says it.
func TestComposeKeys(t *testing.T) {
	k := newKitchen(t)
	yes, sec := true, time.Second
	const helper = "  db:\n    image: acme/db:1\n    restart: always\n    healthcheck: {test: x}\n  job:\n    image: acme/job:1\n"
	for _, c := range []struct {
		text, rest string
		want       func(s *compose.Service)
	}{
		{"", "", func(*compose.Service) {}},
		{"command: serve --port 80", "", func(s *compose.Service) { s.Command = []string{"serve", "--port", "80"} }},
		{"command: [a, 'b c', '$$x']", "", func(s *compose.Service) { s.Command = []string{"a", "b c", "$$x"} }},
		{"command: []", "", func(s *compose.Service) { s.Command = []string{} }},
		{"entrypoint: /bin/app -v", "", func(s *compose.Service) { s.Entrypoint = []string{"/bin/app", "-v"} }},
		{"entrypoint: []", "", func(s *compose.Service) { s.Entrypoint = []string{} }},
		{"environment: {B: 2, A: 'x=y', E: ''}", "", func(s *compose.Service) { s.Environment = map[string]string{"A": "x=y", "B": "2", "E": ""} }},
		{"environment: [A=1, TAG, P=$$5]", "", func(s *compose.Service) { s.Environment = map[string]string{"A": "1", "TAG": "7", "P": "$$5"} }},
		{"environment: ['ID=${PAWL_DEVICE_ID}-$PAWL_HARDWARE', 'V=${PAWL_VERSION}/${PAWL_SEQ}']", "", func(s *compose.Service) {
			s.Environment = map[string]string{"ID": "${PAWL_DEVICE_ID}-${PAWL_HARDWARE}", "V": "1.2.3/7"}
		}},
		{"environment: {X: '${TAG:-no}${NONE:-d}', Y: '$${PAWL_DEVICE_ID}'}", "", func(s *compose.Service) {
			s.Environment = map[string]string{"X": "7d", "Y": "$${PAWL_DEVICE_ID}"}
		}},
		{"env_file: vars.env\nenvironment: {A: 2}", "", func(s *compose.Service) {
			s.Environment = map[string]string{"A": "2", "B": "7", "C": "$$$$x"}
		}},
		{"env_file: [{path: none.env, required: false}, {path: vars.env, format: raw}]", "", func(s *compose.Service) {
			s.Environment = map[string]string{"A": "1", "B": "$${TAG}", "C": "'$$$$x'"}
		}},
		{"ports: ['80', '8080:80', '127.0.0.1:8443:443/udp', '9000-9001:90-91']", "", func(s *compose.Service) {
			s.Ports = []compose.Port{{Container: 80, Protocol: "tcp"}, {HostPort: 8080, Container: 80, Protocol: "tcp"}, {HostPort: 9000, Container: 90, Protocol: "tcp"},
				{HostPort: 9001, Container: 91, Protocol: "tcp"}, {HostIP: "127.0.0.1", HostPort: 8443, Container: 443, Protocol: "udp"}}
		}},
		{"ports: [{target: 80, published: '8080', host_ip: '::1', protocol: tcp, mode: host, name: web}]", "", func(s *compose.Service) {
			s.Ports = []compose.Port{{HostIP: "::1", HostPort: 8080, Container: 80, Protocol: "tcp"}}
		}},
		{"expose: ['80', 81-82/udp]", "", func(s *compose.Service) {
			s.Expose = []compose.Expose{{Container: 80, Protocol: "tcp"}, {Container: 81, Protocol: "udp"}, {Container: 82, Protocol: "udp"}}
		}},
		{"volumes: ['data:/data:ro', '/var/run/docker.sock:/sock', '/cache']", "volumes: {data: {}, unused: {}}", func(s *compose.Service) {
			s.Mounts = []compose.Mount{{Type: "volume", Source: "anon-2b6c46da0520", Target: "/cache"}, {Type: "volume", Source: "data", Target: "/data", ReadOnly: true},
				{Type: "bind", Source: "/var/run/docker.sock", Target: "/sock", Create: true}}
		}},
		{"volumes: [{type: volume, source: data, target: /data, volume: {nocopy: true}}, {type: bind, source: /etc/x/, target: /x/, read_only: true, bind: {propagation: rslave, create_host_path: false}}, {type: tmpfs, target: /t, tmpfs: {size: 64m, mode: 0o1777}}]",
			"volumes: {data: {name: Mine, external: true}}", func(s *compose.Service) {
				s.Mounts = []compose.Mount{{Type: "volume", Source: "data", Target: "/data", NoCopy: true}, {Type: "tmpfs", Target: "/t", Options: "size=67108864,mode=1777"},
					{Type: "bind", Source: "/etc/x", Target: "/x", ReadOnly: true, Propagation: "rslave"}}
			}},
		{"tmpfs: ['/run', '/data:size=1k,mode=0700,noexec']", "", func(s *compose.Service) {
			s.Mounts = []compose.Mount{{Type: "tmpfs", Target: "/data", Options: "size=1024,mode=700,noexec"}, {Type: "tmpfs", Target: "/run"}}
		}},
		{"networks: {back: {aliases: [cache, app], ipv4_address: 172.20.0.5, ipv6_address: 'fd00::5', priority: 9}, default: null}",
			"networks: {back: {internal: true, driver: bridge, ipam: {config: [{subnet: 172.20.0.0/16, ip_range: 172.20.1.0/24, gateway: 172.20.1.1}]}}}", func(s *compose.Service) {
				s.Networks = []compose.Attachment{{Network: "back", Aliases: []string{"app", "cache"}, IPv4: "172.20.0.5", IPv6: "fd00::5"}, {Network: "default", Aliases: []string{"app"}}}
			}},
		{"network_mode: host", "", func(s *compose.Service) { s.NetworkMode, s.Networks = "host", nil }},
		{"network_mode: service:db", helper, func(s *compose.Service) {
			s.NetworkMode, s.Networks = "service:db", nil
			s.DependsOn = []compose.Dependency{{Service: "db", Condition: "started"}}
		}},
		{"depends_on: [db]", helper, func(s *compose.Service) { s.DependsOn = []compose.Dependency{{Service: "db", Condition: "started"}} }},
		{"depends_on: {db: {condition: service_healthy, required: true}, job: {condition: service_completed_successfully, restart: false, required: true}}", helper, func(s *compose.Service) {
			s.DependsOn = []compose.Dependency{{Service: "db", Condition: "healthy"}, {Service: "job", Condition: "completed"}}
		}},
		{"depends_on: {other: {condition: service_started, required: false}}", "  other: {image: x, profiles: [none]}\n", func(*compose.Service) {}},
		{"restart: on-failure:3", "", func(s *compose.Service) { s.Restart = compose.Restart{Policy: "on-failure", Most: 3} }},
		{"restart: unless-stopped", "", func(s *compose.Service) { s.Restart.Policy = "unless-stopped" }},
		{"healthcheck: {test: wget -q x, interval: 1m30s, timeout: 1s, retries: 4, start_period: 2s, start_interval: 500ms}", "", func(s *compose.Service) {
			s.Healthcheck = &compose.Healthcheck{Test: []string{"CMD-SHELL", "wget -q x"}, Interval: 90 * sec, Timeout: sec, Retries: 4, StartPeriod: 2 * sec, StartInterval: sec / 2}
		}},
		{"healthcheck: {test: [CMD, a, b]}", "", func(s *compose.Service) { s.Healthcheck = &compose.Healthcheck{Test: []string{"CMD", "a", "b"}} }},
		{"healthcheck: {disable: true}", "", func(s *compose.Service) { s.Healthcheck = &compose.Healthcheck{Disabled: true} }},
		{"healthcheck: {test: [NONE]}", "", func(s *compose.Service) { s.Healthcheck = &compose.Healthcheck{Disabled: true} }},
		{"labels: {a: b, d: '${PAWL_HOSTNAME}'}", "", func(s *compose.Service) { s.Labels = map[string]string{"a": "b", "d": "${PAWL_HOSTNAME}"} }},
		{"labels: [a=b, c]", "", func(s *compose.Service) { s.Labels = map[string]string{"a": "b", "c": ""} }},
		{"user: '1000:1000'", "", func(s *compose.Service) { s.User = "1000:1000" }},
		{"working_dir: /srv", "", func(s *compose.Service) { s.WorkingDir = "/srv" }},
		{"hostname: gw-${PAWL_DEVICE_ID}", "", func(s *compose.Service) { s.Hostname = "gw-${PAWL_DEVICE_ID}" }},
		{"container_name: mine", "", func(s *compose.Service) { s.Container = "mine" }},
		{"extra_hosts: ['b:10.0.0.1', 'a=::1', 'h:host-gateway']", "", func(s *compose.Service) { s.ExtraHosts = []string{"a:::1", "b:10.0.0.1", "h:host-gateway"} }},
		{"dns: 9.9.9.9\ndns_search: [b, a]\ndns_opt: ['ndots:2']", "", func(s *compose.Service) {
			s.DNS, s.DNSSearch, s.DNSOptions = []string{"9.9.9.9"}, []string{"b", "a"}, []string{"ndots:2"}
		}},
		{"cap_add: [NET_ADMIN, cap_chown]\ncap_drop: [ALL]", "", func(s *compose.Service) {
			s.CapAdd, s.CapDrop = []string{"CHOWN", "NET_ADMIN"}, []string{"ALL"}
		}},
		{"privileged: true", "", func(s *compose.Service) { s.Privileged = true }},
		{"devices: ['/dev/b:/dev/x:rw', {source: /dev/a, target: /dev/a, permissions: mr}]", "", func(s *compose.Service) {
			s.Devices = []compose.Device{{Host: "/dev/a", Container: "/dev/a", Permissions: "rm"}, {Host: "/dev/b", Container: "/dev/x", Permissions: "rw"}}
		}},
		{"device_cgroup_rules: ['c 1:3 mr']", "", func(s *compose.Service) { s.DeviceRules = []string{"c 1:3 mr"} }},
		{"group_add: [dialout, 20]", "", func(s *compose.Service) { s.GroupAdd = []string{"20", "dialout"} }},
		{"security_opt: ['no-new-privileges:true', seccomp=./seccomp.json, 'apparmor:x']", "", func(s *compose.Service) {
			s.SecurityOpt = []string{"apparmor=x", "no-new-privileges", `seccomp={"a":1}`}
		}},
		{"sysctls: {net.core.somaxconn: 1024}", "", func(s *compose.Service) { s.Sysctls = map[string]string{"net.core.somaxconn": "1024"} }},
		{"sysctls: [a.b=1]", "", func(s *compose.Service) { s.Sysctls = map[string]string{"a.b": "1"} }},
		{"ulimits: {nproc: 100, nofile: {soft: 1, hard: 2}, memlock: -1}", "", func(s *compose.Service) {
			s.Ulimits = []compose.Ulimit{{Name: "memlock", Soft: -1, Hard: -1}, {Name: "nofile", Soft: 1, Hard: 2}, {Name: "nproc", Soft: 100, Hard: 100}}
		}},
		{"mem_limit: 64m\nmem_reservation: 32m\nmemswap_limit: -1", "", func(s *compose.Service) {
			s.Limits = compose.Limits{Memory: 64 << 20, MemoryReservation: 32 << 20, MemorySwap: -1}
		}},
		{"cpus: 1.2\npids_limit: 50", "", func(s *compose.Service) { s.Limits = compose.Limits{NanoCPUs: 1_200_000_000, Pids: 50} }},
		{"cpu_shares: 512\ncpu_quota: 50000\ncpu_period: 100000\ncpuset: 0-1", "", func(s *compose.Service) {
			s.Limits = compose.Limits{CPUShares: 512, CPUQuota: 50_000, CPUPeriod: 100_000, CPUSet: "0-1"}
		}},
		{"deploy: {resources: {limits: {cpus: '0.5', memory: 1g, pids: 9}, reservations: {memory: 1m}}}", "", func(s *compose.Service) {
			s.Limits = compose.Limits{NanoCPUs: 500_000_000, Memory: 1 << 30, Pids: 9, MemoryReservation: 1 << 20}
		}},
		{"shm_size: 128m", "", func(s *compose.Service) { s.ShmSize = 128 << 20 }},
		{"read_only: true\ninit: true", "", func(s *compose.Service) { s.ReadOnly, s.Init = true, &yes }},
		{"pid: host\nipc: shareable", "", func(s *compose.Service) { s.PID, s.IPC = "host", "shareable" }},
		{"stop_signal: SIGQUIT\nstop_grace_period: 1m", "", func(s *compose.Service) { s.StopSignal, s.StopGrace = "SIGQUIT", 60*sec }},
		{"logging: {driver: json-file, options: {max-size: 1m}}", "", func(s *compose.Service) {
			s.Logging = &compose.Logging{Driver: "json-file", Options: map[string]string{"max-size": "1m"}}
		}},
		{"configs: [conf, {source: conf, target: /etc/c, uid: '10', gid: '20', mode: 0o440}]", "configs: {conf: {content: 'v=${TAG}'}}", func(s *compose.Service) {
			s.Files = []compose.FileMount{{Kind: "config", Name: "conf", Target: "/conf", Mode: 0o444}, {Kind: "config", Name: "conf", Target: "/etc/c", UID: 10, GID: 20, Mode: 0o440}}
		}},
		{"secrets: [key, {source: key, target: other, mode: '0400'}]", "secrets: {key: {file: ./key.pem}}", func(s *compose.Service) {
			s.Files = []compose.FileMount{{Kind: "secret", Name: "key", Target: "/run/secrets/key", Mode: 0o444}, {Kind: "secret", Name: "key", Target: "/run/secrets/other", Mode: 0o400}}
		}},
		{"x-mine: {a: [b]}", "x-other: 5\n", func(*compose.Service) {}},
		{"x-pawl: {trial: {uptime: 30s, restarts: 2}}", "", func(s *compose.Service) { s.Trial = compose.Trial{Uptime: 30 * sec, Restarts: 2} }},
		{"x-pawl: {oneshot: true}", "", func(s *compose.Service) { s.OneShot, s.Trial.Uptime = true, 0 }},
		{"x-pawl: {strategy: handover}\nvolumes: [{type: volume, target: /data, read_only: true}]", "", func(s *compose.Service) {
			s.Strategy = compose.Handover
			s.Mounts = []compose.Mount{{Type: "volume", Source: "anon-08fa926e27ac", Target: "/data", ReadOnly: true}}
		}},
	} {
		app, err := k.service(c.text, c.rest)
		if !assert.NoError(t, err, c.text) {
			continue
		}
		got, ok := app.Service("app")
		require.True(t, ok)
		want := compose.Service{Name: "app", Container: "gateway-app-1", Image: got.Image, Strategy: compose.Recreate, Trial: compose.Trial{Uptime: 10 * sec},
			Restart: compose.Restart{Policy: compose.RestartNo}, StopGrace: 10 * sec, Networks: []compose.Attachment{{Network: "default", Aliases: []string{"app"}}}}
		c.want(&want)
		// The image of these tests has a volume at /data.
		if !slices.ContainsFunc(want.Mounts, func(m compose.Mount) bool { return m.Target == "/data" }) {
			want.Mounts = append(want.Mounts, compose.Mount{Type: "volume", Source: "anon-08fa926e27ac", Target: "/data"})
			slices.SortFunc(want.Mounts, func(x, y compose.Mount) int { return strings.Compare(x.Target, y.Target) })
		}
		assert.Equal(t, want, got, c.text)
	}
}

// TestComposeApp looks at what is around the services.
func TestComposeApp(t *testing.T) {
	k := newKitchen(t)
	o := k.options()
	o.Profiles = []string{"field"}
	app, err := k.app(tree{
		"compose.yaml": `
version: "3.8"
name: shop
include: [other/more.yaml]
x-common: &common
  restart: always
services:
  web: {<<: *common, image: "acme/app:$TAG", depends_on: {migrate: {condition: service_completed_successfully}}, extends: {file: base.yaml, service: base}}
  migrate: {image: "acme/app:${TAG}", networks: [back]}
  debug: {image: acme/debug, profiles: [lab]}
  probe: {image: acme/probe, profiles: [field, lab], networks: {site: null}, volumes: ["keep:/data"]}
networks:
  back: {attachable: true, enable_ipv6: true, driver_opts: {a: "1"}, labels: {x: y}}
  site: {external: true, name: SITE}
volumes: {keep: {name: kept, labels: [a=b]}}
`,
		"base.yaml":       "services:\n  base: {image: x, user: root, env_file: base.env}\n",
		"base.env":        "FROM=base\n",
		"other/more.yaml": "services:\n  more: {image: acme/more, env_file: more.env}\n",
		"other/more.env":  "FROM=more\n",
	}, o)
	require.NoError(t, err)
	require.Equal(t, "shop", app.Name)
	var names []string
	for _, s := range app.Services {
		names = append(names, s.Name)
	}
	require.Equal(t, []string{"migrate", "more", "probe", "web"}, names)
	require.True(t, app.Services[0].OneShot)
	require.Equal(t, map[string]string{"FROM": "more"}, app.Services[1].Environment)
	require.Equal(t, "root", app.Services[3].User)
	require.Equal(t, map[string]string{"FROM": "base"}, app.Services[3].Environment)
	require.Len(t, app.Images, 1, "all are the same by content")
	require.Equal(t, []compose.Network{
		{Name: "back", Engine: "shop_back", DriverOpts: map[string]string{"a": "1"}, Attachable: true, IPv6: true, Labels: map[string]string{"x": "y"}},
		{Name: "default", Engine: "shop_default"}, {Name: "site", Engine: "SITE", External: true}}, app.Networks)
	i := slices.IndexFunc(app.Volumes, func(v compose.Volume) bool { return v.Name == "keep" })
	require.Equal(t, compose.Volume{Name: "keep", Engine: "kept", Labels: map[string]string{"a": "b"}}, app.Volumes[i])
	require.True(t, app.Volumes[0].Anonymous)
	require.Equal(t, "shop_web-anon-", app.Volumes[i-1].Engine[:14])
}

// TestComposeRefused has everything that is not supported named with its line.
func TestComposeRefused(t *testing.T) {
	k := newKitchen(t)
	for _, c := range []struct{ text, rest, want string }{
		{"build: .", "", `compose.yaml:4: not the description of a release: services.app.build: the key "build" is not supported: build the image first`},
		{"user: a\nplatform: linux/amd64", "", `compose.yaml:5: not the description of a release: services.app.platform: the key "platform" is not supported: it stands in the SPEC`},
		{"uts: host", "", `compose.yaml:4: not the description of a release: services.app.uts: the key "uts" is not supported`},
		{"deploy: {replicas: 2}", "", `services.app.deploy.replicas: the key "replicas" is not supported`},
		{"deploy:\n  resources:\n    limits:\n      generic: 1", "", `compose.yaml:7: `},
		{"healthcheck:\n  test: a\n  tset: b", "", `compose.yaml:6: not the description of a release: services.app.healthcheck.tset: the key "tset" is not supported`},
		{"volumes:\n- {type: volume, target: /x, consistency: cached}", "", `compose.yaml:5: `},
		{"networks: {default: {mac_address: '02:42:ac:11:65:43'}}", "", `services.app.networks.default.mac_address: the key "mac_address" is not supported`},
		{"x-pawl: {strategy: fast}", "", `services.app.x-pawl.strategy: "fast" is not recreate or handover`},
		{"x-pawl: {stratgy: handover}", "", `the key "stratgy" is not supported`},
		{"x-pawl: {strategy: handover}\nports: ['80:80']\nvolumes: [{type: volume, target: /data, read_only: true}]", "", `compose.yaml:5: not the description of a release: services.app.ports: a service that is handed over cannot publish ports`},
		{"x-pawl: {strategy: handover}\nvolumes: ['d:/data']", "volumes: {d: {}}", `compose.yaml:5: not the description of a release: services.app.volumes: a service that is handed over cannot write to /data`},
		{"x-pawl: {strategy: handover}", "", `cannot write to /data`},
		{"x-pawl: {strategy: handover}\nnetwork_mode: host\nvolumes: [{type: volume, target: /data, read_only: true}]", "", `compose.yaml:2: not the description of a release: app document: service "app": invalid document: handover`},
		{"image: b", "", `compose.yaml:4: not the description of a release: services.app: the key "image" is no word or stands twice`},
		{"depends_on: [b]", "  b: {image: x, depends_on: [app]}\n", "compose.yaml"},
		{"depends_on: {b: {condition: service_started, restart: true}}", "  b: {image: x}\n", `restart: it is not supported: all services`},
		{"depends_on: {b: {condition: service_completed_successfully}}", "  b: {image: x, restart: always}\n", `"b" never completes`},
		{"depends_on: {b: {condition: service_healthy}}", "  b: {image: x}\n", `compose.yaml:4: not the description of a release: services.app.depends_on.b: "b" is never healthy`},
		{"depends_on: {b: {condition: service_healthy}}", "  b: {image: x, healthcheck: {disable: true}}\n", `"b" is never healthy`},
		{"depends_on: [b]", "  b: {image: x, profiles: [lab]}\n", `compose.yaml:2: not the description of a release: service "app" depends on undefined service "b"`},
		{"volumes: ['./data:/x']", "", `compose.yaml:4: not the description of a release: services.app.volumes.0: "./data" is a path of the publisher's`},
		{"volumes: ['~/data:/x']", "", `is a home folder of the publisher's`},
		{"volumes: ['/a:/x:z']", "", `the option z is not supported`},
		{"environment: [NONE]", "", `services.app.environment.NONE: NONE has no value`},
		{"environment: {A: '$NONE'}", "", `compose.yaml:4: not the description of a release:`},
		{"environment: {A: '${TAG}${NONE}'}", "", `the variable NONE is not set`},
		{"env_file: none.env", "", `services.app.env_file.0: open none.env`},
		{"user: !reset b", "", `the tag !reset is not supported`},
		{"user: $PAWL_DEVICE_ID", "", `compose.yaml:4: not the description of a release: services.app.user: PAWL_DEVICE_ID is known on the device alone`},
		{"restart: sometimes", "", `services.app.restart`},
		{"network_mode: container:other", "", `networkMode: "container:other" is not one of`},
		{"ports: ['8000-8005:80']", "", `is not one port`},
		{"security_opt: ['systempaths=unconfined']", "", `"systempaths=unconfined" is not supported`},
		{"mem_limit: many", "", `compose.yaml:4: `},
		{"labels: {io.pawl.x: y}", "", `those are the device's`},
		{"hostname: a b", "", `hostname: "a b" cannot be one`},
		{"configs: [c]", "configs: {c: {external: true}}", `configs.c.external: the key "external" is not supported: the content has to be there`},
		{"secrets: [c]", "secrets: {c: {environment: TAG}}", `secrets.c.environment: the key "environment" is not supported`},
		{"configs: [c]", "configs: {c: {content: '${PAWL_DEVICE_ID}'}}", `configs.c.content: PAWL_DEVICE_ID is known on the device alone`},
		{"", "networks: {default: {enable_ipv4: false}}", `networks.default.enable_ipv4`},
		{"", "networks: {default: {ipam: {driver: dhcp}}}", `networks.default.ipam.driver: "dhcp" is not supported`},
		{"", "x-pawl: {}", `the key "x-pawl" is not supported`},
		{"", "models: {}", `the key "models" is not supported`},
		{"", "  App: {image: x}\n", `not a name: "App"`},
		{"", "include: ['https://example.org/x.yaml']", `only files on this machine`},
		{"extends: {file: '${TAG}.yaml', service: x}", "", `only files on this machine`},
		{"extends: {file: none.yaml, service: x}", "", `none.yaml`},
	} {
		_, err := k.service(c.text, c.rest)
		assert.ErrorContains(t, err, c.want, "%s\n%s", c.text, c.rest)
	}
	o := k.options()
	file := tree{"compose.yaml": "services: {app: {image: a}}\n"}
	o.Images = map[string]ImageSource{"a": o.Images["*"], "b": o.Images["*"]}
	_, err := k.app(file, o)
	require.ErrorContains(t, err, "the image b comes from, and no service has it")
	delete(o.Images, "a")
	_, err = k.app(file, o)
	require.ErrorContains(t, err, "services.app.image: the SPEC does not say where a comes from")
	o = k.options()
	o.Env["PAWL_SEQ"] = "1"
	_, err = k.app(file, o)
	require.ErrorContains(t, err, "PAWL_SEQ is not for the maker to set")
	_, err = k.app(tree{"compose.yaml": "include: [sub/x.yaml]\n", "sub/x.yaml": "services: {app: {image: a}}\n", "sub/.env": "A=b\n"}, k.options())
	require.ErrorContains(t, err, "sub/.env would be used")
	_, err = k.app(tree{"compose.yaml": "include: [x.yaml]\n", "x.yaml": "version: '3'\nservices: {app: {image: a}}\n"}, k.options())
	require.ErrorContains(t, err, "x.yaml:1: not the description of a release: version: it means nothing any more")
	o = k.options()
	o.Images["*"] = ImageSource{From: FromArchive, Path: "none.tar"}
	_, err = k.app(file, o)
	require.ErrorContains(t, err, "compose.yaml:1: image a: stat none.tar")
	require.NotErrorIs(t, err, ErrSpec)
	bomb := "x-a: &a [b,b,b,b,b,b,b,b,b,b]\n"
	for i := range 8 {
		bomb += fmt.Sprintf("x-%c: &%c [%s]\n", 'b'+i, 'b'+i, strings.Repeat(fmt.Sprintf("*%c,", 'a'+i), 9))
	}
	_, err = k.app(tree{"compose.yaml": bomb + "services: {app: {image: a, command: *i}}\n"}, k.options())
	require.ErrorContains(t, err, "more than a compose file can hold")
}

// TestComposeShapeIsClosed has every key of a service refused that compose-go
// takes and the app document has no place for.
func TestComposeShapeIsClosed(t *testing.T) {
	k := newKitchen(t)
	service := composeShape().keys["services"].each
	require.Contains(t, slices.Collect(maps.Keys(service.keys)), "healthcheck")
	for _, key := range []string{"annotations", "attach", "blkio_config", "cgroup", "cgroup_parent", "cpu_count", "cpu_percent", "cpu_rt_period",
		"cpu_rt_runtime", "credential_spec", "develop", "domainname", "external_links", "gpus", "isolation", "label_file", "links", "mac_address",
		"mem_swappiness", "models", "oom_kill_disable", "oom_score_adj", "post_start", "pre_stop", "pre_start", "provider", "pull_policy", "pull_refresh_after",
		"runtime", "scale", "stdin_open", "storage_opt", "tty", "umask", "use_api_socket", "userns_mode", "uts", "volumes_from"} {
		_, err := k.service(key+": x", "")
		require.ErrorContains(t, err, fmt.Sprintf("compose.yaml:4: not the description of a release: services.app.%s: the key %q is not supported", key, key))
	}
}

// TestComposeRelease publishes two releases of an app and reads them back.
func TestComposeRelease(t *testing.T) {
	f := newFixture(t)
	dir := tree{"compose.yaml": "services:\n  app: {image: acme/app, environment: {SEQ: '$PAWL_SEQ'}}\n  side: {image: acme/side}\n"}.write(t)
	base := layer("lib/base", strings.Repeat("a line of the base that is always the same\n", 40_000)+string(static(1, 400_000)))
	publish := func(version string, app, side []byte) Added {
		images := map[string]v1.Image{"acme/app:latest": testImage(t, "linux/amd64", base, app), "acme/side:latest": testImage(t, "linux/amd64", base, side)}
		a, err := f.Release(t.Context(), Spec{Version: version, Components: []Component{{Name: "gateway", Kind: compose.Kind, From: filepath.Join(dir, "compose.yaml"),
			Compose: ComposeOptions{Platform: "linux/amd64", Images: map[string]ImageSource{"*": {From: FromArchive, Path: archive(t, version == "1", images)}}}}}})
		require.NoError(t, err)
		return a
	}
	binary := static(2, 500_000)
	one := publish("1", layer("bin/app", string(binary)), layer("bin/side", "side"))
	require.Equal(t, 5, one.Files, "two configurations, a shared base, a layer each")
	copy(binary[100_000:], "changed here")
	copy(binary[400_000:], "and there")
	two := publish("2", layer("bin/app", string(binary)), layer("bin/side", "side"))
	require.Less(t, two.Stored, int64(200_000), "what did not change is not stored again")

	v, err := f.Verify(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, 2, v.Releases)
	fetches, err := f.Fetches(t.Context(), false)
	require.NoError(t, err)
	require.Len(t, fetches, 2)
	require.Greater(t, fetches[0].Bytes, int64(800_000))
	require.Less(t, fetches[1].Bytes, int64(5_000), "a delta of the layer that changed")
	require.Positive(t, fetches[1].Deltas)

	list, err := f.List(t.Context())
	require.NoError(t, err)
	require.Equal(t, []ListedContainer{{"gateway", "app", "acme/app", "recreate"}, {"gateway", "side", "acme/side", "recreate"}}, list[1].Containers)
	_, err = f.Prune(t.Context(), PruneOptions{Keep: 1, Grace: -1})
	require.NoError(t, err)
	_, err = f.Verify(t.Context(), nil)
	require.NoError(t, err)
}

// TestVerifyApp has an app refused whose layers are in another order than its
// image says.
func TestVerifyApp(t *testing.T) {
	f := newFixture(t)
	dir := tree{"compose.yaml": "services: {app: {image: acme/app}}\n"}.write(t)
	image := testImage(t, "linux/amd64", layer("bin/app", "one"), layer("bin/other", "two"))
	_, err := f.Release(t.Context(), Spec{Version: "1", Components: []Component{{Name: "gateway", Kind: compose.Kind, From: filepath.Join(dir, "compose.yaml"),
		Compose: ComposeOptions{Platform: "linux/amd64", Images: map[string]ImageSource{"*": {From: FromArchive, Path: archive(t, true, map[string]v1.Image{"acme/app:1": image})}}}}}})
	require.NoError(t, err)
	trusted, err := f.disk.load(nil, time.Time{})
	require.NoError(t, err)
	list, err := f.disk.listed(trusted)
	require.NoError(t, err)
	p, err := f.disk.predecessor(list[0], list[0].release.Components[0])
	require.NoError(t, err)
	v := &verifying{ctx: t.Context(), r: f.Repository}
	require.NoError(t, v.app(p))
	app, err := compose.Parse(p.file)
	require.NoError(t, err)
	slices.Reverse(app.Images[0].Layers)
	p.file, err = app.Encode()
	require.NoError(t, err)
	require.ErrorContains(t, v.app(p), "its layers are not those of its configuration")
}

// static is content that nothing compresses.
func static(seed byte, n int) []byte {
	out := make([]byte, 0, n+32)
	for sum := release.Sum([]byte{seed}); len(out) < n; sum = release.Sum(sum[:]) {
		out = append(out, sum[:]...)
	}
	return out[:n]
}

// TestComposeDeterministic has the same input give the same bytes.
func TestComposeDeterministic(t *testing.T) {
	k := newKitchen(t)
	var first []byte
	for range 3 {
		app, err := k.service("environment: {A: 1, B: 2, C: 3}\nvolumes: [/a, /b, /c]\nlabels: {x: y, z: w}\nnetworks: {n: null, m: null}",
			"networks: {n: null, m: null}\nvolumes: {}\n")
		require.NoError(t, err)
		data, err := app.Encode()
		require.NoError(t, err)
		if first == nil {
			first = data
		}
		require.Equal(t, string(first), string(data))
	}
}
