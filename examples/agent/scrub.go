//go:build monitor

package main

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
)

// hidden stands for what is left out.
const hidden = "(hidden)"

// scrubber takes secrets out of texts: those that are known, because they stand in
// the configuration, in the files that it names and in the environment, wherever
// they occur; and what looks like one.
type scrubber struct{ known *strings.Replacer }

// minSecret is how long a known secret is at least: shorter ones would hide
// half of every text, and are hidden only where they stand.
const minSecret = 4

func newScrubber(a *agent) *scrubber {
	var all []string
	add := func(secrets ...string) {
		for _, s := range secrets {
			all = append(all, forms(strings.TrimSpace(s))...)
		}
	}
	c := a.config
	for _, value := range c.Source.Headers {
		add(ofHeader(value)...)
	}
	add(ofURL(c.Source.URL)...)
	add(ofFile(c.Source.Key)...)
	if c.Supervisor != nil {
		add(ofEnv(c.Supervisor.Env)...)
	}
	add(ofEnv(os.Environ())...)
	for _, command := range commandsOf(c) {
		add(ofCommand(command)...)
	}
	if r := c.monitor.report; r != nil {
		add(r.secrets()...)
	}
	for _, q := range allQuestions(c.Health) {
		if q.HTTP != nil {
			add(ofURL(q.HTTP.URL)...)
		}
	}
	slices.SortFunc(all, func(a, b string) int { return len(b) - len(a) }) // a longer one may hold a shorter
	var pairs []string
	for _, s := range slices.Compact(all) {
		if len(s) >= minSecret && s != "true" && s != "false" {
			pairs = append(pairs, s, hidden)
		}
	}
	return &scrubber{strings.NewReplacer(pairs...)}
}

// secrets are those of the section report.
func (r *reports) secrets() (all []string) {
	for _, e := range []*endpoint{&r.endpoint, r.OTLP} {
		if e == nil {
			continue
		}
		for _, value := range e.Headers {
			all = append(all, ofHeader(value)...)
		}
		all = append(append(all, ofURL(e.URL)...), ofFile(e.Key)...)
	}
	if b := r.MQTT; b != nil {
		all = append(append(all, ofFile(b.PasswordFile)...), ofFile(b.Key)...)
	}
	return all
}

// forms are the ways in which a secret may be written.
func forms(s string) []string {
	quoted, _ := json.Marshal(s) // a text can always be written
	return []string{
		s, strings.Trim(string(quoted), `"`), url.QueryEscape(s), url.PathEscape(s),
		base64.StdEncoding.EncodeToString([]byte(s)), base64.RawURLEncoding.EncodeToString([]byte(s)),
	}
}

// ofHeader returns a header's value, and what stands behind its scheme.
func ofHeader(value string) []string {
	all := []string{value}
	if _, rest, ok := strings.Cut(value, " "); ok {
		all = append(all, rest)
		if plain, err := base64.StdEncoding.DecodeString(rest); err == nil {
			_, password, _ := strings.Cut(string(plain), ":")
			all = append(all, string(plain), password)
		}
	}
	return all
}

// ofURL returns what a URL holds of secrets: its password, and the values of
// its query.
func ofURL(text string) (all []string) {
	u, err := url.Parse(text)
	if err != nil {
		return []string{text}
	}
	if password, ok := u.User.Password(); ok {
		all = append(all, password, u.User.Username()+":"+password)
	}
	for _, values := range u.Query() {
		all = append(all, values...)
	}
	return all
}

// ofFile returns the content of a small file, and each long line of it.
func ofFile(path string) []string {
	if path == "" {
		return nil
	}
	data, err := readAtMost(path, 64<<10)
	if err != nil {
		return nil
	}
	all := []string{string(data)}
	for line := range strings.Lines(string(data)) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "-----") {
			all = append(all, line)
		}
	}
	return all
}

// delicate is what names of secrets hold.
var delicate = regexp.MustCompile(`(?i)passw|passphrase|passwd|pwd|secret|token|credential|api[_-]?key|private|auth|key$`)

// ofEnv returns the values of variables whose names say so, and the passwords in
// those that are URLs.
func ofEnv(env []string) (all []string) {
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		if name == "PWD" || name == "OLDPWD" {
			continue
		}
		if delicate.MatchString(name) {
			all = append(all, value)
		}
		if strings.Contains(value, "://") {
			all = append(all, ofURL(value)...)
		}
	}
	return all
}

// ofCommand returns the arguments that belong to a delicate flag.
func ofCommand(argv []string) (all []string) {
	for i, arg := range argv {
		name, value, ok := strings.Cut(arg, "=")
		switch {
		case ok && delicate.MatchString(name):
			all = append(all, value)
		case i > 0 && strings.HasPrefix(argv[i-1], "-") && delicate.MatchString(argv[i-1]):
			all = append(all, arg)
		case strings.Contains(arg, "://"):
			all = append(all, ofURL(arg)...)
		}
	}
	return all
}

// commandsOf are all that the configuration names.
func commandsOf(c *config) (all [][]string) {
	for _, comp := range c.Components {
		all = append(all, comp.Login, comp.Revive, comp.Wipe)
	}
	for _, q := range allQuestions(c.Health) {
		all = append(all, q.Exec)
	}
	if s := c.Supervisor; s != nil {
		all = append(all, s.Start, s.Stop, s.Status, s.StartLater, s.Restart, s.Reload, s.Reread)
	}
	return all
}

// allQuestions are those of health, with what is in groups.
func allQuestions(entries []question) (all []question) {
	for _, q := range entries {
		all = append(append(append(all, q), allQuestions(q.All)...), allQuestions(q.Any)...)
	}
	return all
}

// userinfo is what may stand before the host of a URL.
var userinfo = regexp.MustCompile(`(?i)(\b[a-z][a-z0-9+.-]*://)[^/\s"'@]*@`)

// looks are what secrets look like. $1 stays.
var looks = []*regexp.Regexp{
	regexp.MustCompile(`(?s)(-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----).*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\z)`),
	regexp.MustCompile(`(?i)((?:authorization|cookie|x-api-key)\\?["']?\s*[:=]\s*\\?["']?)[^\r\n"'\\]+`),
	regexp.MustCompile(`(?i)(\b(?:bearer|basic)\s+)[a-z0-9._~+/=-]{6,}`),
	regexp.MustCompile(`(?i)([\w.-]*(?:passw(?:or)?d|passphrase|pwd|secret|token|api[_-]?key|private[_-]?key|credentials?)[\w.-]*\\?["']?\s*[:=]\s*\\?["']?)[^\s,;&"'\\]+`),
	regexp.MustCompile(`()\bAGE-SECRET-KEY-1[A-Z0-9]+`),
	regexp.MustCompile(`()\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*`),
	regexp.MustCompile(`()\b(?:AKIA|ASIA)[A-Z0-9]{16}\b`),
	regexp.MustCompile(`()\b(?:gh[pousr]_|glpat-|xox[abprs]-)[\w-]{10,}`),
}

// text returns it without secrets.
func (s *scrubber) text(text string) string {
	text = userinfo.ReplaceAllString(s.known.Replace(text), "${1}"+hidden+"@")
	for _, look := range looks {
		text = look.ReplaceAllString(text, "${1}"+hidden)
	}
	return text
}

// value scrubs all texts of a JSON value.
func (s *scrubber) value(v any) any {
	switch v := v.(type) {
	case string:
		return s.text(v)
	case []any:
		for i := range v {
			v[i] = s.value(v[i])
		}
	case map[string]any:
		for key, one := range v {
			if text, ok := one.(string); ok && text != "" && delicate.MatchString(key) {
				v[key] = hidden
				continue
			}
			v[key] = s.value(one)
		}
	}
	return v
}

// redacted returns the configuration as it stands in a file, without what may
// be secret by its place.
func redacted(path string) (any, error) {
	data, err := readAtMost(path, maxConfig)
	if err != nil {
		return nil, err
	}
	var v any
	if err := json.Unmarshal(data, &v); err != nil {
		return nil, err
	}
	return redact("", v), nil
}

// redact keeps of a command the program, of a URL the place, of a variable its
// name, and of a header nothing but that.
func redact(key string, v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, one := range v {
			if v[k] = redact(k, one); key == "headers" {
				v[k] = hidden
			}
		}
		return v
	case []any:
		for i, one := range v {
			text, isText := one.(string)
			switch {
			case isText && key == "env":
				name, _, _ := strings.Cut(text, "=")
				v[i] = name + "=" + hidden
			case isText && i > 0 && key != "paths" && key != "units":
				v[i] = hidden
			default:
				v[i] = redact("", one)
			}
		}
		return v
	case string:
		return place(v)
	}
	return v
}

// place returns a URL without user, query and fragment, and any other text as it
// is.
func place(text string) string {
	if !strings.Contains(text, "://") {
		return text
	}
	u, err := url.Parse(text)
	if err != nil {
		return hidden
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}
