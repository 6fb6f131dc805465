package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/pawl-ota/pawl/examples/bar"
	"github.com/pawl-ota/pawl/ota/publish"
	"github.com/pawl-ota/pawl/ota/release"
)

func (c *command) init() error {
	if err := c.vacant(); err != nil {
		return err
	}
	keys, err := c.keyDir(true).Make(c.threshold, c.encrypt || c.secret != "")
	if err != nil {
		return err
	}
	fmt.Fprintf(c.out, "keys        %s (keep a copy of root in a safe place)\n", c.keys)
	r, err := publish.Open(publish.Options{Dir: c.repo, Keys: keys})
	if err != nil {
		return err
	}
	if err := r.Create(c.ctx, c.product, c.threshold); err != nil {
		return err
	}
	fmt.Fprintf(c.out, "repository  %s for product %s\n", c.repo, c.product)
	fmt.Fprintf(c.out, "root        %s (put it on the devices)\n", filepath.Join(c.repo, "metadata", "1.root.json"))
	return nil
}

// vacant makes sure that no keys are made for a repository that is there.
func (c *command) vacant() error {
	if c.threshold < 1 || c.threshold > publish.MaxThreshold {
		return fmt.Errorf("%w: -threshold %d is not from 1 to %d", errUsage, c.threshold, publish.MaxThreshold)
	}
	if err := release.CheckName(c.product); err != nil {
		return fmt.Errorf("%w: -product: %w", errUsage, err)
	}
	r, err := publish.Open(publish.Options{Dir: c.repo})
	if err != nil {
		return err
	}
	_, err = r.List(c.ctx)
	switch {
	case err == nil:
		return fmt.Errorf("%s holds a repository already", c.repo)
	case errors.Is(err, publish.ErrNoRepository):
		return nil
	}
	return err
}

func (c *command) release() error {
	if err := c.args(1, "release takes one SPEC.yaml"); err != nil {
		return err
	}
	spec, err := publish.ReadSpec(c.flags.Arg(0))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if err != nil {
		return err
	}
	began, steps := time.Now(), newSteps(c.out)
	r, err := c.open(steps.show)
	if err != nil {
		return err
	}
	a, err := r.Release(c.ctx, spec)
	steps.end(err == nil)
	if err != nil {
		return c.waits(r, err)
	}
	scripts := ""
	if a.Scripts > 0 {
		scripts = fmt.Sprintf(" and %d scripts", a.Scripts)
	}
	fmt.Fprintf(c.out, "released    %s seq %d for %s/%s: %d entries%s with %s, of which %d new with %s; the repository grew by %s in %s\n",
		a.Version, a.Seq, a.Product, a.Variant, a.Files, scripts, bar.Size(a.Size), a.NewBlobs, bar.Size(a.NewSize), bar.Size(a.Stored),
		bar.Seconds(time.Since(began)))
	return nil
}

func (c *command) refresh() error {
	r, err := c.open(nil)
	if err != nil {
		return err
	}
	done, err := r.Refresh(c.ctx)
	if err != nil {
		return err
	}
	var words []string
	for _, role := range done.Signed {
		words = append(words, string(role))
	}
	fmt.Fprintf(c.out, "refreshed   %s; good until %s\n", strings.Join(words, ", "), date(earliest(done.Expires)))
	for _, role := range done.Due {
		fmt.Fprintf(c.errs, "publisher refresh: %s expires on %s and was not signed; %s\n", role, date(done.Expires[role]), dueHelp(role))
	}
	if len(done.Due) > 0 {
		return errDue
	}
	if left := time.Until(done.Expires[publish.Root]); left < 180*24*time.Hour {
		fmt.Fprintf(c.errs, "publisher refresh: the root expires on %s; %s\n", date(done.Expires[publish.Root]), dueHelp(publish.Root))
	}
	return nil
}

// errDue is returned when somebody else has to sign soon.
var errDue = errors.New("updates will stop unless the keys that were not here sign before that")

func dueHelp(role publish.Role) string {
	if role == publish.Root {
		return "renew it with the keys of root: publisher renew"
	}
	return fmt.Sprintf("refresh where the keys of %s are", role)
}

func (c *command) list() error {
	r, err := publish.Open(publish.Options{Dir: c.repo})
	if err != nil {
		return err
	}
	list, err := r.List(c.ctx)
	if err != nil {
		return err
	}
	fetches, err := r.Fetches(c.ctx, c.all)
	if err != nil {
		return err
	}
	if c.json {
		enc := json.NewEncoder(c.out)
		for _, l := range list {
			if err := enc.Encode(listed{l, fetchesTo(fetches, l.ID)}); err != nil {
				return err
			}
		}
		return nil
	}
	w := tabwriter.NewWriter(c.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "VARIANT\tSEQ\tVERSION\tISSUED\tHARDWARE\tCOMPONENTS\tRELEASE")
	for _, l := range list {
		hardware := "all"
		if len(l.Hardware) > 0 {
			hardware = strings.Join(l.Hardware, ",")
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\t%s\n", l.Variant, l.Seq, l.Version, l.Issued.Format(time.RFC3339),
			hardware, strings.Join(l.Components, ","), l.Release.Short())
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return errors.Join(c.listMore(list), c.listFetches(fetches), c.status(r))
}

func (c *command) verify() error {
	var root []byte
	if c.root != "" {
		var err error
		if root, err = os.ReadFile(c.root); err != nil {
			return fmt.Errorf("%w: %w", errUsage, err)
		}
	}
	steps := newSteps(nil)
	r, err := publish.Open(publish.Options{Dir: c.repo, Progress: steps.show})
	if err != nil {
		return err
	}
	v, err := r.Verify(c.ctx, root)
	steps.end(err == nil)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.out, "verified    %d releases, %d blobs with %s, stored in %s; good until %s\n",
		v.Releases, v.Blobs, bar.Size(v.Bytes), bar.Size(v.Stored), date(earliest(v.Expires)))
	for _, name := range v.Ignored {
		fmt.Fprintf(c.out, "ignored     %s\n", name)
	}
	for _, name := range v.Unused {
		fmt.Fprintf(c.out, "unused      %s\n", name)
	}
	return nil
}

func earliest(expires map[publish.Role]time.Time) (first time.Time) {
	for _, t := range expires {
		if first.IsZero() || t.Before(first) {
			first = t
		}
	}
	return first
}

func date(t time.Time) string { return t.Format(time.DateOnly) }
