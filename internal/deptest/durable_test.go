package deptest

import (
	"go/ast"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// durableCalls are the ways to move a name or to force bytes out.
var durableCalls = map[string]bool{
	"Rename": true, "Renameat": true, "Renameat2": true, "RenameatxNp": true,
	"Link": true, "Linkat": true,
	"Sync": true, "Syncfs": true, "Fsync": true, "Fdatasync": true, "SyncFileRange": true,
}

// outsideDurable are the places that call one of them for something that does
// not have to survive by itself, each with its reason.
var outsideDurable = map[string]string{}

// TestDurableCallsStandInOnePlace keeps the rule that nobody but ota/durable
// renames, links or syncs: what makes a step survive is read in one file.
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
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == "durable" {
				return true
			}
			assert.Fail(t, "a durable call outside ota/durable", "%s calls %s", s.at(n), sel.Sel.Name)
			return true
		})
	}
}
