package publish

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pawl-ota/pawl/ota/release"
)

// specScript is one script in a SPEC file.
type specScript struct {
	Name  at[string] `yaml:"name"`
	At    at[string] `yaml:"at"`
	Run   at[string] `yaml:"run"`
	Undo  at[string] `yaml:"undo"`
	Limit at[string] `yaml:"limit"`
}

// line returns the line that the script begins in.
func (s *specScript) line() int {
	return firstLine(s.Name.line, s.At.line, s.Run.line, s.Undo.line, s.Limit.line)
}

func firstLine(lines ...int) int {
	slices.Sort(lines)
	return cmp.Or(lines...) // 0 is none
}

// specScripts reads the lists of scripts of one SPEC file.
type specScripts struct {
	path  string
	count int // in all lists
}

// specList says which list an item stands in.
type specList struct {
	path  string
	owner string // for errors, with what divides it from them
	line  int    // stands in for that of an item that says nothing
}

func (l specList) fail(line int, format string, args ...any) error {
	return specError(l.path, cmp.Or(line, l.line), "%s%s", l.owner, fmt.Sprintf(format, args...))
}

// ofRelease reads the scripts of the release.
func (r *specScripts) ofRelease(list []specScript, line int) ([]Script, error) {
	for i := range list {
		if at := list[i].At; at.value == string(release.OnMerge) {
			return nil, specError(r.path, at.line, "only a component has scripts %s", release.OnMerge)
		}
	}
	return r.read(list, specList{path: r.path, line: line})
}

// ofComponent reads the scripts of c.
func (r *specScripts) ofComponent(c *specComponent) ([]Script, error) {
	return r.read(c.Scripts, specList{r.path, fmt.Sprintf("component %q: ", c.Name.value), c.Name.line})
}

func (r *specScripts) read(list []specScript, in specList) (scripts []Script, err error) {
	for i := range list {
		line := list[i].line()
		s, err := list[i].script(in)
		if err != nil {
			return nil, err
		}
		for j, o := range scripts {
			if o.Name == s.Name && o.At == s.At {
				return nil, in.fail(line, "script %q stands at %s in line %d already", s.Name, s.At, list[j].line())
			}
		}
		if r.count++; r.count > release.MaxScripts {
			return nil, in.fail(line, "more than %d scripts in all", release.MaxScripts)
		}
		scripts = append(scripts, s)
	}
	return scripts, nil
}

// script checks one script and returns it.
func (s *specScript) script(in specList) (out Script, err error) {
	if s.Run.value == "" {
		return out, in.fail(s.line(), "a script has no run")
	}
	out = Script{Name: s.Name.value, At: release.Point(s.At.value)}
	if s.Name.line == 0 {
		out.Name = filepath.Base(s.Run.value)
	}
	if err := release.CheckName(out.Name); err != nil {
		if s.Name.line == 0 {
			return out, in.fail(s.Run.line, "script %q needs a name of its own: %v", s.Run.value, err)
		}
		return out, in.fail(s.Name.line, "script: name: %v", err)
	}
	in.owner += fmt.Sprintf("script %q: ", out.Name)
	if !out.At.Known() {
		return out, in.fail(cmp.Or(s.At.line, s.line()), "at: %q is not one of %s", s.At.value, pointWords())
	}
	if out.Run, err = in.program(s.Run, "run"); err != nil {
		return out, err
	}
	if s.Undo.line > 0 {
		if !out.At.HasUndo() {
			return out, in.fail(s.Undo.line, "undo: there is nothing to undo at %s", out.At)
		}
		if out.Undo, err = in.program(s.Undo, "undo"); err != nil {
			return out, err
		}
	}
	out.Limit, err = s.limit(in)
	return out, err
}

func pointWords() string {
	var words []string
	for _, p := range release.Points() {
		words = append(words, string(p))
	}
	return strings.Join(words, ", ")
}

// program finds the file and looks whether a device can run it.
func (l specList) program(file at[string], key string) (string, error) {
	path := file.value
	if !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(l.path), path)
	}
	f, err := openProgram(path)
	if err != nil {
		return "", l.fail(file.line, "%s: %v", key, err)
	}
	return path, f.Close()
}

func (s *specScript) limit(in specList) (time.Duration, error) {
	if s.Limit.line == 0 {
		return 0, nil
	}
	const most = release.MaxScriptLimit * time.Second
	d, err := time.ParseDuration(s.Limit.value)
	if err != nil || d%time.Second != 0 || d < time.Second || d > most {
		return 0, in.fail(s.Limit.line, "limit: %q is not a time in whole seconds from 1s to %v, such as 30s", s.Limit.value, most)
	}
	return d, nil
}

// specService is one service in a SPEC file.
type specService struct {
	Name at[string] `yaml:"name"`
	Do   at[string] `yaml:"do"`
}

// service is what the options of a component say of a service.
type service struct {
	Name string `json:"name"`
	Do   string `json:"do"`
}

// serviceKey is where the options of a component name its services.
const serviceKey = "services"

// serviceWords say when what is done to a service. Package micro does it; the
// first is what stands in for none.
var serviceWords = [...]string{"around", "restart", "reload", "start"}

// What package micro takes.
const (
	maxServices = 64  // of one component
	maxService  = 255 // bytes of a name
)

// services returns what the options of f are to say of services.
func (f *specComponent) services(path string) (list []service, err error) {
	in := specList{path, fmt.Sprintf("component %q: services: ", f.Name.value), f.Name.line}
	seen := map[string]int{}
	for _, s := range f.Services {
		line := firstLine(s.Name.line, s.Do.line)
		if !serviceName(s.Name.value) {
			return nil, in.fail(line, "%q is not the name of a service", s.Name.value)
		}
		if first, ok := seen[s.Name.value]; ok {
			return nil, in.fail(line, "%s stands in line %d already", s.Name.value, first)
		}
		if seen[s.Name.value] = line; len(seen) > maxServices {
			return nil, in.fail(line, "more than %d", maxServices)
		}
		if s.Do.line == 0 {
			s.Do.value = serviceWords[0]
		}
		if !slices.Contains(serviceWords[:], s.Do.value) {
			return nil, in.fail(s.Do.line, "%s: do: %q is not one of %s", s.Name.value, s.Do.value, strings.Join(serviceWords[:], ", "))
		}
		list = append(list, service{s.Name.value, s.Do.value})
	}
	return list, nil
}

// serviceName takes the names that units of systemd and the folders of other
// supervisors can have.
func serviceName(s string) bool {
	const others = `:_.\@-`
	ok := func(c rune) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune(others, c)
	}
	return s != "" && len(s) <= maxService && s[0] != '-' && s[0] != '.' && !strings.ContainsFunc(s, func(c rune) bool { return !ok(c) })
}
