package container

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/pawl-ota/pawl/ota/compose"
)

// Errors of an engine that this package branches on.
var (
	// errMissing is returned where nothing has the id or name.
	errMissing = errors.New("the engine has no such thing")
	// errTaken is returned where something else has the name, or still uses what
	// is to be removed.
	errTaken = errors.New("it is in use at the engine")
	// errPort is returned for a start where the engine has given a port away.
	errPort = errors.New("the engine holds the port for another container")
)

// engine is what this package asks of a container engine. All calls end when
// their context does. Removing what is not there is no error.
type engine interface {
	Info(ctx context.Context) (engineInfo, error)
	imageStore
	boxes
	surroundings
}

// imageStore are the calls for images. A ref is an engine's id or a tag.
type imageStore interface {
	Image(ctx context.Context, ref string) (imageInfo, error)
	// Tagged lists the images with tags in a repository.
	Tagged(ctx context.Context, repository string) ([]imageInfo, error)
	Load(ctx context.Context, archive io.Reader) error
	Save(ctx context.Context, ref string) (io.ReadCloser, error)
	// Files gives out what a container of the image would find, as a tar; the
	// container that it takes has the labels.
	Files(ctx context.Context, ref string, labels map[string]string) (io.ReadCloser, error)
	// Pull gets an image by name and digest.
	Pull(ctx context.Context, ref string, login Login) error
	Tag(ctx context.Context, id, tag string) error
	// Untag removes a tag, and with the last one the image. With force it removes
	// an image with all its tags, unless a container runs it.
	Untag(ctx context.Context, ref string, force bool) error
}

// boxes are the calls for containers.
type boxes interface {
	// Boxes lists all containers that have the label with the value.
	Boxes(ctx context.Context, label, value string) ([]box, error)
	Box(ctx context.Context, id string) (box, error)
	// Published lists the ports of the host that running containers have, whoever
	// made them.
	Published(ctx context.Context) (map[uint16]bool, error)
	Create(ctx context.Context, s boxSpec) (id string, err error)
	Start(ctx context.Context, id string) error
	// Stop returns when the container has ended; after the grace it is killed.
	Stop(ctx context.Context, id string, grace time.Duration) error
	SetName(ctx context.Context, id, name string) error
	SetRestart(ctx context.Context, id string, r compose.Restart) error
	// Remove removes a container, running or not, and none of its volumes.
	Remove(ctx context.Context, id string) error
}

// surroundings are the calls for networks and volumes.
type surroundings interface {
	Networks(ctx context.Context) ([]network, error)
	CreateNetwork(ctx context.Context, name string, n compose.Network, labels map[string]string) (id string, err error)
	RemoveNetwork(ctx context.Context, id string) error
	Volumes(ctx context.Context) ([]volume, error)
	CreateVolume(ctx context.Context, v compose.Volume, labels map[string]string) error
	RemoveVolume(ctx context.Context, name string) error
}

// Login is what a registry wants to know; the zero Login is nobody.
type Login struct {
	Username, Password string
	// Token is an identity token in the place of both.
	Token string
}

type engineInfo struct {
	Root     string // the folder of its store
	OS, Arch string // as the Open Container Initiative writes them
	// Snapshots is set for the containerd image store: the id of an image is not
	// the digest of its configuration, an archive has to be whole, and what
	// containers run is another copy than what the engine gives out.
	Snapshots bool
	// Podman is set for Podman: an archive has to be whole there too.
	Podman bool
}

type imageInfo struct {
	ID     string // sha256:…
	Tags   []string
	Layers []string // diff IDs, sha256:…
	OS     string
	Arch   string
}

// box is a container as the engine describes it.
type box struct {
	ID, Name string
	Labels   map[string]string
	Image    string // engine id
	State    boxState
	Health   string // "starting", "healthy", "unhealthy", or empty without a check
	Exit     int
	OOM      bool
	Error    string    // why it could not be started
	Started  time.Time // zero: never
	Restarts int
	Restart  compose.Restart
	Limits   compose.Limits
	Networks []string // ids of those it is attached to; names, where it is Podman
	// Addresses are those that it has while it runs.
	Addresses []address
	// Broken is why the engine cannot describe it; of the rest only ID, Labels,
	// Image and State are set then.
	Broken string
}

// address is one of a container, and of the link that has it.
type address struct {
	IP  netip.Addr
	MAC net.HardwareAddr
}

// addresses adds those that are addresses.
func addresses(all []address, mac string, ips ...string) []address {
	link, err := net.ParseMAC(mac)
	if err != nil {
		return all
	}
	for _, text := range ips {
		if ip, err := netip.ParseAddr(text); err == nil {
			all = append(all, address{ip, link})
		}
	}
	return all
}

type boxState string

const (
	created    boxState = "created"
	running    boxState = "running"
	restarting boxState = "restarting"
	paused     boxState = "paused"
	exited     boxState = "exited"
)

// stateOf is the state that an engine has a word for.
func stateOf(word string) boxState {
	if word == "stopped" { // Podman's, until it has cleaned up
		return exited
	}
	return boxState(word)
}

// up reports whether a process of the container runs, or will again without
// anybody's help.
func (b box) up() bool { return b.State == running || b.State == restarting || b.State == paused }

// boxSpec is a container to be made.
type boxSpec struct {
	Name    string
	Image   string            // engine id
	Labels  map[string]string // beside those of Service
	Service compose.Service   // expanded
	Restart compose.Restart   // in the place of Service's
	// NetworkMode, PID and IPC are those of Service with the id of a container
	// in the place of the name of a service.
	NetworkMode, PID, IPC string
	Networks              []attachment
	Volumes               map[string]string // engine names by name
	Files                 []fileMount
}

type attachment struct {
	ID string
	compose.Attachment
}

type fileMount struct{ Source, Target string }

type network struct {
	ID, Name string
	Labels   map[string]string
}

type volume struct {
	Name   string
	Labels map[string]string
}

// architecture turns the kernel's word into that of images.
func architecture(machine string) string {
	words := map[string]string{
		"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "armv6l": "arm", "armv8l": "arm",
		"i386": "386", "i586": "386", "i686": "386", "mips": "mipsle",
	}
	return cmp.Or(words[machine], machine)
}

// finish reads a stream of messages to its end, and returns the error in it.
func finish(r io.ReadCloser) (err error) {
	defer func() { err = errors.Join(err, r.Close()) }()
	for dec := json.NewDecoder(r); ; {
		var m struct {
			Error string `json:"error"`
		}
		switch err := dec.Decode(&m); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("cannot read the engine's answer: %w", err)
		case m.Error != "":
			return errors.New(m.Error)
		}
	}
}

// seconds rounds up.
func seconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }
