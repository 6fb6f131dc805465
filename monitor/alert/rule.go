package alert

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Format is the word that a document of rules has in its field "format".
const Format = "pawl-alerts/0"

// ErrFormat is returned for a document of another format.
var ErrFormat = errors.New("not rules of the format " + Format)

const (
	maxDocument = 256 << 10 // bytes
	maxRules    = 256
	maxText     = 128 // bytes of a name
	maxPattern  = 1024
	maxProgram  = 16384 // steps of all patterns together, some 40 bytes each
	maxTime     = 366 * 24 * time.Hour
	maxCount    = 1e9
	minEvery    = time.Minute
)

// Duration is a time in JSON as Go writes it: "90s", "1h30m".
type Duration time.Duration

// UnmarshalJSON takes a text.
func (d *Duration) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return fmt.Errorf("%.40s is not a time such as \"90s\"", data)
	}
	v, err := time.ParseDuration(text)
	if err != nil {
		return fmt.Errorf("%.40q is not a time such as \"90s\"", text)
	}
	*d = Duration(v)
	return nil
}

// MarshalJSON gives the text.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(d).String()) }

// Rule says when to tell somebody. It looks at one of three things: a value
// (Sample and Value), a probe, or a log. All times are running time. A value that
// does not come is taken to be as it was last; Absent is there for that.
type Rule struct {
	// Name is told apart by; at most 128 bytes. Say is for a person, and comes
	// first in the reason of the event; at most 256 bytes.
	Name string `json:"name"`
	Say  string `json:"say,omitempty"`

	// Sample and Value name a measurement: that of the name Value in samples
	// of the name Sample. One of the next four fields says what is bad.
	Sample string `json:"sample,omitempty"`
	Value  string `json:"value,omitempty"`
	// Above and Below are limits that the value should keep to. With Until it
	// is well again only when it has come back as far as that.
	Above *float64 `json:"above,omitempty"`
	Below *float64 `json:"below,omitempty"`
	Until *float64 `json:"until,omitempty"`
	// Rises is by how much a counter may not rise Within a time, all rises
	// together. One that falls has begun anew at 0.
	Rises *float64 `json:"rises,omitempty"`
	// Absent is how long the value may not be missing.
	Absent Duration `json:"absent,omitempty"`

	// Probe is the name of a probe that should not be sick.
	Probe string `json:"probe,omitempty"`

	// Log is the name of a log, and Match what its lines should not hold, as a
	// regular expression of Go. Count is how many Within the time are bad; 0
	// means 1, and then Within 1 minute where it is left out.
	Log   string `json:"log,omitempty"`
	Match string `json:"match,omitempty"`
	Count int    `json:"count,omitempty"`

	// Within is the time for Rises and Count, kept to a 32nd of it.
	Within Duration `json:"within,omitempty"`
	// For is how long it has to be bad without a break before anybody is told,
	// and Calm how long it has to be well before that is said; not for logs,
	// Rises and Absent.
	For  Duration `json:"for,omitempty"`
	Calm Duration `json:"calm,omitempty"`
	// Every is the time in which it is told at most once; 0 means 1 hour, the
	// least is 1 minute. What came in between is counted in the next event.
	Every Duration `json:"every,omitempty"`
}

// Parse reads a document of rules: {"format": "pawl-alerts/0", "rules": […]}.
// It takes nothing that it does not understand: an unknown or repeated key, a
// null, text after the end, more than 256 KiB or 256 rules are errors that say
// where. For another format it is ErrFormat.
func Parse(data []byte) ([]Rule, error) {
	rules, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("alert: cannot read the rules: %w", err)
	}
	return rules, nil
}

func parse(data []byte) ([]Rule, error) {
	if len(data) > maxDocument {
		return nil, fmt.Errorf("more than %d bytes", maxDocument)
	}
	var form struct {
		Format string `json:"format"`
	}
	if err := json.Unmarshal(data, &form); err != nil {
		return nil, err
	}
	if form.Format != Format {
		return nil, fmt.Errorf("%w: it says %.40q", ErrFormat, form.Format)
	}
	if err := object(data, "format", "rules"); err != nil {
		return nil, err
	}
	var doc struct {
		Rules []json.RawMessage `json:"rules"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, err
	}
	rules := make([]Rule, len(doc.Rules))
	for i, raw := range doc.Rules {
		err := object(raw, ruleKeys...)
		if err == nil {
			err = json.Unmarshal(raw, &rules[i])
		}
		if err != nil {
			return nil, fmt.Errorf("rule %d (%.40q): %w", i+1, rules[i].Name, err)
		}
	}
	_, err := compile(rules)
	return rules, err
}

var ruleKeys = []string{
	"name", "say", "sample", "value", "above", "below", "until", "rises", "absent",
	"probe", "log", "match", "count", "within", "for", "calm", "every",
}

// object checks that data is one JSON object with some of the keys, each at
// most once and none of them null. encoding/json would take other spellings of
// a key for it, and the last of two.
func object(data []byte, keys ...string) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	if start, err := dec.Token(); err != nil || start != json.Delim('{') {
		return errors.Join(errors.New("not an object"), err)
	}
	seen := map[string]bool{}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return err
		}
		name, _ := key.(string)
		var value json.RawMessage
		switch err := dec.Decode(&value); {
		case err != nil:
			return err
		case !slices.Contains(keys, name):
			return fmt.Errorf("the key %.40q is not known", name)
		case seen[name]:
			return fmt.Errorf("the key %q stands twice", name)
		case string(value) == "null":
			return fmt.Errorf("the key %q is null", name)
		}
		seen[name] = true
	}
	if _, err := dec.Token(); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something stands after the end")
	}
	return nil
}

// Load reads the document at path.
func Load(path string) ([]Rule, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("alert: cannot read the rules: %w", err)
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxDocument+1))
	if err != nil {
		return nil, fmt.Errorf("alert: cannot read the rules: %w", err)
	}
	return Parse(data)
}

// Merge returns the rules of a release and those of the device: a rule of the
// device takes the place of one of the same name.
func Merge(release, device []Rule) []Rule {
	all := slices.Clone(device)
	for _, r := range release {
		if !slices.ContainsFunc(device, func(d Rule) bool { return d.Name == r.Name }) {
			all = append(all, r)
		}
	}
	return all
}

// compile checks rules, and makes of each what runs.
func compile(rules []Rule) ([]*state, error) {
	if len(rules) > maxRules {
		return nil, fmt.Errorf("%d rules are more than %d", len(rules), maxRules)
	}
	all, program := make([]*state, len(rules)), 0
	for i, r := range rules {
		s := &state{Rule: r}
		err := r.check()
		if err == nil && r.Match != "" {
			s.pattern, err = pattern(r.Match, &program)
		}
		if err == nil && slices.ContainsFunc(all[:i], func(o *state) bool { return o.Name == r.Name }) {
			err = errors.New("another rule has that name")
		}
		if err != nil {
			return nil, fmt.Errorf("rule %d (%.40q): %w", i+1, r.Name, err)
		}
		s.Every = Duration(cmp.Or(time.Duration(r.Every), time.Hour))
		s.Count = max(r.Count, 1)
		if r.Log != "" {
			s.Within = cmp.Or(r.Within, Duration(time.Minute))
		}
		s.window.within = time.Duration(s.Within)
		all[i] = s
	}
	return all, nil
}

// pattern compiles a regular expression, and adds its size to what is in use.
func pattern(text string, program *int) (*regexp.Regexp, error) {
	if len(text) > maxPattern {
		return nil, fmt.Errorf("field match is longer than %d bytes", maxPattern)
	}
	tree, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return nil, fmt.Errorf("field match: %w", err)
	}
	code, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return nil, fmt.Errorf("field match: %w", err)
	}
	if *program += len(code.Inst); *program > maxProgram {
		return nil, errors.New("field match: it is too large, with those before it")
	}
	return regexp.Compile(text)
}

// check says what is wrong with one rule by itself.
func (r *Rule) check() error {
	for _, text := range []struct {
		field, value string
		max          int
	}{
		{"name", r.Name, maxText}, {"say", r.Say, 2 * maxText}, {"sample", r.Sample, maxText},
		{"value", r.Value, maxText}, {"probe", r.Probe, maxText}, {"log", r.Log, maxText},
	} {
		if len(text.value) > text.max || !oneLine(text.value) {
			return fmt.Errorf("field %s is longer than %d bytes or not one line of text", text.field, text.max)
		}
	}
	if err := r.times(); err != nil {
		return err
	}
	switch subjects := count(r.Value != "" || r.Sample != "", r.Probe != "", r.Log != ""); {
	case subjects != 1:
		return errors.New("it has to have one of sample with value, probe and log")
	case r.Name == "":
		return errors.New("field name is empty")
	case r.Probe != "":
		return r.only("probe", "for", "calm")
	case r.Log != "":
		return r.ofLog()
	default:
		return r.ofValue()
	}
}

func oneLine(text string) bool {
	return utf8.ValidString(text) && strings.IndexFunc(text, func(c rune) bool { return !unicode.IsPrint(c) }) < 0
}

func count(these ...bool) (n int) {
	for _, is := range these {
		if is {
			n++
		}
	}
	return n
}

func (r *Rule) times() error {
	for _, d := range []struct {
		field string
		value Duration
	}{{"within", r.Within}, {"for", r.For}, {"calm", r.Calm}, {"every", r.Every}, {"absent", r.Absent}} {
		if d.value < 0 || time.Duration(d.value) > maxTime {
			return fmt.Errorf("field %s is negative or above %v", d.field, maxTime)
		}
	}
	if r.Every != 0 && time.Duration(r.Every) < minEvery {
		return fmt.Errorf("field every is below %v", minEvery)
	}
	return nil
}

func (r *Rule) ofLog() error {
	switch {
	case r.Match == "":
		return errors.New("field match is empty")
	case r.Count < 0 || r.Count > maxCount:
		return fmt.Errorf("field count is negative or above %d", int(maxCount))
	case r.Count > 1 && r.Within == 0:
		return errors.New("field within is missing")
	}
	return r.only("log", "match", "count", "within")
}

func (r *Rule) ofValue() error {
	switch {
	case r.Sample == "" || r.Value == "":
		return errors.New("sample and value belong together")
	case count(r.Above != nil, r.Below != nil, r.Rises != nil, r.Absent != 0) != 1:
		return errors.New("it has to have one of above, below, rises and absent")
	case r.Rises != nil && (*r.Rises <= 0 || r.Within == 0):
		return errors.New("field rises is not above 0, or within is missing")
	case r.Rises != nil:
		return r.only("sample", "value", "rises", "within")
	case r.Absent != 0:
		return r.only("sample", "value", "absent")
	case r.Until != nil && (r.Above != nil && *r.Until > *r.Above || r.Below != nil && *r.Until < *r.Below):
		return errors.New("field until is on the wrong side of the limit")
	}
	return r.only("sample", "value", "above", "below", "until", "for", "calm")
}

// only checks that no field is set but those that every rule has and these.
func (r *Rule) only(fields ...string) error {
	for field, set := range map[string]bool{
		"sample": r.Sample != "", "value": r.Value != "", "above": r.Above != nil, "below": r.Below != nil, "until": r.Until != nil,
		"rises": r.Rises != nil, "absent": r.Absent != 0, "probe": r.Probe != "", "log": r.Log != "", "match": r.Match != "",
		"count": r.Count != 0, "within": r.Within != 0, "for": r.For != 0, "calm": r.Calm != 0,
	} {
		if set && !slices.Contains(fields, field) {
			return fmt.Errorf("field %s does not go with %s", field, fields[0])
		}
	}
	return nil
}
