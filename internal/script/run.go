package script

import (
	"context"
	"errors"

	"github.com/pawl-ota/pawl/internal/seam"
)

// Run runs a program to its end.
func Run(context.Context, seam.Program) (seam.Ran, error) {
	return seam.Ran{}, errors.ErrUnsupported
}

// End ends what an earlier Run with the mark left behind.
func End(context.Context, string) error { return errors.ErrUnsupported }
