package otatest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TUFServer serves a folder over HTTP, as a web server of static files does, or
// as a hostile one.
type TUFServer struct {
	URL string

	dir string

	mu       sync.Mutex
	requests []string
	tamper   func(name string, w http.ResponseWriter, r *http.Request) bool
}

// ServeTUF serves dir until the test ends.
func ServeTUF(t testing.TB, dir string) *TUFServer {
	s := &TUFServer{dir: dir}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	s.URL = server.URL
	return s
}

// Tamper has f answer requests instead of the server, wherever it returns true.
// f is called with the name of the file that is asked for, escaped as in the
// URL. nil makes the server an honest one.
func (s *TUFServer) Tamper(f func(name string, w http.ResponseWriter, r *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tamper = f
}

// Requests returns the names of the files that were asked for since it was
// called last.
func (s *TUFServer) Requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.requests
	s.requests = nil
	return list
}

// ServeHTTP implements [http.Handler].
func (s *TUFServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.EscapedPath(), "/")
	s.mu.Lock()
	s.requests = append(s.requests, name)
	tamper := s.tamper
	s.mu.Unlock()
	if tamper != nil && tamper(name, w, r) {
		return
	}
	f, err := os.Open(filepath.Join(s.dir, filepath.FromSlash(name)))
	if err != nil {
		http.NotFound(w, r)
		return
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		http.NotFound(w, r)
		return
	}
	http.ServeContent(w, r, "", info.ModTime(), f)
}

// spy stands where a server is wanted, with a certificate that nobody trusts.
type spy struct {
	url string

	mu    sync.Mutex
	heard []byte
}

func newSpy(t testing.TB) *spy {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	must(err)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	must(err)
	t.Cleanup(func() { _ = listener.Close() })
	s := &spy{url: "https://" + listener.Addr().String()}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go s.listen(conn)
		}
	}()
	return s
}

func (s *spy) listen(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(sourceLimit))
	said, _ := io.ReadAll(io.LimitReader(conn, 1<<10))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heard = append(s.heard, said...)
}

// secrets returns what the spy was told.
func (s *spy) secrets() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(s.heard)
}
