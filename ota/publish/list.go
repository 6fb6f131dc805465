package publish

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/pawl-ota/pawl/ota/compose"
	"github.com/pawl-ota/pawl/ota/release"
)

// Listed is one release of a repository.
type Listed struct {
	release.ID
	Version    string         `json:"version"`
	Attempt    uint32         `json:"attempt,omitempty"`
	Hardware   []string       `json:"hardware,omitempty"`
	Issued     time.Time      `json:"issued"`
	Release    release.Digest `json:"release"`    // of the release document
	Components []string       `json:"components"` // their names
	Packs      int64          `json:"packs"`      // bytes of all packs that it needs something of
	Role       Role           `json:"role"`       // that signed it
	// Scripts and Services are those of the release, then those of each
	// component.
	Scripts  []ListedScript  `json:"scripts,omitempty"`
	Services []ListedService `json:"services,omitempty"`
	// Containers are those of components of kind "compose", as they start.
	Containers []ListedContainer `json:"containers,omitempty"`
}

// ListedContainer is a service of a compose app.
type ListedContainer struct {
	Component string `json:"component"`
	Name      string `json:"name"`
	Image     string `json:"image"` // as the compose file calls it
	Strategy  string `json:"strategy"`
}

// ListedScript is a script of a release.
type ListedScript struct {
	Component string `json:"component,omitempty"` // empty for one of the release
	release.Script
}

// ListedService is a service that a component handles.
type ListedService struct {
	Component string `json:"component"`
	Name      string `json:"name"`
	Do        string `json:"do"` // a word of the backend
}

// List returns the releases, by variant and seq. The metadata is verified, and
// may have expired.
func (r *Repository) List(ctx context.Context) ([]Listed, error) {
	t, err := r.disk.load(nil, time.Time{})
	if err != nil {
		return nil, fmt.Errorf("cannot list releases: %w", err)
	}
	list, err := r.disk.listed(t)
	if err != nil {
		return nil, fmt.Errorf("cannot list releases: %w", err)
	}
	var out []Listed
	for _, l := range list {
		one := l.public()
		if one.Containers, err = r.disk.containers(l); err != nil {
			return nil, fmt.Errorf("cannot list releases: %s seq %d: %w", l.Variant, l.Seq, err)
		}
		out = append(out, one)
	}
	return out, ctx.Err()
}

// listed is a release with its documents.
type listed struct {
	target
	role    Role // that signs it
	release *release.Release
	locator *release.Locator
	digest  release.Digest
}

func (l *listed) public() Listed {
	out := Listed{ID: l.id(), Version: l.Version, Attempt: l.Attempt, Hardware: l.Hardware,
		Issued: l.release.Issued, Release: l.digest, Role: l.role}
	out.addScripts("", l.release.Scripts)
	for _, c := range l.release.Components {
		out.Components = append(out.Components, c.Name)
		out.addScripts(c.Name, c.Scripts)
		out.addServices(c)
	}
	for _, p := range l.locator.Packs {
		out.Packs += p.Size
	}
	return out
}

func (l *Listed) addScripts(component string, scripts []release.Script) {
	for _, s := range scripts {
		l.Scripts = append(l.Scripts, ListedScript{component, s})
	}
}

// addServices reads the services out of the options of c. Options that say
// something else there are the backend's to refuse.
func (l *Listed) addServices(c release.Component) {
	var options struct {
		Services []service `json:"services"`
	}
	if c.Kind != kindFiles || json.Unmarshal(c.Options, &options) != nil {
		return
	}
	for _, s := range options.Services {
		l.Services = append(l.Services, ListedService{c.Name, s.Name, s.Do})
	}
}

// containers reads the app documents of a release.
func (d *disk) containers(l *listed) (list []ListedContainer, err error) {
	for _, c := range l.release.Components {
		if c.Kind != compose.Kind {
			continue
		}
		table, err := d.table(l.locator)
		if err != nil {
			return nil, err
		}
		data, err := d.readBlob(c.Index, table)
		if err != nil {
			return nil, err
		}
		app, err := compose.Parse(data)
		if err != nil {
			return nil, fmt.Errorf("component %q: %w", c.Name, err)
		}
		for _, s := range app.Services {
			list = append(list, ListedContainer{c.Name, s.Name, app.Images[s.Image].Name, string(s.Strategy)})
		}
	}
	return list, nil
}

func compareSeq(a, b uint64) int { return cmp.Compare(a, b) }

// listed reads the documents of all releases and checks that they say what the
// metadata says of them.
func (d *disk) listed(t *trusted) ([]*listed, error) {
	files := resolve(t)
	var list []*listed
	for name, at := range files {
		tg, digest, err := parseTarget(name, at.file)
		if err != nil {
			return nil, err
		}
		if tg.Kind != kindRelease {
			continue
		}
		l := &listed{target: tg, digest: digest, role: at.role}
		if err := d.readDocuments(l, at.file, files); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		list = append(list, l)
	}
	slices.SortFunc(list, func(a, b *listed) int {
		return cmp.Or(cmp.Compare(a.Product, b.Product), cmp.Compare(a.Variant, b.Variant), compareSeq(a.Seq, b.Seq))
	})
	return list, nil
}

func (d *disk) readDocuments(l *listed, file *metadata.TargetFiles, files map[string]resolved) error {
	data, err := d.readTarget(l.target, l.digest, file.Length)
	if err != nil {
		return err
	}
	if l.release, err = release.Parse(data); err != nil {
		return err
	}
	r := l.release
	if r.ID != l.id() || r.Version != l.Version || r.Attempt != l.Attempt || !slices.Equal(r.Hardware, l.Hardware) {
		return fmt.Errorf("the metadata says other things of it than its document")
	}
	at := l.target
	at.Kind = kindLocator
	where, ok := files[at.name()]
	locFile := where.file
	if !ok {
		return fmt.Errorf("%s is missing", at.name())
	}
	_, digest, err := parseTarget(at.name(), locFile)
	if err != nil {
		return err
	}
	if data, err = d.readTarget(at, digest, locFile.Length); err != nil {
		return err
	}
	if l.locator, err = release.ParseLocator(data); err != nil {
		return err
	}
	if l.locator.ID != r.ID || l.locator.Release != l.digest {
		return fmt.Errorf("%s is of another release", at.name())
	}
	return nil
}

// readTarget reads the document of a target and checks its length and digest.
func (d *disk) readTarget(t target, digest release.Digest, length int64) ([]byte, error) {
	data, err := d.readFile(t.file(digest), release.MaxRelease)
	if err != nil {
		return nil, err
	}
	if int64(len(data)) != length || release.Sum(data) != digest {
		return nil, fmt.Errorf("%s is not what was signed", t.file(digest))
	}
	return data, nil
}
