package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/pawl-ota/pawl/ota/publish"
)

// listMore prints the scripts, the services and the containers of the releases,
// each as a table of its own where there are any.
func (c *command) listMore(list []publish.Listed) error {
	var scripts, services, containers [][]string
	for _, l := range list {
		head := []string{l.Variant, fmt.Sprint(l.Seq)}
		for _, s := range l.Scripts {
			limit, undo := "-", "-"
			if s.Limit > 0 {
				limit = (time.Duration(s.Limit) * time.Second).String()
			}
			if !s.Undo.Digest.IsZero() {
				undo = s.Undo.Digest.Short()
			}
			scripts = append(scripts, append(head[:2:2], cmp.Or(s.Component, "-"), string(s.At), s.Name, limit, s.Run.Digest.Short(), undo))
		}
		for _, s := range l.Services {
			services = append(services, append(head[:2:2], s.Component, s.Name, cmp.Or(s.Do, "-")))
		}
		for _, s := range l.Containers {
			containers = append(containers, append(head[:2:2], s.Component, s.Name, s.Image, s.Strategy))
		}
	}
	if err := table(c.out, "VARIANT SEQ COMPONENT AT SCRIPT LIMIT RUN UNDO", scripts); err != nil {
		return err
	}
	if err := table(c.out, "VARIANT SEQ COMPONENT SERVICE DO", services); err != nil {
		return err
	}
	return table(c.out, "VARIANT SEQ COMPONENT CONTAINER IMAGE STRATEGY", containers)
}

func table(out io.Writer, head string, rows [][]string) error {
	if len(rows) == 0 {
		return nil
	}
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(strings.Fields(head), "\t"))
	for _, row := range rows {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	return w.Flush()
}
