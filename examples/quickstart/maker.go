package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/pawl-ota/pawl/examples/bar"
	"github.com/pawl-ota/pawl/ota/publish"
	"golang.org/x/time/rate"
)

// maker is the side that publishes, with a web server for its repository.
type maker struct {
	dir    string
	url    string
	screen *screen

	repo   *publish.Repository
	server *http.Server
}

func (m *maker) repoDir() string { return filepath.Join(m.dir, "repository") }

// root is what a device trusts first.
func (m *maker) root() string { return filepath.Join(m.repoDir(), "metadata", "1.root.json") }

// begin makes keys and an empty repository, and serves it.
func (m *maker) begin(ctx context.Context) error {
	if err := os.MkdirAll(m.dir, 0o755); err != nil {
		return err
	}
	keys, err := publish.KeyDir{Path: filepath.Join(m.dir, "keys")}.Make(1, false)
	if err != nil {
		return err
	}
	if m.repo, err = publish.Open(publish.Options{Dir: m.repoDir(), Keys: keys}); err != nil {
		return err
	}
	if err := m.repo.Create(ctx, "radio", 1); err != nil {
		return err
	}
	m.screen.say("maker", "made keys for root, targets, snapshot and timestamp, and an empty repository")
	return m.serve()
}

// bytesPerSecond is what the server sends at most, so that there is something
// to see.
const bytesPerSecond = 12 << 20

// serve starts a server of static files on loopback.
func (m *maker) serve() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	m.url = "http://" + listener.Addr().String()
	files, limit := http.FileServer(http.Dir(m.repoDir())), rate.NewLimiter(bytesPerSecond, slice)
	m.server = &http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			files.ServeHTTP(slow{w, r.Context(), limit}, r)
		}),
	}
	go func() { _ = m.server.Serve(listener) }() // it ends with stop
	m.screen.say("maker", "serves it at %s, at most %s a second", m.url, bar.Size(bytesPerSecond))
	return nil
}

func (m *maker) stop() { _ = m.server.Close() } // nobody waits for an answer any more

// slow sends with a limited rate.
type slow struct {
	http.ResponseWriter
	ctx   context.Context
	limit *rate.Limiter
}

const slice = 32 << 10 // bytes sent at once

func (s slow) Write(p []byte) (n int, err error) {
	for len(p) > 0 && err == nil {
		part := p[:min(len(p), slice)]
		if err = s.limit.WaitN(s.ctx, len(part)); err != nil {
			break
		}
		var sent int
		sent, err = s.ResponseWriter.Write(part)
		n, p = n+sent, p[sent:]
	}
	return n, err
}

// publish makes a signed release of tree.
func (m *maker) publish(ctx context.Context, t *tree) error {
	if t.err != nil {
		return t.err
	}
	added, err := m.repo.Release(ctx, publish.Spec{
		Version: t.version, Variant: "any",
		Components: []publish.Component{{Name: "app", From: t.dir}},
	})
	if err != nil {
		return fmt.Errorf("cannot publish %s: %w", t.version, err)
	}
	m.screen.say("maker", "signed %s: %d entries of %s, of which the repository gained %s", t.version, added.Files, bar.Size(added.Size), bar.Size(added.Stored))
	return nil
}
