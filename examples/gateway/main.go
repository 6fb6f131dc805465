// Command gateway is the updater of a product that is made of containers: an app
// of two services on a stock Docker Engine, and files of the host beside it, in
// one release. It is a program to start from; product/ holds what the maker of such
// a product publishes.
//
//	gateway -dir DIR -source URL -root root.json [-engine unix:///run/docker.sock] VERB
//
// VERB is run (look for releases until somebody stops it), update (look once),
// rollback, verify, repair, reset (the app begins anew; all three without a network)
// or status. The host's files are in DIR/host.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// settings are the command line.
type settings struct {
	dir, source, root, engine, revive string
	look, soak, deadline              time.Duration
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := start(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "gateway:", err)
		os.Exit(1)
	}
}

// start does what the command line says.
func start(ctx context.Context, argv []string, out io.Writer) error {
	var s settings
	flags := flag.NewFlagSet("gateway", flag.ContinueOnError)
	flags.StringVar(&s.dir, "dir", "/var/lib/gateway", "the `DIR` of everything that stays on the device")
	flags.StringVar(&s.source, "source", "", "the repository: a `URL` or a folder")
	flags.StringVar(&s.root, "root", "/etc/gateway/root.json", "the first trusted root.json, a `FILE`")
	flags.StringVar(&s.engine, "engine", "", "where the container engine listens")
	flags.StringVar(&s.revive, "revive", "", "a `COMMAND` for the shell that starts the engine anew, where a repair needs it")
	flags.DurationVar(&s.look, "look", time.Hour, "`time` between two looks at the repository")
	flags.DurationVar(&s.soak, "soak", 30*time.Second, "how long a new release has to be healthy")
	flags.DurationVar(&s.deadline, "deadline", 2*time.Minute, "how long it may take until it is healthy")
	if err := flags.Parse(argv); err != nil {
		return err
	}
	verb, ok := verbs[flags.Arg(0)]
	if !ok || flags.NArg() != 1 {
		return fmt.Errorf("one verb is needed: run, update, rollback, verify, repair, reset or status")
	}
	d, err := open(ctx, s, func(format string, args ...any) { fmt.Fprintf(out, format+"\n", args...) })
	if err != nil {
		return err
	}
	defer d.close()
	return verb(ctx, d)
}
