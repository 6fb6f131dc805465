// Command tufclient is the TUF client of package tuf behind the command line that
// test suites for TUF clients speak, so that they can judge it:
//
//	tufclient --metadata-dir D init ROOT
//	tufclient --metadata-dir D --metadata-url U refresh
//	tufclient --metadata-dir D --metadata-url U --target-name T --target-base-url B --target-dir P download
//
// It ends with 0, or with 1 when anything was refused or failed. D holds the
// metadata that is trusted, as it was signed: root.json, timestamp.json,
// snapshot.json, targets.json, and ROLE.json for each delegated role, with its
// name escaped as in a URL. The trust store itself is in D/store. What time it is
// is asked of the program date, whose clock a test can set.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pawl-ota/pawl/ota/fetch"
	"github.com/pawl-ota/pawl/ota/tuf"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "tufclient:", err)
		stop()
		os.Exit(1)
	}
}

// command is one call of the program.
type command struct {
	metadataDir, metadataURL      string
	target, targetDir, targetsURL string
	verb                          string
	rest                          []string
}

var errUsage = errors.New("usage: tufclient --metadata-dir DIR [--metadata-url URL] [--target-name NAME --target-base-url URL --target-dir DIR] init ROOT | refresh | download")

func run(ctx context.Context, args []string, messages io.Writer) error {
	c, err := parse(args, messages)
	if err != nil {
		return err
	}
	switch {
	case c.verb == "init" && len(c.rest) == 1:
		return c.start(c.rest[0])
	case c.verb == "refresh" && len(c.rest) == 0:
		return c.with(func(s *tuf.Source) error { return s.Refresh(ctx) })
	case c.verb == "download" && len(c.rest) == 0 && c.target != "" && c.targetDir != "" && c.targetsURL != "":
		return c.with(func(s *tuf.Source) error { return c.download(ctx, s) })
	}
	return errUsage
}

func parse(args []string, messages io.Writer) (*command, error) {
	c := &command{}
	flags := flag.NewFlagSet("tufclient", flag.ContinueOnError)
	flags.SetOutput(messages)
	flags.StringVar(&c.metadataDir, "metadata-dir", "", "folder of the trusted metadata")
	flags.StringVar(&c.metadataURL, "metadata-url", "", "where the repository's metadata lies")
	flags.StringVar(&c.target, "target-name", "", "target to download")
	flags.StringVar(&c.targetsURL, "target-base-url", "", "where the repository's targets lie")
	flags.StringVar(&c.targetDir, "target-dir", "", "folder for downloaded targets")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if c.metadataDir == "" || flags.NArg() == 0 {
		return nil, errUsage
	}
	c.verb, c.rest = flags.Arg(0), flags.Args()[1:]
	return c, nil
}

// source is the client, as a device has it.
func (c *command) source() (*tuf.Source, error) {
	now, err := date()
	if err != nil {
		return nil, err
	}
	client, err := fetch.New(fetch.Options{Stall: 10 * time.Second, Total: time.Minute, Retries: -1})
	if err != nil {
		return nil, err
	}
	return tuf.New(tuf.Options{
		URL: c.metadataURL, MetadataURL: c.metadataURL, TargetsURL: c.targetsURL,
		RootFile: c.file(firstRoot), Dir: c.file("store"),
		Client: client, Now: func() time.Time { return now }, TrustClock: true,
	})
}

// date asks the program of that name.
func date() (time.Time, error) {
	out, err := exec.Command("date", "+%s").Output()
	if err != nil {
		return time.Time{}, fmt.Errorf("cannot ask date what time it is: %w", err)
	}
	seconds, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("cannot read what date says: %w", err)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

func (c *command) file(name string) string { return filepath.Join(c.metadataDir, name) }

// with calls use, and shows what is trusted then, whatever came of it.
func (c *command) with(use func(*tuf.Source) error) error {
	s, err := c.source()
	if err != nil {
		return err
	}
	err = use(s)
	return errors.Join(err, c.show(s), s.Close())
}
