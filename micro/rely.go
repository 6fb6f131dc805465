//go:build linux

package micro

import (
	"errors"
	"fmt"
	"os"

	"github.com/pawl-ota/pawl/ota/durable"
)

// rely makes durable what the spools hold, once, before the first verb that drops
// anything: another process may have been killed after it made a change, and before
// it could make that durable. The power may go when what followed from the change is
// durable, and the change is not. Stage makes all durable by itself before it says
// so, and Activate what it goes by.
//
// Where that fails, the verb fails, nothing is dropped, and the next verb does it
// again. That is no second sync of lost bytes: a record has its bytes on the disk
// before it has its name, so that only names can be lost here, and a file system
// that cannot write those takes no changes from then on.
func (f *Files) rely() error {
	if f.relied {
		return nil
	}
	spools, err := f.layout.spools()
	if err != nil {
		return err
	}
	for _, dir := range spools {
		if there, err := look(dir); err != nil || !there.there {
			continue // nobody left anything there, or its file system is not mounted
		}
		if err := durable.SyncTree(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("cannot go by what the spool holds: %w", explain(err))
		}
	}
	f.relied = true
	return nil
}

// spools are all that there are, none where a Stage of this process has made
// durable what is there.
func (f *treeFiles) spools() ([]string, error) {
	if f.synced {
		return nil, nil
	}
	return []string{f.path()}, nil
}

// spools are that of the records, and those on other mounts that some record
// names.
func (f *inPlaceFiles) spools() ([]string, error) {
	all := []string{f.path()}
	for _, dir := range []string{dirTx, dirKept} {
		names, err := f.listDir(dir)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			cs, err := readChangesAt(f.path(dir, name, "volumes"), false)
			if err != nil || cs == nil {
				continue // whoever needs it says what is wrong with it
			}
			for _, v := range cs.Volumes[min(1, len(cs.Volumes)):] {
				all = append(all, v.Spool)
			}
		}
	}
	return all, nil
}
