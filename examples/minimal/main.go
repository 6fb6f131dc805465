// Command minimal is the program of the README: the update of one folder, as
// short as it gets.
package main

import (
	"context"
	_ "embed"
	"log"
	"os/exec"

	"github.com/pawl-ota/pawl/micro"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/tuf"
)

//go:embed root.json
var root []byte // metadata/1.root.json of your repository: whom the device trusts

func main() {
	ctx := context.Background()
	u := must(ota.Open(ctx, ota.Options{
		Dir:      "/var/lib/camera/updates",
		Device:   ota.Device{ID: "cam-0042", Product: "camera", Variant: "arm"},
		Source:   must(tuf.New(tuf.Options{URL: "https://updates.example.com/camera", Root: root, Dir: "/var/lib/camera/trust"})),
		Backends: map[string]ota.Backend{"app": must(micro.New(micro.Options{Name: "app", Root: "/opt/camera", Layout: micro.Tree}))},
		Health:   func(ctx context.Context) error { return exec.CommandContext(ctx, "/opt/camera/bin/selftest").Run() },
	}))
	defer u.Close()
	log.Println(u.Update(ctx)) // the whole way: fetch, switch, trial, commit, or back
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}
