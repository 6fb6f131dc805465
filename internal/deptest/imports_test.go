package deptest

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A ban keeps foreign code out of what a package links. banned may end in /... for
// everything below it.
type ban struct {
	from, banned string
	reason       string
}

const (
	goTUF  = "github.com/theupdateframework/go-tuf/v2/..."
	docker = "github.com/docker/docker/..."
	dbus   = "github.com/godbus/dbus/v5/..."
	procfs = "github.com/prometheus/procfs/..."
	paho   = "github.com/eclipse/paho.golang/..."
	otlp   = "go.opentelemetry.io/..."

	composeGo = "github.com/compose-spec/compose-go/v2/..."
	registry  = "github.com/google/go-containerregistry/pkg/v1/..."
)

var bans = []ban{
	{"ota", "net/http", "a guard links ota and micro and has no use for a network"},
	{"ota", goTUF, "other sources than TUF repositories are possible, and a guard needs none"},
	{"ota", docker, "a device without containers must not pay for them"},
	{"ota/release", "net/http", "documents are parsed without a network"},
	{"ota/release", "os/exec", "documents are data"},
	{"ota/durable", "net/http", "a vendor's backend links it alone"},
	{"ota/otatest", "github.com/stretchr/testify/...", "whoever runs our suites must not inherit testify"},
	{"micro", "net/http", "a guard links ota and micro and has no use for a network"},
	{"micro", goTUF, "a guard links ota and micro and has no use for a repository"},
	{"micro", docker, "a device without containers must not pay for them"},
	{"micro", dbus, "a device with another supervisor than systemd must not pay for D-Bus"},
	{"micro/systemctl", dbus, "it is there for those who do not want it"},
	{"monitor", "net/http", "whoever sends nothing and asks nothing over HTTP must not pay for it"},
	{"monitor", module + "/ota", "it fits the engine by shape, and does without one"},
	{"monitor/outbox", "net/http", "how events travel is the sender's"},
	{"monitor/outbox", module + "/ota", "it keeps what it is given, whoever updates"},
	{"monitor/probe", "net/http", "whoever asks nothing over HTTP must not pay for it"},
	{"monitor/probe", dbus, "systemd is asked by its command"},
	{"monitor/probe/web", module + "/ota", "it fits the engine by shape, and does without one"},
	{"monitor/alert", "net/http", "rules are looked at without a network"},
	{"monitor/alert", procfs, "who measures is free"},
	{"monitor/alert", module + "/ota", "it fits the engine by shape, and does without one"},
	{"monitor/device", "net/http", "whoever measures need not send over HTTP"},
	{"monitor/device", docker, "containers are listed by a callback"},
	{"monitor/device", dbus, "systemd is asked by its command"},
	{"monitor/device", module + "/ota", "a device is measured whoever updates it"},
	{"monitor/updates", "net/http", "how events travel is the sender's"},
	{"monitor/mqtt", "net/http", "whoever has a broker need not pay for HTTP"},
	{"monitor/mqtt", otlp, "nobody pays for a sender that they do not use"},
	{"monitor/otlp", paho, "nobody pays for a sender that they do not use"},
	{"monitor/otlp", "google.golang.org/grpc/...", "metrics travel over HTTP"},
	{"monitor/otlp", "go.opentelemetry.io/otel/...", "five megabytes: the messages alone are a fortieth of it"},
	{"monitor/cloudevents", paho, "nobody pays for a sender that they do not use"},
	{"monitor/cloudevents", otlp, "nobody pays for a sender that they do not use"},
	{"examples/agent", paho, "nobody pays for a sender that they do not use"},
	{"examples/embed", paho, "nobody pays for a sender that they do not use"},
	{"container", goTUF, "other sources than TUF repositories are possible"},
	{"container", module + "/ota/publish", "keys, signing and the parsing of compose files stay at the publisher"},
	{"container", "testing", "a device binary holds no test code"},
	{"ota/compose", docker, "publisher and device read the same document, and only the device has an engine"},
	{"monitor/watchdog", "net", "a guard that feeds a watchdog has no use for a network"},
	{"monitor/watchdog", module + "/ota", "it fits the engine by shape, and does without one"},
	{"ota/fetch", goTUF, "transport knows nothing of trust"},
	{"ota/tuf", module + "/ota/publish", "keys and signing stay at the publisher"},
	{"examples/agent", docker, "an agent for files is small"},
	{"examples/agent", module + "/ota/publish", "keys and signing stay at the publisher"},
	{"examples/agent", "testing", "a device binary holds no test code"},
	{"examples/agent", module + "/internal/powercut/...", "a device binary holds no test code"},
	{"examples/agent", module + "/internal/trace", "a device binary holds no test code"},
	{"examples/embed", docker, "firmware for files is small"},
	{"examples/embed", module + "/ota/publish", "keys and signing stay at the publisher"},
	{"examples/embed", "testing", "a device binary holds no test code"},
	{"examples/embed", module + "/internal/powercut/...", "a device binary holds no test code"},
	{"examples/embed", module + "/internal/trace", "a device binary holds no test code"},
	{"examples/agent", composeGo, "a device reads the app document, and no compose file"},
	{"examples/embed", composeGo, "a device reads the app document, and no compose file"},
	{"examples/agent", registry, "a device's engine pulls images, if anything does"},
	{"examples/embed", registry, "a device's engine pulls images, if anything does"},
	{"examples/gateway", module + "/ota/publish", "keys and signing stay at the publisher"},
	{"examples/gateway", "testing", "a device binary holds no test code"},
	{"examples/gateway", composeGo, "a device reads the app document, and no compose file"},
	{"examples/gateway", registry, "a device's engine pulls images, if anything does"},
	{"ota/compose", composeGo, "a device reads the app document, and no compose file"},
	{"ota/compose", "net/http", "documents are parsed without a network"},
	{"ota/publish", docker, "an engine is asked for one thing, by plain HTTP over its socket"},
	{"ota/publish", "github.com/pawl-ota/pawl/ota", "the publisher runs on a maker's desk, the engine on a device"},
}

func TestLinkedPackages(t *testing.T) {
	all := allPackages(t)
	for _, b := range bans {
		p, ok := all[b.from]
		require.True(t, ok, "package %s is not there", b.from)
		for _, dep := range p.Deps {
			assert.False(t, matches(b.banned, dep), "%s links %s: %s", b.from, dep, b.reason)
		}
	}
}

// only lists the packages that may import something by themselves.
var only = []struct {
	what    string
	allowed []string
	reason  string
}{
	{goTUF, []string{"ota/tuf", "ota/publish", "internal/e2e/testdata/baseline"}, "one package a side knows go-tuf"},
	{docker, []string{"container"}, "one package knows the Docker client"},
	{composeGo, []string{"ota/publish"}, "one package knows compose files"},
	{registry, []string{"ota/publish"}, "one package knows registries"},
	{dbus, []string{"micro/systemd"}, "one package talks to systemd over D-Bus"},
	{"github.com/coreos/go-systemd/v22/...", []string{"micro/systemd"}, "one package talks to systemd over D-Bus"},
	{"github.com/google/renameio/v2", []string{"ota/durable"}, "durable steps stand in one place"},
	// ota/tuf reads the numbers of answers, and opens no connection; ota/otatest
	// is a hostile server; ota/publish asks registries and an engine for images.
	{"net/http", []string{"ota/fetch", "ota/tuf", "ota/publish", "ota/otatest", "monitor/probe/web", "monitor/cloudevents", "monitor/otlp", "monitor/internal/post", "examples/quickstart", "internal/e2e/testdata/baseline"}, "the transport's limits and counters are in ota/fetch"},
	{procfs, []string{"monitor/device"}, "one package reads what the kernel tells of a machine"},
	{paho, []string{"monitor/mqtt"}, "one package talks to brokers"},
	{otlp, []string{"monitor/otlp"}, "one package knows OpenTelemetry"},
	{"github.com/stretchr/testify/...", nil, "testify is for tests"},
	{"log", []string{"examples/minimal"}, "a library returns errors and leaves logging to its embedder"},
}

func TestWhoImports(t *testing.T) {
	all := allPackages(t)
	for _, rule := range only {
		for path, p := range all {
			if slices.Contains(rule.allowed, path) {
				continue
			}
			for _, imported := range p.Imports {
				assert.False(t, matches(rule.what, imported), "%s imports %s: %s", path, imported, rule.reason)
			}
		}
	}
}

// TestNoCommands has a device need no docker or compose command: the engine is
// asked over its socket.
func TestNoCommands(t *testing.T) {
	assert.NotContains(t, allPackages(t)["container"].Imports, "os/exec")
}

// TestUnexpectedDependency has every module that a device binary links named
// here, so that a new one is a decision.
func TestUnexpectedDependency(t *testing.T) {
	known := []string{
		module,
		"github.com/cenkalti/backoff/v5",
		"github.com/coreos/go-systemd/v22",
		"github.com/godbus/dbus/v5",
		"github.com/google/go-containerregistry",
		"github.com/google/renameio/v2",
		"github.com/hashicorp/go-cleanhttp",
		"github.com/hashicorp/go-retryablehttp",
		"github.com/klauspost/compress",
		"github.com/opencontainers/go-digest",
		"github.com/secure-systems-lab/go-securesystemslib",
		"github.com/sigstore/protobuf-specs",
		"github.com/sigstore/sigstore",
		"github.com/theupdateframework/go-tuf/v2",
		"golang.org/x/crypto",
		"golang.org/x/sys",
		"golang.org/x/term",
		"golang.org/x/time",
		"google.golang.org/genproto",
		"google.golang.org/protobuf",
	}
	for _, dep := range allPackages(t)["examples/agent"].Deps {
		if first, _, _ := strings.Cut(dep, "/"); !strings.Contains(first, ".") {
			continue
		}
		assert.True(t, slices.ContainsFunc(known, func(m string) bool { return matches(m+"/...", dep) }),
			"the agent links %s, of a module that is not listed", dep)
	}
}

// matches reports whether path is what pattern names: itself, or with /...
// itself and everything below it.
func matches(pattern, path string) bool {
	if below, ok := strings.CutSuffix(pattern, "/..."); ok {
		return path == below || strings.HasPrefix(path, below+"/")
	}
	return path == pattern
}
