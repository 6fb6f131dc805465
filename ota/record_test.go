package ota

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/release"
)

func TestLoadRefusesWhatItDoesNotKnow(t *testing.T) {
	for _, body := range []string{
		`{"tx":{"id":"a","state":"flying","parts":[]}}`,
		`{"tx":{"id":"a","state":"trial","live":"half","parts":[]}}`,
		`{"tx":{"id":"a","state":"trial","blame":"you","parts":[]}}`,
		`{"tx":{"id":"a","state":"trial","parts":[{"name":"x","effect":"magic","before":{"state":"none"}}]}}`,
		`{"tx":{"id":"a","state":"trial","parts":[{"name":"x","before":{"state":"some"}}]}}`,
		`{"over":[{"id":"a","state":"flying","parts":[]}]}`,
		`{"surprise":1}`,
		`{} {}`,
		`[]`,
		``,
	} {
		_, err := load([]byte(body))
		require.ErrorIs(t, err, ErrJournal, body)
	}
	rec, err := load(nil)
	require.NoError(t, err)
	require.Equal(t, &record{}, rec)
}

// TestLoadTakesALaterHistory goes back to a program that does not know all that
// the one before it noted of the past.
func TestLoadTakesALaterHistory(t *testing.T) {
	rec, err := load([]byte(`{"history":[{"tx":"a","state":"committed","mood":{"good":true}}]}`))
	require.NoError(t, err)
	require.Len(t, rec.History, 1)
	require.Equal(t, Committed, rec.History[0].State)
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte(`{"tx":{"id":"a","state":"trial","parts":[]}}`))
	f.Fuzz(func(_ *testing.T, body []byte) { _, _ = load(body) })
}

func TestHolds(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	id := release.ID{Product: "p", Variant: "v", Seq: 7}
	rec := &record{}
	require.Nil(t, rec.held(id, 0))
	rec.hold(id, 0, false, now, "cut")
	require.Equal(t, now, rec.held(id, 0).Until, "the first time costs nothing")
	rec.hold(id, 0, false, now, "cut again")
	require.Equal(t, now.Add(time.Minute), rec.held(id, 0).Until)
	rec.hold(id, 0, true, now, "sick")
	require.True(t, rec.held(id, 0).Condemned)
	require.Nil(t, rec.held(id, 1), "a higher attempt number is another try")
	rec.hold(id, 1, false, now, "cut")
	require.Equal(t, Held{ID: id, Attempt: 1, Count: 1, Until: now, Reason: "cut"}, *rec.held(id, 1))
	require.Len(t, rec.Held, 1)
	rec.releaseHolds(id)
	require.Empty(t, rec.Held)
	for i := range uint64(3 * maxHeld) {
		rec.hold(release.ID{Product: "p", Variant: "v", Seq: i + 1}, 0, true, now, strings.Repeat("x", 1000))
	}
	require.Len(t, rec.Held, maxHeld)
	require.NotNil(t, rec.held(release.ID{Product: "p", Variant: "v", Seq: 3 * maxHeld}, 0))
}

func TestBackoffIsBounded(t *testing.T) {
	last := time.Duration(0)
	for count := range 1000 {
		d := backoff(count)
		require.GreaterOrEqual(t, d, last)
		require.LessOrEqual(t, d, 24*time.Hour)
		last = d
	}
	require.Equal(t, 24*time.Hour, last)
}

// TestOutputsFitTheJournal counts what is kept of an output as the journal
// writes it: most of these bytes take six there.
func TestOutputsFitTheJournal(t *testing.T) {
	for name, output := range map[string]string{
		"control": "\x1b\x00\x07", "markup": "<&>", "quoted": "\"\\\n", "separators": "\u2028\u2029", "broken": "a\xff", "plain": "ab cé",
	} {
		all := []byte(strings.Repeat(output, maxOutput))
		for range 3 { // from each byte of a rune on
			all = all[1:]
			kept := tail(all, maxOutput)
			encoded, err := json.Marshal(kept)
			require.NoError(t, err)
			require.LessOrEqual(t, len(encoded)-len(`""`), maxOutput, name)
			require.Greater(t, len(encoded), maxOutput-16, "%s: less is kept than there is room for", name)
			require.True(t, strings.HasSuffix(strings.ToValidUTF8(string(all), "\ufffd"), kept), name)
		}
	}
	require.Equal(t, "short\n", tail([]byte("short\n"), maxOutput))
	require.Empty(t, tail(nil, maxOutput))
}
