//go:build linux

// Package unit reads how a unit of systemd is from its properties, which D-Bus
// and systemctl both show under the same names.
package unit

import (
	"strconv"
	"strings"

	"github.com/pawl-ota/pawl/micro"
)

// Properties are the ones that State asks for.
func Properties() []string {
	return []string{
		"LoadState", "LoadError", "ActiveState", "SubState", "Job", "Type", "Result", "NRestarts", "ExecMainCode",
		"ExecMainStatus", "StatusText",
	}
}

// Booting reports whether a state of the whole system says that the boot goes
// on.
func Booting(system string) bool { return system == "initializing" || system == "starting" }

// State says how a unit is. get returns one property as systemctl shows it, and
// nothing for one that the unit does not have.
//
// Systemd forgets a unit that ended well as soon as nothing needs it: nothing
// tells one that ran to its end from one that never ran.
//
// booting says whether the boot goes on; it is asked only for a unit that is
// down and has a job, because that is all it makes a difference for.
func State(get func(property string) string, booting func() (bool, error)) (micro.ServiceState, error) {
	active, job := get("ActiveState"), get("Job") != ""
	down, boots := active == "inactive" || active == "failed", false
	if down && job {
		var err error
		if boots, err = booting(); err != nil {
			return micro.ServiceState{}, err
		}
	}
	restarts, _ := strconv.Atoi(get("NRestarts"))
	return micro.ServiceState{
		Running:  active == "active" || active == "reloading" || active == "refreshing",
		Failed:   active == "failed" && !job,
		Starting: active == "activating" || active == "deactivating" || down && job && !boots,
		Queued:   down && job && boots,
		Finished: active == "inactive" && !job && get("Type") == "oneshot" && get("Result") == "success",
		Restarts: restarts,
		Detail:   detail(get),
	}, nil
}

// detail says it in systemd's own words.
func detail(get func(string) string) string {
	words := []string{get("ActiveState") + " (" + get("SubState") + ")"}
	add := func(s string) { words = append(words, s) }
	if load := get("LoadState"); load != "loaded" {
		add(load)
	}
	if s := get("LoadError"); s != "" {
		add(clip(s))
	}
	if r := get("Result"); r != "" && r != "success" {
		add("result " + r)
	}
	switch status := get("ExecMainStatus"); get("ExecMainCode") {
	case "1":
		if status != "0" {
			add("exit status " + status)
		}
	case "2":
		add("killed by signal " + status)
	case "3":
		add("dumped core with signal " + status)
	}
	if n := get("NRestarts"); n != "" && n != "0" {
		add("restarted " + n + " times")
	}
	if s := get("StatusText"); s != "" {
		add(strconv.Quote(clip(s)))
	}
	return strings.Join(words, ", ")
}

func clip(s string) string {
	const most = 200
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
