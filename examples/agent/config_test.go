package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/micro"
)

const goodConfig = `{
  "state": "state",
  "device": {"id": "d1", "product": "camera", "variant": "arm", "hardware": "rev-b"},
  "source": {"url": "https://updates.example.com/camera", "root": "root.json"},
  "components": {"app": {"kind": "files", "root": "app", "layout": "tree"}},
  "trial": {"soak": "1m"},
  "health": [{"exec": ["/bin/true"]}]
}`

func TestConfigIsResolvedAgainstItsFolder(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "agent.json")
	require.NoError(t, os.WriteFile(path, []byte(goodConfig), 0o600))
	c, err := loadConfig(path)
	require.NoError(t, err)
	require.Equal(t, filepath.Join(dir, "state"), c.State)
	require.Equal(t, filepath.Join(dir, "root.json"), c.Source.Root)
	require.Equal(t, filepath.Join(dir, "app"), c.Components["app"].Root)
	require.Equal(t, "https://updates.example.com/camera", c.Source.URL)
	require.Equal(t, time.Minute, c.Trial.options().Soak)
}

func TestInPlaceLayout(t *testing.T) {
	c, err := parseConfig([]byte(strings.NewReplacer(`"tree"`, `"inplace"`, `"root": "app"`, `"root": "/"`).Replace(goodConfig)))
	require.NoError(t, err)
	f, err := micro.New(micro.Options{Name: "app", Root: c.Components["app"].Root, Layout: micro.Layout(c.Components["app"].Layout)})
	require.NoError(t, err)
	require.NotNil(t, f)
}

func TestFolderAsSource(t *testing.T) {
	c, err := parseConfig([]byte(strings.Replace(goodConfig, "https://updates.example.com/camera", "repo", 1)))
	require.NoError(t, err)
	c.resolve("/etc")
	require.Equal(t, "/etc/repo", c.Source.URL)
}

func TestConfigRefused(t *testing.T) {
	swap := func(old, new string) string { return strings.Replace(goodConfig, old, new, 1) }
	for name, c := range map[string]struct{ text, want string }{
		"unknown key":       {swap(`"state"`, `"sate": "x", "state"`), `"sate"`},
		"unknown inner key": {swap(`"soak"`, `"soke"`), `"soke"`},
		"trailing data":     {goodConfig + "{}", "something follows"},
		"no JSON":           {"state = x", "invalid character"},
		"empty":             {"", "EOF"},
		"no state":          {swap(`"state": "state",`, ""), "state is empty"},
		"no components":     {swap(`{"app": {"kind": "files", "root": "app", "layout": "tree"}}`, "{}"), "components: 1 to 256"},
		"bad name":          {swap(`"app": {`, `"../app": {`), "components: not a name"},
		"unknown kind":      {swap(`"files"`, `"image"`), `app.kind: "image"`},
		"an engine":         {swap(`"root": "app"`, `"root": "app", "engine": "unix:///run/docker.sock"`), `belong to the kind "compose"`},
		"unknown layout":    {swap(`"tree"`, `"heap"`), `app.layout: "heap"`},
		"no root":           {swap(`"root": "app"`, `"root": ""`), "app.root is empty"},
		"bad duration":      {swap(`"1m"`, `"soon"`), `"soon" is not a duration`},
		"negative duration": {swap(`"1m"`, `"-1m"`), `"-1m" is not a duration`},
		"duration a number": {swap(`"1m"`, `60`), "not 60"},
		"empty probe":       {swap(`["/bin/true"]`, `[]`), "health[0].exec: it is empty"},
		"url alone":         {swap(`, "root": "root.json"`, ""), "url and root belong together"},
		"negative rate":     {swap(`"trial"`, `"limits": {"rate": -1}, "trial"`), "limits.rate"},
		"negative reserve":  {swap(`"trial"`, `"limits": {"reserve": -1}, "trial"`), "limits.reserve"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseConfig([]byte(c.text))
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestConfigTooLong(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.json")
	require.NoError(t, os.WriteFile(path, []byte(goodConfig+strings.Repeat(" ", maxConfig)), 0o600))
	_, err := loadConfig(path)
	require.ErrorContains(t, err, "longer than 65536 bytes")
}

// TestReadmeNamesEveryKey keeps the documentation whole, and its example good.
func TestReadmeNamesEveryKey(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	var source []byte
	for _, file := range []string{"config.go", "probes.go", "probes_more.go", "monitor.go"} {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		source = append(source, text...)
	}
	for _, key := range regexp.MustCompile(`json:"(\w+)"`).FindAllStringSubmatch(string(source), -1) {
		require.Regexp(t, "`[^`]*"+key[1]+"[^`]*`", string(readme), "README.md does not name %s", key[1])
	}
	example := regexp.MustCompile("(?s)```json\n(.*?)```").FindStringSubmatch(string(readme))
	require.NotNil(t, example)
	_, err = parseConfig([]byte(example[1]))
	require.NoError(t, err)
	for verb := range commands {
		require.Contains(t, string(readme), "| `"+verb)
	}
}
