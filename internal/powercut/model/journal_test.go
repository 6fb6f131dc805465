//go:build linux && (amd64 || arm64)

package model

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/pawl-ota/pawl/internal/journal"
	"github.com/pawl-ota/pawl/ota/durable"
)

// bodyOf is a record: of other lengths, and none the beginning of another.
func bodyOf(n int) []byte {
	return fmt.Appendf(nil, "%d %s", n, bytes.Repeat([]byte{byte('a' + n)}, 37*n*n))
}

// withJournal opens the journal in dir as a process would.
func withJournal(ctx context.Context, dir string, use func(*journal.Journal, journal.Found) error) error {
	d, err := durable.OpenDir(dir)
	if err != nil {
		return err
	}
	unlock, err := d.Lock(ctx, time.Second)
	if err != nil {
		return errors.Join(err, d.Close())
	}
	j, found, err := journal.Open(d)
	if err == nil {
		err = use(j, found)
	}
	return errors.Join(err, unlock(), d.Close())
}

// journaling writes records, in several processes: a record that was written
// stays, and the one after it may be there.
func journaling() Workload {
	write := func(from, to int) Process {
		return Process{Run: func(ctx context.Context, disk string, fact func(string) error) error {
			return withJournal(ctx, disk, func(j *journal.Journal, _ journal.Found) error {
				for n := from; n <= to; n++ {
					if err := errors.Join(j.Write(bodyOf(n)), fact(fmt.Sprint(n))); err != nil {
						return err
					}
				}
				return nil
			})
		}}
	}
	return Workload{
		Name:      "journal",
		Prepare:   func(_ context.Context, disk string) error { return os.Mkdir(disk, 0o700) },
		Processes: []Process{write(1, 4), write(5, 6), write(7, 12)},
		Check: func(ctx context.Context, disk string, facts []string, _ int) error {
			err := withJournal(ctx, disk, func(j *journal.Journal, found journal.Found) error {
				if n := len(facts); !isBody(found.Body, n) && !isBody(found.Body, n+1) {
					return fmt.Errorf("after record %d there is %.20q (%v)", n, found.Body, found.Notes)
				}
				return j.Write(bodyOf(20))
			})
			return errors.Join(err, withJournal(ctx, disk, func(_ *journal.Journal, found journal.Found) error {
				if !isBody(found.Body, 20) {
					return fmt.Errorf("what was written after it is not there: %.20q", found.Body)
				}
				return nil
			}))
		},
	}
}

func isBody(body []byte, n int) bool {
	return n == 0 && body == nil || n > 0 && bytes.Equal(body, bodyOf(n))
}
