//go:build linux && (amd64 || arm64)

package model

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/pawl-ota/pawl/internal/seam"
)

// envSites asks a process that is recorded to say of each durable step from
// where in the module it is made.
const envSites = "PAWL_MODEL_SITES"

// sitePrefix begins a fact that is the site of the next call.
const sitePrefix = "@site "

// watchSites has each step of package durable tell its site, and keeps others
// from stepping in between.
func watchSites(tell func(string) error) {
	if os.Getenv(envSites) == "" {
		return
	}
	var mu sync.Mutex
	hook := func(op, _ string, call func() error) error {
		mu.Lock()
		defer mu.Unlock()
		if err := tell(sitePrefix + siteOf(op)); err != nil {
			return err
		}
		return call()
	}
	seam.Step.Store(&hook)
}

// modulePath begins the names of the module's functions.
const modulePath = "github.com/pawl-ota/pawl/"

// siteOf returns the kind of step, and the places in the module that led to it,
// the innermost first.
func siteOf(op string) string {
	pcs := make([]uintptr, 64)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs)])
	site := []string{op}
	for {
		f, more := frames.Next()
		name, ours := strings.CutPrefix(f.Function, modulePath)
		if ours && strings.HasPrefix(name, "internal/powercut/firmware.Run") {
			break
		}
		if ours && !strings.HasSuffix(f.Function, "durable.step") {
			pkg, _, _ := strings.Cut(name[strings.LastIndexByte(name, '/')+1:], ".")
			dir := name[:strings.LastIndexByte(name, '/')+1] + pkg
			site = append(site, fmt.Sprintf("%s/%s:%d", dir, filepath.Base(f.File), f.Line))
		}
		if !more {
			break
		}
	}
	return strings.Join(site, " ")
}
