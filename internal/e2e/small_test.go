package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/micro"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
	"github.com/pawl-ota/pawl/ota/tuf"
)

// The limits of BenchmarkFileAndScript.
const (
	smallTime = 100 * time.Millisecond
	smallWire = 30_000 // bytes, of both directions
)

// BenchmarkFileAndScript deploys one file and one script alone, over another
// version of both: the time from the look for a release to the commit, in this
// process and with the agent as a program, and all bytes that cross the
// connections, HTTP's own too. Beside it the floor of the same run: one plain
// GET of the file, write, fsync, rename, fsync of the folder. It fails when the
// fastest takes longer than smallTime, or when the 21st release of the
// repository, whose metadata lists them all, needs more than smallWire. There
// are ten of each, and more as long as the machine has other things to do.
func BenchmarkFileAndScript(b *testing.B) {
	for b.Loop() {
		m := newScriptMaker(b)
		wire := m.throughAWire()
		var inProcess, agent, floor []time.Duration
		var wired []int64
		d := newDevice(b, m, b.TempDir())
		d.layout("inplace")
		d.set("trial", "soak", "0s")
		d.health("true")
		delete(d.config, "health")
		d.save()
		f := &scripted{&field{device: d, m: m}}
		inTime := func(all []time.Duration) bool { return len(all) >= 10 && slices.Min(all) <= smallTime }
		for i := 0; i < 50 && !(inTime(inProcess) && inTime(agent)); i++ {
			f.oneFile(i)
			if i == 0 {
				d.must(0, "update")
				continue
			}
			begin, before := time.Now(), wire.Load()
			if i%2 == 0 {
				require.NoError(b, d.command(b.Context(), "update").Run())
				agent = append(agent, time.Since(begin))
			} else {
				d.updateHere(b)
				inProcess = append(inProcess, time.Since(begin))
			}
			wired = append(wired, wire.Load()-before)
			require.Equal(b, i+1, d.runs(b, i))
			floor = append(floor, getAndSync(b, m.url+"/floor", filepath.Join(d.dir, "floor")))
		}
		b.ReportMetric(ms(slices.Min(inProcess)), "ms-fastest")
		b.ReportMetric(ms(median(inProcess)), "ms-median")
		b.ReportMetric(ms(slices.Min(agent)), "ms-agent-fastest")
		b.ReportMetric(ms(median(agent)), "ms-agent-median")
		b.ReportMetric(ms(median(floor)), "ms-floor-median")
		b.ReportMetric(float64(wired[0]), "wire-B")
		b.ReportMetric(float64(wired[19]), "wire-21st-B")
		require.LessOrEqual(b, wired[19], int64(smallWire), "on the wire: %v", wired)
		require.LessOrEqual(b, slices.Min(inProcess), smallTime, "here %v, agent %v, floor %v", inProcess, agent, floor)
		require.LessOrEqual(b, slices.Min(agent), smallTime, "here %v, agent %v, floor %v", inProcess, agent, floor)
	}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func median(all []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}

// oneFile publishes a release of one file and one script.
func (f *scripted) oneFile(i int) {
	f.t.Helper()
	tree := filepath.Join(f.m.dir, "one")
	write(f.t, tree, "etc/camera.conf", fmt.Sprintf("release = %d\n%s", i, noise(1000)), 0o644)
	cloneTree(f.t, filepath.Join(tree, "etc/camera.conf"), filepath.Join(f.m.repo, "floor"))
	x := script{name: "x", at: release.AfterActivate, component: true, run: fmt.Sprintf("echo release %d", i)}
	f.m.release(fmt.Sprintf("2.%d.0", i), tree, append(f.scripts(x), "  partial: true")...)
}

// runs returns how many scripts ran so far, when the file is that of release i.
func (d *device) runs(b *testing.B, i int) (n int) {
	b.Helper()
	data, err := os.ReadFile(filepath.Join(d.app, "etc/camera.conf"))
	require.NoError(b, err)
	require.Contains(b, string(data), fmt.Sprintf("release = %d\n", i))
	f := &scripted{&field{device: d}}
	return len(f.log()+" ") / 2 // an x for each
}

// updateHere does what agent update does, in this process.
func (d *device) updateHere(b *testing.B) {
	b.Helper()
	source := d.config["source"].(map[string]any)
	root, err := os.ReadFile(source["root"].(string))
	require.NoError(b, err)
	src, err := tuf.New(tuf.Options{URL: source["url"].(string), Root: root, Dir: filepath.Join(d.state, "trust")})
	require.NoError(b, err)
	files, err := micro.New(micro.Options{Name: "app", Root: d.app, Layout: micro.InPlace})
	require.NoError(b, err)
	u, err := ota.Open(context.Background(), ota.Options{
		Dir: filepath.Join(d.state, "updates"), Source: src,
		Device:   ota.Device{ID: "d1", Product: "camera", Variant: "arm", Hardware: "rev-b"},
		Backends: map[string]ota.Backend{"app": files},
	})
	require.NoError(b, err)
	r, err := u.Update(context.Background())
	require.NoError(b, err)
	require.Equal(b, ota.Committed, r.State)
	require.NoError(b, u.Close())
}

// getAndSync is the least that brings one file onto a device.
func getAndSync(b *testing.B, url, path string) time.Duration {
	b.Helper()
	begin := time.Now()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport, Timeout: time.Minute}).Get(url)
	require.NoError(b, err)
	defer resp.Body.Close()
	f, err := os.Create(path + ".new")
	require.NoError(b, err)
	_, err = io.Copy(f, resp.Body)
	require.NoError(b, err)
	require.NoError(b, f.Sync())
	require.NoError(b, f.Close())
	require.NoError(b, os.Rename(path+".new", path))
	dir, err := os.Open(filepath.Dir(path))
	require.NoError(b, err)
	require.NoError(b, dir.Sync())
	require.NoError(b, dir.Close())
	return time.Since(begin)
}

// throughAWire puts a listener in front of the server's connections that counts
// what goes either way.
func (m *maker) throughAWire() *atomic.Int64 {
	var count atomic.Int64
	plain := m.server
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(m.t, err)
	server := &http.Server{Handler: plain.Config.Handler, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(countingListener{listener, &count}) }()
	m.t.Cleanup(func() { server.Close() })
	m.url = "http://" + listener.Addr().String()
	return &count
}

type countingListener struct {
	net.Listener
	count *atomic.Int64
}

func (l countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return countingConn{c, l.count}, err
}

type countingConn struct {
	net.Conn
	count *atomic.Int64
}

func (c countingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.count.Add(int64(n))
	return n, err
}

func (c countingConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.count.Add(int64(n))
	return n, err
}
