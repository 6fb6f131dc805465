//go:build linux

package micro_test

import (
	"fmt"
	"strings"

	"github.com/pawl-ota/pawl/micro"
)

// runit drives the services that a runsvdir looks after. It notices a new
// service within five seconds by itself: a release that brings one starts it
// with "check" in its commands, or lists it a release later.
func runit() *micro.CommandSupervisor {
	return &micro.CommandSupervisor{
		Commands: map[micro.Action][]string{
			micro.Start:      {"sv", "-w", "60", "start", "{}"},
			micro.StartLater: {"sv", "up", "{}"},
			micro.Stop:       {"sv", "-w", "30", "force-stop", "{}"}, // kills it after that
			micro.Restart:    {"sv", "-w", "60", "force-restart", "{}"},
			micro.Reload:     {"sv", "reload", "{}"},
		},
		Status: []string{"sv", "status", "{}"},
		Parse: func(_ int, output string) micro.ServiceState {
			line, _, _ := strings.Cut(output, "\n")
			return micro.ServiceState{
				Running:  strings.HasPrefix(line, "run: ") && !strings.Contains(line, "want down"),
				Starting: strings.Contains(line, "want up") || strings.Contains(line, "want down") || strings.HasPrefix(line, "finish: "),
				Detail:   line,
			}
		},
	}
}

// s6 drives the services of an s6-svscan that looks after /run/service.
func s6() *micro.CommandSupervisor {
	const dir = "/run/service/{}"
	return &micro.CommandSupervisor{
		Commands: map[micro.Action][]string{
			micro.Start:      {"s6-svc", "-uwu", "-T", "60000", dir}, // -wU for a service that says when it is ready
			micro.StartLater: {"s6-svc", "-u", dir},
			micro.Stop:       {"s6-svc", "-dwD", "-T", "60000", dir},
			micro.Restart:    {"s6-svc", "-rwr", "-T", "60000", dir},
			micro.Reload:     {"s6-svc", "-h", dir},
		},
		Status: []string{"s6-svstat", "-o", "up,wantedup", dir},
		Parse: func(exit int, output string) micro.ServiceState {
			up, wanted, _ := strings.Cut(output, " ")
			return micro.ServiceState{
				Running:  exit == 0 && up == "true" && wanted == "true",
				Starting: exit == 0 && up != wanted,
				Detail:   output,
			}
		},
		Reread: []string{"s6-svscanctl", "-an", "/run/service"},
	}
}

// A device whose services runit looks after.
func ExampleCommandSupervisor() {
	files, err := micro.New(micro.Options{Name: "camera", Root: "/opt/camera", Supervisor: runit()})
	if err != nil {
		fmt.Println(err)
		return
	}
	// files goes into the Backends of ota.Options, and files.CheckServices is
	// its Health, or part of it.
	_ = files
	fmt.Println(runit().Parse(0, "down: camera: 1s, normally up, want up").Starting)
	// Output: true
}

// A device whose services s6 looks after.
func ExampleCommandSupervisor_s6() {
	fmt.Println(s6().Parse(0, "true true").Running)
	fmt.Println(s6().Parse(1, "").Running)
	// Output:
	// true
	// false
}
