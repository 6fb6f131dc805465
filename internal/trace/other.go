//go:build !linux || !(amd64 || arm64)

package trace

import (
	"context"
	"fmt"
	"os/exec"
	"runtime"
)

// Run ends in ErrUnavailable on this platform.
func Run(context.Context, *exec.Cmd, Options) (Exit, error) {
	return Exit{}, fmt.Errorf("%w on %s/%s", ErrUnavailable, runtime.GOOS, runtime.GOARCH)
}

// Available ends in ErrUnavailable on this platform.
func Available() error {
	_, err := Run(context.Background(), nil, Options{})
	return err
}
