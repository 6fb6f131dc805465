package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/pawl-ota/pawl/ota/publish"
)

// sign signs a change that waits: in the repository, or in a file that was
// carried here.
func (c *command) sign() error {
	if (c.repo == "") == (c.file == "") {
		return fmt.Errorf("%w: one of -repo and -file has to be given", errUsage)
	}
	keys := publish.Keys{}
	if c.keys != "" {
		var err error
		if keys, err = c.keyDir(false).LoadAll(); err != nil {
			return err
		}
	}
	if c.file != "" {
		return c.signFile(keys)
	}
	var copies [][]byte
	for _, name := range c.flags.Args() {
		data, err := os.ReadFile(name)
		if err != nil {
			return fmt.Errorf("%w: %w", errUsage, err)
		}
		copies = append(copies, data)
	}
	r, err := publish.Open(publish.Options{Dir: c.repo, Keys: keys})
	if err != nil {
		return err
	}
	w, err := r.Sign(c.ctx, copies...)
	if errors.Is(err, fs.ErrNotExist) && w.What == "" {
		return err
	}
	if err != nil {
		return c.waits(r, err)
	}
	c.showWaiting(w)
	fmt.Fprintf(c.out, "published   %s\n", w.What)
	return nil
}

func (c *command) signFile(keys publish.Keys) error {
	if err := c.args(0, "sign -file takes flags only"); err != nil {
		return err
	}
	var root []byte
	if c.root != "" {
		var err error
		if root, err = os.ReadFile(c.root); err != nil {
			return fmt.Errorf("%w: %w", errUsage, err)
		}
	}
	w, err := publish.SignFile(c.file, root, keys)
	if err == nil {
		c.showWaiting(w)
	}
	return err
}

func (c *command) cancel() error {
	r, err := publish.Open(publish.Options{Dir: c.repo})
	if err != nil {
		return err
	}
	if err := r.Cancel(c.ctx); err != nil {
		return err
	}
	fmt.Fprintln(c.out, "dropped     the change that waited")
	return nil
}

// waits turns a change that waits, as -wait asked for, into a good end.
func (c *command) waits(r *publish.Repository, err error) error {
	if !errors.Is(err, publish.ErrWaiting) {
		return err
	}
	s, more := r.Status()
	if more != nil || s.Waiting == nil {
		return errors.Join(err, more)
	}
	c.showWaiting(*s.Waiting)
	fmt.Fprintf(c.out, "waits       in %s/waiting.json: %v\n", c.repo, err)
	return nil
}

// showWaiting says what a change does and who has to sign it.
func (c *command) showWaiting(w publish.Waiting) {
	for _, d := range w.Documents {
		fmt.Fprintf(c.out, "change      %s version %d, good until %s\n", d.Role, d.Version, date(d.Expires))
		for _, line := range d.Changes {
			fmt.Fprintf(c.out, "            %s\n", line)
		}
		for _, n := range d.Needs {
			fmt.Fprintf(c.out, "            signed by %d of %d for %s", len(n.Signed), n.Threshold, n.By)
			if !n.Met() {
				fmt.Fprintf(c.out, "; %s can", short(n.Open))
			}
			fmt.Fprintln(c.out)
		}
	}
}

func short(ids []string) string {
	var list []string
	for _, id := range ids {
		list = append(list, id[:min(12, len(id))])
	}
	return strings.Join(list, " ")
}

// status prints the roles, and when updates would stop.
func (c *command) status(r *publish.Repository) error {
	s, err := r.Status()
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(c.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "\nROLE\tVERSION\tEXPIRES\tSIGN\tKEYS\tVARIANTS")
	for _, role := range s.Roles {
		fmt.Fprintf(w, "%s\t%d\t%s\t%d of %d\t%s\t%s\n", role.Role, role.Version, date(role.Expires),
			role.Threshold, len(role.Keys), short(role.Keys), strings.Join(role.Variants, ","))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(c.out, "\nif nobody refreshes, devices find no updates after %s (%s)\n", date(s.Stops), s.StopsBy)
	if s.Waiting != nil {
		fmt.Fprintf(c.out, "\nwaits for signatures since %s: %s\n", date(s.Waiting.Began), s.Waiting.What)
		c.showWaiting(*s.Waiting)
	}
	return nil
}

func (c *command) statusOnly() error {
	r, err := publish.Open(publish.Options{Dir: c.repo})
	if err != nil {
		return err
	}
	if !c.json {
		return c.status(r)
	}
	s, err := r.Status()
	if err != nil {
		return err
	}
	return json.NewEncoder(c.out).Encode(s)
}
