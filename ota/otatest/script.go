package otatest

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/pawl-ota/pawl/internal/seam"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// Script is a script of a release on a simulated device.
type Script struct {
	Seq       uint64 // of the release
	Component string // empty for one of the release itself
	At        release.Point
}

// ScriptState is what a script has done to a simulated device: it has two
// halves, and so has its undo.
type ScriptState string

// The values of [ScriptState]. A script that was undone, or never ran, has none.
const (
	ScriptHalf ScriptState = "half"
	ScriptDone ScriptState = "done"
)

// scriptTime is what each half of a script takes.
const scriptTime = 5 * time.Second

// programs are what a simulated device takes for an executable.
const (
	programDo   = "otatest do"
	programUndo = "otatest undo"
)

func (s Script) program(what string) []byte {
	return fmt.Appendf(nil, "%s %d %q %s", what, s.Seq, s.Component, s.At)
}

// undoes reports whether a script at the point has an undo.
func undoes(p release.Point) bool { return p != release.AfterCommit && p != release.AfterRevert }

// addScripts puts one script at every point into the release and each of its
// components, and returns their programs.
func (r *Repo) addScripts(rel *release.Release) (blobs [][]byte) {
	add := func(component string) (list []release.Script) {
		for _, p := range []release.Point{release.BeforeStage, release.AfterStage, release.BeforeActivate,
			release.AfterActivate, release.BeforeCommit, release.AfterCommit, release.AfterRevert} {
			s := Script{rel.Seq, component, p}
			run, undo := s.program(programDo), s.program(programUndo)
			blobs = append(blobs, run)
			script := release.Script{Name: "script", At: p, Run: blobOf(run), Limit: 30}
			r.scripts[string(run)] = s
			if undoes(p) {
				script.Undo = blobOf(undo)
				blobs = append(blobs, undo)
				r.scripts[string(undo)] = s
			}
			list = append(list, script)
		}
		return list
	}
	rel.Scripts = add("")
	for i := range rel.Components {
		rel.Components[i].Scripts = add(rel.Components[i].Name)
	}
	return blobs
}

// Scripts returns what the scripts of a release have done to the device.
func (d *Device) Scripts(seq uint64) map[Script]ScriptState {
	d.mu.Lock()
	defer d.mu.Unlock()
	found := map[Script]ScriptState{}
	for s, state := range d.state.scripts {
		if s.Seq == seq {
			found[s] = state
		}
	}
	return found
}

// ScriptExits has the next runs of a script, not of its undo, end with these
// exit codes, after the first half of it.
func (d *Device) ScriptExits(s Script, codes ...int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state.exits[s] = codes
}

// UndoExits is ScriptExits for the undo of a script.
func (d *Device) UndoExits(s Script, codes ...int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state.undoExits[s] = codes
}

// Run runs a program of addScripts.
func (h host) Run(ctx context.Context, p seam.Program) (seam.Ran, error) {
	r, err := p.Open()
	if err != nil {
		return seam.Ran{}, err
	}
	data, err := io.ReadAll(r)
	if err == nil {
		err = r.Close()
	}
	s, ok := h.d.repo.scripts[string(data)]
	if err != nil || !ok || int64(len(data)) != p.Size || !slices.Contains(p.Env, p.Mark) {
		return seam.Ran{}, fmt.Errorf("otatest: no program of a script: %q: %w", data, err)
	}
	undo := strings.HasPrefix(string(data), programUndo)
	tx := ota.TxID(strings.TrimPrefix(p.Mark, "PAWL_TX="))
	if err := h.look(func(st *state) { st.checkScript(h.d.repo, tx, s, undo) }); err != nil {
		return seam.Ran{}, err
	}
	code, err := h.script(ranScript{tx, s}, undo)
	return seam.Ran{Exit: code, Took: 2 * scriptTime}, err
}

// End has nothing to end: the processes of a script end with the process that
// ran it.
func (h host) End(context.Context, string) error { return nil }

// script goes through the two halves of a script.
func (h host) script(x ranScript, undo bool) (code int, err error) {
	s := x.Script
	what, last := fmt.Sprint("script ", s), ScriptDone
	if undo {
		what, last = "undo "+what, ""
	}
	if err := h.spend(scriptTime); err != nil {
		return 0, err
	}
	if err := h.step("begin "+what, func(st *state) { st.scripts[s] = ScriptHalf; st.begins(x, undo) }); err != nil {
		return 0, err
	}
	if err := h.spend(scriptTime); err != nil {
		return 0, err
	}
	if err := h.look(func(st *state) {
		exits := st.exits
		if undo {
			exits = st.undoExits
		}
		if left := exits[s]; len(left) > 0 {
			code, exits[s] = left[0], left[1:]
		}
		if undo && code != 0 {
			st.ends(x)
		}
	}); err != nil || code != 0 {
		return code, err
	}
	return 0, h.step("end "+what, func(st *state) {
		if st.scripts[s] = last; undo {
			delete(st.scripts, s)
			st.ends(x)
		}
	})
}

// ranScript is a script that a transaction began and did not undo yet.
type ranScript struct {
	tx ota.TxID
	Script
}

// begins notes the order in which scripts began, and an undo that does not go
// it backward.
func (s *state) begins(x ranScript, undo bool) {
	i := slices.Index(s.order, x)
	if !undo {
		if i < 0 { // else it was cut short, and nothing was undone since
			s.order = append(slices.Clip(s.order), x)
		}
		return
	}
	for _, later := range s.order[i+1:] {
		if i >= 0 && later.tx == x.tx && undoes(later.At) {
			s.breaks("%v was undone before %v, which began after it", x.Script, later.Script)
		}
	}
}

// ends takes out a script whose undo ended, well or not: no other one waits for
// it.
func (s *state) ends(x ranScript) {
	s.order = slices.DeleteFunc(slices.Clone(s.order), func(y ranScript) bool { return y == x })
}

// checkScript notes a script that runs where it must not.
func (s *state) checkScript(repo *Repo, tx ota.TxID, x Script, undo bool) {
	rel := repo.releases[x.Seq]
	for _, c := range rel.Components {
		p := s.parts[c.Name]
		if x.Component != "" && x.Component != c.Name {
			continue
		}
		w, open := p.works[tx]
		isNew := p.active().Is(c.Digest())
		switch {
		case undo && s.begun[tx]:
			s.breaks("%v was undone after a commit had begun", x)
		case undo && x.At == release.BeforeActivate && w.undo:
			s.breaks("%v was undone before %s was reverted", x, c.Name)
		case undo:
		case x.At == release.BeforeActivate && x.Component != "" && isNew:
			s.breaks("%v ran when %s was in effect", x, c.Name)
		case (x.At == release.AfterActivate || x.At == release.BeforeCommit || x.At == release.AfterCommit) && !isNew:
			s.breaks("%v ran when %s was not in effect", x, c.Name)
		case (x.At == release.AfterCommit || x.At == release.AfterRevert) && open:
			s.breaks("%v ran when %s was not done", x, c.Name)
		case x.At == release.AfterCommit != s.begun[tx] && (open || s.begun[tx]):
			s.breaks("%v ran on the wrong side of the commit", x)
		}
	}
}
