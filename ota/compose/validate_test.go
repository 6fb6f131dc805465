package compose_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/compose"
	"github.com/pawl-ota/pawl/ota/release"
)

// TestRefused breaks one rule after the other.
func TestRefused(t *testing.T) {
	type app = compose.App
	s := func(a *app, name string) *compose.Service {
		for i := range a.Services {
			if a.Services[i].Name == name {
				return &a.Services[i]
			}
		}
		return nil
	}
	for want, change := range map[string]func(a *app){
		`unknown format "pawl-app/2"`:              func(a *app) { a.Format = "pawl-app/2" },
		`not a name: "../x"`:                       func(a *app) { a.Name = "../x" },
		`0 images`:                                 func(a *app) { a.Images = nil },
		`0 services`:                               func(a *app) { a.Services = nil },
		`config: invalid document: no digest`:      func(a *app) { a.Images[0].Config = release.Blob{} },
		`config: invalid document: size 5000000`:   func(a *app) { a.Images[0].Config.Size = 5_000_000 },
		`size 1 is not that of its layers`:         func(a *app) { a.Images[0].Size = 1 },
		`it has layers and a ref`:                  func(a *app) { a.Images[1].Layers = a.Images[0].Layers },
		`image "acme/app:7" stands twice`:          func(a *app) { a.Images[1] = a.Images[0] },
		`ref "redis" has no digest`:                func(a *app) { a.Images[1].Ref = "redis" },
		`does not begin with a host`:               func(a *app) { a.Images[1].Ref = strings.TrimPrefix(a.Images[1].Ref, "docker.io/") },
		`".." is no part of a name`:                func(a *app) { a.Images[1].Ref = strings.Replace(a.Images[1].Ref, "library", "..", 1) },
		`no name that can be shown`:                func(a *app) { a.Images[1].Name = "" },
		`platform: not a name: ""`:                 func(a *app) { a.Images[0].OS = "" },
		`networks: "default" and "back"`:           func(a *app) { a.Networks[0], a.Networks[1] = a.Networks[1], a.Networks[0] },
		`network "back": invalid document: "host"`: func(a *app) { a.Networks[0].Engine = "host" },
		`"/x" is not a name at an engine`:          func(a *app) { a.Volumes[0].Engine = "/x" },
		`volumes at the engine: "shared"`:          func(a *app) { a.Volumes[0].Engine = "shared" },
		`external and something is said`:           func(a *app) { a.Volumes[2].Driver = "local" },
		`subnet "172.20.0.1/16"`:                   func(a *app) { a.Networks[0].Pools[0].Subnet = "172.20.0.1/16" },
		`gateway "10.0.0.1" is not within`:         func(a *app) { a.Networks[0].Pools[0].Gateway = "10.0.0.1" },
		`range "10.0.0.0/24" is not within`:        func(a *app) { a.Networks[0].Pools[0].Range = "10.0.0.0/24" },
		`kind "other" is not`:                      func(a *app) { a.Files[0].Kind = "other" },
		`file "key": invalid document: size`:       func(a *app) { a.Files[1].Blob.Size = 1 << 21 },
		`services: "web" stands twice`:             func(a *app) { s(a, "sniff").Name = "web" },
		`containers: "gateway-web-1" stands twice`: func(a *app) { s(a, "sniff").Container = "gateway-web-1" },
		`image 7 is not there`:                     func(a *app) { s(a, "web").Image = 7 },
		`strategy: "fast" is not one of`:           func(a *app) { s(a, "web").Strategy = "fast" },
		`restart: "" is not one of`:                func(a *app) { s(a, "web").Restart.Policy = "" },
		`does not go with "always"`:                func(a *app) { s(a, "redis").Restart.Most = 3 },
		`a one-shot service has restart "always"`:  func(a *app) { s(a, "migrate").Restart = compose.Restart{Policy: "always"} },
		`"redis" does not start before it`:         func(a *app) { a.Services[1], a.Services[2] = a.Services[2], a.Services[1] },
		`"redis" is not a one-shot service`:        func(a *app) { s(a, "app").DependsOn[1].Condition = compose.Completed },
		`trial: uptime`:                            func(a *app) { s(a, "web").Trial.Uptime = -1 },
		`trial: restarts: 1001 is not`:             func(a *app) { s(a, "web").Trial.Restarts = 1001 },
		`environment: "A=B" is not a name`:         func(a *app) { s(a, "web").Environment = map[string]string{"A=B": ""} },
		`$ is neither doubled`:                     func(a *app) { s(a, "web").Environment = map[string]string{"A": "$HOME"} },
		`"${PAWL_OTHER}": $ is neither`:            func(a *app) { s(a, "web").Command = []string{"${PAWL_OTHER}"} },
		`those are the device's`:                   func(a *app) { s(a, "web").Labels = map[string]string{compose.LabelPrefix + "tx": "1"} },
		`workingDir: "../x" is not a clean`:        func(a *app) { s(a, "web").WorkingDir = "../x" },
		`healthcheck: test is not CMD`:             func(a *app) { s(a, "app").Healthcheck.Test = []string{"rm"} },
		`healthcheck: disabled is true`:            func(a *app) { s(a, "app").Healthcheck.Disabled = true },
		`healthcheck: time: 5 is not`:              func(a *app) { s(a, "app").Healthcheck.Interval = 5 },
		`needs networks or a networkMode`:          func(a *app) { s(a, "web").NetworkMode = "host" },
		`networkMode: "container:x" is not one of`: func(a *app) { s(a, "sniff").NetworkMode = "container:x" },
		`networkMode: "web" does not stay`:         func(a *app) { s(a, "sniff").NetworkMode = "service:web" },
		`publishes ports with networkMode "none"`:  func(a *app) { s(a, "migrate").Ports = []compose.Port{{Container: 80, Protocol: "tcp"}} },
		`network "none": invalid`:                  func(a *app) { s(a, "web").Networks[0].Network = "none" },
		`ipv4: invalid document: "fd00:1::7"`:      func(a *app) { s(a, "redis").Networks[0].IPv4 = "fd00:1::7" },
		`ports are not in order`:                   func(a *app) { p := s(a, "app").Ports; p[0], p[1] = p[1], p[0] },
		`port 0 of a container`:                    func(a *app) { s(a, "app").Ports[0].Container = 0 },
		`port 8080/tcp of the device is published`: func(a *app) {
			s(a, "redis").Ports = []compose.Port{{HostIP: "10.0.0.1", HostPort: 8080, Container: 1, Protocol: "tcp"}}
		},
		`hostname: "a b" cannot be one`:            func(a *app) { s(a, "web").Hostname = "a b" },
		`extraHosts: "x" is not a name and an`:     func(a *app) { s(a, "web").ExtraHosts = []string{"x"} },
		`volume "none" is not there`:               func(a *app) { s(a, "web").Mounts[0].Source = "none" },
		`source: "../etc" is not a clean absolute`: func(a *app) { s(a, "app").Mounts[2].Source = "../etc" },
		`source: "/a/../b" is not a clean`:         func(a *app) { s(a, "app").Mounts[2].Source = "/a/../b" },
		`does not go with type "bind"`:             func(a *app) { s(a, "app").Mounts[2].NoCopy = true },
		`option "exec=1" has a value`:              func(a *app) { s(a, "app").Mounts[0].Options = "exec=1" },
		`option "size=64m": not a number`:          func(a *app) { s(a, "app").Mounts[0].Options = "size=64m" },
		`option "x" is not known`:                  func(a *app) { s(a, "app").Mounts[0].Options = "x" },
		`config "none" is not there`:               func(a *app) { s(a, "app").Files[0].Name = "none" },
		`mode 4755 has other bits`:                 func(a *app) { s(a, "app").Files[0].Mode = 0o4755 },
		`is mounted and a file`:                    func(a *app) { s(a, "app").Files[0].Target = "/run"; s(a, "app").Files = s(a, "app").Files[:1] },
		`capability "CAP_CHOWN"`:                   func(a *app) { s(a, "app").CapAdd = []string{"CAP_CHOWN"} },
		`device permissions: "mr" is not one of`:   func(a *app) { s(a, "app").Devices[0].Permissions = "mr" },
		`ulimit "nofile": 5000 and 4096`:           func(a *app) { s(a, "app").Ulimits[1].Soft = 5000 },
		`nanoCPUs and a quota`:                     func(a *app) { s(a, "app").Limits.NanoCPUs = 1 },
		`limits: pids: -2 is not`:                  func(a *app) { s(a, "app").Limits.Pids = -2 },
		`handover: it publishes ports`:             func(a *app) { s(a, "web").Ports = []compose.Port{{Container: 80, Protocol: "tcp"}} },
		`handover: it writes to what is mounted`:   func(a *app) { s(a, "web").Mounts[0].ReadOnly = false },
		`handover: it has a fixed address`:         func(a *app) { s(a, "web").Networks[0].IPv4 = "10.0.0.9" },
		`handover: it shares a namespace`:          func(a *app) { s(a, "web").PID = "host" },
		`handover: it is a one-shot service`: func(a *app) {
			s(a, "web").OneShot, s(a, "web").Trial, s(a, "web").Restart.Policy = true, compose.Trial{}, "no"
		},
		`is no text`:        func(a *app) { s(a, "web").Environment = map[string]string{"A": "\x00"} },
		`"\xff" is no text`: func(a *app) { s(a, "web").Command = []string{"\xff"} },
	} {
		a := sample()
		change(a)
		_, err := a.Encode()
		if assert.ErrorContains(t, err, want) {
			known := errors.Is(err, release.ErrInvalid) || errors.Is(err, release.ErrName) || errors.Is(err, release.ErrFormat)
			assert.True(t, known, "%v wraps nothing that a caller could tell", err)
		}
	}
}

// TestHostile has documents refused that are not the one form of an app.
func TestHostile(t *testing.T) {
	good, err := sample().Encode()
	require.NoError(t, err)
	edit := func(old, new string) []byte {
		require.Contains(t, string(good), old)
		return bytes.Replace(good, []byte(old), []byte(new), 1)
	}
	for want, data := range map[string][]byte{
		"unknown format":                     edit("pawl-app/1", "pawl-app/2"),
		`unknown field "secret"`:             edit(`"name":"gateway"`, `"name":"gateway","secret":1`),
		"not in canonical form":              edit(`"name":"gateway"`, `"name":"x","name":"gateway"`),
		"invalid character":                  append(bytes.Clone(good), 'x'),
		"unexpected end":                     good[:len(good)/2],
		"cannot read app document":           []byte("null"),
		"bytes are more than 4194304":        bytes.Repeat([]byte(" "), compose.MaxApp+1),
		`type: "rbind" is not one of`:        edit(`"type":"bind"`, `"type":"rbind"`),
		"is not a clean absolute path":       edit(`"source":"/var/log/app"`, `"source":"/var/log/../../etc"`),
		"cannot unmarshal string":            edit(`"stopGrace":10000000000`, `"stopGrace":"10s"`),
		"json: cannot unmarshal number 8e80": edit(`"hostPort":8080`, `"hostPort":8e80`),
	} {
		_, err := compose.Parse(data)
		require.ErrorContains(t, err, want)
	}
	for _, data := range [][]byte{edit(`"trial":{}`, `"trial":{ }`), edit(`"Format"`[:1]+`format"`, `"Format"`), append([]byte(" "), good...)} {
		_, err := compose.Parse(data)
		require.Error(t, err)
	}
	big := sample()
	for i := range 100 {
		big.Services[3].Command = append(big.Services[3].Command, strings.Repeat("x", compose.MaxText)+string(rune('a'+i%26)))
	}
	_, err = big.Encode()
	require.Error(t, err)
	for i := range big.Services[3].Command {
		big.Services[3].Command[i] = big.Services[3].Command[i][:compose.MaxText]
	}
	_, err = big.Encode()
	require.ErrorContains(t, err, "is longer than")
}

func TestExpand(t *testing.T) {
	v := compose.Values{DeviceID: "gw-17", Hardware: "rev-b", Hostname: "hall"}
	for template, want := range map[string]string{
		"": "", "plain": "plain", "${PAWL_DEVICE_ID}": "gw-17", "a${PAWL_HARDWARE}b${PAWL_HOSTNAME}": "arev-bbhall", "$$": "$", "$${PAWL_DEVICE_ID}": "${PAWL_DEVICE_ID}",
		"$$$$x${PAWL_DEVICE_ID}$$": "$$xgw-17$", compose.Escape("5$ ${x} $$"): "5$ ${x} $$",
	} {
		got, err := v.Expand(template)
		require.NoError(t, err, template)
		require.Equal(t, want, got)
	}
	for _, bad := range []string{"$", "$x", "${}", "${PAWL_DEVICE_ID", "${pawl_device_id}", "$PAWL_DEVICE_ID", "$$$"} {
		_, err := v.Expand(bad)
		require.ErrorIs(t, err, release.ErrInvalid, bad)
	}
	for _, name := range compose.DeviceValues() {
		got, err := v.Expand(compose.Placeholder(name))
		require.NoError(t, err)
		require.NotEmpty(t, got)
	}
	v.DeviceID = "${PAWL_HOSTNAME}"
	got, err := v.Expand("${PAWL_DEVICE_ID}")
	require.NoError(t, err)
	require.Equal(t, "${PAWL_HOSTNAME}", got, "a value is not looked at again")
}

func TestExpandService(t *testing.T) {
	a := sample()
	s, ok := a.Service("app")
	require.True(t, ok)
	out, err := s.Expand(compose.Values{DeviceID: "gw-17", Hardware: "rev-b", Hostname: "hall"})
	require.NoError(t, err)
	require.Equal(t, "gw-17/rev-b", out.Environment["ID"])
	require.Equal(t, "gw-gw-17", out.Hostname)
	require.Equal(t, "hall", out.Labels["device"])
	require.Equal(t, []string{"--price", "5$", ""}, out.Command)
	require.Equal(t, sample(), a, "the app stays as it is")

	for _, id := range []string{"a b", "x\x00", strings.Repeat("x", 64)} {
		_, err = s.Expand(compose.Values{DeviceID: id})
		require.ErrorIs(t, err, release.ErrInvalid, id)
	}
	migrate, _ := a.Service("migrate")
	out, err = migrate.Expand(compose.Values{})
	require.NoError(t, err)
	require.NotNil(t, out.Entrypoint, "none at all is not the image's")
	_, ok = a.Service("none")
	require.False(t, ok)
}

func TestBlobs(t *testing.T) {
	a := sample()
	want := []release.Blob{a.Images[0].Config, a.Images[0].Layers[0], a.Images[0].Layers[1], a.Images[1].Config, a.Files[0].Blob, a.Files[1].Blob}
	require.Equal(t, want, a.Blobs())
	a.Files[1].Blob = a.Files[0].Blob
	require.Equal(t, want[:5], a.Blobs(), "each once")
}

// TestTimesAreNanoseconds holds what a document says to what the type says.
func TestTimesAreNanoseconds(t *testing.T) {
	data, err := json.Marshal(compose.Trial{Uptime: 3 * time.Second})
	require.NoError(t, err)
	require.Equal(t, `{"uptime":3000000000}`, string(data))
}

func FuzzParse(f *testing.F) {
	data, err := sample().Encode()
	require.NoError(f, err)
	f.Add(data)
	one := sample()
	one.Services, one.Images = one.Services[:1], one.Images[:1]
	one.Networks, one.Volumes, one.Files = nil, nil, nil
	data, err = one.Encode()
	require.NoError(f, err)
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := compose.Parse(data)
		if err != nil {
			return
		}
		again, err := a.Encode()
		require.NoError(t, err)
		require.Equal(t, string(data), string(again))
		seen := map[release.Digest]bool{}
		for _, b := range a.Blobs() {
			if seen[b.Digest] || b.Digest.IsZero() || b.Size < 0 {
				t.Fatalf("a blob that cannot be: %+v", b)
			}
			seen[b.Digest] = true
		}
		for _, s := range a.Services {
			if _, err := s.Expand(compose.Values{DeviceID: "x", Hardware: "x", Hostname: "x"}); err != nil {
				t.Fatalf("a template that was not checked: %v", err)
			}
		}
	})
}
