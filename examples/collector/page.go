package main

import (
	"bytes"
	"compress/gzip"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"mime"
	"net/http"
	"time"
)

//go:embed page.html
var pages embed.FS

const (
	maxBody    = 4 << 20 // bytes of a batch, as it comes and as it is
	maxBatch   = 10_000
	maxDevices = 2000 // on the page
	maxPast    = 200
)

// handler answers devices and browsers.
type handler struct {
	store *store
	pages *template.Template
}

func newHandler(s *store) http.Handler {
	h := &handler{s, template.Must(template.New("").Funcs(template.FuncMap{
		"ago":     func(t time.Time) string { return time.Since(t).Round(time.Second).String() },
		"percent": func(part, all int64) string { return fmt.Sprintf("%.2f%%", 100*float64(part)/float64(max(all, 1))) },
		"clock":   func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") },
	}).ParseFS(pages, "page.html"))}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /events", h.events)
	mux.HandleFunc("GET /{$}", h.page)
	mux.HandleFunc("GET /fleet", h.fleet)
	mux.HandleFunc("GET /device", h.device)
	return mux
}

// events takes a batch of CloudEvents. An answer of 2xx means that it is stored.
func (h *handler) events(w http.ResponseWriter, r *http.Request) {
	batch, err := read(w, r)
	if err != nil {
		status := http.StatusBadRequest
		if _, large := errors.AsType[*http.MaxBytesError](err); large || errors.Is(err, errLarge) {
			status = http.StatusRequestEntityTooLarge
		}
		http.Error(w, err.Error(), status)
		return
	}
	if err := h.store.take(r.Context(), batch, time.Now()); err != nil {
		http.Error(w, "cannot store the events: "+err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

var errLarge = errors.New("the batch is too large")

func read(w http.ResponseWriter, r *http.Request) ([]cloudEvent, error) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/cloudevents-batch+json" {
		return nil, errors.New("this is no batch of CloudEvents in JSON")
	}
	var body io.Reader = http.MaxBytesReader(w, r.Body, maxBody)
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(body)
		if err != nil {
			return nil, err
		}
		body = z
	}
	data, err := io.ReadAll(io.LimitReader(body, maxBody+1))
	switch {
	case err != nil:
		return nil, err
	case len(data) > maxBody:
		return nil, errLarge
	}
	var batch []cloudEvent
	if err := json.Unmarshal(data, &batch); err != nil {
		return nil, err
	}
	for _, e := range batch {
		if e.SpecVersion != "1.0" || e.ID == "" || e.Source == "" {
			return nil, errors.New("an event is no CloudEvent 1.0, or has no id or source")
		}
	}
	if len(batch) > maxBatch {
		return nil, errLarge
	}
	return batch, nil
}

func (h *handler) page(w http.ResponseWriter, _ *http.Request) { h.show(w, "page", nil) }

// fleet is the part of the page that refreshes.
func (h *handler) fleet(w http.ResponseWriter, r *http.Request) {
	devices, err := h.store.fleet(r.Context(), maxDevices)
	rollouts, also := h.store.rollouts(r.Context())
	if err := errors.Join(err, also); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	h.show(w, "fleet", map[string]any{"Devices": devices, "Rollouts": rollouts})
}

func (h *handler) device(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Query().Get("name")
	all, err := h.store.history(r.Context(), name, maxPast)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	h.show(w, "device", map[string]any{"Name": name, "Past": all})
}

func (h *handler) show(w http.ResponseWriter, name string, data any) {
	var out bytes.Buffer
	if err := h.pages.ExecuteTemplate(&out, name, data); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'")
	_, _ = out.WriteTo(w) // the browser may be gone
}
