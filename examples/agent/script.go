package main

import (
	"fmt"
	"strings"

	"github.com/pawl-ota/pawl/ota"
)

// scriptWords say for a person how a script ended.
var scriptWords = map[ota.ScriptOutcome]string{
	ota.ScriptBegun:   "is running, or was cut short",
	ota.ScriptOK:      "succeeded",
	ota.ScriptLater:   "asked for another time",
	ota.ScriptRefused: "refused the release",
	ota.ScriptFailed:  "failed",
}

// scriptLines tell of the scripts of a transaction that did not simply
// succeed, one line each.
func scriptLines(r ota.Result) (lines []string) {
	for _, s := range r.Scripts {
		if s.Outcome != ota.ScriptOK || s.Undo != "" && s.Undo != ota.ScriptOK {
			lines = append(lines, scriptLine(s))
		}
	}
	return lines
}

// scriptLine says which script it is, how it ended, and the last that it wrote.
func scriptLine(s ota.ScriptRun) string {
	text := "script " + s.Name + " (" + string(s.At)
	if s.Component != "" {
		text += " of " + s.Component
	}
	text += ") " + scriptWords[s.Outcome]
	if s.Tries > 1 {
		text += fmt.Sprintf(" in run %d", s.Tries)
	}
	if s.Why != "" {
		text += ", " + s.Why
	}
	switch s.Undo {
	case "":
	case ota.ScriptOK:
		text += ", and was undone"
	default:
		text += ", and its undo " + strings.TrimSuffix(scriptWords[s.Undo]+", "+s.UndoWhy, ", ")
	}
	lines := strings.Split(strings.TrimSpace(s.Output), "\n")
	if last := strings.TrimSpace(lines[len(lines)-1]); last != "" {
		text += fmt.Sprintf(": %.200s", last)
	}
	return text
}
