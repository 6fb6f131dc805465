package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/release"
)

// TestFallback damages what an update of the device starts from: what patches
// are applied to, in each of its places, and what was set aside. The update
// completes from what is left, and fetches more only in place of what was damaged.
func TestFallback(t *testing.T) {
	t.Parallel()
	p := newLinkPair(t, "  keep: {previous: 1, repair: changed}")
	usual := p.usual(t)
	big := fileSize(t, filepath.Join(p.v2, "big"))
	damage := func(t *testing.T, path string, every int) {
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		for i := every / 2; i < len(data); i += every {
			data[i] ^= 0x41
		}
		require.NoError(t, os.WriteFile(path, data, 0o644))
	}
	copyOf := func(d *linked) string {
		data, err := os.ReadFile(filepath.Join(p.v1, "big"))
		require.NoError(t, err)
		return filepath.Join(d.state, "updates", "blobs", release.Sum(data).String())
	}
	for _, c := range []struct {
		name  string
		do    func(*testing.T, *linked)
		least int64 // bytes beside the usual ones
		most  int64
	}{
		{"nothing", func(*testing.T, *linked) {}, 0, 0},
		{"installed file", func(t *testing.T, d *linked) { damage(t, filepath.Join(d.app, "big"), 1000) }, 0, 0},
		{"local copy", func(t *testing.T, d *linked) { damage(t, copyOf(d), 1000) }, 0, 0},
		{"installed file and local copy", func(t *testing.T, d *linked) {
			damage(t, filepath.Join(d.app, "big"), 1000)
			damage(t, copyOf(d), 1000)
		}, 2 << 20, big},
		{"one byte of both", func(t *testing.T, d *linked) {
			damage(t, filepath.Join(d.app, "big"), 1<<20)
			damage(t, copyOf(d), 1<<20)
		}, 600_000, big / 2},
		{"no file and no local copy", func(t *testing.T, d *linked) {
			require.NoError(t, os.Remove(filepath.Join(d.app, "big")))
			require.NoError(t, os.Remove(copyOf(d)))
		}, 0, big},
		{"what was set aside", func(t *testing.T, d *linked) {
			d.link.fault = func(r *reply) {
				if r.isContent() && r.nth > 6 {
					instead(http.StatusNotFound)(r)
				} else if r.isContent() && len(r.body) > 5<<20 {
					r.cut = 4 << 20
				}
			}
			d.must(1, "update")
			d.link.fault = nil
			kept, err := filepath.Glob(filepath.Join(d.state, "updates", "spool", "*"))
			require.NoError(t, err)
			require.NotEmpty(t, kept)
			for _, name := range kept {
				damage(t, name, 1<<20)
			}
		}, 1, 8 << 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := p.device(t)
			c.do(t, d)
			a := d.must(0, "update")
			d.holds(p.v2)
			all, twice := d.counts()
			t.Logf("%d bytes sent, %d beside the usual ones, %d of them twice; %d counted by the agent", all, all-usual, twice, a.Result.Bytes)
			require.GreaterOrEqual(t, all-usual, c.least)
			require.LessOrEqual(t, all-usual, c.most)
		})
	}
}

// usual returns how many bytes of content the update takes when nothing is
// damaged.
func (p *linkPair) usual(t *testing.T) int64 {
	d := p.device(t)
	d.must(0, "update")
	all, _ := d.counts()
	return all
}

func fileSize(t *testing.T, path string) int64 {
	info, err := os.Stat(path)
	require.NoError(t, err)
	return info.Size()
}

// TestPackThatIsGone: of a release that goes back to the content of an earlier one
// the server has lost the pack with the patches, the index among them. All of it
// comes from the earlier pack.
func TestPackThatIsGone(t *testing.T) {
	t.Parallel()
	m := newMaker(t)
	link := newLink(t, m.repo)
	none := "  keep: {previous: 0, repair: none}"
	v1 := filepath.Join(m.dir, "v1")
	write(t, v1, "bin/app", noise(300_000), 0o755)
	write(t, v1, "etc/conf", "one", 0o644)
	m.release("1.0.0", v1, none)
	v2 := cloneTree(t, v1, filepath.Join(m.dir, "v2"))
	appendTo(t, filepath.Join(v2, "bin/app"), "more")
	write(t, v2, "etc/conf", "two", 0o644)
	m.release("1.1.0", v2, none)
	d := newDevice(t, m, t.TempDir())
	d.set("source", "url", link.url)
	d.must(0, "update")
	old := packsOf(t, m.repo)
	m.release("1.2.0", v1, none)
	m.apart()
	var lost []string
	for name := range packsOf(t, m.repo) {
		if !old[name] {
			lost = append(lost, name)
		}
	}
	require.Len(t, lost, 1)
	link.forget()
	link.fault = func(r *reply) {
		if r.name == lost[0] {
			instead(http.StatusNotFound)(r)
		}
	}
	a := d.must(0, "update")
	d.holds(v1)
	_, packs := link.requests()
	require.Len(t, packs, 2, "the lost one and another: %v", link.asked)
	require.LessOrEqual(t, len(link.asked), 15, "%v", link.asked)
	require.Greater(t, a.Result.Bytes, int64(10_000), "it came as a patch all the same")
}

// packsOf returns the names of the packs of a repository.
func packsOf(t *testing.T, repo string) map[string]bool {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(repo, "content", "*", "*.pack"))
	require.NoError(t, err)
	all := map[string]bool{}
	for _, path := range paths {
		rel, err := filepath.Rel(repo, path)
		require.NoError(t, err)
		all[rel] = true
	}
	return all
}

// TestLittleNews: a little release is in the answer to the look that finds it, all of
// it.
func TestLittleNews(t *testing.T) {
	t.Parallel()
	m := newMaker(t)
	link := newLink(t, m.repo)
	v1 := filepath.Join(m.dir, "v1")
	write(t, v1, "bin/app", noise(300_000), 0o755)
	write(t, v1, "etc/conf", "one, and what goes with it", 0o644)
	m.release("1.0.0", v1)
	d := newDevice(t, m, t.TempDir())
	d.set("source", "url", link.url)
	d.must(0, "update")
	v2 := cloneTree(t, v1, filepath.Join(m.dir, "v2"))
	appendTo(t, filepath.Join(v2, "bin/app"), "more")
	write(t, v2, "etc/conf", "two, and what goes with it", 0o644)
	m.release("1.1.0", v2)
	link.forget()
	a := d.must(0, "update")
	d.holds(v2)
	require.ElementsMatch(t, []string{"metadata/2.root.json", "metadata/timestamp.json"}, link.asked)
	stamp := fileSize(t, filepath.Join(m.repo, "metadata", "timestamp.json"))
	require.Equal(t, stamp, a.Result.Bytes)
	require.Equal(t, stamp, a.Result.Fetched.Total())
	require.Positive(t, a.Result.Fetched.Patches)
	d.must(0, "rollback")
	d.holds(v1)
}

// TestIdlePoll: a device that runs the newest release asks for two files, and all
// that crosses the wire is less than 1.5 KB.
func TestIdlePoll(t *testing.T) {
	t.Parallel()
	m := newMaker(t)
	tree := filepath.Join(m.dir, "v1")
	write(t, tree, "bin/app", "one", 0o755)
	m.release("1.0.0", tree)
	d := newDevice(t, m, t.TempDir())
	d.must(0, "update")
	past := time.Now().Add(-time.Minute) // else the server could not tell this one from one of the same second
	require.NoError(t, os.Chtimes(filepath.Join(m.repo, "metadata", "timestamp.json"), past, past))
	wire := m.throughAWire()
	d.set("source", "url", m.url)
	d.must(0, "check") // the server is another one
	for _, verb := range []string{"check", "update"} {
		before, requests, bodies := wire.Load(), m.requests.Load(), m.sent.Load()
		d.must(0, verb)
		n := wire.Load() - before
		t.Logf("%s: %d bytes of HTTP", verb, n)
		require.Less(t, n, int64(1500))
		require.EqualValues(t, 2, m.requests.Load()-requests)
		require.Less(t, m.sent.Load()-bodies, int64(50), "more than the word that there is no next root")
	}
}
