// Command quickstart shows pawl at work on one machine, in a temporary folder:
// a maker with keys and a repository, a real HTTP server on loopback, and a
// device that takes an update, takes a bad one back by itself, loses power in
// the middle of the next one and recovers.
//
//	go run ./examples/quickstart
//
// The device is a child process, this same program, and losing power is
// SIGKILL. It needs nothing but Go and takes some ten seconds.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var err error
	if len(os.Args) == 4 && os.Args[1] == "device" {
		err = device(ctx, os.Args[2], os.Args[3])
	} else {
		err = show(ctx)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}
