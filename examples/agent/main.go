// Command agent is a whole updater for a device, to start from: it moves the
// files of an app from one signed release to the next, tries each, and goes
// back by itself. README.md beside it describes its command line, its
// configuration file and its exit codes.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

func main() {
	debug.SetGCPercent(50) // memory is scarcer on a device than time
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
