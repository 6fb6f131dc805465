package release_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/release"
)

func TestReleaseRoundTrip(t *testing.T) {
	r := sampleRelease()
	data, err := r.Encode()
	require.NoError(t, err)
	got, err := release.Parse(data)
	require.NoError(t, err)
	require.Equal(t, r, got)
	require.Equal(t, release.Sum(data), r.Digest())
	c, ok := got.Component("models")
	require.True(t, ok)
	require.Equal(t, r.Components[1], c)
	_, ok = got.Component("none")
	require.False(t, ok)
}

func TestReleaseRules(t *testing.T) {
	for name, broken := range map[string]struct {
		change func(r *release.Release)
		want   error
	}{
		"format":             {func(r *release.Release) { r.Format = "pawl-release/2" }, release.ErrFormat},
		"product":            {func(r *release.Release) { r.Product = "../x" }, release.ErrName},
		"variant":            {func(r *release.Release) { r.Variant = "" }, release.ErrName},
		"seq 0":              {func(r *release.Release) { r.Seq = 0 }, release.ErrInvalid},
		"seq too high":       {func(r *release.Release) { r.Seq = release.MaxSeq + 1 }, release.ErrInvalid},
		"floor above seq":    {func(r *release.Release) { r.SecurityFloor = 8 }, release.ErrInvalid},
		"late, another word": {func(r *release.Release) { r.LateRollback = "allow" }, release.ErrInvalid},
		"long version":       {func(r *release.Release) { r.Version = strings.Repeat("1", 129) }, release.ErrInvalid},
		"version with ESC":   {func(r *release.Release) { r.Version = "\x1b[2J" }, release.ErrInvalid},
		"version not UTF-8":  {func(r *release.Release) { r.Version = "\xff" }, release.ErrInvalid},
		"hardware twice":     {func(r *release.Release) { r.Hardware = []string{"a", "a"} }, release.ErrInvalid},
		"hardware empty":     {func(r *release.Release) { r.Hardware = []string{""} }, release.ErrInvalid},
		"too much hardware":  {func(r *release.Release) { r.Hardware = make([]string, 257) }, release.ErrInvalid},
		"no issued":          {func(r *release.Release) { r.Issued = time.Time{} }, release.ErrInvalid},
		"issued elsewhere":   {func(r *release.Release) { r.Issued = r.Issued.In(time.FixedZone("X", 3600)) }, release.ErrInvalid},
		"issued too fine":    {func(r *release.Release) { r.Issued = r.Issued.Add(1) }, release.ErrInvalid},
		"no components":      {func(r *release.Release) { r.Components = nil }, release.ErrInvalid},
		"257 components":     {func(r *release.Release) { r.Components = many(257) }, release.ErrInvalid},
		"component twice":    {func(r *release.Release) { r.Components[1].Name = "app" }, release.ErrInvalid},
		"component name":     {func(r *release.Release) { r.Components[1].Name = "App" }, release.ErrName},
		"kind":               {func(r *release.Release) { r.Components[1].Kind = "" }, release.ErrName},
		"index digest":       {func(r *release.Release) { r.Components[1].Index.Digest = release.Digest{} }, release.ErrInvalid},
		"index size":         {func(r *release.Release) { r.Components[1].Index.Size = -1 }, release.ErrInvalid},
		"index size too big": {func(r *release.Release) { r.Components[1].Index.Size = release.MaxBlob + 1 }, release.ErrInvalid},
		"keep too many":      {func(r *release.Release) { r.Components[1].Keep.Previous = 17 }, release.ErrInvalid},
		"keep negative":      {func(r *release.Release) { r.Components[1].Keep.Previous = -1 }, release.ErrInvalid},
		"repair":             {func(r *release.Release) { r.Components[1].Keep.Repair = "some" }, release.ErrInvalid},
		"options no JSON":    {func(r *release.Release) { r.Components[1].Options = json.RawMessage(`{`) }, release.ErrInvalid},
		"options empty":      {func(r *release.Release) { r.Components[1].Options = json.RawMessage{} }, release.ErrInvalid},
		"options no object":  {func(r *release.Release) { r.Components[1].Options = json.RawMessage(` [1]`) }, release.ErrInvalid},
		"options key twice":  {func(r *release.Release) { r.Components[1].Options = json.RawMessage(`{"x":[{"a":1,"b":{},"a":2}]}`) }, release.ErrInvalid},
		"options same key":   {func(r *release.Release) { r.Components[1].Options = json.RawMessage(`{"a":1,"\u0061":2}`) }, release.ErrInvalid},
		"options too long": {func(r *release.Release) {
			r.Components[1].Options = json.RawMessage(`{"a":"` + strings.Repeat("x", 64<<10) + `"}`)
		}, release.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			r := sampleRelease()
			broken.change(r)
			require.ErrorIs(t, r.Validate(), broken.want)
			_, err := r.Encode()
			require.ErrorIs(t, err, broken.want)
		})
	}
}

func many(n int) []release.Component {
	var list []release.Component
	for i := range n {
		c := sampleRelease().Components[1]
		c.Name = fmt.Sprintf("c%d", i)
		list = append(list, c)
	}
	return list
}

func TestReleaseTooLong(t *testing.T) {
	r := sampleRelease()
	r.Components = many(256)
	data, err := r.Encode()
	require.NoError(t, err)
	require.Less(t, len(data), release.MaxRelease)
	for i := range r.Components {
		r.Components[i].Options = json.RawMessage(`{"a":"` + strings.Repeat("x", 8000) + `"}`)
	}
	_, err = r.Encode()
	require.ErrorIs(t, err, release.ErrInvalid)
	_, err = release.Parse(make([]byte, release.MaxRelease+1))
	require.ErrorIs(t, err, release.ErrInvalid)
}

// TestOneDocument shows that a release has one spelling: whatever a lenient
// reader would take too is refused.
func TestOneDocument(t *testing.T) {
	data, err := sampleRelease().Encode()
	require.NoError(t, err)
	good := string(data)
	for name, bad := range map[string]string{
		"nothing":               "",
		"cut short":             good[:len(good)-3],
		"no newline":            strings.TrimSuffix(good, "\n"),
		"two newlines":          good + "\n",
		"trailing document":     good + good,
		"leading space":         " " + good,
		"spacing":               strings.Replace(good, `"seq":7`, `"seq": 7`, 1),
		"unknown key":           strings.Replace(good, `"seq":7`, `"seq":7,"new":1`, 1),
		"key twice":             strings.Replace(good, `"seq":7`, `"seq":6,"seq":7`, 1),
		"key in other letters":  strings.Replace(good, `"seq":7`, `"SEQ":7`, 1),
		"number as exponent":    strings.Replace(good, `"seq":7`, `"seq":7e0`, 1),
		"order of keys":         strings.Replace(good, `"product":"gateway","variant":"arm64"`, `"variant":"arm64","product":"gateway"`, 1),
		"escape":                strings.Replace(good, `"gateway"`, `"\u0067ateway"`, 1),
		"time in another form":  strings.Replace(good, `12:00:00Z`, `12:00:00+00:00`, 1),
		"digest in upper case":  strings.Replace(good, sum("index").String(), strings.ToUpper(sum("index").String()), 1),
		"wrong type":            strings.Replace(good, `"seq":7`, `"seq":"7"`, 1),
		"array":                 "[]\n",
		"format twice":          strings.Replace(good, `"format":`, `"format":"pawl-release/9","format":`, 1),
		"attempt that is empty": strings.Replace(good, `"attempt":2`, `"attempt":0`, 1),
		"options spacing":       strings.Replace(good, `{"a":[1,`, `{"a": [1,`, 1),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := release.Parse([]byte(bad))
			require.ErrorIs(t, err, release.ErrInvalid)
		})
	}
}

func TestNewerFormatIsNotCalledBroken(t *testing.T) {
	for _, s := range []string{`{"format":"pawl-release/2","seq":"seven","new":{}}`, `{"seq":{}}`, `{}`} {
		_, err := release.Parse([]byte(s))
		require.ErrorIs(t, err, release.ErrFormat)
		require.NotErrorIs(t, err, release.ErrInvalid)
	}
}

func TestComponentDigest(t *testing.T) {
	c := sampleRelease().Components[0]
	d := c.Digest()
	require.False(t, d.IsZero())
	same := c
	same.Keep = release.Keep{Previous: 9, Repair: release.RepairFull}
	same.Options = json.RawMessage(" {\"a\" : [1,{\"b\":null}],\n\"c\":{\"a\":\"a\"}}")
	require.Equal(t, d, same.Digest(), "what is kept and how options are spaced change nothing of what runs")
	for _, change := range []func(*release.Component){
		func(c *release.Component) { c.Name = "app2" },
		func(c *release.Component) { c.Kind = "compose" },
		func(c *release.Component) { c.Index.Size++ },
		func(c *release.Component) { c.Index.Digest[31]++ },
		func(c *release.Component) { c.Options = nil },
	} {
		other := c
		change(&other)
		require.NotEqual(t, d, other.Digest())
	}
}

func TestIdentity(t *testing.T) {
	r, again := sampleRelease(), sampleRelease()
	again.Attempt += 3
	require.NotEqual(t, r.Digest(), again.Digest())
	require.Equal(t, r.Identity(), again.Identity())
	require.EqualValues(t, 3, again.Attempt-r.Attempt, "it changes nothing")
	again.Version += "x"
	require.NotEqual(t, r.Identity(), again.Identity())
}

func TestDigest(t *testing.T) {
	d := sum("x")
	got, err := release.ParseDigest(d.String())
	require.NoError(t, err)
	require.Equal(t, d, got)
	require.Equal(t, d.String()[:12], d.Short())
	for _, bad := range []string{"", "00", strings.ToUpper(d.String()), d.String() + "0", " " + d.String()[1:], strings.Repeat("g", 64)} {
		_, err := release.ParseDigest(bad)
		require.ErrorIs(t, err, release.ErrDigestText)
	}
}

func TestCheckName(t *testing.T) {
	for _, good := range []string{"a", "0", "a.b_c-d", strings.Repeat("x", 64)} {
		require.NoError(t, release.CheckName(good))
	}
	for _, bad := range []string{"", ".", "..", "-a", "A", "a/b", "a\x00", "ä", strings.Repeat("x", 65)} {
		require.ErrorIs(t, release.CheckName(bad), release.ErrName)
	}
}
