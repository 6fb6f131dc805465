//go:build linux

package script

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// roles are what the test binary does as a program.
var roles = map[string]func() int{
	"environment": environmentRole,
}

func environmentRole() int {
	dir, _ := unix.Getwd()
	fmt.Printf("%d %v %s\n%s\n", len(os.Args)-1, os.Args, dir, strings.Join(os.Environ(), "\n"))
	return 0
}
