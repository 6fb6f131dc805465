package publish

// shape says which keys a part of a compose file may have. Everything in a file
// is compared with it before anything is made of the file, so that no key is
// passed over in silence.
type shape struct {
	keys   map[string]*shape // of a mapping; those that begin with x- besides
	each   *shape            // of the values of a mapping with names of the maker's
	items  *shape            // of the items of a list; nil: plain values
	free   bool              // names and values below are the maker's
	advice string            // what to do instead, of a key that is refused
}

// composeShape returns the shape of a compose file.
func composeShape() *shape {
	plain, free := &shape{}, &shape{free: true}
	network := closed(plain, "name", "driver", "external", "internal", "attachable", "enable_ipv6").
		with("driver_opts", free).with("labels", free).
		with("ipam", closed(plain, "driver").with("config", &shape{items: closed(plain, "subnet", "ip_range", "gateway")}))
	volume := closed(plain, "name", "driver", "external").with("driver_opts", free).with("labels", free)
	top := closed(plain, "version", "name").
		with("include", &shape{items: closed(plain, "path").
			without("env_file", "variables come from the SPEC alone: env and env-file of the component").
			without("project_directory", "paths are relative to the file that they stand in")}).
		with("services", &shape{each: serviceShape(plain, free)}).
		with("networks", &shape{each: network}).
		with("volumes", &shape{each: volume}).
		with("configs", &shape{each: fileShape(plain).with("content", plain)}).
		with("secrets", &shape{each: fileShape(plain)})
	return top
}

// fileShape is that of a config or a secret.
func fileShape(plain *shape) *shape {
	const advice = "the content has to be there at publish time: use file"
	return closed(plain, "file").without("environment", advice).without("external", advice)
}

func serviceShape(plain, free *shape) *shape {
	s := closed(plain, "image", "command", "entrypoint", "expose", "network_mode", "restart", "user", "working_dir", "hostname", "dns",
		"dns_search", "dns_opt", "cap_add", "cap_drop", "privileged", "device_cgroup_rules", "group_add", "security_opt", "mem_limit",
		"mem_reservation", "memswap_limit", "cpus", "cpu_shares", "cpu_quota", "cpu_period", "cpuset", "pids_limit", "shm_size", "read_only",
		"tmpfs", "init", "pid", "ipc", "stop_signal", "stop_grace_period", "profiles", "container_name")
	s.with("environment", free).with("labels", free).with("extra_hosts", free).with("sysctls", free)
	s.with("env_file", &shape{items: closed(plain, "path", "required", "format")})
	s.with("ports", &shape{items: closed(plain, "target", "published", "host_ip", "protocol", "mode", "name")})
	s.with("volumes", &shape{items: closed(plain, "type", "source", "target", "read_only").
		with("bind", closed(plain, "propagation", "create_host_path")).
		with("volume", closed(plain, "nocopy")).
		with("tmpfs", closed(plain, "size", "mode"))})
	s.with("networks", &shape{each: closed(plain, "aliases", "ipv4_address", "ipv6_address", "priority")})
	s.with("depends_on", &shape{each: closed(plain, "condition", "required", "restart")})
	s.with("healthcheck", closed(plain, "test", "interval", "timeout", "retries", "start_period", "start_interval", "disable"))
	s.with("devices", &shape{items: closed(plain, "source", "target", "permissions")})
	s.with("ulimits", &shape{each: closed(plain, "soft", "hard")})
	s.with("logging", closed(plain, "driver").with("options", free))
	mount := &shape{items: closed(plain, "source", "target", "uid", "gid", "mode")}
	s.with("configs", mount).with("secrets", mount)
	s.with("extends", closed(plain, "file", "service"))
	s.with("deploy", closed(plain).with("resources", closed(plain).
		with("limits", closed(plain, "cpus", "memory", "pids")).
		with("reservations", closed(plain, "memory"))))
	s.with("x-pawl", closed(plain, "strategy", "oneshot").with("trial", closed(plain, "uptime", "restarts")))
	return s.without("build", "build the image first, and say in the SPEC where it is: images of the component").
		without("platform", "it stands in the SPEC: platform of the component").
		without("pull_policy", "the SPEC says where images come from: images of the component, with pull: true for those left in a registry").
		without("links", "services find each other by name in a network").
		without("scale", "give each container a service of its own").
		without("volumes_from", "name the volumes").
		without("label_file", "write the labels out").
		without("userns_mode", "set it for the engine")
}

// closed returns a shape with these keys, which are all alike.
func closed(value *shape, keys ...string) *shape {
	s := &shape{keys: map[string]*shape{}}
	for _, k := range keys {
		s.keys[k] = value
	}
	return s
}

func (s *shape) with(key string, value *shape) *shape {
	s.keys[key] = value
	return s
}

func (s *shape) without(key, advice string) *shape {
	s.keys[key] = &shape{advice: advice}
	return s
}
