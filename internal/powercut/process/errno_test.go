package process

import (
	"context"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/pawl-ota/pawl/internal/powercut/firmware"
	"github.com/pawl-ota/pawl/internal/trace"
)

// errnos are what any call may end in.
func errnos() []syscall.Errno {
	return []syscall.Errno{
		syscall.ENOSPC, syscall.EDQUOT, syscall.EIO, syscall.EROFS, syscall.ENOMEM, syscall.EMFILE, syscall.EACCES, syscall.EXDEV, syscall.ETXTBSY,
	}
}

// errnosOf are those of errnos, and what a call ends in that is too new for a
// kernel or a file system.
func errnosOf(call string) []syscall.Errno {
	switch {
	case call == "renameat2", call == "copy_file_range", call == "openat2", call == "syncfs", call == "fallocate":
		return append(errnos(), syscall.ENOSYS)
	case strings.HasPrefix(call, "ficlone"), strings.HasSuffix(call, "xattr"):
		return append(errnos(), syscall.ENOSYS, syscall.EOPNOTSUPP)
	}
	return errnos()
}

// lasting are the errors that do not go away by themselves: full, or read-only
// since an error of the disk.
func lasting() []syscall.Errno {
	return []syscall.Errno{syscall.ENOSPC, syscall.EROFS, syscall.EIO}
}

// errors has each call that changes something fail, with each error that there
// is, once or from then on. The verb may end in an error or get over it; it must
// not say what is not so, and afterwards the device is one release.
func (s *stand) errors(t *testing.T) {
	if long() {
		onThreads(t, func(t *testing.T, procs int) { newCampaign(t, s, allErrors(procs)).do(procs, prepare(everything())) })
		return
	}
	c := newCampaign(t, s, someErrors)
	if os.Geteuid() != 0 {
		c.most = 20
	}
	c.do(1, prepare([]string{"update"}))
}

func allErrors(procs int) func(int, point) []fault {
	return func(_ int, p point) (all []fault) {
		for _, e := range errnosOf(p.call) {
			all = append(all, fault{at: p, action: trace.Fail(e), procs: procs})
		}
		for _, e := range lasting() {
			all = append(all, fault{at: p, action: trace.Fail(e), lasting: true, procs: procs})
		}
		return all
	}
}

// someErrors are few of them, a different one at each place.
func someErrors(n int, p point) []fault {
	if n%8 != 0 {
		return nil
	}
	all := allErrors(1)(n, p)
	return all[n/8%len(all) : n/8%len(all)+1]
}

// twice kills the program, and then the Resume after it, which may be that of a
// rollback or of a way back too.
func (s *stand) twice(t *testing.T) {
	runs := 60
	switch {
	case long():
		runs = 2000
	case os.Geteuid() != 0:
		runs = 12
	}
	c := newCampaign(t, s, nil)
	random := rand.New(rand.NewPCG(1, 2))
	c.faults = func(_ int, p point) []fault {
		all := kills(1)(0, p)
		return all[random.IntN(2):][:1]
	}
	c.shuffle, c.most = random, runs
	c.then = func(ctx context.Context, b *bench, n int) (fault, error) {
		if n%2 == 1 {
			if a := firmware.Run(ctx, b.dir, firmware.VerbBoot); a.Err() != nil {
				return fault{}, a.Err()
			}
		}
		f := fault{nth: 1 + int(rand.NewPCG(uint64(n), 3).Uint64()%50), action: trace.KillBefore, procs: 1}
		_, err := b.verb(ctx, firmware.VerbResume, f)
		return f, err
	}
	c.do(1, prepare(everything()))
}
