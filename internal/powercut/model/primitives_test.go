//go:build linux && (amd64 || arm64)

package model

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/renameio/v2"
	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/durable"
)

// step is one call that promises something, in a folder of its own in which the
// files a, b, d/a and the folders d, e and full are.
type step struct {
	name string
	do   func(dir string) error
	// done is how the folder is afterwards, see viewOf; where it is cut short it
	// is as before, or as done, or, with parts, anything.
	done  string
	parts bool
}

// the folder as it is before.
const before = "a=A b=B d/ d/a=D e/ full/ full/x=X full/y=Y"

// text is a content that shows where it was torn.
func text(letter byte) []byte { return bytes.Repeat([]byte{letter}, 3000) }

// viewOf describes a folder in one line: names, and contents that are whole by
// their letter.
func viewOf(dir string) string {
	var all []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name := strings.TrimPrefix(path, dir+"/")
		if d.IsDir() {
			all = append(all, name+"/")
			return nil
		}
		data, err := os.ReadFile(path)
		if strings.HasPrefix(d.Name(), ".") {
			return err // garbage under a temporary name
		}
		if len(data) > 0 && bytes.Equal(data, text(data[0])) {
			all = append(all, name+"="+string(data[:1]))
		} else {
			all = append(all, fmt.Sprintf("%s of %d bytes", name, len(data)))
		}
		return err
	})
	if err != nil {
		return err.Error()
	}
	return strings.Join(all, " ")
}

// steps are all functions of package durable that promise something.
var steps = []step{
	{"WriteFile over a file", func(d string) error { return durable.WriteFile(d+"/a", text('N'), 0o600) }, "a=N b=B d/ d/a=D e/ full/ full/x=X full/y=Y", false},
	{"WriteFile", func(d string) error { return durable.WriteFile(d+"/n", text('N'), 0o600) }, before + " n=N", false},
	{"Rename", func(d string) error { return durable.Rename(d+"/a", d+"/b") }, "b=A d/ d/a=D e/ full/ full/x=X full/y=Y", false},
	{"Rename to another folder", func(d string) error { return durable.Rename(d+"/a", d+"/d/a") }, "b=B d/ d/a=A e/ full/ full/x=X full/y=Y", false},
	{"Rename of a folder", func(d string) error { return durable.Rename(d+"/full", d+"/d/full") }, "a=A b=B d/ d/a=D d/full/ d/full/x=X d/full/y=Y e/", false},
	{"RenameNew", func(d string) error { return durable.RenameNew(d+"/a", d+"/n") }, "b=B d/ d/a=D e/ full/ full/x=X full/y=Y n=A", false},
	{"Exchange", func(d string) error { return durable.Exchange(d+"/a", d+"/d/a") }, "a=D b=B d/ d/a=A e/ full/ full/x=X full/y=Y", false},
	{"Exchange of folders", func(d string) error { return durable.Exchange(d+"/e", d+"/full") }, "a=A b=B d/ d/a=D e/ e/x=X e/y=Y full/", false},
	{"Mkdir", func(d string) error { return durable.Mkdir(d+"/n", 0o700) }, before + " n/", false},
	{"MkdirAll", func(d string) error { return durable.MkdirAll(d+"/n/o/p", 0o700) }, before + " n/ n/o/ n/o/p/", true},
	{"Remove", func(d string) error { return durable.Remove(d + "/a") }, "b=B d/ d/a=D e/ full/ full/x=X full/y=Y", false},
	{"Remove of what is gone", func(d string) error {
		return errors.Join(os.Remove(d+"/a"), durable.Remove(d+"/a"))
	}, "b=B d/ d/a=D e/ full/ full/x=X full/y=Y", false},
	{"RemoveAll", func(d string) error { return durable.RemoveAll(d + "/full") }, "a=A b=B d/ d/a=D e/", true},
	{"SyncFile", func(d string) error {
		return errors.Join(os.WriteFile(d+"/a", text('N'), 0o600), durable.SyncFile(d+"/a"))
	}, "a=N b=B d/ d/a=D e/ full/ full/x=X full/y=Y", true},
	{"SyncDir", func(d string) error { return errors.Join(os.Rename(d+"/a", d+"/n"), durable.SyncDir(d)) }, "b=B d/ d/a=D e/ full/ full/x=X full/y=Y n=A", false},
	{"SyncTree", func(d string) error {
		err := errors.Join(os.Mkdir(d+"/n", 0o700), os.WriteFile(d+"/n/x", text('N'), 0o600), os.Rename(d+"/a", d+"/n/a"))
		return errors.Join(err, durable.SyncTree(d+"/n"))
	}, "b=B d/ d/a=D e/ full/ full/x=X full/y=Y n/ n/a=A n/x=N", true},
	{"RenameAt", at(func(d, e *os.File) error { return durable.RenameAt(d, "a", e, "n") }), "a=A b=B d/ e/ e/n=D full/ full/x=X full/y=Y", false},
	{"RenameNewAt", at(func(d, e *os.File) error { return durable.RenameNewAt(d, "a", e, "n") }), "a=A b=B d/ e/ e/n=D full/ full/x=X full/y=Y", false},
	{"ExchangeAt", func(dir string) error {
		return inFolders(dir, "d", "full", func(d, full *os.File) error { return durable.ExchangeAt(d, "a", full, "x") })
	}, "a=A b=B d/ d/a=X e/ full/ full/x=D full/y=Y", false},
	{"LinkAt and SyncOpen", at(func(d, e *os.File) error {
		return errors.Join(durable.LinkAt(d, "a", e, "n"), durable.SyncOpen(e))
	}), "a=A b=B d/ d/a=D e/ e/n=D full/ full/x=X full/y=Y", false},
	{"Batch", func(dir string) error {
		return inFolders(dir, "d", "full", func(d, full *os.File) error {
			var b durable.Batch
			err := errors.Join(b.Swap(d, "a", full, "x"), b.Move(full, "y", d, "y"))
			return errors.Join(err, b.Flush())
		})
	}, "a=A b=B d/ d/a=X d/y=Y e/ full/ full/x=D", true},
	{"Dir.WriteFile", inDir(func(d *durable.Dir) error { return d.WriteFile("a", text('N')) }), "a=N b=B d/ d/a=D e/ full/ full/x=X full/y=Y", false},
	{"Dir.WriteFile in a folder", inDir(func(d *durable.Dir) error { return d.WriteFile("e/n", text('N')) }), "a=A b=B d/ d/a=D e/ e/n=N full/ full/x=X full/y=Y", false},
	{"Dir.WriteFile in a new folder", inDir(func(d *durable.Dir) error { return d.WriteFile("n/n", text('N')) }), before + " n/ n/n=N", true},
	{"Dir.Create and Commit", inDir(func(d *durable.Dir) error {
		f, err := d.Create("n")
		if err == nil {
			_, err = f.Write(text('N'))
		}
		return errors.Join(err, f.Commit())
	}), before + " n=N", false},
	{"Dir.Create, Place and Sync", inDir(func(d *durable.Dir) error {
		f, err := d.Create("e/n")
		if err == nil {
			_, err = f.Write(text('N'))
		}
		return errors.Join(err, f.Place(), d.Sync())
	}), "a=A b=B d/ d/a=D e/ e/n=N full/ full/x=X full/y=Y", true},
	{"Dir.Remove", inDir(func(d *durable.Dir) error { return d.Remove("full/x") }), "a=A b=B d/ d/a=D e/ full/ full/y=Y", false},
}

func inDir(call func(*durable.Dir) error) func(string) error {
	return func(path string) error {
		d, err := durable.OpenDir(path)
		if err != nil {
			return err
		}
		return errors.Join(call(d), d.Close())
	}
}

func at(call func(d, e *os.File) error) func(string) error {
	return func(dir string) error { return inFolders(dir, "d", "e", call) }
}

func inFolders(dir, a, b string, call func(a, b *os.File) error) error {
	x, err := os.Open(filepath.Join(dir, a))
	if err != nil {
		return err
	}
	y, err := os.Open(filepath.Join(dir, b))
	if err != nil {
		return errors.Join(err, x.Close())
	}
	return errors.Join(call(x, y), x.Close(), y.Close())
}

// foreign are the same with what others promise.
var foreign = []step{
	{"renameio.WriteFile over a file", func(d string) error { return renameio.WriteFile(d+"/a", text('N'), 0o600) }, "a=N b=B d/ d/a=D e/ full/ full/x=X full/y=Y", false},
	{"renameio.WriteFile", func(d string) error { return renameio.WriteFile(d+"/n", text('N'), 0o600) }, before + " n=N", false},
	{"os.WriteFile and os.Rename", func(d string) error {
		return errors.Join(os.WriteFile(d+"/.tmp", text('N'), 0o600), os.Rename(d+"/.tmp", d+"/a"))
	}, "a=N b=B d/ d/a=D e/ full/ full/x=X full/y=Y", false},
	{"os.WriteFile", func(d string) error { return os.WriteFile(d+"/a", text('N'), 0o600) }, "a=N b=B d/ d/a=D e/ full/ full/x=X full/y=Y", false},
}

// workload makes one of steps, each of which is acknowledged when it returns.
func workload(name string, all []step) Workload {
	return Workload{
		Name: name,
		Prepare: func(_ context.Context, disk string) error {
			for n := range all {
				if err := furnish(filepath.Join(disk, fmt.Sprint(n))); err != nil {
					return err
				}
			}
			return nil
		},
		Processes: []Process{{Run: func(_ context.Context, disk string, fact func(string) error) error {
			for n, s := range all {
				if err := errors.Join(s.do(filepath.Join(disk, fmt.Sprint(n))), fact(s.name)); err != nil {
					return fmt.Errorf("%s: %w", s.name, err)
				}
			}
			return nil
		}}},
		Check: func(_ context.Context, disk string, facts []string, _ int) error {
			for n, s := range all {
				is := viewOf(filepath.Join(disk, fmt.Sprint(n)))
				switch {
				case is == s.done, n == len(facts) && s.parts, n >= len(facts) && is == before:
				case n < len(facts):
					return fmt.Errorf("%s had returned, and there is %s", s.name, is)
				default:
					return fmt.Errorf("%s was cut short, and there is %s", s.name, is)
				}
			}
			return nil
		},
	}
}

func furnish(dir string) error {
	for _, d := range []string{"d", "e", "full"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return err
		}
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return err
	}
	for name, letter := range map[string]byte{"a": 'A', "b": 'B', "d/a": 'D', "full/x": 'X', "full/y": 'Y'} {
		if err := os.WriteFile(filepath.Join(dir, name), text(letter), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// TestComparison shows that the model sees what others leave to chance: renameio
// promises no durability, and it says so.
func TestComparison(t *testing.T) {
	stand := newStand(t)
	for n, s := range foreign {
		w := workload(foreignName(n), foreign[n:n+1])
		r, err := w.Run(t.Context(), stand, Options{States: 1000, First: true})
		require.NoError(t, err)
		require.NotEmpty(t, r.Violations, s.name)
		t.Logf("%s: %d states until %s", s.name, r.States, r.Violations[0].String())
	}
}

func foreignName(n int) string { return fmt.Sprint("foreign ", n) }
