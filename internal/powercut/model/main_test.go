//go:build linux && (amd64 || arm64)

package model

import (
	"fmt"
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	ran, err := Child(Devices(nil))
	if !ran {
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}
