package post

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRetryAfter(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"": 0, "17": 17 * time.Second, "-1": 0, "soon": 0, "99999999999999999999": 0,
		"Wed, 02 Jan 2030 03:05:05 GMT": time.Minute, "Wed, 02 Jan 2030 03:03:05 GMT": 0,
	} {
		require.Equal(t, want, retryAfter(http.Header{"Retry-After": {text}}, now), text)
	}
	wrong := http.Header{"Retry-After": {"Wed, 02 Jan 2030 03:05:05 GMT"}, "Date": {"Wed, 02 Jan 2030 03:04:35 GMT"}}
	require.Equal(t, 30*time.Second, retryAfter(wrong, now.AddDate(-40, 0, 0)), "the clock here is wrong")
}
