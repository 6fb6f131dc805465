package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"testing"
)

// built is where the programs are built, once per test binary.
var built struct {
	dir  string
	once sync.Mutex
	err  map[string]error
}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "pawl-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	built.dir, built.err = dir, map[string]error{}
	flag.Parse()
	if err := moreAtOnce(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// moreAtOnce lets more tests run at a time than there are processors: most of
// them wait for the disk or for a time limit.
func moreAtOnce() error {
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		return f.Value.Set(strconv.Itoa(3 * runtime.GOMAXPROCS(0)))
	}
	return nil
}

// program builds one of the examples and returns its path.
func program(t testing.TB, name string) string {
	t.Helper()
	built.once.Lock()
	defer built.once.Unlock()
	path := filepath.Join(built.dir, name)
	if _, ok := built.err[name]; !ok {
		out, err := exec.Command("go", "build", "-o", path, "../../examples/"+name).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("cannot build %s: %w: %s", name, err, out)
		}
		built.err[name] = err
	}
	if err := built.err[name]; err != nil {
		t.Fatal(err)
	}
	return path
}
