package probe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/pawl-ota/pawl/monitor"
)

// Process is a process that has to be there, known by its name or by a file
// with its number. A zombie is none.
type Process struct {
	// Name is the name of the executable, as in /proc/PID/comm: only the first
	// 15 bytes of it count.
	Name string
	// PIDFile holds the number of the process on its first line. With Name the
	// process has to have that name too: numbers are used again.
	PIDFile string
	// Least is how many with the name have to be there; 0 means 1.
	Least int

	proc string // in place of /proc, for tests
}

// maxProcesses bounds one look at the machine.
const maxProcesses = 1 << 16

// Ask returns the question.
func (p Process) Ask() monitor.Ask {
	if p.proc == "" {
		p.proc = "/proc"
	}
	p.Name = p.Name[:min(len(p.Name), 15)]
	return func(ctx context.Context) (string, error) {
		switch {
		case p.PIDFile != "":
			return p.ofFile()
		case p.Name != "":
			return p.ofName(ctx)
		}
		return "", errors.New("neither a name nor a file was given")
	}
}

func (p Process) ofFile() (string, error) {
	data, err := readFile(p.PIDFile, 64)
	if err != nil {
		return "", fmt.Errorf("cannot read the number of the process: %w", err)
	}
	first, _, _ := strings.Cut(string(data), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil || pid <= 0 {
		return "", fmt.Errorf("%s holds no number of a process", p.PIDFile)
	}
	name, state := p.stat(strconv.Itoa(pid))
	saw := fmt.Sprintf("process %d is %q in state %s", pid, name, state)
	switch {
	case name == "" || state == "Z" || state == "X":
		return saw, fmt.Errorf("process %d is not there", pid)
	case p.Name != "" && name != p.Name:
		return saw, fmt.Errorf("process %d is another one", pid)
	}
	return saw, nil
}

func (p Process) ofName(ctx context.Context) (string, error) {
	found, err := p.count(ctx)
	if err != nil {
		return "", fmt.Errorf("cannot list the processes: %w", err)
	}
	saw := fmt.Sprintf("%d processes %q", found, p.Name)
	if found < max(p.Least, 1) {
		return saw, fmt.Errorf("there should be %d or more", max(p.Least, 1))
	}
	return saw, nil
}

func (p Process) count(ctx context.Context) (found int, err error) {
	dir, err := os.Open(p.proc)
	if err != nil {
		return 0, err
	}
	defer func() { _ = dir.Close() }()
	for seen := 0; seen < maxProcesses; {
		names, err := dir.Readdirnames(256)
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err = errors.Join(err, ctx.Err()); err != nil {
			return found, err
		}
		for _, n := range names {
			if n[0] < '0' || n[0] > '9' {
				continue
			}
			if name, state := p.stat(n); name == p.Name && state != "Z" && state != "X" {
				found++
			}
		}
		seen += len(names)
	}
	return found, nil
}

// stat returns name and state of a process, of /proc/PID/stat (proc_pid_stat(5)):
// the name stands in the outermost brackets, and may hold any others.
func (p Process) stat(pid string) (name, state string) {
	data, err := readFile(p.proc+"/"+pid+"/stat", 1024)
	if err != nil {
		return "", ""
	}
	from, to := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
	if from < 0 || to < from || len(data) < to+3 {
		return "", ""
	}
	return string(data[from+1 : to]), string(data[to+2 : to+3])
}
