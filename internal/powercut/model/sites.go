//go:build linux && (amd64 || arm64)

package model

import (
	"os"
	"strings"
	"sync"

	"github.com/pawl-ota/pawl/internal/powercut/site"
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
		if err := tell(sitePrefix + strings.Join(site.Stack(op), " ")); err != nil {
			return err
		}
		return call()
	}
	seam.Step.Store(&hook)
}
