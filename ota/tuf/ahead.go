package tuf

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/pawl-ota/pawl/ota/fetch"
	"github.com/pawl-ota/pawl/ota/release"
)

// Bounds of what is fetched ahead: files in one lookup, bytes of a role of which
// nobody signed the length yet beside twice what the device has of it, and the
// publications that a guess goes over.
const (
	aheadFiles = 6
	aheadMore  = 16 << 10
	aheadMoved = 64
)

// ahead fetches files that a lookup will likely ask for, while it waits for
// others, and has those that the timestamp encloses: on a slow link round trips are
// most of its time. It decides nothing. Each file is asked for, and verified, in its
// turn; what came of it before is used then if it was fetched as it would be now, and
// is dropped else. What failed is fetched again. It belongs to one goroutine.
type ahead struct {
	s     *Source
	ctx   context.Context
	stop  context.CancelFunc
	all   []*early
	parts []release.Enclosed // of packs
	given bool               // whether a timestamp encloses something
}

// early is a file that is fetched before it is asked for.
type early struct {
	p    part
	done chan struct{}
	data []byte
	tag  fetch.Tag
	err  error
}

// end drops what nobody asked for, and waits until nothing is under way.
func (a *ahead) end() {
	a.stop()
	for _, e := range a.all {
		<-e.done
	}
}

// fetch begins to fetch p.
func (a *ahead) fetch(p part) {
	if len(a.all) >= aheadFiles || a.find(p) != nil {
		return
	}
	e := &early{p: p, done: make(chan struct{})}
	a.all = append(a.all, e)
	go func() {
		p.once = true // its turn has the other tries
		e.data, e.tag, e.err = a.s.readTagged(a.ctx, p)
		close(e.done)
	}()
}

func (a *ahead) find(p part) *early {
	for _, e := range a.all {
		if e.p.name == p.name && e.p.unless == p.unless {
			return e
		}
	}
	return nil
}

// wait returns what came of p ahead, or nil. It counts once.
func (a *ahead) wait(p part) *early {
	e := a.find(p)
	if e != nil {
		<-e.done
		e.p.name = ""
	}
	return e
}

// open takes what a timestamp encloses. It is as good as fetched, and goes the
// same way; what cannot be read is not there.
func (a *ahead) open(enclosed []byte) {
	list, _ := release.ParseEnclosed(enclosed)
	a.given = a.given || len(list) > 0
	done := make(chan struct{})
	close(done)
	for _, f := range list {
		if f.Part() {
			a.parts = append(a.parts, f)
		} else {
			a.all = append(a.all, &early{p: part{name: escape(f.Name)}, done: done, data: f.Data})
		}
	}
}

// readTagged is [Source.readTagged] for what may have been fetched ahead. A refusal
// stands where the same would be refused now.
func (a *ahead) readTagged(ctx context.Context, p part) ([]byte, fetch.Tag, error) {
	if e := a.wait(p); e != nil && (e.err == nil || errors.Is(e.err, fetch.ErrNotModified) || e.p.max == p.max && errors.Is(e.err, fetch.ErrTooLong)) {
		return e.data, e.tag, e.err
	}
	return a.s.readTagged(ctx, p)
}

// besideRoot has the timestamp come while the next root is asked for. Over TLS
// it does not: that would cost each lookup a handshake, and most find nothing new.
func (a *ahead) besideRoot(timestamp part) {
	if strings.HasPrefix(a.s.metadataURL(), "http:") {
		a.fetch(timestamp)
	}
}

// follow takes what a new timestamp encloses, and fetches what else it leads to: the
// snapshot that it names, and of the roles that the device has the versions that are
// likely, as a publication makes one new version of each role that it changes.
func (a *ahead) follow(timestamp []byte, t *trust, consistent bool) {
	var now struct {
		Signed struct {
			Meta     map[string]struct{ Version, Length int64 }
			Enclosed []byte
		}
	}
	_ = json.Unmarshal(timestamp, &now) // it is unverified
	a.open(now.Signed.Enclosed)
	snapshot := now.Signed.Meta["snapshot.json"]
	moved := snapshot.Version - t.Marks.Snapshot
	if t.Marks.Snapshot == 0 || moved <= 0 || moved > aheadMoved {
		return
	}
	l := a.s.o.Limits
	file := func(role string, version, most int64) {
		name := url.PathEscape(role) + ".json"
		if consistent {
			name = strconv.FormatInt(version, 10) + "." + name
		}
		a.fetch(part{name: rolesURL + name, length: -1, max: most, cause: fetch.Metadata})
	}
	most := snapshot.Length
	if most <= 0 || most > l.Snapshot {
		most = l.Snapshot
	}
	file(metadata.SNAPSHOT, snapshot.Version, most)
	for role, data := range t.Roles {
		if version := t.Marks.Roles[role+".json"]; version > 0 {
			file(role, version+moved, min(l.Targets, 2*int64(len(data))+aheadMore))
		}
	}
}

// linger waits for p as long again as the lookup took that began then, and
// returns nil where it does not come.
func (a *ahead) linger(p part, begin time.Time) []byte {
	timer := time.AfterFunc(time.Since(begin), a.stop)
	defer timer.Stop()
	if e := a.wait(p); e != nil {
		return e.data
	}
	return nil
}
