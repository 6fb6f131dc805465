// Package site tells the places in the module apart at which something is made
// durable, for tests that leave one of them out. It is called within a step of
// package durable.
package site

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/pawl-ota/pawl/internal/seam"
)

// modulePath begins the names of the module's functions.
const modulePath = "github.com/pawl-ota/pawl/"

// durable begins the places in package durable.
const durable = "ota/durable/"

// Stack returns the places in the module that led to a step, the innermost
// first, as "ota/store.go:39", with the kind of step before them. Tests are
// left out, and the step itself, and those who call durable.OpenDir: nobody can
// ask for less of what that does.
func Stack(op string) []string {
	pcs := make([]uintptr, 64)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	stack := []string{op}
	inside := false
	for {
		f, more := frames.Next()
		name, ours := strings.CutPrefix(f.Function, modulePath)
		if ours && inside && !strings.HasSuffix(f.File, "_test.go") {
			stack = append(stack, place(name, f))
		}
		if name == "ota/durable.OpenDir" {
			return stack
		}
		inside = inside || strings.HasSuffix(name, "ota/durable.step")
		if !more {
			return stack
		}
	}
}

func place(name string, f runtime.Frame) string {
	slash := strings.LastIndexByte(name, '/') + 1
	pkg, _, _ := strings.Cut(name[slash:], ".")
	return name[:slash] + pkg + "/" + filepath.Base(f.File) + ":" + strconv.Itoa(f.Line)
}

// Key shortens a stack to the kind of step and the two places outside of package
// durable that led to it; what package durable does by itself it has tests of
// its own for. It is empty where there are none.
func Key(stack []string) string {
	key := stack[:1:1]
	for _, s := range stack[1:] {
		if len(key) < 3 && !strings.HasPrefix(s, durable) {
			key = append(key, s)
		}
	}
	if len(key) == 1 {
		return ""
	}
	return strings.Join(key, " ")
}

// Own shortens a stack to the kind of step and the places in package durable.
func Own(stack []string) string {
	key := stack[:1:1]
	for _, s := range stack[1:] {
		if strings.HasPrefix(s, durable) {
			key = append(key, strings.TrimPrefix(s, durable))
		}
	}
	return strings.Join(key, " ")
}

// Env names the site that [LeaveOut] leaves out.
const Env = "PAWL_TEETH_SITE"

// LeaveOut has package durable leave out the steps whose Key the environment
// names. It is for the TestMain of a package whose tests have to notice.
func LeaveOut() {
	site := os.Getenv(Env)
	if site == "" {
		return
	}
	leave := func(op string) bool { return Key(Stack(op)) == site }
	seam.Leave.Store(&leave)
}
