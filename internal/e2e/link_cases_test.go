package e2e

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// faulty is one way in which a link or a server is bad.
type faulty struct {
	name  string
	fault func(*reply)
	// kind is the kind of error that the update ends with; none when it
	// completes.
	kind string
	// extra is how many bytes may be sent twice beside the 1 % of all: a piece that
	// was wrong, or what a server without ranges sends before it drops, five
	// times for each of two parts.
	extra int64
	// stall is how long nothing may come.
	stall time.Duration
	// resumed is how many requests at least ask for the rest of what came, on
	// condition that it is of the same file.
	resumed int
}

// content has a fault only in the content of the release.
func content(f func(*reply)) func(*reply) {
	return func(r *reply) {
		if r.isContent() {
			f(r)
		}
	}
}

// late has a fault only in the middle of the download.
func late(f func(*reply)) func(*reply) {
	return func(r *reply) {
		if r.isContent() && (r.from > 1<<20 || len(r.body) > 1<<20) {
			f(r)
		}
	}
}

// instead answers with something that is no part of the file.
func instead(code int, head ...string) func(*reply) {
	return func(r *reply) {
		r.code, r.body, r.head = code, nil, http.Header{"Content-Length": {"0"}}
		for i := 0; i < len(head); i += 2 {
			r.head.Set(head[i], strings.ReplaceAll(head[i+1], "NAME", "/"+r.name))
		}
	}
}

// says has an answer claim to be of another range.
func says(from, size int64) func(*reply) {
	return func(r *reply) {
		first := r.from + from
		r.head.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, first+int64(len(r.body))-1, r.size+size))
	}
}

// whole answers as a server without ranges.
func whole(r *reply) {
	if r.code == http.StatusPartialContent {
		r.code, r.from, r.body = http.StatusOK, 0, r.all
		r.head.Del("Content-Range")
		r.head.Set("Content-Length", fmt.Sprint(len(r.body)))
	}
}

// nth has a fault in one answer of each file.
func nth(n int, f func(*reply)) func(*reply) {
	return content(func(r *reply) {
		if r.nth == n {
			f(r)
		}
	})
}

func wrong(at int, every bool) func(*reply) {
	return func(r *reply) {
		r.body = bytes.Clone(r.body)
		for i := at; i < len(r.body) && (every || i == at); i++ {
			r.body[i] ^= 0x41
		}
	}
}

var faults = []faulty{
	{name: "good", fault: func(*reply) {}},
	{name: "drops after every 64 KB", fault: func(r *reply) { r.cut = 64_000 }, resumed: 160},
	{name: "drops after every 20 KB", fault: func(r *reply) { r.cut = 20_000 }, resumed: 500},
	{name: "stalls after every megabyte", fault: func(r *reply) { r.stall = 1 << 20 }, resumed: 6},
	{name: "stalls for good", fault: late(func(r *reply) { r.stall = max(1, 3<<20-int(r.from)) }), kind: "unavailable"},
	{name: "one byte a second", fault: late(func(r *reply) { r.stall, r.tick = max(1, 3<<20-int(r.from)), time.Second }), kind: "unavailable", stall: 1500 * time.Millisecond},
	{name: "one byte a second from the start", fault: func(r *reply) { r.stall, r.tick = 1, time.Second }, kind: "unavailable", stall: 1500 * time.Millisecond},
	{name: "a wrong byte", fault: nth(2, wrong(100_000, false))},
	{name: "wrong bytes in the middle", fault: late(wrong(3<<20, true))},
	{name: "wrong bytes", fault: content(func(r *reply) { wrong(max(0, 4_300_000-int(r.from)), true)(r) }), kind: "content", extra: 256 << 10},
	{name: "wrong bytes from the start", fault: content(wrong(0, true)), kind: "content"},
	{name: "endless", fault: func(r *reply) { r.head.Del("Content-Length"); r.more = make([]byte, 1000) }, kind: "untrusted"},
	{name: "endless content", fault: content(func(r *reply) { r.head.Del("Content-Length"); r.more = make([]byte, 1000) })},
	{name: "another part", fault: late(says(7, 7)), kind: "unavailable"},
	{name: "a longer file each time", fault: late(func(r *reply) { says(0, int64(r.nth))(r); r.cut = 1 << 20 }), kind: "unavailable"},
	{name: "a shifted body", fault: late(func(r *reply) { r.body = append(r.body[1:len(r.body):len(r.body)], 'x') }), kind: "content"},
	{name: "200 for a part", fault: late(func(r *reply) { r.code = http.StatusOK; r.head.Del("Content-Range") }), kind: "unavailable"},
	{name: "416", fault: late(instead(http.StatusRequestedRangeNotSatisfiable)), kind: "unavailable"},
	{name: "no ranges", fault: whole, stall: 20 * time.Second},
	{name: "no ranges and drops after every 64 KB", fault: func(r *reply) { whole(r); r.cut = 64_000 }, kind: "unavailable", extra: 10 * 64_000},
	{name: "a truncated body", fault: late(func(r *reply) { r.body = r.body[:max(100_000, len(r.body)*2/3)] })},
	{name: "shorter than it says", fault: late(func(r *reply) { r.body = r.body[:len(r.body)/2]; r.head.Set("Content-Length", fmt.Sprint(len(r.body))) }), kind: "unavailable"},
	{name: "redirects in a circle", fault: late(instead(http.StatusFound, "Location", "NAME")), kind: "unavailable"},
	{name: "redirects in a circle from the start", fault: instead(http.StatusFound, "Location", "NAME"), kind: "unavailable"},
	{name: "no pack", fault: late(instead(http.StatusNotFound)), kind: "unavailable"},
	{name: "busy", fault: late(instead(http.StatusServiceUnavailable)), kind: "unavailable"},
	{name: "busy for an hour", fault: late(instead(http.StatusServiceUnavailable, "Retry-After", "3600")), kind: "unavailable"},
}

// TestHostileLink takes a release of some megabytes, new content and patches,
// over every kind of bad link and from every kind of bad server. Either the update
// completes, or it ends with an error of its kind, in time, with the old release
// untouched; then a good link completes it. In all at most 1 % of the content
// is sent twice.
func TestHostileLink(t *testing.T) {
	t.Parallel()
	p := newLinkPair(t)
	plan := p.device(t).must(0, "check", "-plan").Need
	require.Greater(t, plan.Parts[0].Patched.Fetch, int64(1<<20), "few bytes of patches: %+v", plan)
	require.Greater(t, plan.Parts[0].Pieces.Fetch, int64(5<<20), "few bytes of pieces: %+v", plan)
	for _, c := range faults {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p.hostile(t, c)
		})
	}
}

func (p *linkPair) hostile(t *testing.T, c faulty) {
	d := p.device(t)
	d.set("limits", "stall", max(c.stall, 300*time.Millisecond).String())
	d.set("limits", "stage", "1m")
	d.link.fault, d.link.gentle = c.fault, c.kind != "" || strings.Contains(c.name, "wrong")
	begin := time.Now()
	a := d.agent("update")
	took := time.Since(begin)
	if c.kind != "" {
		require.Equal(t, 1, a.Code, "%s: %s", a.Line, a.Error)
		require.Equal(t, c.kind, a.Kind, "%s: %s", a.Line, a.Error)
		require.NotEmpty(t, a.Error)
		requireSame(t, pictureOf(t, p.v1), pictureOf(t, d.app))
		all, twice := d.counts()
		t.Logf("%s: %s; %d bytes, %d twice", took, a.Error, all, twice)
		d.link.fault, d.link.gentle = nil, false
		a = d.agent("update")
	}
	require.Zero(t, a.Code, "%s: %s", a.Line, a.Error)
	d.holds(p.v2)
	require.Less(t, took, time.Minute)
	all, twice := d.counts()
	n, packs := d.requests()
	t.Logf("%s: %d bytes, %d twice, %d requests, %d packs", took, all, twice, n, len(packs))
	require.GreaterOrEqual(t, d.link.resumed, c.resumed)
	require.LessOrEqual(t, twice, (all-twice)/100+c.extra)
	require.Greater(t, all, int64(10<<20))
}
