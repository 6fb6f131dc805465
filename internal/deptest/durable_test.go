package deptest

import (
	"go/ast"
	"go/types"
	"strings"
	"testing"
)

// durableCalls are the ways to move a name or to force bytes out.
var durableCalls = map[string]bool{
	"Rename": true, "Renameat": true, "Renameat2": true, "RenameatxNp": true,
	"Link": true, "Linkat": true,
	"Sync": true, "Syncfs": true, "Fsync": true, "Fdatasync": true, "SyncFileRange": true,
}

// outsideDurable are the places that call one of them for something that does
// not have to survive by itself, each with its reason.
var outsideDurable = map[string]string{
	"internal/powercut/copy.go":          "devices of tests are copied, not updated",
	"internal/powercut/model/place.go":   "disks of tests are laid out, not updated",
	"internal/powercut/firmware/boot.go": "which boot it is tells nothing of another one",
}

// TestDurableCallsStandInOnePlace keeps the rule that nobody but ota/durable
// renames, links or syncs: what makes a step survive is read in one file. A
// folder that hands on to it, by name a dir, may be told to.
func TestDurableCallsStandInOnePlace(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || s.dir == "ota/durable" || strings.Contains(s.path, "testdata/") || outsideDurable[s.path] != "" {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || !durableCalls[sel.Sel.Name] {
				return true
			}
			if receiver := types.ExprString(sel.X); receiver != "durable" && !strings.HasSuffix(receiver, "dir") {
				t.Errorf("%s: %s.%s is a durable call outside ota/durable", s.at(n), receiver, sel.Sel.Name)
			}
			return true
		})
	}
}
