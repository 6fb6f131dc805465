package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/testneeds"
)

// TestBrowser has a real browser show the page, which refreshes by itself, and
// does nothing where PAWL_BROWSER is not set (see .ci/run browser). It leaves
// pictures in the folder that PAWL_BROWSER names.
func TestBrowser(t *testing.T) {
	pictures := os.Getenv("PAWL_BROWSER")
	if pictures == "" {
		return
	}
	pictures, err := filepath.Abs(pictures)
	require.NoError(t, err)
	program := testneeds.Program(t, "chromium")
	s, server := collect(t)
	inner, asked := newHandler(s), atomic.Int32{}
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/fleet" && asked.Add(1) == 2 { // after what was shown first
			fill(t, server.URL)
		}
		inner.ServeHTTP(w, r)
	}))
	defer page.Close()
	browse := func(url string, args ...string) string {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		defer cancel()
		args = append([]string{"--headless=new", "--disable-gpu", "--no-first-run", "--user-data-dir=" + t.TempDir(), "--window-size=1280,760", "--virtual-time-budget=15000"}, args...)
		if os.Geteuid() == 0 {
			args = append(args, "--no-sandbox")
		}
		out, err := exec.CommandContext(ctx, program, append(args, url)...).Output()
		require.NoError(t, err)
		return string(out)
	}
	shown := browse(page.URL+"/", "--dump-dom")
	require.Greater(t, asked.Load(), int32(1), "it refreshes by itself")
	require.Contains(t, shown, "1 of 5 run it, 1 are on the way, 1 went back, 2 have not begun")
	require.Contains(t, shown, "unhealthy: app: it is cold (2 degrees)")
	require.Contains(t, shown, `&lt;script&gt;alert("5")&lt;/script&gt;`)
	browse(page.URL+"/", "--screenshot="+filepath.Join(pictures, "fleet.png"))
	browse(page.URL+"/device?name=pump-2", "--screenshot="+filepath.Join(pictures, "device.png"))
}
