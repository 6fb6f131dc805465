package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"

	"github.com/pawl-ota/pawl/examples/bar"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/fetch"
)

// args is the command line.
type args struct {
	config string
	verb   string
	seq    uint64 // of rollback and adopt: 0 is the newest that can be
	json   bool
	retry  bool
	plan   bool
	name   string // of reset; the file of bundle-logs; why, of mark-bad
	data   bool   // with reset: the volumes too
}

// agent is what a command works on. updater is nil for the commands that only
// read.
type agent struct {
	args     args
	asks     bool // the repository
	config   *config
	backends map[string]ota.Backend
	client   *fetch.Client // nil where nothing is fetched over HTTP
	updater  *ota.Updater
	report   reporting    // nil where nobody is told
	watchdog ota.Watchdog // nil where there is none
	settled  ota.Result
	stdout   io.Writer
	stderr   io.Writer

	mu       sync.Mutex // guards warnings
	warnings []string
}

// run is the agent as a function: it returns the exit code.
func run(ctx context.Context, argv []string, stdout, stderr io.Writer) int {
	a, err := parseArgs(argv, stderr)
	if err != nil {
		return printAnswer(failed("cannot start", errUsage{err}), a, stdout, stderr)
	}
	if a.verb == "" {
		return exitOK
	}
	work := &agent{args: a, asks: commands[a.verb].asks, stdout: stdout, stderr: stderr}
	ans := execute(ctx, work)
	ans.Command, ans.lists = a.verb, commands[a.verb].lists
	code := printAnswer(ans, a, stdout, stderr)
	if work.report != nil {
		work.report.close(ctx)
	}
	return code
}

// execute loads the configuration, opens what the command needs and runs it.
func execute(ctx context.Context, work *agent) (ans answer) {
	var err error
	if work.config, err = loadConfig(work.args.config); err != nil {
		return failed("cannot use the configuration", errUsage{err})
	}
	verb := commands[work.args.verb]
	if verb.alone {
		return verb.run(ctx, work)
	}
	var line *bar.Bar
	if f, ok := work.stderr.(*os.File); ok && !work.args.json {
		line = bar.New(f)
	}
	defer line.Clear()
	work.report = work.openReport(ctx)
	if err := work.open(ctx, line.Show); err != nil {
		return failed("cannot start", err)
	}
	defer work.close()
	if work.updater.Status().Tx == nil {
		work.settleApps(ctx)
	}
	ans = settleAndRun(ctx, work)
	ans.Warnings = work.warned()
	return ans
}

func settleAndRun(ctx context.Context, a *agent) (ans answer) {
	if a.args.verb == "update" { // it settles by itself
		return update(ctx, a)
	}
	var err error
	if a.settled, err = a.updater.Resume(ctx); err != nil {
		return ofResult(a, a.settled, err, "cannot settle what was cut short")
	}
	return commands[a.args.verb].run(ctx, a)
}

// parseArgs reads the command line. Flags may stand before and after the verb.
// An empty verb without an error means that help was asked for, and given.
func parseArgs(argv []string, stderr io.Writer) (args, error) {
	var a args
	flags := flag.NewFlagSet("agent", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&a.config, "config", "", "the configuration `FILE`")
	flags.BoolVar(&a.json, "json", false, "print one JSON object on standard output")
	flags.BoolVar(&a.retry, "retry", false, "with update: try a release that is held back")
	flags.BoolVar(&a.plan, "plan", false, "with check: say what an update would fetch, write and need")
	flags.BoolVar(&a.data, "data", false, "with reset: the volumes of the app begin empty too")
	var words []string
	for rest := argv; ; rest = flags.Args()[1:] {
		if err := flags.Parse(rest); err == flag.ErrHelp {
			usage(flags, stderr)
			return args{}, nil
		} else if err != nil {
			return a, err
		}
		if flags.NArg() == 0 {
			break
		}
		words = append(words, flags.Arg(0))
	}
	return a.withWords(words)
}

// withWords takes the verb and what follows it.
func (a args) withWords(words []string) (args, error) {
	if len(words) == 0 {
		return a, fmt.Errorf("a command is needed: one of %v", verbs())
	}
	verb, more := words[0], words[1:]
	if _, ok := commands[verb]; !ok {
		return a, fmt.Errorf("%.40q is not a command: one of %v%s", verb, verbs(), otherVerbs)
	}
	if (verb == "rollback" || verb == "adopt") && len(more) == 1 {
		seq, err := strconv.ParseUint(more[0], 10, 53)
		if err != nil || seq == 0 {
			return a, fmt.Errorf("%.40q is not the seq of a release", more[0])
		}
		a.seq, more = seq, nil
	}
	if verb == "reset" {
		if len(more) != 1 {
			return a, fmt.Errorf("reset takes the name of one app")
		}
		a.name, more = more[0], nil
	}
	if (verb == "bundle-logs" || verb == "mark-bad") && len(more) == 1 {
		a.name, more = more[0], nil
	}
	if len(more) > 0 {
		return a, fmt.Errorf("%s takes no %.40q", verb, more[0])
	}
	if a.retry && verb != "update" {
		return a, fmt.Errorf("-retry belongs to update")
	}
	if a.plan && verb != "check" {
		return a, fmt.Errorf("-plan belongs to check")
	}
	if a.data && verb != "reset" {
		return a, fmt.Errorf("-data belongs to reset")
	}
	a.verb = verb
	return a, nil
}

func verbs() []string { return slices.Sorted(maps.Keys(commands)) }

func usage(flags *flag.FlagSet, w io.Writer) {
	fmt.Fprintln(w, "agent -config FILE [-json] COMMAND")
	for _, v := range verbs() {
		fmt.Fprintf(w, "  %-9s %s\n", v, commands[v].what)
	}
	flags.SetOutput(w)
	flags.PrintDefaults()
	fmt.Fprintln(w, "exit codes: 0 newest or done, 10 tried and taken back, 11 held back, 12 stuck, 13 restart or reboot needed, 14 a script asked for another time, 2 usage, 1 anything else")
}

// printAnswer writes what happened on stdout, why and what to do on stderr, and
// returns the exit code.
func printAnswer(ans answer, a args, stdout, stderr io.Writer) int {
	if ans.err != nil {
		ans.Error = ans.err.Error()
	}
	if a.json {
		enc := json.NewEncoder(stdout)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(ans); err != nil {
			return exitOther
		}
		return ans.Code
	}
	fmt.Fprintln(stdout, plain(ans.Line))
	more := stderr
	if ans.lists {
		more = stdout
	}
	for _, line := range ans.more {
		fmt.Fprintln(more, plain(line))
	}
	for _, w := range ans.Warnings {
		fmt.Fprintln(stderr, "warning: "+plain(w))
	}
	if ans.Error != "" {
		fmt.Fprintln(stderr, "why:  "+plain(ans.Error))
	}
	if ans.Hint != "" {
		fmt.Fprintln(stderr, "hint: "+ans.Hint)
	}
	return ans.Code
}

// plain takes out of a text what a terminal would not print but obey: scripts
// and file names may hold anything.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, text)
}
