package compose

import (
	"slices"

	"github.com/pawl-ota/pawl/ota/release"
)

// Kind is the word for components whose index is an app document.
const Kind = "compose"

// Format is the word that an app document starts with. A reader refuses every
// word that it does not know.
const Format = "pawl-app/1"

// LabelPrefix begins the labels by which a device knows what it made. No app
// document has one.
const LabelPrefix = "io.pawl."

// App is everything that a device runs for one component.
type App struct {
	Format string `json:"format"`
	// Name keeps the app apart from others at the same engine.
	Name string `json:"name"`
	// Images are those that services use, in the order in which they do.
	Images   []Image   `json:"images"`
	Networks []Network `json:"networks,omitempty"` // by name
	Volumes  []Volume  `json:"volumes,omitempty"`  // by name
	Files    []File    `json:"files,omitempty"`    // by kind and name
	// Services stand in the order in which they start: one that another waits
	// for, or whose namespace another joins, before it.
	Services []Service `json:"services"`
}

// Image is a container image by content. Two images of an App differ in Config
// or in Ref.
type Image struct {
	// Name is what the compose file calls it, for people. It may move on to
	// other content elsewhere: nothing is looked up by it.
	Name string `json:"name"`
	// Config is the image's configuration, a blob of the release. Its digest is
	// the image's ID in an engine with the classic store, and what is in it
	// names the layers by digest.
	Config release.Blob `json:"config"`
	// Layers are the layers as uncompressed tars, the lowest first: their
	// digests are the diff IDs in Config, in that order. They are blobs of the
	// release, or nil where the image is left in a registry.
	Layers []release.Blob `json:"layers,omitempty"`
	// Ref is where an image that is left in a registry is pulled from,
	// host/name@sha256:…, with the digest of the manifest for the platform; else
	// it is empty.
	Ref string `json:"ref,omitempty"`
	// Size is how many bytes the layers have; where Ref is set, as they are
	// stored in the registry.
	Size int64 `json:"size"`
	// The platform as the Open Container Initiative writes it.
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
	Variant      string `json:"variant,omitempty"`
}

// Network is one that the app makes, or with External one that has to be there.
type Network struct {
	Name string `json:"name"` // what services call it
	// Engine is its name at the engine.
	Engine string `json:"engine"`
	// External ones are neither made nor removed; nothing below is set then.
	External   bool              `json:"external,omitempty"`
	Driver     string            `json:"driver,omitempty"` // empty: the engine's default
	DriverOpts map[string]string `json:"driverOpts,omitempty"`
	Internal   bool              `json:"internal,omitempty"` // no way out
	Attachable bool              `json:"attachable,omitempty"`
	IPv6       bool              `json:"ipv6,omitempty"`
	Pools      []Pool            `json:"pools,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
}

// Pool is where the addresses of a network come from.
type Pool struct {
	Subnet  string `json:"subnet"`            // CIDR
	Range   string `json:"range,omitempty"`   // CIDR within Subnet
	Gateway string `json:"gateway,omitempty"` // an address in Subnet
}

// Volume is a volume that the app makes if it is not there, or with External one
// that has to be there. No update removes one.
type Volume struct {
	Name string `json:"name"` // what mounts call it
	// Engine is its name at the engine.
	Engine   string `json:"engine"`
	External bool   `json:"external,omitempty"` // nothing below is set then
	// Anonymous ones have no name in the compose file, or stand in the image
	// alone. Their names are made of the service's and the path's, so that they
	// stay from release to release as others do.
	Anonymous  bool              `json:"anonymous,omitempty"`
	Driver     string            `json:"driver,omitempty"` // empty: the engine's default
	DriverOpts map[string]string `json:"driverOpts,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
}

// File is the content of a config or of a secret.
type File struct {
	Name string       `json:"name"`
	Kind FileKind     `json:"kind"`
	Blob release.Blob `json:"blob"` // of the release
}

// FileKind says what a [File] is.
type FileKind string

// The values of [FileKind].
const (
	Config FileKind = "config"
	Secret FileKind = "secret"
)

// Blobs returns the blobs of the release that a consists of, each once: image
// by image the configuration and the layers, then the files.
func (a *App) Blobs() []release.Blob {
	var all []release.Blob
	seen := map[release.Digest]bool{}
	add := func(b release.Blob) {
		if !seen[b.Digest] {
			seen[b.Digest] = true
			all = append(all, b)
		}
	}
	for _, image := range a.Images {
		add(image.Config)
		for _, b := range image.Layers {
			add(b)
		}
	}
	for _, f := range a.Files {
		add(f.Blob)
	}
	return all
}

// Service returns the service with that name.
func (a *App) Service(name string) (Service, bool) {
	i := slices.IndexFunc(a.Services, func(s Service) bool { return s.Name == name })
	if i < 0 {
		return Service{}, false
	}
	return a.Services[i], true
}
