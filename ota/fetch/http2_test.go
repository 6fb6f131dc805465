package fetch_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/fetch"
)

// TestHTTP2 speaks HTTP/2 where the server does, over one connection, and asks
// for the rest there too when a stream breaks.
func TestHTTP2(t *testing.T) {
	data := random(1 << 20)
	var breaks, connections atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 {
			t.Errorf("it speaks %s", r.Proto)
		}
		if breaks.Add(1) <= 2 {
			w = &cutWriter{w, 100_000}
		}
		file(data)(w, r)
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	pool := x509.NewCertPool()
	pool.AddCert(server.Certificate())
	o := quick()
	o.RootCAs = pool
	o.TLS = &tls.Config{VerifyConnection: func(tls.ConnectionState) error { connections.Add(1); return nil }}
	c := client(t, o)
	for range 3 {
		got, err := get(c, fetch.Request{URL: server.URL, Offset: 1000, Length: 900_000})
		require.NoError(t, err)
		require.Equal(t, data[1000:901_000], got)
	}
	require.EqualValues(t, 5, breaks.Load())
	require.EqualValues(t, 1, connections.Load())
}
