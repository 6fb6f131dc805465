// Command collector is a small receiving end for the events of devices, to try
// them out: it takes what monitor/cloudevents sends, keeps it in SQLite, and shows a
// fleet in a browser.
//
//	collector -listen 127.0.0.1:8080 -db fleet.db
//
// Devices send to http://127.0.0.1:8080/events; a page that refreshes by itself is at
// http://127.0.0.1:8080/. Whoever can reach it can speak for any device and read
// everything: in front of it belongs something that asks devices for certificates
// and people for passwords.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "collector:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("collector", flag.ContinueOnError)
	listen := flags.String("listen", "127.0.0.1:8080", "the address to listen at")
	db := flags.String("db", "fleet.db", "the SQLite file, made if it is missing")
	keep := flags.Int64("keep", 1_000_000, "how many events are kept")
	if err := flags.Parse(args); err != nil {
		return err
	}
	s, err := openStore(*db, *keep)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		return errors.Join(err, s.close())
	}
	fmt.Printf("listening at http://%s/, events go to http://%s/events\n", l.Addr(), l.Addr())
	return errors.Join(serve(ctx, l, newHandler(s)), s.close())
}

// serve answers until ctx ends.
func serve(ctx context.Context, l net.Listener, h http.Handler) error {
	server := &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, WriteTimeout: time.Minute, MaxHeaderBytes: 64 << 10,
	}
	stop := context.AfterFunc(ctx, func() {
		within, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = server.Shutdown(within) // what is not answered comes again
	})
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
