package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// link is a web server at the end of a link, of which either can be bad. It
// counts, byte by byte, what it hands to the kernel of each file of content.
type link struct {
	url    string
	gentle bool         // hand on little at once: see conn.Write
	fault  func(*reply) // what the link makes of an answer; nil: nothing
	// after, if it is set, is called with the number of bytes of content that
	// were sent so far, at the latest when there are as many more as until says.
	after func(*conn, int64)
	until func(int64) int64

	// wire is held for writing while nothing may be sent.
	wire sync.RWMutex

	mu      sync.Mutex
	conns   []*conn // of this agent, closed ones too
	repo    string
	sent    map[string][]uint8 // of each file of content: how often each byte was sent
	asked   []string           // names of files, in the order of the requests
	bytes   int64              // of content
	resumed int                // requests with If-Range
}

// conn is the server's end of a connection.
type conn struct {
	net.Conn
	gentle bool
	over   atomic.Bool // this end is done with it
	unread int64       // bytes that were written, at most, since it was looked how many are on the way
}

// onTheWay returns how many bytes the other end has not read yet: those that
// this kernel holds for either end.
func (c *conn) onTheWay() int64 {
	a, b := c.LocalAddr().(*net.TCPAddr), c.RemoteAddr().(*net.TCPAddr)
	_, sending := queues(a, b)
	received, _ := queues(b, a)
	return received + sending
}

// queues asks the kernel how much a socket holds that was received and not read,
// and that was written and is not at the other end: see sock_diag(7). All is 0
// for a socket that is closed.
func queues(own, other *net.TCPAddr) (received, sending int64) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_INET_DIAG)
	if err != nil {
		return 0, 0
	}
	defer unix.Close(fd)
	req := make([]byte, 72)
	binary.NativeEndian.PutUint32(req[0:], 72)
	binary.NativeEndian.PutUint16(req[4:], 20) // SOCK_DIAG_BY_FAMILY
	binary.NativeEndian.PutUint16(req[6:], unix.NLM_F_REQUEST)
	req[16], req[17] = unix.AF_INET, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(req[20:], ^uint32(0)) // in any state
	binary.BigEndian.PutUint16(req[24:], uint16(own.Port))
	binary.BigEndian.PutUint16(req[26:], uint16(other.Port))
	copy(req[28:], own.IP.To4())
	copy(req[44:], other.IP.To4())
	binary.NativeEndian.PutUint64(req[64:], ^uint64(0)) // whichever it is
	if err := unix.Sendto(fd, req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, 0
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil || n < 16+72 || binary.NativeEndian.Uint16(answer[4:]) != 20 {
		return 0, 0
	}
	return int64(binary.NativeEndian.Uint32(answer[16+56:])), int64(binary.NativeEndian.Uint32(answer[16+60:]))
}

// pace waits until little is on the way where c is gentle, as over a link that
// holds little: what is lost when the other end closes the connection is small.
func (c *conn) pace(n int) {
	if c.unread += int64(n); c.gentle && c.unread > 2*step {
		tick := time.NewTicker(200 * time.Microsecond)
		defer tick.Stop()
		for range 50_000 {
			if c.unread = c.onTheWay(); c.unread <= step {
				break
			}
			<-tick.C
		}
	}
}

// step is how many bytes are sent at once.
const step = 16 << 10

// reply is an answer, before it is sent.
type reply struct {
	name  string
	asked http.Header
	nth   int    // how often the file was asked for before
	from  int64  // the offset of the body in the file
	body  []byte // of a file of content it is counted
	all   []byte // the whole file
	size  int64
	code  int
	head  http.Header
	cut   int           // close the connection after so many bytes of head and body, if above 0
	stall int           // stop after so many bytes of the body, if above 0,
	tick  time.Duration // or, if above 0, send the rest byte by byte
	more  []byte        // sent behind the body, for ever
}

func (r *reply) isContent() bool { return strings.HasPrefix(r.name, "content/") }

// newLink serves a repository that may change.
func newLink(t testing.TB, repo string) *link {
	l := &link{repo: repo, sent: map[string][]uint8{}}
	server := httptest.NewServer(l)
	l.url = server.URL
	t.Cleanup(server.Close)
	return l
}

// serves changes the repository, and forgets what was counted.
func (l *link) serves(repo string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.repo, l.fault = repo, nil
	l.forgetLocked()
}

// image is how often each byte of content was sent so far.
func (l *link) image() map[string][]uint8 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns = nil
	all := map[string][]uint8{}
	for name, file := range l.sent {
		all[name] = slices.Clone(file)
	}
	return all
}

// forget begins to count anew.
func (l *link) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forgetLocked()
}

func (l *link) forgetLocked() {
	clear(l.sent)
	l.asked, l.bytes = nil, 0
}

// counts returns how many bytes of content were sent as they should be, and how
// many of these had been before.
func (l *link) counts() (all, twice int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, file := range l.sent {
		for _, n := range file {
			all += int64(n)
			twice += int64(max(n, 1) - 1)
		}
	}
	return all, twice
}

// requests returns how many there were, and of how many packs.
func (l *link) requests() (all int, packs []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	seen := map[string]bool{}
	for _, name := range l.asked {
		if strings.HasSuffix(name, ".pack") {
			seen[name] = true
		}
	}
	return len(l.asked), slices.Sorted(maps.Keys(seen))
}

// ServeHTTP implements [http.Handler]. It takes the connection over: what is
// counted as sent has left this process.
func (l *link) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r := l.answer(req)
	raw, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer raw.Close()
	_ = raw.SetDeadline(time.Now().Add(2 * time.Minute))
	var head bytes.Buffer
	fmt.Fprintf(&head, "HTTP/1.1 %d %s\r\n", r.code, http.StatusText(r.code))
	_ = r.head.Write(&head)
	head.WriteString("Connection: close\r\n\r\n")
	if r.cut > 0 {
		r.body = r.body[:min(len(r.body), max(0, r.cut-head.Len()))]
	}
	c := &conn{Conn: raw, gentle: l.gentle}
	l.keep(c)
	defer c.over.Store(true)
	if _, err := c.Write(head.Bytes()); err != nil || !l.send(c, r) {
		return
	}
	for err == nil && r.more != nil {
		_, err = c.Write(r.more)
	}
}

// keep notes a connection. What is on the way by one that this end has closed can
// still be read.
func (l *link) keep(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns = append(l.conns, c)
}

// each calls do for every connection that there was.
func (l *link) each(do func(*conn)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		do(c)
	}
}

// answer is what a good server on a good link would send, and what becomes of
// it.
func (l *link) answer(req *http.Request) *reply {
	name := strings.TrimPrefix(req.URL.Path, "/")
	l.mu.Lock()
	defer l.mu.Unlock()
	r := &reply{name: name, asked: req.Header, code: http.StatusOK, head: http.Header{}}
	for _, before := range l.asked {
		if before == name {
			r.nth++
		}
	}
	l.asked = append(l.asked, name)
	if req.Header.Get("If-Range") != "" {
		l.resumed++
	}
	data, err := os.ReadFile(filepath.Join(l.repo, filepath.FromSlash(name)))
	if err != nil || !fs.ValidPath(name) {
		r.code, data = http.StatusNotFound, nil
	}
	tag := fmt.Sprintf("%q", name)
	r.body, r.all, r.size = data, data, int64(len(data))
	if first, last, ok := rangeOf(req, int64(len(data)), tag); ok {
		r.code, r.from, r.body = http.StatusPartialContent, first, data[first:last+1]
		r.head.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last, len(data)))
	}
	r.head.Set("ETag", tag)
	r.head.Set("Content-Length", fmt.Sprint(len(r.body)))
	if l.fault != nil {
		l.fault(r)
	}
	if r.isContent() && l.sent[name] == nil {
		l.sent[name] = make([]uint8, len(data))
	}
	return r
}

// rangeOf reads the range of a request that a server would answer with it.
func rangeOf(req *http.Request, size int64, tag string) (first, last int64, ok bool) {
	if cond := req.Header.Get("If-Range"); cond != "" && cond != tag {
		return 0, 0, false
	}
	n, err := fmt.Sscanf(req.Header.Get("Range"), "bytes=%d-%d", &first, &last)
	if n == 1 {
		last = size - 1
	}
	last = min(last, size-1)
	return first, last, n > 0 && (err == nil || n == 1) && first <= last
}

// send sends the body, and reports whether the connection is still of use.
func (l *link) send(c *conn, r *reply) bool {
	var tick <-chan time.Time
	for at := 0; at < len(r.body); {
		n := min(step, len(r.body)-at)
		switch {
		case r.stall > at:
			n = min(n, r.stall-at)
		case r.stall > 0 && r.tick == 0:
			_, _ = io.Copy(io.Discard, c) // until the other end has enough
			return false
		case r.stall > 0 && tick == nil:
			ticker := time.NewTicker(r.tick)
			defer ticker.Stop()
			tick = ticker.C
		}
		if tick != nil {
			n = 1
			<-tick
		}
		if r.isContent() && l.until != nil {
			n = int(min(int64(n), max(1, l.until(l.soFar()))))
		}
		c.pace(n)
		l.wire.RLock()
		n, err := c.Write(r.body[at : at+n])
		l.count(r, at, n)
		l.wire.RUnlock()
		if err != nil {
			return false
		}
		if at += n; r.isContent() && l.after != nil {
			l.after(c, l.soFar())
		}
	}
	return true
}

func (l *link) soFar() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bytes
}

func (l *link) count(r *reply, at, n int) {
	if !r.isContent() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bytes += int64(n)
	file := l.sent[r.name]
	for i := range n {
		if to := r.from + int64(at+i); to < r.size && r.body[at+i] == r.all[to] {
			file[to]++
		}
	}
}

// linked is a device with 1.0.0 behind a link of its own, over which 1.1.0 is to
// be had.
type linked struct {
	*device
	*link
	pair *linkPair
}

// linkPair is two releases.
type linkPair struct {
	m      *maker
	before string // the repository as it was with the first one alone
	v1, v2 string
	size   int64 // of the second one's content, about
}

// newLinkPair makes two releases, the first one with further lines of spec. Of
// the second some megabytes are new, and some files of the first are changed.
func newLinkPair(t testing.TB, spec ...string) *linkPair {
	m := newMaker(t)
	p := &linkPair{m: m, before: filepath.Join(m.dir, "before"), v1: filepath.Join(m.dir, "v1")}
	all := noise(16 << 20)
	for i := range 20 {
		write(t, p.v1, fmt.Sprint("old/", i), all[i*50_000:][:10_000+i*5_000], 0o644)
	}
	write(t, p.v1, "big", all[1<<20:][:2<<20], 0o644)
	m.release("1.0.0", p.v1, spec...)
	cloneTree(t, m.repo, p.before)
	p.v2 = cloneTree(t, p.v1, filepath.Join(m.dir, "v2"))
	for i := range 10 {
		appendTo(t, filepath.Join(p.v2, "old", fmt.Sprint(i)), all[3<<20+i*1000:][:200+i*90])
	}
	write(t, p.v2, "big", all[1<<20:2<<20]+all[3<<20+20_000:][:600_000]+all[2<<20:3<<20], 0o644)
	for i := range 50 {
		write(t, p.v2, fmt.Sprint("new/", i), all[4<<20+i*60_000:][:60_000], 0o644)
	}
	write(t, p.v2, "new/large", all[8<<20:][:7<<20], 0o644)
	m.release("1.1.0", p.v2)
	m.apart()
	p.size = 11 << 20
	return p
}

// newDevice makes a device on which nothing is installed.
func (p *linkPair) newDevice(t testing.TB) *linked {
	l := newLink(t, p.before)
	d := newDevice(t, p.m, t.TempDir())
	delete(d.config, "health")
	d.set("trial", "soak", "0s")
	d.set("source", "url", l.url)
	return &linked{d, l, p}
}

// device makes a device that runs the first release.
func (p *linkPair) device(t testing.TB) *linked {
	d := p.newDevice(t)
	d.must(0, "update")
	requireSame(t, pictureOf(t, p.v1), pictureOf(t, d.app))
	d.link.serves(p.m.repo)
	return d
}
