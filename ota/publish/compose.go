package publish

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/template"
	"github.com/compose-spec/compose-go/v2/types"

	"github.com/pawl-ota/pawl/ota/compose"
	"github.com/pawl-ota/pawl/ota/release"
)

// ComposeOptions say what becomes of a compose file.
type ComposeOptions struct {
	// Platform is what the devices are: "linux/arm64", "linux/arm/v7", ….
	Platform string
	// Profiles are those whose services belong to the app; services without a
	// profile always do.
	Profiles []string
	// Env holds the variables that the file may use. Nothing of the environment
	// of the publisher's process is used. PAWL_PRODUCT, PAWL_VARIANT,
	// PAWL_VERSION and PAWL_SEQ are there by themselves; PAWL_DEVICE_ID,
	// PAWL_HARDWARE and PAWL_HOSTNAME are put in by the device, and stand only in
	// the fields that [compose.Service.Expand] names.
	Env map[string]string
	// EnvFiles are files with more of them. Env goes before them, and a file
	// before those after it.
	EnvFiles []string
	// Images says where images come from, by their name in the compose file; "*"
	// is for all others.
	Images map[string]ImageSource
}

// What stands for a value of the device until the app is made: characters of
// nobody's.
const (
	markBegin = "\ue0a0"
	markEnd   = "\ue0a1"
)

var (
	escaped   = regexp.MustCompile(markBegin + `([A-Z_]+)` + markEnd)
	variables = regexp.MustCompile(`\$\$|\$\{([A-Za-z_][A-Za-z0-9_]*)\}|\$([A-Za-z_][A-Za-z0-9_]*)`)
)

// composing makes an app of a compose file.
type composing struct {
	ctx     context.Context
	opts    ComposeOptions
	walk    *composeWalk
	dir     string
	project *types.Project
	env     map[string]string
	images  *images
	app     *compose.App
	at      map[string]int // of images, by what the file calls them
}

// composeApp makes the app document of the compose file at c.From, and brings
// what it needs into the spool.
func (a *adding) composeApp(c Component, values map[string]string, s *spool) (*compose.App, error) {
	p, err := parsePlatform(c.Compose.Platform)
	if err != nil {
		return nil, fmt.Errorf("platform: %w", err)
	}
	file, err := filepath.Abs(c.From)
	if err != nil {
		return nil, err
	}
	done := int64(0)
	b := &composing{ctx: a.ctx, opts: c.Compose, at: map[string]int{}, dir: filepath.Dir(file), images: &images{ctx: a.ctx, disk: &a.r.disk, platform: p, spool: s,
		configs: map[release.Digest]imageConfig{}, told: func(n int) {
			done += int64(n)
			a.r.opts.Progress(Progress{Step: "image", Name: c.Name, Done: done})
		}}}
	if b.walk, err = walkCompose(file, c.Compose.EnvFiles); err != nil {
		return nil, err
	}
	if b.env, err = b.environment(values); err != nil {
		return nil, err
	}
	if b.project, err = b.load(file, c.Name); err != nil {
		return nil, cmp.Or(a.ctx.Err(), b.walk.locate(err))
	}
	b.app = &compose.App{Format: compose.Format, Name: b.project.Name}
	if err := b.make(); err != nil {
		return nil, err
	}
	if err := b.app.Validate(); err != nil {
		return nil, b.walk.locate(err)
	}
	return b.app, nil
}

// environment returns what the file may use.
func (b *composing) environment(values map[string]string) (map[string]string, error) {
	env := maps.Clone(values)
	for _, name := range compose.DeviceValues() {
		env[name] = markBegin + name + markEnd
	}
	for k, v := range b.opts.Env {
		if _, ok := env[k]; ok || strings.HasPrefix(k, "PAWL_") {
			return nil, fmt.Errorf("%w: env: %s is not for the maker to set", ErrSpec, k)
		}
		env[k] = v
	}
	for _, f := range b.opts.EnvFiles {
		more, err := readEnvFile(f, "", env)
		if err != nil {
			return nil, err
		}
		for k, v := range more {
			if _, ok := env[k]; !ok {
				env[k] = v
			}
		}
	}
	return env, nil
}

// readEnvFile reads a file of variables, in which those of env can be used.
func readEnvFile(file, format string, env map[string]string) (map[string]string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	vars := map[string]string{}
	if format == "raw" {
		return vars, readRaw(file, string(data), vars)
	}
	missing := ""
	err = dotenv.ParseWithFormat(strings.NewReader(string(data)), file, vars, func(name string) (string, bool) {
		v, ok := env[name]
		if !ok && vars[name] == "" && (strings.Contains(string(data), "$"+name) || strings.Contains(string(data), "${"+name+"}")) {
			missing = name
		}
		return v, ok
	}, format)
	if err == nil && missing != "" {
		err = fmt.Errorf("%s: the variable %s is not set: list it in the SPEC, env or env-file", file, missing)
	}
	return vars, err
}

// readRaw takes what stands behind each = as it is.
func readRaw(file, text string, vars map[string]string) error {
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if start := strings.TrimSpace(line); start == "" || start[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			return fmt.Errorf("%s: %q is not NAME=VALUE", file, line)
		}
		vars[strings.TrimSpace(name)] = value
	}
	return nil
}

// load has compose-go read the file.
func (b *composing) load(file, name string) (*types.Project, error) {
	details := types.ConfigDetails{WorkingDir: b.dir, ConfigFiles: []types.ConfigFile{{Filename: file, Content: b.walk.content}}, Environment: b.env}
	return loader.LoadWithContext(b.ctx, details, func(o *loader.Options) {
		o.SetProjectName(b.walk.projectName(name), true)
		o.Profiles = b.opts.Profiles
		o.ResolvePaths = false // a relative path is nothing on a device
		o.SkipResolveEnvironment = true
		o.Interpolate.Substitute = substitute
	})
}

// substitute puts in the variables. One that is not set is an error and not empty.
func substitute(text string, mapping template.Mapping) (string, error) {
	for _, m := range variables.FindAllStringSubmatch(text, -1) {
		name := m[1] + m[2]
		if name == "" {
			continue
		}
		if _, ok := mapping(name); !ok {
			return "", fmt.Errorf("the variable %s is not set: list it in the SPEC, env or env-file", name)
		}
	}
	return template.SubstituteWithOptions(text, mapping, template.WithoutLogging)
}

// templateOf returns the template for a text in which values of the device may
// be marked.
func templateOf(s string) string {
	return escaped.ReplaceAllStringFunc(compose.Escape(s), func(mark string) string {
		return compose.Placeholder(escaped.FindStringSubmatch(mark)[1])
	})
}

func templates(list []string) []string {
	out := slices.Clone(list)
	for i := range out {
		out[i] = templateOf(out[i])
	}
	return out
}

// make fills the app.
func (b *composing) make() error {
	order, err := b.order()
	if err != nil {
		return err
	}
	for _, name := range order {
		if err := b.image(b.project.Services[name]); err != nil {
			return err
		}
	}
	if err := cmp.Or(b.unused(), b.networks()); err != nil {
		return err
	}
	b.volumes()
	for _, name := range order {
		s, err := b.service(b.project.Services[name])
		if err != nil {
			return err
		}
		b.app.Services = append(b.app.Services, s)
	}
	b.oneShots()
	slices.SortFunc(b.app.Volumes, func(x, y compose.Volume) int { return strings.Compare(x.Name, y.Name) })
	b.dropUnused()
	return b.marks()
}

// marks finds values of the device where none can be.
func (b *composing) marks() error {
	for _, s := range b.app.Services {
		if data, err := json.Marshal(s); err == nil && strings.ContainsAny(string(data), markBegin+markEnd) {
			return b.walk.fail("services."+s.Name, "a value of the device stands in another field than command, entrypoint, environment, labels and hostname")
		}
	}
	if data, err := json.Marshal(b.app); err == nil && strings.ContainsAny(string(data), markBegin+markEnd) {
		return b.walk.locate(errors.New("a value of the device stands outside of services"))
	}
	return nil
}

// order returns the services as they start, by name where nothing else says.
func (b *composing) order() ([]string, error) {
	needs := map[string][]string{}
	for name, s := range b.project.Services {
		needs[name] = b.dependencies(s)
	}
	var order []string
	for len(needs) > 0 {
		ready := ""
		for _, name := range slices.Sorted(maps.Keys(needs)) {
			open := slices.ContainsFunc(needs[name], func(d string) bool { _, ok := needs[d]; return ok })
			if !open {
				ready = name
				break
			}
		}
		if ready == "" {
			names := slices.Sorted(maps.Keys(needs))
			return nil, b.walk.fail("services."+names[0]+".depends_on", "services wait for each other: %s", strings.Join(names, ", "))
		}
		order = append(order, ready)
		delete(needs, ready)
	}
	if len(order) == 0 {
		return nil, b.walk.fail("services", "none is left: all have profiles, and the SPEC names none of those")
	}
	return order, nil
}

// dependencies returns the services that have to be there before s. Those that it
// can do without may be in no profile.
func (b *composing) dependencies(s types.ServiceConfig) (names []string) {
	for name := range s.DependsOn {
		if _, ok := b.project.Services[name]; ok {
			names = append(names, name)
		}
	}
	for _, mode := range []string{s.NetworkMode, s.Pid, s.Ipc} {
		if name, ok := strings.CutPrefix(mode, types.ServicePrefix); ok {
			names = append(names, name)
		}
	}
	return names
}

// image brings the image of a service, once.
func (b *composing) image(s types.ServiceConfig) error {
	path := "services." + s.Name + ".image"
	if s.Image == "" {
		return b.walk.fail("services."+s.Name, "there is no image")
	}
	if _, ok := b.at[s.Image]; ok {
		return nil
	}
	from, ok := b.opts.Images[s.Image]
	if !ok {
		from, ok = b.opts.Images["*"]
	}
	if !ok {
		return b.walk.fail(path, "the SPEC does not say where %s comes from: images of the component", s.Image)
	}
	image, err := b.images.take(s.Image, from)
	if err != nil {
		// A registry that does not answer is no fault of the file.
		return fmt.Errorf("%s: image %s: %w", b.walk.where(path), s.Image, err)
	}
	for i, other := range b.app.Images {
		if other.Config.Digest == image.Config.Digest && other.Ref == image.Ref {
			b.at[s.Image] = i
			return nil
		}
	}
	b.at[s.Image] = len(b.app.Images)
	b.app.Images = append(b.app.Images, image)
	return nil
}

// unused refuses images of the SPEC that no service has.
func (b *composing) unused() error {
	for _, name := range slices.Sorted(maps.Keys(b.opts.Images)) {
		if _, ok := b.at[name]; !ok && name != "*" {
			return b.walk.locate(fmt.Errorf("the SPEC says where the image %s comes from, and no service has it", name))
		}
	}
	return nil
}

// oneShots has services be one-shot that others wait for the end of.
func (b *composing) oneShots() {
	for i := range b.app.Services {
		s := &b.app.Services[i]
		for _, other := range b.app.Services {
			for _, d := range other.DependsOn {
				if d.Service == s.Name && d.Condition == compose.Completed && s.Restart.Policy == compose.RestartNo {
					s.OneShot = true
				}
			}
		}
		if s.OneShot {
			s.Trial.Uptime = 0
		}
	}
}

// dropUnused drops networks and volumes that no service has.
func (b *composing) dropUnused() {
	used := map[string]bool{}
	for _, s := range b.app.Services {
		for _, n := range s.Networks {
			used["network "+n.Network] = true
		}
		for _, m := range s.Mounts {
			used[string(m.Type)+" "+m.Source] = true
		}
	}
	b.app.Networks = slices.DeleteFunc(b.app.Networks, func(n compose.Network) bool { return !used["network "+n.Name] })
	b.app.Volumes = slices.DeleteFunc(b.app.Volumes, func(v compose.Volume) bool { return !used["volume "+v.Name] })
	if len(b.app.Networks) == 0 {
		b.app.Networks = nil
	}
	if len(b.app.Volumes) == 0 {
		b.app.Volumes = nil
	}
}

// file brings the content of a config or of a secret, once, and returns its name.
func (b *composing) file(kind compose.FileKind, name string, f types.FileObjectConfig) error {
	path := string(kind) + "s." + name
	same := func(o compose.File) bool { return o.Kind == kind && o.Name == name }
	if slices.ContainsFunc(b.app.Files, same) {
		return nil
	}
	data := []byte(f.Content)
	if f.File != "" {
		var err error
		if data, err = os.ReadFile(b.local(f.File)); err != nil {
			return b.walk.fail(path, "%v", err)
		}
	}
	if len(data) > compose.MaxFile {
		return b.walk.fail(path, "%d bytes are more than %d", len(data), compose.MaxFile)
	}
	if strings.ContainsAny(f.Content, markBegin+markEnd) {
		return b.walk.fail(path, "a value of the device cannot stand in content")
	}
	blob, err := b.images.spool.add(strings.NewReader(string(data)))
	if err != nil {
		return err
	}
	b.app.Files = append(b.app.Files, compose.File{Name: name, Kind: kind, Blob: blob})
	slices.SortFunc(b.app.Files, func(x, y compose.File) int {
		return strings.Compare(string(x.Kind)+" "+x.Name, string(y.Kind)+" "+y.Name)
	})
	return nil
}

// local is a path of the publisher's.
func (b *composing) local(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(b.dir, path)
}

// projectName is the name in the file, or else that of the component.
func (w *composeWalk) projectName(component string) string {
	if w.name != "" {
		return w.name
	}
	return component
}

// number reads a whole number of a text.
func number(s string, bits int) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, bits)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number up to %d bits", s, bits)
	}
	return n, nil
}
