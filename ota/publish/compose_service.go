package publish

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/pawl-ota/pawl/ota/compose"
)

// What a service gets that says nothing.
const (
	defaultGrace  = 10 * time.Second // Docker's
	defaultUptime = 10 * time.Second
)

// serving is one service on its way into the app.
type serving struct {
	*composing
	in  types.ServiceConfig
	out compose.Service
}

// service returns what the document says of a service.
func (b *composing) service(in types.ServiceConfig) (compose.Service, error) {
	s := &serving{composing: b, in: in}
	s.out = compose.Service{
		Name: in.Name, Container: in.ContainerName, Image: b.at[in.Image], Strategy: compose.Recreate,
		Trial:      compose.Trial{Uptime: defaultUptime},
		Entrypoint: templates(in.Entrypoint), Command: templates(in.Command),
		User: in.User, WorkingDir: in.WorkingDir, Init: in.Init, StopSignal: in.StopSignal, StopGrace: defaultGrace,
		NetworkMode: in.NetworkMode, Hostname: templateOf(in.Hostname),
		DNS: in.DNS, DNSSearch: in.DNSSearch, DNSOptions: in.DNSOpts,
		ReadOnly: in.ReadOnly, ShmSize: int64(in.ShmSize), PID: in.Pid, IPC: in.Ipc, Privileged: in.Privileged,
		CapAdd: capabilities(in.CapAdd), CapDrop: capabilities(in.CapDrop),
		DeviceRules: sorted(in.DeviceCgroupRules), GroupAdd: sorted(in.GroupAdd), Sysctls: in.Sysctls,
	}
	if s.out.Container == "" {
		s.out.Container = b.app.Name + "-" + in.Name + "-1"
	}
	if in.StopGracePeriod != nil {
		s.out.StopGrace = time.Duration(*in.StopGracePeriod)
	}
	steps := []func() error{s.pawl, s.restart, s.waits, s.environment, s.labels, s.health, s.logging, s.attach, s.ports, s.expose,
		s.hosts, s.mounts, s.files, s.devices, s.security, s.ulimits, s.limits}
	for _, step := range steps {
		if err := step(); err != nil {
			return s.out, err
		}
	}
	return s.out, nil
}

// fail is an error at a key of the service.
func (s *serving) fail(key, format string, args ...any) error {
	return s.walk.fail(strings.TrimSuffix("services."+s.in.Name+"."+key, "."), format, args...)
}

// sorted returns the distinct items of a list in their order, nil for none.
func sorted(list []string) []string {
	out := slices.Compact(slices.Sorted(slices.Values(list)))
	if len(out) == 0 {
		return nil
	}
	return out
}

func capabilities(list []string) []string {
	out := make([]string, len(list))
	for i, c := range list {
		out[i] = strings.TrimPrefix(strings.ToUpper(c), "CAP_")
	}
	return sorted(out)
}

// pawl reads what is said to pawl alone.
func (s *serving) pawl() error {
	said, _ := s.in.Extensions["x-pawl"].(map[string]any)
	var ext struct {
		Strategy string `json:"strategy"`
		OneShot  bool   `json:"oneshot"`
		Trial    struct {
			Uptime   string `json:"uptime"`
			Restarts int    `json:"restarts"`
		} `json:"trial"`
	}
	data, err := json.Marshal(said)
	if err == nil {
		err = json.Unmarshal(data, &ext)
	}
	if err != nil {
		return s.fail("x-pawl", "it is written as in {strategy: handover, oneshot: false, trial: {uptime: 30s, restarts: 2}}: %v", err)
	}
	switch compose.Strategy(ext.Strategy) {
	case "":
	case compose.Recreate, compose.Handover:
		s.out.Strategy = compose.Strategy(ext.Strategy)
	default:
		return s.fail("x-pawl.strategy", "%q is not recreate or handover", ext.Strategy)
	}
	s.out.OneShot = ext.OneShot
	s.out.Trial.Restarts = ext.Trial.Restarts
	if ext.Trial.Uptime == "" {
		return nil
	}
	if s.out.Trial.Uptime, err = time.ParseDuration(ext.Trial.Uptime); err != nil {
		return s.fail("x-pawl.trial.uptime", "%q is not a time such as 30s", ext.Trial.Uptime)
	}
	return nil
}

func (s *serving) restart() error {
	policy, most, _ := strings.Cut(s.in.Restart, ":")
	s.out.Restart.Policy = compose.RestartPolicy(policy)
	switch s.out.Restart.Policy {
	case "":
		s.out.Restart.Policy = compose.RestartNo
	case compose.RestartNo, compose.RestartAlways, compose.RestartOnFailure, compose.RestartUnlessStopped:
	default:
		return s.fail("restart", "%q is not a policy", s.in.Restart)
	}
	if most == "" {
		return nil
	}
	n, err := number(most, 31)
	if err != nil || s.out.Restart.Policy != compose.RestartOnFailure {
		return s.fail("restart", "%q is not a policy", s.in.Restart)
	}
	s.out.Restart.Most = int(n)
	return nil
}

func (s *serving) waits() error {
	conditions := map[string]compose.Condition{"": compose.Started, types.ServiceConditionStarted: compose.Started,
		types.ServiceConditionHealthy: compose.Healthy, types.ServiceConditionCompletedSuccessfully: compose.Completed}
	joins := []string{s.in.NetworkMode, s.in.Pid, s.in.Ipc}
	for _, name := range slices.Sorted(maps.Keys(s.in.DependsOn)) {
		d := s.in.DependsOn[name]
		other, ok := s.project.Services[name]
		if !ok {
			continue // not required, or order would have said
		}
		// compose-go says restart itself of a service whose namespace is joined.
		if d.Restart && !slices.Contains(joins, types.ServicePrefix+name) {
			return s.fail("depends_on."+name+".restart", "it is not supported: all services of a release are switched together")
		}
		condition, ok := conditions[d.Condition]
		if !ok {
			return s.fail("depends_on."+name, "%q is not a condition", d.Condition)
		}
		if condition == compose.Completed && (other.Restart == "always" || other.Restart == "unless-stopped") {
			return s.fail("depends_on."+name, "%q never completes: its restart is %q", name, other.Restart)
		}
		if condition == compose.Healthy && !s.checked(other) {
			return s.fail("depends_on."+name, "%q is never healthy: neither the file nor its image has a healthcheck for it", name)
		}
		s.out.DependsOn = append(s.out.DependsOn, compose.Dependency{Service: name, Condition: condition})
	}
	return nil
}

// checked reports whether a service has a check of its health.
func (b *composing) checked(s types.ServiceConfig) bool {
	own := func(disabled bool, test []string) bool { return !disabled && len(test) > 0 && test[0] != "NONE" }
	if h := s.HealthCheck; h != nil && (h.Disable || len(h.Test) > 0) {
		return own(h.Disable, h.Test)
	}
	image := b.app.Images[b.at[s.Image]]
	return own(false, b.images.configs[image.Config.Digest].Config.Healthcheck.Test)
}

// environment takes the files first, then what is written out.
func (s *serving) environment() error {
	env := map[string]string{}
	for i, f := range s.in.EnvFiles {
		path := s.local(f.Path)
		if _, err := os.Stat(path); os.IsNotExist(err) && !bool(f.Required) {
			continue
		}
		with := maps.Clone(env)
		maps.Copy(with, s.env)
		vars, err := readEnvFile(path, f.Format, with)
		if err != nil {
			return s.fail("env_file."+strconv.Itoa(i), "%v", err)
		}
		maps.Copy(env, vars)
	}
	for k, v := range s.in.Environment {
		if v == nil {
			return s.fail("environment."+k, "%s has no value: write one, or list the variable in the SPEC, env or env-file", k)
		}
		env[k] = *v
	}
	s.out.Environment = templateMap(env)
	return nil
}

func templateMap(in map[string]string) map[string]string {
	if len(in) == 0 {
		return nil
	}
	out := make(map[string]string, len(in))
	for k, v := range in {
		out[k] = templateOf(v)
	}
	return out
}

func (s *serving) labels() error {
	s.out.Labels = templateMap(s.in.Labels)
	return nil
}

func (s *serving) health() error {
	in := s.in.HealthCheck
	if in == nil {
		return nil
	}
	if in.Disable || len(in.Test) == 1 && in.Test[0] == "NONE" {
		s.out.Healthcheck = &compose.Healthcheck{Disabled: true}
		return nil
	}
	h := &compose.Healthcheck{Test: in.Test}
	if in.Retries != nil {
		h.Retries = int(min(*in.Retries, math.MaxInt32))
	}
	for to, from := range map[*time.Duration]*types.Duration{&h.Interval: in.Interval, &h.Timeout: in.Timeout,
		&h.StartPeriod: in.StartPeriod, &h.StartInterval: in.StartInterval} {
		if from != nil {
			*to = time.Duration(*from)
		}
	}
	s.out.Healthcheck = h
	return nil
}

func (s *serving) logging() error {
	if in := s.in.Logging; in != nil {
		s.out.Logging = &compose.Logging{Driver: in.Driver, Options: in.Options}
	}
	return nil
}

func (s *serving) devices() error {
	for _, d := range s.in.Devices {
		p := d.Permissions
		if p == "" {
			p = "rwm"
		}
		ordered := ""
		for _, c := range "rwm" {
			if strings.ContainsRune(p, c) {
				ordered += string(c)
			}
		}
		if len(ordered) != len(p) {
			return s.fail("devices", "%q: %q are not permissions out of rwm", d.Source, p)
		}
		target := d.Target
		if target == "" {
			target = d.Source
		}
		s.out.Devices = append(s.out.Devices, compose.Device{Host: d.Source, Container: target, Permissions: ordered})
	}
	slices.SortFunc(s.out.Devices, func(x, y compose.Device) int { return strings.Compare(x.Container, y.Container) })
	return nil
}

// security writes the options as the engine's interface takes them.
func (s *serving) security() error {
	var list []string
	for i, option := range s.in.SecurityOpt {
		key, value := option, ""
		if at := strings.IndexAny(option, ":="); at >= 0 {
			key, value = option[:at], option[at+1:]
		}
		switch {
		case key == "no-new-privileges" && (value == "" || value == "true"):
			option = key
		case key == "no-new-privileges" && value == "false", (key == "apparmor" || key == "label") && value != "",
			key == "seccomp" && (value == "unconfined" || value == "builtin"):
			option = key + "=" + value
		case key == "seccomp" && value != "":
			var err error
			if option, err = s.profile(value); err != nil {
				return s.fail("security_opt."+strconv.Itoa(i), "%v", err)
			}
		default:
			return s.fail("security_opt."+strconv.Itoa(i), "%q is not supported", option)
		}
		list = append(list, option)
	}
	s.out.SecurityOpt = sorted(list)
	return nil
}

// profile writes a seccomp profile out.
func (s *serving) profile(file string) (string, error) {
	data, err := os.ReadFile(s.local(file))
	if err != nil {
		return "", err
	}
	var buf bytes.Buffer
	if err := json.Compact(&buf, data); err != nil {
		return "", fmt.Errorf("%s: %w", file, err)
	}
	return "seccomp=" + buf.String(), nil
}

func (s *serving) ulimits() error {
	for _, name := range slices.Sorted(maps.Keys(s.in.Ulimits)) {
		u := s.in.Ulimits[name]
		out := compose.Ulimit{Name: name, Soft: int64(u.Soft), Hard: int64(u.Hard)}
		if u.Single != 0 {
			out.Soft, out.Hard = int64(u.Single), int64(u.Single)
		}
		s.out.Ulimits = append(s.out.Ulimits, out)
	}
	return nil
}

func (s *serving) limits() error {
	in := s.in
	l := compose.Limits{Memory: int64(in.MemLimit), MemorySwap: int64(in.MemSwapLimit), MemoryReservation: int64(in.MemReservation),
		NanoCPUs: nanos(in.CPUS), CPUShares: in.CPUShares, CPUPeriod: in.CPUPeriod, CPUQuota: in.CPUQuota, CPUSet: in.CPUSet, Pids: in.PidsLimit}
	if in.Deploy != nil {
		if most := in.Deploy.Resources.Limits; most != nil {
			for _, both := range []struct {
				key    string
				to     *int64
				deploy int64
			}{{"memory", &l.Memory, int64(most.MemoryBytes)}, {"cpus", &l.NanoCPUs, nanos(most.NanoCPUs.Value())}, {"pids", &l.Pids, most.Pids}} {
				if *both.to != 0 && both.deploy != 0 && *both.to != both.deploy {
					return s.fail("deploy.resources.limits."+both.key, "the service says something else itself")
				}
				if both.deploy != 0 {
					*both.to = both.deploy
				}
			}
		}
		if least := in.Deploy.Resources.Reservations; least != nil && l.MemoryReservation == 0 {
			l.MemoryReservation = int64(least.MemoryBytes)
		}
	}
	s.out.Limits = l
	return nil
}

// nanos returns a number of processors in billionths, as it was written.
func nanos(cpus float32) int64 {
	f, err := strconv.ParseFloat(strconv.FormatFloat(float64(cpus), 'g', -1, 32), 64)
	if err != nil {
		return 0
	}
	return int64(math.Round(f * 1e9))
}
