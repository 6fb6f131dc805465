package fetch_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/fetch"
)

// TestUnless asks again for a file that may have changed. A tag counts where a
// later content cannot have the same.
func TestUnless(t *testing.T) {
	now := time.Now().UTC()
	ago := func(d time.Duration) string { return now.Add(-d).Format(http.TimeFormat) }
	for name, c := range map[string]struct {
		head map[string]string
		tag  fetch.Tag
	}{
		"no tag":              {nil, fetch.Tag{}},
		"strong tag":          {map[string]string{"ETag": `"one"`}, fetch.Tag{ETag: `"one"`}},
		"weak tag":            {map[string]string{"ETag": `W/"one"`}, fetch.Tag{ETag: `W/"one"`}},
		"old file":            {map[string]string{"Last-Modified": ago(time.Hour)}, fetch.Tag{Modified: ago(time.Hour)}},
		"old file with a tag": {map[string]string{"ETag": `"one"`, "Last-Modified": ago(time.Hour)}, fetch.Tag{ETag: `"one"`, Modified: ago(time.Hour)}},
		"written just now":    {map[string]string{"ETag": `"one"`, "Last-Modified": ago(time.Second)}, fetch.Tag{}},
		"no time":             {map[string]string{"Last-Modified": "yesterday"}, fetch.Tag{}},
		"long":                {map[string]string{"ETag": `"` + strings.Repeat("x", 300) + `"`}, fetch.Tag{}},
	} {
		t.Run(name, func(t *testing.T) {
			same := true
			url := serve(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Date", ago(0))
				for k, v := range c.head {
					w.Header().Set(k, v)
				}
				asked := r.Header.Get("If-None-Match") != "" || r.Header.Get("If-Modified-Since") != ""
				if same && asked && r.Header.Get("If-None-Match") == c.tag.ETag && r.Header.Get("If-Modified-Since") == c.tag.Modified {
					w.WriteHeader(http.StatusNotModified)
					return
				}
				_, _ = io.WriteString(w, "content")
			})
			cl := client(t, quick())
			body, err := cl.Get(t.Context(), fetch.Request{URL: url, Length: -1})
			require.NoError(t, err)
			tag := body.(fetch.Tagged).Tag()
			require.Equal(t, c.tag, tag)
			require.NoError(t, body.Close())
			_, err = cl.Get(t.Context(), fetch.Request{URL: url, Length: -1, Unless: tag})
			if tag == (fetch.Tag{}) {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, fetch.ErrNotModified)
			same = false
			got, err := get(cl, fetch.Request{URL: url, Length: -1, Unless: tag})
			require.NoError(t, err)
			require.Equal(t, "content", string(got))
		})
	}
}

// TestNotModifiedUnasked: nobody asked whether the file changed.
func TestNotModifiedUnasked(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotModified) })
	_, err := get(client(t, quick()), fetch.Request{URL: url, Length: -1})
	var status *fetch.StatusError
	require.ErrorAs(t, err, &status)
	require.NotErrorIs(t, err, fetch.ErrNotModified)
}
