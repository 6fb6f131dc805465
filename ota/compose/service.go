package compose

import "time"

// Service is one container of an app. Fields with "template" in their comment
// may hold placeholders: see [Service.Expand].
type Service struct {
	Name string `json:"name"`
	// Container is the name of the container at the engine.
	Container string `json:"container"`
	// Image is an index into [App.Images].
	Image    int      `json:"image"`
	Strategy Strategy `json:"strategy"`
	// OneShot services run to their end, which has to be exit code 0, each time
	// the app is switched to. Restart is then "no" or "on-failure".
	OneShot bool `json:"oneShot,omitempty"`
	// Trial is what proves the service.
	Trial Trial `json:"trial"`
	// DependsOn names what has to be reached before the service starts, sorted
	// by service.
	DependsOn []Dependency `json:"dependsOn,omitempty"`
	Restart   Restart      `json:"restart"`

	// Entrypoint and Command are templates, item by item. Nil means the image's;
	// empty means none at all. With an Entrypoint the image's command is not
	// used.
	Entrypoint []string `json:"entrypoint,omitzero"`
	Command    []string `json:"command,omitzero"`
	// Environment holds values by name; the values are templates.
	Environment map[string]string `json:"environment,omitempty"`
	User        string            `json:"user,omitempty"`
	WorkingDir  string            `json:"workingDir,omitempty"`
	Init        *bool             `json:"init,omitempty"` // nil: as the engine is set
	StopSignal  string            `json:"stopSignal,omitempty"`
	// StopGrace is how long the service has after StopSignal, in nanoseconds.
	StopGrace   time.Duration     `json:"stopGrace"`
	Healthcheck *Healthcheck      `json:"healthcheck,omitempty"` // nil: the image's
	Labels      map[string]string `json:"labels,omitempty"`      // the values are templates
	Logging     *Logging          `json:"logging,omitempty"`     // nil: as the engine is set

	// NetworkMode is empty where Networks says it, else "none", "host", "bridge"
	// or "service:NAME" for the namespace of another service of the app.
	NetworkMode string       `json:"networkMode,omitempty"`
	Networks    []Attachment `json:"networks,omitempty"` // the first one is the container's own
	Ports       []Port       `json:"ports,omitempty"`    // sorted
	Expose      []Expose     `json:"expose,omitempty"`   // sorted
	Hostname    string       `json:"hostname,omitempty"` // template
	// ExtraHosts are "name:address" each, sorted; the address may be the word
	// "host-gateway".
	ExtraHosts []string `json:"extraHosts,omitempty"`
	DNS        []string `json:"dns,omitempty"`
	DNSSearch  []string `json:"dnsSearch,omitempty"`
	DNSOptions []string `json:"dnsOptions,omitempty"`

	Mounts   []Mount     `json:"mounts,omitempty"` // by Target
	Files    []FileMount `json:"files,omitempty"`  // by Target
	ReadOnly bool        `json:"readOnly,omitempty"`
	ShmSize  int64       `json:"shmSize,omitempty"` // bytes; 0: the engine's default

	// PID is empty, "host" or "service:NAME". IPC may be "none", "private" and
	// "shareable" too.
	PID string `json:"pid,omitempty"`
	IPC string `json:"ipc,omitempty"`

	Privileged  bool     `json:"privileged,omitempty"`
	CapAdd      []string `json:"capAdd,omitempty"` // upper case, without CAP_, sorted; or ALL
	CapDrop     []string `json:"capDrop,omitempty"`
	Devices     []Device `json:"devices,omitempty"` // by Container
	DeviceRules []string `json:"deviceRules,omitempty"`
	GroupAdd    []string `json:"groupAdd,omitempty"`
	// SecurityOpt are as the engine's interface takes them: a seccomp profile
	// is written out in JSON.
	SecurityOpt []string          `json:"securityOpt,omitempty"`
	Sysctls     map[string]string `json:"sysctls,omitempty"`
	Ulimits     []Ulimit          `json:"ulimits,omitempty"` // by Name
	Limits      Limits            `json:"limits,omitzero"`
}

// Strategy says how a service is switched from one release to the next.
type Strategy string

// The values of [Strategy].
const (
	// Recreate stops the old container before the new one starts.
	Recreate Strategy = "recreate"
	// Handover starts the new container beside the old one and stops the old
	// one when the new one is healthy. Such a service publishes no ports,
	// writes to no volume, has no fixed address and shares no namespace.
	Handover Strategy = "handover"
)

// Trial says what a service has to show before the release is committed.
type Trial struct {
	// Uptime is how long the container has to have run since it last started,
	// in nanoseconds; 0 for one-shot services.
	Uptime time.Duration `json:"uptime,omitempty"`
	// Restarts is how often it may have been started again.
	Restarts int `json:"restarts,omitempty"`
}

// Dependency is something that a service waits for.
type Dependency struct {
	Service   string    `json:"service"`
	Condition Condition `json:"condition"`
}

// Condition is a word for what a [Dependency] has to reach.
type Condition string

// The values of [Condition].
const (
	Started   Condition = "started"
	Healthy   Condition = "healthy"
	Completed Condition = "completed" // a one-shot service that ended in exit code 0
)

// Restart says what the engine does when a container ends.
type Restart struct {
	Policy RestartPolicy `json:"policy"`
	// Most is how many times "on-failure" starts it again; 0 is no limit.
	Most int `json:"most,omitempty"`
}

// RestartPolicy is the engine's word for a policy.
type RestartPolicy string

// The values of [RestartPolicy].
const (
	RestartNo            RestartPolicy = "no"
	RestartAlways        RestartPolicy = "always"
	RestartOnFailure     RestartPolicy = "on-failure"
	RestartUnlessStopped RestartPolicy = "unless-stopped"
)

// Healthcheck replaces the check of the image, field by field: what is zero
// stays as the image has it, and else is the engine's default.
type Healthcheck struct {
	// Disabled switches the image's check off; nothing else is set then.
	Disabled bool `json:"disabled,omitempty"`
	// Test begins with "CMD" (a program and its arguments) or "CMD-SHELL" (one
	// line for a shell).
	Test          []string      `json:"test,omitempty"`
	Interval      time.Duration `json:"interval,omitempty"` // nanoseconds, as all four
	Timeout       time.Duration `json:"timeout,omitempty"`
	StartPeriod   time.Duration `json:"startPeriod,omitempty"`
	StartInterval time.Duration `json:"startInterval,omitempty"`
	Retries       int           `json:"retries,omitempty"`
}

// Logging is where the output of a container goes.
type Logging struct {
	Driver  string            `json:"driver,omitempty"` // empty: the engine's default
	Options map[string]string `json:"options,omitempty"`
}

// Attachment connects a service to a network.
type Attachment struct {
	Network string `json:"network"` // [Network.Name]
	// Aliases are the names that others in the network find the service by, its
	// own name among them, sorted.
	Aliases []string `json:"aliases,omitempty"`
	IPv4    string   `json:"ipv4,omitempty"`
	IPv6    string   `json:"ipv6,omitempty"`
}

// Protocol is a word for a transport protocol.
type Protocol string

// The values of [Protocol].
const (
	TCP  Protocol = "tcp"
	UDP  Protocol = "udp"
	SCTP Protocol = "sctp"
)

// Port is one published port.
type Port struct {
	HostIP    string   `json:"hostIP,omitempty"`   // empty: all addresses of the device
	HostPort  uint16   `json:"hostPort,omitempty"` // 0: one that the engine chooses
	Container uint16   `json:"container"`
	Protocol  Protocol `json:"protocol"`
}

// Expose is one port that the service listens to, for those who look.
type Expose struct {
	Container uint16   `json:"container"`
	Protocol  Protocol `json:"protocol"`
}

// Mount is something mounted into a container.
type Mount struct {
	Type MountType `json:"type"`
	// Source is a [Volume.Name], a clean absolute path of the device, or empty
	// for memory.
	Source   string `json:"source,omitempty"`
	Target   string `json:"target"` // a clean absolute path
	ReadOnly bool   `json:"readOnly,omitempty"`
	// NoCopy leaves a new volume empty, where else it gets what the image has at
	// Target.
	NoCopy bool `json:"noCopy,omitempty"`
	// Create makes a folder of Source if nothing is there.
	Create      bool   `json:"create,omitempty"`
	Propagation string `json:"propagation,omitempty"` // of a bind; empty: "rprivate"
	// Options are those of a tmpfs, as mount takes them, separated by commas;
	// a size is in bytes and a mode in octal.
	Options string `json:"options,omitempty"`
}

// MountType says what a [Mount] mounts.
type MountType string

// The values of [MountType].
const (
	MountVolume MountType = "volume"
	MountBind   MountType = "bind"
	MountTmpfs  MountType = "tmpfs"
)

// FileMount puts a config or a secret into a container.
type FileMount struct {
	Kind   FileKind `json:"kind"`
	Name   string   `json:"name"`   // with Kind, of [App.Files]
	Target string   `json:"target"` // a clean absolute path
	UID    uint32   `json:"uid,omitempty"`
	GID    uint32   `json:"gid,omitempty"`
	Mode   uint32   `json:"mode"` // 0777 bits
}

// Device is a device file that a container gets.
type Device struct {
	Host        string `json:"host"`        // path on the device
	Container   string `json:"container"`   // path in the container
	Permissions string `json:"permissions"` // of "r", "w" and "m", in that order
}

// Ulimit is one limit of setrlimit(2); -1 is none.
type Ulimit struct {
	Name string `json:"name"`
	Soft int64  `json:"soft"`
	Hard int64  `json:"hard"`
}

// Limits bound what a container takes. Zero is no limit, or what the engine
// makes of it.
type Limits struct {
	Memory            int64  `json:"memory,omitempty"`            // bytes
	MemorySwap        int64  `json:"memorySwap,omitempty"`        // bytes, of memory and swap together; -1: any
	MemoryReservation int64  `json:"memoryReservation,omitempty"` // bytes
	NanoCPUs          int64  `json:"nanoCPUs,omitempty"`          // 1e-9 processors
	CPUShares         int64  `json:"cpuShares,omitempty"`
	CPUPeriod         int64  `json:"cpuPeriod,omitempty"` // microseconds
	CPUQuota          int64  `json:"cpuQuota,omitempty"`  // microseconds
	CPUSet            string `json:"cpuSet,omitempty"`
	Pids              int64  `json:"pids,omitempty"` // -1: any
}
