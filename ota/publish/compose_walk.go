package publish

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/pawl-ota/pawl/ota/compose"
)

const (
	maxComposeFile  = 1 << 20 // bytes
	maxComposeFiles = 64
	maxNodes        = 200_000 // of all files, aliases counted where they stand
	maxDepth        = 64
)

// composeWalk compares compose files with their shape, and notes where things
// stand.
type composeWalk struct {
	files   []string
	at      map[string]place // by path, such as services.web.ports
	envFile []string         // of the SPEC
	name    string           // of the app, where the first file says one
	content []byte           // of the first file
	nodes   int
}

// place is a line of a file.
type place struct {
	file string
	line int
}

func walkCompose(file string, envFile []string) (*composeWalk, error) {
	w := &composeWalk{at: map[string]place{}, envFile: envFile}
	if err := w.read(file); err != nil {
		return nil, err
	}
	return w, nil
}

func (p place) String() string { return p.file + ":" + strconv.Itoa(p.line) }

// where finds the place of a path, or of what it is in.
func (w *composeWalk) where(path string) place {
	for path != "" {
		if p, ok := w.at[path]; ok {
			return p
		}
		path = path[:max(0, strings.LastIndexByte(path, '.'))]
	}
	return place{file: w.files[0]}
}

// fail is an error at a path.
func (w *composeWalk) fail(path, format string, args ...any) error {
	p := w.where(path)
	return specError(p.file, p.line, "%s: %s", path, fmt.Sprintf(format, args...))
}

var (
	pathInText = regexp.MustCompile(`\b(?:services|networks|volumes|configs|secrets)(?:\.[A-Za-z0-9_.-]+)+|service "([^"]+)"`)
	inBrackets = regexp.MustCompile(`\[([^\]]+)\]`)
)

// locate puts the place in front of an error that names a path or a service in
// its text, as those of compose-go do.
func (w *composeWalk) locate(err error) error {
	if errors.Is(err, ErrSpec) {
		return err
	}
	at := place{file: w.files[0]}
	if m := pathInText.FindStringSubmatch(inBrackets.ReplaceAllString(err.Error(), ".$1")); m != nil {
		path := m[0]
		if m[1] != "" {
			path = "services." + m[1]
		}
		at = w.where(strings.TrimRight(path, "."))
	}
	return specError(at.file, at.line, "%s", strings.Join(strings.Fields(err.Error()), " "))
}

// read walks one file, and those that it includes or extends.
func (w *composeWalk) read(name string) error {
	if slices.Contains(w.files, name) {
		return nil
	}
	if len(w.files) == maxComposeFiles {
		return specError(name, 0, "more than %d files", maxComposeFiles)
	}
	w.files = append(w.files, name)
	data, err := os.ReadFile(name)
	if err != nil {
		return specError(name, 0, "%v", err)
	}
	if len(data) > maxComposeFile {
		return specError(name, 0, "longer than %d bytes", maxComposeFile)
	}
	dec := yaml.NewDecoder(strings.NewReader(string(data)))
	var doc yaml.Node
	if err := dec.Decode(&doc); err != nil {
		return yamlError(name, err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return specError(name, 0, "holds more than one document")
	}
	if doc.Kind != yaml.DocumentNode || doc.Content[0].Kind != yaml.MappingNode {
		return specError(name, 0, "is not a compose file")
	}
	if err := w.dropVersion(doc.Content[0], name, data); err != nil {
		return err
	}
	walk := fileWalk{composeWalk: w, file: name}
	if err := walk.node(doc.Content[0], composeShape(), "", 0); err != nil {
		return err
	}
	for _, other := range walk.others {
		if err := w.read(other); err != nil {
			return err
		}
	}
	return nil
}

// dropVersion takes the key version out of the first file: it means nothing any
// more, and compose-go would tell that to standard error.
func (w *composeWalk) dropVersion(top *yaml.Node, name string, data []byte) error {
	first := len(w.files) == 1
	if first {
		w.content = data
	}
	for i := 0; i+1 < len(top.Content); i += 2 {
		key, value := top.Content[i], top.Content[i+1]
		if key.Value != "version" {
			continue
		}
		if !first || top.Style&yaml.FlowStyle != 0 || value.Kind != yaml.ScalarNode || value.Line != key.Line {
			return specError(name, key.Line, "version: it means nothing any more: remove it")
		}
		lines := bytes.SplitAfter(data, []byte("\n"))
		lines[key.Line-1] = []byte("\n")
		w.content = bytes.Join(lines, nil)
	}
	return nil
}

// fileWalk is the walk of one file.
type fileWalk struct {
	*composeWalk
	file   string
	others []string // that it names
}

func (f *fileWalk) fail(n *yaml.Node, path, format string, args ...any) error {
	return specError(f.file, n.Line, "%s: %s", cmp.Or(path, "the file"), fmt.Sprintf(format, args...))
}

func (f *fileWalk) node(n *yaml.Node, s *shape, path string, depth int) error {
	if f.nodes++; f.nodes > maxNodes || depth > maxDepth {
		return f.fail(n, path, "more than a compose file can hold")
	}
	if strings.HasPrefix(n.Tag, "!") && !strings.HasPrefix(n.Tag, "!!") {
		return f.fail(n, path, "the tag %s is not supported", n.Tag)
	}
	switch n.Kind {
	case yaml.AliasNode:
		return f.node(n.Alias, s, path, depth+1)
	case yaml.ScalarNode:
		return f.scalar(n, path)
	case yaml.SequenceNode:
		return f.list(n, s, path, depth)
	}
	return f.mapping(n, s, path, depth, map[string]bool{})
}

func (f *fileWalk) list(n *yaml.Node, s *shape, path string, depth int) error {
	items := s.items
	if items == nil {
		items = &shape{free: s.free}
	}
	for i, item := range n.Content {
		at := path + "." + strconv.Itoa(i)
		f.note(at, item)
		if err := f.node(item, items, at, depth+1); err != nil {
			return err
		}
		if err := f.include(item, path); err != nil {
			return err
		}
	}
	return nil
}

// note keeps where a path stands first.
func (f *fileWalk) note(path string, n *yaml.Node) {
	if _, ok := f.at[path]; !ok {
		f.at[path] = place{f.file, n.Line}
	}
}

func (f *fileWalk) mapping(n *yaml.Node, s *shape, path string, depth int, seen map[string]bool) error {
	if s.keys == nil && s.each == nil && !s.free {
		return f.fail(n, path, "a mapping is not supported here")
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Tag == "!!merge" {
			if err := f.merge(value, s, path, depth+1); err != nil {
				return err
			}
			continue
		}
		if key.Kind != yaml.ScalarNode || seen[key.Value] {
			return f.fail(key, path, "the key %q is no word or stands twice", key.Value)
		}
		seen[key.Value] = true
		at := strings.TrimPrefix(path+"."+key.Value, ".")
		if at == "name" && len(f.files) == 1 {
			f.composeWalk.name = value.Value
		}
		f.note(at, key)
		below, err := f.below(key, s, at)
		if err != nil {
			return err
		}
		if below == nil {
			continue
		}
		if err := f.node(value, below, at, depth+1); err != nil {
			return err
		}
		if err := f.extends(key, value, at); err != nil {
			return err
		}
	}
	return nil
}

// merge walks what << brings in.
func (f *fileWalk) merge(n *yaml.Node, s *shape, path string, depth int) error {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	switch n.Kind {
	case yaml.MappingNode:
		if f.nodes++; f.nodes > maxNodes || depth > maxDepth {
			return f.fail(n, path, "more than a compose file can hold")
		}
		return f.mapping(n, s, path, depth, map[string]bool{})
	case yaml.SequenceNode:
		for _, item := range n.Content {
			if err := f.merge(item, s, path, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	return f.fail(n, path, "<< brings in no mapping")
}

// below returns the shape of a value; nil for one that is dropped.
func (f *fileWalk) below(key *yaml.Node, s *shape, path string) (*shape, error) {
	if s.free {
		return s, nil
	}
	if s.each != nil {
		return s.each, nil
	}
	value, known := s.keys[key.Value]
	switch {
	case known && value.advice != "":
		return nil, f.fail(key, path, "the key %q is not supported: %s", key.Value, value.advice)
	case known:
		return value, nil
	case strings.HasPrefix(key.Value, "x-") && key.Value != "x-pawl":
		return nil, nil
	}
	return nil, f.fail(key, path, "the key %q is not supported", key.Value)
}

// templated are the fields of a service that may hold values of the device.
var templated = regexp.MustCompile(`^services\..+?\.(?:command|entrypoint|environment|labels|hostname)(?:\.|$)`)

// scalar refuses what would be made something else of than it says.
func (f *fileWalk) scalar(n *yaml.Node, path string) error {
	for _, name := range compose.DeviceValues() {
		if strings.Contains(n.Value, name) && strings.Contains(n.Value, "$") && !templated.MatchString(path) {
			return f.fail(n, path, "%s is known on the device alone: it can stand in command, entrypoint, environment, labels and hostname", name)
		}
	}
	if strings.ContainsAny(n.Value, markBegin+markEnd+"\x00") {
		return f.fail(n, path, "%q holds a character that is not supported", n.Value)
	}
	if strings.HasPrefix(n.Value, "~") && strings.Contains(path, ".volumes.") {
		return f.fail(n, path, "%q is a home folder of the publisher's: write the path on the device", n.Value)
	}
	return nil
}

// extends notes the file that a service extends.
func (f *fileWalk) extends(key, value *yaml.Node, path string) error {
	if key.Value != "file" || !strings.HasSuffix(path, ".extends.file") {
		return nil
	}
	return f.other(value, path)
}

// include notes a file of the list at path.
func (f *fileWalk) include(item *yaml.Node, path string) error {
	if path != "include" {
		return nil
	}
	names := []*yaml.Node{item}
	if item.Kind == yaml.MappingNode {
		names = nil
		for i := 0; i+1 < len(item.Content); i += 2 {
			if v := item.Content[i+1]; v.Kind == yaml.SequenceNode {
				names = append(names, v.Content...)
			} else {
				names = append(names, v)
			}
		}
	}
	for _, n := range names {
		if err := f.other(n, path); err != nil {
			return err
		}
		// compose-go takes variables from such a file by itself.
		env := filepath.Join(filepath.Dir(filepath.Join(filepath.Dir(f.file), n.Value)), ".env")
		if _, err := os.Stat(env); err == nil && !slices.Contains(f.envFile, env) {
			return f.fail(n, path, "variables of %s would be used: name it in the SPEC, env-file, or move it", env)
		}
	}
	return nil
}

func (f *fileWalk) other(n *yaml.Node, path string) error {
	if n.Kind != yaml.ScalarNode || strings.Contains(n.Value, "$") || strings.Contains(n.Value, "://") || strings.HasPrefix(n.Value, "git@") {
		return f.fail(n, path, "%q: only files on this machine, by their plain names, are supported", n.Value)
	}
	name := n.Value
	if !filepath.IsAbs(name) {
		name = filepath.Join(filepath.Dir(f.file), name)
	}
	f.others = append(f.others, name)
	return nil
}
