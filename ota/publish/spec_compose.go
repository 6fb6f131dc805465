package publish

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// specImage is where an image comes from: one word with what belongs to it, or
// the keys of [ImageSource].
type specImage struct {
	From at[string] `yaml:"from"`
	Path at[string] `yaml:"path"`
	Ref  at[string] `yaml:"ref"`
	Pull at[bool]   `yaml:"pull"`
}

// UnmarshalYAML reads "oci:PATH", "docker-archive:PATH", "registry", "registry:REF",
// "engine" and "engine:REF", or a mapping.
func (s *specImage) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind != yaml.ScalarNode {
		for i := 0; i < len(node.Content); i += 2 {
			if key := node.Content[i]; !slices.Contains([]string{"from", "path", "ref", "pull"}, key.Value) {
				return fmt.Errorf("line %d: field %s not found in an image", key.Line, key.Value)
			}
		}
		type plain specImage // without this method
		return node.Decode((*plain)(s))
	}
	from, rest, _ := strings.Cut(node.Value, ":")
	s.From = at[string]{from, node.Line}
	if rest == "" {
		return nil
	}
	if from == string(FromOCI) || from == string(FromArchive) {
		s.Path = at[string]{rest, node.Line}
	} else {
		s.Ref = at[string]{rest, node.Line}
	}
	return nil
}

// composeLine returns the line of the first key that is for kind compose alone.
func (f *specComponent) composeLine() int {
	lines := []int{f.Platform.line, f.Env.line, f.Images.line}
	for _, list := range [][]at[string]{f.Profiles, f.EnvFile} {
		for _, x := range list {
			lines = append(lines, x.line)
		}
	}
	return firstLine(lines...)
}

// filesLine returns the line of the first key that is for kind files alone.
func (f *specComponent) filesLine() int {
	lines := []int{f.Partial.line, f.SELinux.line}
	if f.Owner != nil {
		lines = append(lines, f.Owner.UID.line, f.Owner.GID.line)
	}
	for _, list := range [][]at[string]{f.Carry, f.Absent} {
		for _, x := range list {
			lines = append(lines, x.line)
		}
	}
	for _, s := range f.Services {
		lines = append(lines, s.Name.line)
	}
	return firstLine(lines...)
}

// compose reads what is said of a component of kind compose.
func (f *specComponent) compose(c *Component, path string) error {
	if line := f.filesLine(); line > 0 {
		return specError(path, line, "component %q: carry, absent, partial, owner, selinux and services are for kind %q", c.Name, kindFiles)
	}
	if info, err := os.Stat(c.From); err != nil || !info.Mode().IsRegular() {
		return specError(path, f.From.line, "component %q: from: %s is not a file", c.Name, c.From)
	}
	if _, err := parsePlatform(f.Platform.value); err != nil {
		return specError(path, cmp.Or(f.Platform.line, f.Name.line), "component %q: platform: %v", c.Name, err)
	}
	o := &c.Compose
	o.Platform = f.Platform.value
	for _, p := range f.Profiles {
		o.Profiles = append(o.Profiles, p.value)
	}
	for _, e := range f.EnvFile {
		o.EnvFiles = append(o.EnvFiles, besides(path, e.value))
	}
	if err := f.env(o, path); err != nil {
		return err
	}
	o.Images = map[string]ImageSource{}
	for _, name := range slices.Sorted(maps.Keys(f.Images.value)) {
		from, err := f.image(path, name, f.Images.value[name])
		if err != nil {
			return err
		}
		o.Images[name] = from
	}
	return nil
}

// env takes variables without a value from the publisher's environment.
func (f *specComponent) env(o *ComposeOptions, path string) error {
	o.Env = map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(f.Env.value)) {
		if v := f.Env.value[name]; v != nil {
			o.Env[name] = *v
			continue
		}
		v, ok := os.LookupEnv(name)
		if !ok {
			return specError(path, f.Env.line, "component %q: env: %s has no value, and none in the environment either", f.Name.value, name)
		}
		o.Env[name] = v
	}
	return nil
}

func (f *specComponent) image(path, name string, in at[specImage]) (ImageSource, error) {
	s := ImageSource{From: ImageFrom(in.value.From.value), Ref: in.value.Ref.value, Pull: in.value.Pull.value, Path: in.value.Path.value}
	fail := func(format string, args ...any) error {
		return specError(path, cmp.Or(in.line, f.Images.line), "component %q: images: %s: "+format, append([]any{f.Name.value, name}, args...)...)
	}
	files := s.From == FromOCI || s.From == FromArchive
	switch {
	case !files && s.From != FromRegistry && s.From != FromEngine:
		return s, fail("%q is not %s:PATH, %s:PATH, %s or %s", s.From, FromOCI, FromArchive, FromRegistry, FromEngine)
	case files && s.Path == "":
		return s, fail("%s needs a path: %s:PATH", s.From, s.From)
	case s.From == FromRegistry && s.Path != "":
		return s, fail("a registry has no path: say ref")
	case s.Pull && s.From != FromRegistry:
		return s, fail("only an image from a registry can be left there")
	}
	if files {
		s.Path = besides(path, s.Path)
		if _, err := os.Stat(s.Path); err != nil {
			return s, fail("%v", err)
		}
	}
	return s, nil
}
