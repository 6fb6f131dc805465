//go:build !linux

package script

import (
	"context"
	"errors"

	"github.com/pawl-ota/pawl/internal/seam"
)

// errElsewhere is returned where there is no Linux: a publisher's machine links
// package ota for its types, and runs no scripts.
var errElsewhere = errors.New("scripts run on Linux only")

// Run fails.
func Run(context.Context, seam.Program) (seam.Ran, error) { return seam.Ran{}, errElsewhere }

// End has nothing to end.
func End(context.Context, string) error { return nil }
