// Command device is the device of the power cut campaigns as a program. See
// package firmware.
package main

import (
	"os"

	"github.com/pawl-ota/pawl/internal/powercut/firmware"
)

func main() { os.Exit(firmware.Main(os.Args[1:], os.Stdout, os.Stderr)) }
