package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/testneeds"
	"github.com/pawl-ota/pawl/monitor"
)

// answers asks once: the answer has to hold saw, and the error want, or be nil
// where want is empty.
func answers(t *testing.T, ask monitor.Ask, saw, want string) {
	t.Helper()
	got, err := ask(t.Context())
	require.Contains(t, got, saw)
	if want == "" {
		require.NoError(t, err)
	} else {
		require.ErrorContains(t, err, want)
	}
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(text), 0o755))
	return path
}

func TestTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := l.Addr().String()
	answers(t, TCP(address), "answered in", "")
	require.NoError(t, l.Close())
	answers(t, TCP(address), "", "connection refused")
}

func TestContainer(t *testing.T) {
	var s ContainerState
	var err error
	ask := Container("app", 1, func(context.Context, string) (ContainerState, error) { return s, err })
	for _, c := range []struct {
		s    ContainerState
		want string
	}{
		{ContainerState{Running: true, Restarts: 7}, ""},
		{ContainerState{Running: true, Restarts: 8, Health: "none"}, ""},
		{ContainerState{Running: true, Restarts: 9, Health: "healthy"}, "2 times since the first look, more than 1"},
		{ContainerState{Running: true, Restarts: 0}, ""},
		{ContainerState{Running: true, Restarts: 1}, ""},
		{ContainerState{Running: true, Health: "starting"}, "is starting"},
		{ContainerState{Running: true, Health: "unhealthy"}, "is unhealthy"},
		{ContainerState{Detail: "exit code 137"}, "does not run"},
	} {
		s = c.s
		answers(t, ask, s.Detail, c.want)
	}
	err = errors.New("no engine")
	answers(t, ask, "", "cannot ask for container app: no engine")
}

func TestRestartsThatAreAllowed(t *testing.T) {
	r := rising{most: -1}
	for n := range 100 {
		require.NoError(t, r.check(n))
	}
}

// TestFresh: a file is fresh as long as it changes, also when the clock of the
// device is put forward or back by years.
func TestFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := write(t, filepath.Join(t.TempDir(), "beat"), "")
		beat := func(at time.Time) { require.NoError(t, os.Chtimes(path, at, at)) }
		old := Fresh(path, time.Minute)
		beat(time.Now().Add(-time.Hour))
		answers(t, old, "1h0m0s ago", "did not change for more than 1m0s")

		ask := Fresh(path, time.Minute)
		beat(time.Now().Add(-10 * time.Second))
		answers(t, ask, "10s ago", "")
		<-time.After(50 * time.Second)
		answers(t, ask, "1m0s ago", "")
		<-time.After(time.Second)
		answers(t, ask, "1m1s ago", "did not change")
		beat(time.Now().AddDate(50, 0, 0))
		answers(t, ask, "0s ago", "")
		beat(time.Now().AddDate(-50, 0, 0))
		answers(t, ask, "0s ago", "")

		future := Fresh(path, time.Minute)
		beat(time.Now().AddDate(50, 0, 0))
		answers(t, future, "1m0s ago", "")
		<-time.After(time.Second)
		answers(t, future, "", "did not change")
		require.NoError(t, os.Remove(path))
		answers(t, future, "", "cannot look at the file")
	})
}

func TestExec(t *testing.T) {
	sh := func(text string) Exec { return Exec{Args: []string{"/bin/sh", "-c", text}} }
	answers(t, sh("echo one; echo two").Ask(), "two", "")
	answers(t, sh("echo why >&2; exit 3").Ask(), "why", "exit status 3")
	answers(t, Exec{}.Ask(), "", "no command")
	answers(t, Exec{Args: []string{"/nowhere/at/all"}}.Ask(), "", "no such file")
	t.Setenv("SECRET", "x")
	answers(t, Exec{Args: []string{"/bin/sh", "-c", `echo "$PWD-$ASKED-$SECRET-"`}, Dir: "/", Env: []string{"ASKED=yes"}}.Ask(), "/-yes--", "")
	answers(t, sh("yes | head -c 1000000; exit 1").Ask(), "y", "exit status 1")
}

// TestExecIsKilled: when its time is over the whole group goes, and what it had
// said is told.
func TestExecIsKilled(t *testing.T) {
	pid := filepath.Join(t.TempDir(), "pid")
	ask := Exec{Args: []string{"/bin/sh", "-c", "echo begun; sleep 1000 & echo $! >" + pid + "; wait"}}.Ask()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		for {
			if data, _ := os.ReadFile(pid); strings.HasSuffix(string(data), "\n") {
				cancel()
				return
			}
			<-time.After(5 * time.Millisecond)
		}
	}()
	saw, err := ask(ctx)
	require.ErrorContains(t, err, "was killed")
	require.Equal(t, "begun", saw)
	data, err := os.ReadFile(pid)
	require.NoError(t, err)
	left := Process{PIDFile: write(t, pid, string(data))}.Ask()
	require.Eventually(t, func() bool { _, err := left(t.Context()); return err != nil }, 10*time.Second, 5*time.Millisecond)
}

func TestUnit(t *testing.T) {
	show := func(load, active, kind, result, restarts, exited string) string {
		return fmt.Sprintf("LoadState=%s\nActiveState=%s\nSubState=sub\nType=%s\nResult=%s\nNRestarts=%s\nExecMainExitTimestampMonotonic=%s\n",
			load, active, kind, result, restarts, exited)
	}
	for _, c := range []struct{ output, want string }{
		{show("loaded", "active", "simple", "success", "0", "0"), ""},
		{show("loaded", "reloading", "notify", "success", "3", "0"), ""},
		{show("loaded", "activating", "notify", "success", "0", "0"), "the unit is activating"},
		{show("loaded", "failed", "simple", "exit-code", "0", "17"), "the unit is failed"},
		{show("loaded", "inactive", "simple", "success", "0", "17"), "the unit is inactive"},
		{show("loaded", "inactive", "oneshot", "success", "0", "17"), ""},
		{show("loaded", "inactive", "oneshot", "success", "0", "0"), "the unit is inactive"},
		{show("loaded", "failed", "oneshot", "exit-code", "0", "17"), "the unit is failed"},
		{show("not-found", "inactive", "", "success", "0", "0"), "does not know the unit"},
		{"", "gave no answer"},
	} {
		saw, err := unitState(c.output, &rising{})
		if c.want == "" {
			require.NoError(t, err, c.output)
		} else {
			require.ErrorContains(t, err, c.want, c.output)
		}
		require.Contains(t, saw, "restarts")
	}
	r := &rising{most: 1}
	for n, want := range []string{"", "", "2 times", "3 times"} {
		_, err := unitState(show("loaded", "active", "simple", "success", strconv.Itoa(5+n), "0"), r)
		require.Equal(t, want == "", err == nil)
	}
}

// TestUnitAsksSystemctl for the properties it reads, of exactly the unit.
func TestUnitAsksSystemctl(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/systemctl", "#!/bin/sh\n[ \"$*\" = \"--no-ask-password --no-pager --user show --property="+unitProperties+" -- app.service\" ] || { echo bad arguments; exit 9; }\n"+
		"echo LoadState=loaded; echo ActiveState=active; echo SubState=running; echo NRestarts=$RESTARTS\n")
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	answers(t, Unit{Name: "app.service", Args: []string{"--user"}, Env: []string{"RESTARTS=4"}}.Ask(), "active (running), result , 4 restarts", "")
	answers(t, Unit{Name: "other.service"}.Ask(), "bad arguments", "cannot ask systemd for other.service")
}

func TestProcess(t *testing.T) {
	dir := t.TempDir()
	process := func(pid, name, state string) {
		write(t, filepath.Join(dir, pid, "stat"), pid+" ("+name+") "+state+" 1 1 1 0 -1")
	}
	process("1", "init", "S")
	process("20", "app) Z (", "R")
	process("21", "worker", "S")
	process("22", "worker", "S")
	process("23", "gone", "Z")
	process("24", "a-long-name-of-", "S")
	write(t, dir+"/stat", "")
	file := func(text string) string { return write(t, filepath.Join(t.TempDir(), "pid"), text) }
	for _, c := range []struct {
		p         Process
		saw, want string
	}{
		{Process{Name: "init"}, `1 processes "init"`, ""},
		{Process{Name: "app) Z ("}, "1 processes", ""},
		{Process{Name: "worker", Least: 2}, "2 processes", ""},
		{Process{Name: "worker", Least: 3}, "2 processes", "should be 3 or more"},
		{Process{Name: "gone"}, "0 processes", "should be 1"},
		{Process{Name: "a-long-name-of-a-program"}, "1 processes", ""},
		{Process{Name: "none"}, "0 processes", "should be 1"},
		{Process{PIDFile: file("21\n")}, `process 21 is "worker" in state S`, ""},
		{Process{PIDFile: file("21"), Name: "worker"}, "process 21", ""},
		{Process{PIDFile: file("21\n"), Name: "init"}, "process 21", "is another one"},
		{Process{PIDFile: file("23")}, "state Z", "process 23 is not there"},
		{Process{PIDFile: file("99")}, "", "process 99 is not there"},
		{Process{PIDFile: file("../1")}, "", "holds no number"},
		{Process{PIDFile: file("-1")}, "", "holds no number"},
		{Process{PIDFile: dir + "/none"}, "", "cannot read the number"},
		{Process{}, "", "neither a name nor a file"},
	} {
		c.p.proc = dir
		answers(t, c.p.Ask(), c.saw, c.want)
	}
	answers(t, Process{PIDFile: file(strconv.Itoa(os.Getpid()))}.Ask(), "process "+strconv.Itoa(os.Getpid()), "")
}

func TestDisk(t *testing.T) {
	dir := t.TempDir()
	answers(t, Disk{Path: dir}.Ask(), "bytes", "")
	answers(t, Disk{Path: dir, FreeBytes: 1, FreePercent: 0.0001}.Ask(), "bytes", "")
	answers(t, Disk{Path: dir, FreeBytes: 1 << 60}.Ask(), "bytes", "less than 1152921504606846976 bytes")
	answers(t, Disk{Path: dir, FreePercent: 101}.Ask(), "bytes", "less than 101 %")
	answers(t, Disk{Path: "/proc", FreeInodes: 1}.Ask(), "inodes", "")
	answers(t, Disk{Path: dir + "/none"}.Ask(), "", "cannot ask")
}

func TestMemory(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "meminfo"), "MemTotal:        1000 kB\nMemFree:          7 kB\nMemAvailable:     250 kB\n")
	answers(t, Memory{path: path, AvailableBytes: 256000, AvailablePercent: 25}.Ask(), "256000 bytes (25.0 %)", "")
	answers(t, Memory{path: path, AvailableBytes: 256001}.Ask(), "", "less than 256001 bytes")
	answers(t, Memory{path: path, AvailablePercent: 25.1}.Ask(), "", "less than 25.1 %")
	answers(t, Memory{path: write(t, path, "MemTotal: 10 kB\nMemAvailable: -5 kB\n")}.Ask(), "", "does not say")
	answers(t, Memory{}.Ask(), "of memory are available", "")
}

func TestTemperature(t *testing.T) {
	dir := t.TempDir()
	pattern := dir + "/zone*/temp"
	answers(t, Temperature{Sensors: pattern, Max: 80}.Ask(), "", "no sensor")
	write(t, dir+"/zone0/temp", "41500\n")
	write(t, dir+"/zone1/temp", "-273150\n")
	write(t, dir+"/zone2/temp", "nonsense")
	answers(t, Temperature{Sensors: pattern, Max: 80}.Ask(), "41.5 °C at "+dir+"/zone0/temp", "")
	answers(t, Temperature{Sensors: pattern, Max: 41.4}.Ask(), "41.5 °C", "hotter than 41.4 °C")
	answers(t, Temperature{Sensors: "[", Max: 80}.Ask(), "", "syntax error")
}

// TestUnitsOfTheMachine asks the systemd of the machine, where one runs.
func TestUnitsOfTheMachine(t *testing.T) {
	testneeds.Program(t, "systemctl")
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		answers(t, Unit{Name: "basic.target"}.Ask(), "", "cannot ask systemd")
		return
	}
	answers(t, Unit{Name: "basic.target"}.Ask(), "active", "")
}
