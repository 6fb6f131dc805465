package fetch_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/fetch"
)

type urlURL = url.URL

func parseURL(s string) (*url.URL, error) { return url.Parse(s) }

// authority makes certificates for one test.
type authority struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, pool: x509.NewCertPool()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "maker"}, IsCA: true, BasicConstraintsValid: true,
		NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	a.key, a.cert = a.sign(template, nil)
	a.pool.AddCert(a.cert)
	return a
}

func (a *authority) sign(template, parent *x509.Certificate) (*ecdsa.PrivateKey, *x509.Certificate) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(a.t, err)
	by := a.key
	if parent == nil {
		parent, by = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
	require.NoError(a.t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(a.t, err)
	return key, cert
}

func (a *authority) leaf(name string) tls.Certificate {
	key, cert := a.sign(&x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

func (a *authority) serve(h http.HandlerFunc, clients *x509.CertPool) string {
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{a.leaf("server")}}
	if clients != nil {
		s.TLS.ClientAuth, s.TLS.ClientCAs = tls.RequireAndVerifyClientCert, clients
	}
	s.StartTLS()
	a.t.Cleanup(s.Close)
	return s.URL
}

func TestOwnAuthorityAndClientCertificate(t *testing.T) {
	ca, devices := newAuthority(t), newAuthority(t)
	var tries atomic.Int32
	base := ca.serve(func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte(r.TLS.PeerCertificates[0].Subject.CommonName))
	}, devices.pool)
	request := fetch.Request{URL: base, Length: -1}

	o := quick()
	o.Proxy = func(*http.Request) (*url.URL, error) { tries.Add(1); return nil, nil }
	_, err := get(client(t, o), request)
	var untrusted *tls.CertificateVerificationError
	require.ErrorAs(t, err, &untrusted, "an unknown authority")
	require.EqualValues(t, 1, tries.Swap(0), "no second try")

	o.RootCAs = ca.pool
	_, err = get(client(t, o), request)
	require.Error(t, err, "no client certificate")

	o.TLS = &tls.Config{Certificates: []tls.Certificate{ca.leaf("stranger")}}
	_, err = get(client(t, o), request)
	require.Error(t, err, "a client certificate of another authority")

	o.TLS = &tls.Config{Certificates: []tls.Certificate{devices.leaf("device-7")}}
	got, err := get(client(t, o), request)
	require.NoError(t, err)
	require.Equal(t, "device-7", string(got))
}

func TestNoRedirectOutOfTLS(t *testing.T) {
	ca := newAuthority(t)
	away := serve(t, noRanges([]byte("plain")))
	base := ca.serve(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, away, http.StatusFound) }, nil)
	o := quick()
	o.RootCAs = ca.pool
	_, err := get(client(t, o), fetch.Request{URL: base, Length: -1})
	require.ErrorIs(t, err, fetch.ErrRedirect)
}

func TestOldTLSIsRefused(t *testing.T) {
	ca := newAuthority(t)
	s := httptest.NewUnstartedServer(noRanges(nil))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{ca.leaf("old")}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	s.StartTLS()
	t.Cleanup(s.Close)
	o := quick()
	o.RootCAs, o.TLS = ca.pool, &tls.Config{MinVersion: tls.VersionTLS10}
	_, err := get(client(t, o), fetch.Request{URL: s.URL, Length: -1})
	require.Error(t, err)
}
