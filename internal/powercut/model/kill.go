//go:build linux

package model

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"strings"
)

// recorded returns what the newest record of the device's journal says that its
// transaction is, as a program sees it now, and empty where none is open.
func (h *History) recorded() string {
	newest, state := uint64(0), ""
	for _, name := range []string{"a", "b"} {
		i, err := h.lookup(&h.now, "state/updates/journal."+name)
		if err != nil {
			continue
		}
		head, body, _ := bytes.Cut(i.now.Data, []byte("\n"))
		var generation uint64
		var record struct{ Tx struct{ State string } }
		if _, err := fmt.Sscanf(string(head), "pawl-journal/0 %d", &generation); err != nil || json.Unmarshal(body, &record) != nil {
			continue
		}
		if generation > newest {
			newest, state = generation, record.Tx.State
		}
	}
	return state
}

// in has a process killed as soon as the journal says so, and after that the given
// number of calls that are about paths with the prefix.
func in(state, prefix string, calls int) func(*History) bool {
	since := -1
	return func(h *History) bool {
		if since < 0 && h.recorded() == state {
			since = len(h.ops)
		}
		if since < 0 {
			return false
		}
		n := 0
		for i := range h.ops[since:] {
			if o := &h.ops[since+i]; strings.HasPrefix(o.Path, prefix) || strings.HasPrefix(o.Path2, prefix) {
				n++
			}
		}
		return n >= calls
	}
}

// made has a process killed after the n-th call of a kind that is to a path with
// the prefix, before anything makes that durable.
func made(n int, kind Kind, prefix string) func(*History) bool {
	return func(h *History) bool {
		seen := 0
		for i := range h.ops {
			if o := &h.ops[i]; o.Kind == kind && strings.HasPrefix(cmp.Or(o.Path2, o.Path), prefix) {
				seen++
			}
		}
		return seen == n
	}
}
