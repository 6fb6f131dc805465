// Command publisher makes and signs releases: the reference program to start
// from. README.md beside it has the daily work and its times, KEYS.md what to do
// about keys, lost and stolen ones among them.
//
//	publisher init     -repo DIR -keys DIR -product NAME [-threshold N] [-spare N]
//	publisher release  -repo DIR -keys DIR [-deltas N] [-full N] SPEC.yaml
//	publisher refresh  -repo DIR -keys DIR
//	publisher list     -repo DIR [-all] [-json]
//	publisher status   -repo DIR [-json]
//	publisher verify   -repo DIR [-root FILE]
//	publisher drop     -repo DIR -keys DIR [-variant NAME] -seq N,… | -last N
//	publisher retry    -repo DIR -keys DIR [-variant NAME] -seq N
//	publisher prune    -repo DIR -keys DIR [-variant NAME] [-last N] [-deltas N] [-grace DURATION]
//
//	publisher key      -keys DIR -role ROLE
//	publisher rotate   -repo DIR -keys DIR -role ROLE,… [-remove KEY,…] [-add FILE,…] [-new N] [-threshold N]
//	publisher renew    -repo DIR -keys DIR
//	publisher delegate -repo DIR -keys DIR -name NAME -variant NAME,… [-add FILE,…] [-threshold N]
//	publisher revoke   -repo DIR -keys DIR -name NAME [-adopt]
//	publisher sign     -repo DIR [-keys DIR] [FILE …]
//	publisher sign     -file FILE [-keys DIR] [-root FILE]
//	publisher cancel   -repo DIR
//
// What SPEC.yaml can say stands with [publish.ReadSpec]; its paths are relative
// to it. The verbs that make keys take -type ed25519, ecdsa or rsa, and -encrypt.
// The verbs that sign take -passphrase-file FILE for encrypted keys, which may be
// /dev/fd/3; without it they ask on the terminal. Those that change what targets,
// a delegated role or root sign take -wait: what lacks signatures then waits for
// them, and sign collects them.
//
// What was done goes to standard output, one line for each step; errors and the
// progress bar go to standard error. The exit status is
//
//	0  done; the change waits for signatures, as -wait and sign have it
//	1  it could not be done, and the repository is as clients saw it before
//	2  the command line or SPEC.yaml is wrong
//	3  verify: the repository is damaged, expired or signed by other keys
//	4  refresh: done, but a role expires before the next refresh is due that it
//	   could not sign
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/pawl-ota/pawl/ota/publish"
)

// The exit status.
const (
	exitDone    = 0
	exitFailed  = 1
	exitUsage   = 2
	exitDamaged = 3
	exitDue     = 4
)

const usage = `usage: publisher init|release|refresh|list|status|verify|drop|retry|prune   releases
       publisher key|rotate|renew|delegate|revoke|sign|cancel                keys
       publisher VERB -help
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

	flags                                  *flag.FlagSet
	repo, keys, product, root, secret      string
	role, remove, add, name, variant, file string
	keyType, seq                           string
	threshold, spare, fresh, last          int
	deltas, full                           int
	encrypt, json, wait, adopt, all        bool
	grace                                  time.Duration
}

// change are the flags of verbs that change what people have signed.
var change = []string{"repo", "keys", "passphrase-file", "wait"}

// verbs are the words that the program takes, with their flags.
var verbs = map[string]struct {
	flags []string
	run   func(*command) error
}{
	"init":     {[]string{"repo", "keys", "product", "threshold", "spare", "type", "encrypt", "passphrase-file"}, (*command).init},
	"release":  {append([]string{"deltas", "full"}, change...), (*command).release},
	"refresh":  {[]string{"repo", "keys", "passphrase-file"}, (*command).refresh},
	"list":     {[]string{"repo", "json", "all"}, (*command).list},
	"status":   {[]string{"repo", "json"}, (*command).statusOnly},
	"verify":   {[]string{"repo", "root"}, (*command).verify},
	"drop":     {append([]string{"variant", "seq", "last"}, change...), (*command).drop},
	"prune":    {append([]string{"variant", "last", "deltas", "grace"}, change...), (*command).prune},
	"retry":    {append([]string{"variant", "seq"}, change...), (*command).retry},
	"key":      {[]string{"keys", "role", "type", "encrypt", "passphrase-file"}, (*command).key},
	"rotate":   {append([]string{"role", "remove", "add", "new", "threshold", "type", "encrypt"}, change...), (*command).rotate},
	"renew":    {change, (*command).renew},
	"delegate": {append([]string{"name", "variant", "add", "threshold", "type", "encrypt"}, change...), (*command).delegate},
	"revoke":   {append([]string{"name", "adopt"}, change...), (*command).revoke},
	"sign":     {[]string{"repo", "file", "keys", "root", "passphrase-file"}, (*command).sign},
	"cancel":   {[]string{"repo"}, (*command).cancel},
}

// needed are the flags that every verb needs that has them, but for optional.
var needed = []string{"repo", "keys", "product", "role", "name"}

// optional are the flags that a verb can do without.
var optional = map[string][]string{"sign": {"repo", "keys"}}

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
	err := c.required(args[0], verb.flags)
	if err == nil && args[0] != "release" && args[0] != "sign" {
		err = c.args(0, args[0]+" takes flags only") // those after an argument would not be read
	}
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
	case errors.Is(err, errDue):
		return exitDue
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
			what, zero := "how many keys have to sign (default: as before)", 0
			if verb == "init" {
				what, zero = "how many keys of root and targets have to sign", 1
			}
			c.flags.IntVar(&c.threshold, name, zero, what)
		case "spare":
			c.flags.IntVar(&c.spare, name, 0, "how many keys of root and targets to make beyond the threshold, so that one can be lost")
		case "type":
			c.flags.StringVar(&c.keyType, name, "", "what new keys are: ed25519 (default), ecdsa or rsa")
		case "role":
			c.flags.StringVar(&c.role, name, "", "`ROLE`: root, targets, snapshot, timestamp or a delegated one; several with commas")
		case "remove":
			c.flags.StringVar(&c.remove, name, "", "`KEY`s that count no more: files with their public halves, or the first 8 or more digits of their ids")
		case "add":
			c.flags.StringVar(&c.add, name, "", "`FILE`s with the public halves of keys that count from now on; none are made then")
		case "new":
			c.flags.IntVar(&c.fresh, name, -1, "how many keys to make (default: as many as are removed, and as the threshold needs)")
		case "name":
			c.flags.StringVar(&c.name, name, "", "`NAME` of the delegated role")
		case "variant":
			what := "`NAME` of the variant (default: default); to delegate, several with commas"
			if verb == "prune" {
				what = "`NAME` of the variant whose releases are dropped (default: all)"
			}
			c.flags.StringVar(&c.variant, name, "", what)
		case "adopt":
			c.flags.BoolVar(&c.adopt, name, false, "take over the releases that the role has signed")
		case "seq":
			c.flags.StringVar(&c.seq, name, "", "`N` of the release; to drop, several with commas")
		case "last":
			c.flags.IntVar(&c.last, name, 0, "drop all but the last `N` releases")
		case "deltas":
			what := "from how many earlier releases devices get deltas; 0: none, they fetch pieces"
			if verb == "prune" {
				what = "of how many of the newest releases of a variant deltas are kept where packs are rewritten"
			}
			c.flags.IntVar(&c.deltas, name, 3, what)
		case "full":
			c.flags.IntVar(&c.full, name, 16, "after how many releases of a variant one gets a pack with all of its content; 0: never")
		case "grace":
			c.flags.DurationVar(&c.grace, name, defaultGrace, "how long a file stays that nothing refers to, since prune first found it so")
		case "all":
			c.flags.BoolVar(&c.all, name, false, "say of every release, and not of the newest alone, what devices fetch to get to it")
		case "file":
			c.flags.StringVar(&c.file, name, "", "`FILE` with a change that waits, where the repository is not")
		case "wait":
			c.flags.BoolVar(&c.wait, name, false, "have the change wait for the signatures that it lacks")
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
func (c *command) required(verb string, names []string) error {
	for _, name := range names {
		if slices.Contains(needed, name) && !slices.Contains(optional[verb], name) && c.flags.Lookup(name).Value.String() == "" {
			return fmt.Errorf("%w: -%s is missing", errUsage, name)
		}
	}
	var err error
	c.flags.Visit(func(f *flag.Flag) {
		if f.Name == "threshold" && (c.threshold < 1 || c.threshold > publish.MaxThreshold) {
			err = fmt.Errorf("%w: -threshold %d is not from 1 to %d", errUsage, c.threshold, publish.MaxThreshold)
		}
		if c.deltas < 0 || c.full < 0 {
			err = fmt.Errorf("%w: -deltas and -full are not negative", errUsage)
		}
	})
	return err
}

// args checks the number of arguments after the flags.
func (c *command) args(n int, what string) error {
	if c.flags.NArg() != n {
		return fmt.Errorf("%w: %s, not %d arguments", errUsage, what, c.flags.NArg())
	}
	return nil
}
