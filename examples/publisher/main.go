// Command publisher makes and signs releases: the reference program to start
// from.
//
//	publisher init    -repo DIR -keys DIR -product NAME [-threshold N] [-encrypt]
//	publisher release -repo DIR -keys DIR SPEC.yaml
//	publisher refresh -repo DIR -keys DIR
//	publisher list    -repo DIR [-json]
//	publisher verify  -repo DIR [-root FILE]
//
// What SPEC.yaml can say stands with [publish.ReadSpec]; its paths are relative
// to it. The verbs that sign take -passphrase-file FILE for encrypted keys; without
// it they ask on the terminal.
//
// What was done goes to standard output, one line for each step; errors and the
// progress bar go to standard error. The exit status is
//
//	0  done
//	1  it could not be done, and the repository is as clients saw it before
//	2  the command line or SPEC.yaml is wrong
//	3  verify: the repository is damaged, expired or signed by other keys
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/pawl-ota/pawl/ota/publish"
)

// The exit status.
const (
	exitDone    = 0
	exitFailed  = 1
	exitUsage   = 2
	exitDamaged = 3
)

const usage = `usage: publisher init    -repo DIR -keys DIR -product NAME [-threshold N] [-encrypt]
       publisher release -repo DIR -keys DIR SPEC.yaml
       publisher refresh -repo DIR -keys DIR
       publisher list    -repo DIR [-json]
       publisher verify  -repo DIR [-root FILE]
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// errUsage is wrapped by what is wrong with the command line.
var errUsage = errors.New("wrong usage")

// command is one call of the program.
type command struct {
	ctx  context.Context
	out  io.Writer
	errs io.Writer

	flags                             *flag.FlagSet
	repo, keys, product, root, secret string
	threshold                         int
	encrypt, json                     bool
}

// verbs are the words that the program takes, with their flags.
var verbs = map[string]struct {
	flags []string
	run   func(*command) error
}{
	"init":    {[]string{"repo", "keys", "product", "threshold", "encrypt", "passphrase-file"}, (*command).init},
	"release": {[]string{"repo", "keys", "passphrase-file"}, (*command).release},
	"refresh": {[]string{"repo", "keys", "passphrase-file"}, (*command).refresh},
	"list":    {[]string{"repo", "json"}, (*command).list},
	"verify":  {[]string{"repo", "root"}, (*command).verify},
}

func run(ctx context.Context, args []string, out, errs io.Writer) int {
	if len(args) == 0 {
		fmt.Fprint(errs, usage)
		return exitUsage
	}
	verb, ok := verbs[args[0]]
	if !ok {
		fmt.Fprintf(errs, "publisher: unknown verb %q\n%s", args[0], usage)
		return exitUsage
	}
	c := &command{ctx: ctx, out: out, errs: errs}
	c.define(args[0], verb.flags)
	if err := c.flags.Parse(args[1:]); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return exitDone
		}
		return exitUsage // the flags have said why
	}
	err := c.required(verb.flags)
	if err == nil {
		err = verb.run(c)
	}
	if err == nil {
		return exitDone
	}
	fmt.Fprintf(errs, "publisher %s: %v\n", args[0], err)
	return exitCode(args[0], err)
}

func exitCode(verb string, err error) int {
	switch {
	case errors.Is(err, errUsage), errors.Is(err, publish.ErrSpec):
		return exitUsage
	case verb == "verify" && !errors.Is(err, context.Canceled) && !errors.Is(err, publish.ErrNoRepository):
		return exitDamaged
	}
	return exitFailed
}

// define makes those flags that the verb has.
func (c *command) define(verb string, names []string) {
	c.flags = flag.NewFlagSet("publisher "+verb, flag.ContinueOnError)
	c.flags.SetOutput(c.errs)
	for _, name := range names {
		switch name {
		case "repo":
			c.flags.StringVar(&c.repo, name, "", "`DIR` of the repository")
		case "keys":
			c.flags.StringVar(&c.keys, name, "", "`DIR` with the keys")
		case "product":
			c.flags.StringVar(&c.product, name, "", "`NAME` of the product")
		case "threshold":
			c.flags.IntVar(&c.threshold, name, 1, "how many keys of root and targets have to sign")
		case "encrypt":
			c.flags.BoolVar(&c.encrypt, name, false, "encrypt the keys under a passphrase")
		case "passphrase-file":
			c.flags.StringVar(&c.secret, name, "", "`FILE` whose first line is the passphrase of the keys")
		case "root":
			c.flags.StringVar(&c.root, name, "", "`FILE` with the root that devices trust (default: the repository's first)")
		case "json":
			c.flags.BoolVar(&c.json, name, false, "one line of JSON for each release")
		}
	}
}

// required checks that no flag without a default is missing.
func (c *command) required(names []string) error {
	for _, name := range names {
		f := c.flags.Lookup(name)
		if (name == "repo" || name == "keys" || name == "product") && f.Value.String() == "" {
			return fmt.Errorf("%w: -%s is missing", errUsage, name)
		}
	}
	return nil
}

// args checks the number of arguments after the flags.
func (c *command) args(n int, what string) error {
	if c.flags.NArg() != n {
		return fmt.Errorf("%w: %s, not %d arguments", errUsage, what, c.flags.NArg())
	}
	return nil
}
