package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/pawl-ota/pawl/examples/bar"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// withNeed adds what an update to r takes to the answer of check.
func withNeed(ctx context.Context, a *agent, r *release.Release, ans answer) answer {
	p, err := a.updater.Plan(ctx, r)
	if err != nil {
		bad := failed("cannot tell what "+ans.Available.String()+" takes", err)
		bad.Available = ans.Available
		return bad
	}
	ans.Need = p
	ans.Line += fmt.Sprintf(": %s to fetch, %s to write", bar.Size(p.Fetch), bar.Size(p.Write))
	ans.more = needLines(p)
	if err := p.Check(); err != nil && ans.err == nil {
		ans.err = err
		ans.Code, ans.Kind, ans.Hint = classify(err)
	}
	return ans
}

// needLines put a plan into words.
func needLines(p *ota.Plan) []string {
	var lines []string
	for _, part := range p.Parts {
		for _, w := range []struct {
			ota.PlanWay
			how string
		}{
			{part.Here, "are here"},
			{part.Patched, "are patched from what is here"},
			{part.Pieces, "come in pieces"},
		} {
			if w.Blobs == 0 {
				continue
			}
			line := fmt.Sprintf("%s: %d files of %s %s", part.Component, w.Blobs, bar.Size(w.Bytes), w.how)
			if w.how != "are here" {
				line += ": " + bar.Size(w.Fetch) + " to fetch"
			}
			lines = append(lines, line)
		}
		if part.Lent > 0 {
			lines = append(lines, fmt.Sprintf("%s: %s of the pieces are here", part.Component, bar.Size(part.Lent)))
		}
	}
	lines = append(lines,
		fmt.Sprintf("fetch:  %s in %d requests", bar.Size(p.Fetch), p.Requests),
		fmt.Sprintf("keep:   %s more in the local copy, %s set aside until all is staged", bar.Size(p.Keep), bar.Size(p.Spool)),
		fmt.Sprintf("memory: %s, %s can be had", bar.Size(p.Memory), bar.Size(p.FreeMemory)))
	for _, s := range p.Space {
		lines = append(lines, fmt.Sprintf("room:   %s and %d inodes at %s, which has %s and %d, %s to stay free",
			bar.Size(s.NeedBytes), s.NeedInodes, s.Path, bar.Size(s.FreeBytes), s.FreeInodes, bar.Size(s.Reserve)))
	}
	return lines
}

// adopt takes over what was installed without pawl.
func adopt(ctx context.Context, a *agent) answer {
	to, found, err := a.updater.Adopt(ctx, a.args.seq)
	if errors.Is(err, ota.ErrState) {
		return failed("nothing to adopt, runs "+a.updater.Status().Running.String(), err)
	}
	if err != nil {
		return failed("cannot adopt what is installed", err)
	}
	if len(found) == 0 {
		return answer{Available: &to, Line: to.String() + " is what is installed, and is recorded as that"}
	}
	ans := failed(fmt.Sprintf("%d entries differ from %s", len(found), to), errDiffers)
	ans.Available, ans.Damage = &to, found
	for _, d := range found {
		ans.more = append(ans.more, d.String())
	}
	return ans
}
