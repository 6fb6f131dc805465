package tuf_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/fetch"
	"github.com/pawl-ota/pawl/ota/otatest"
	"github.com/pawl-ota/pawl/ota/tuf"
)

// chip signs, and gives its key to nobody, as a TPM or a secure element does.
type chip struct {
	key  *ecdsa.PrivateKey
	used atomic.Int32
}

func (c *chip) Public() crypto.PublicKey { return c.key.Public() }

func (c *chip) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	c.used.Add(1)
	return c.key.Sign(random, digest, opts)
}

// TestClientKeyInHardware: the server wants the device's certificate, whose key is
// in a chip, through crypto.Signer and tls.Config.
func TestClientKeyInHardware(t *testing.T) {
	r := otatest.NewTUFRepo(t, today)
	r.AddRelease("targets", 1, nil)
	r.Publish()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(7), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)

	server := httptest.NewUnstartedServer(http.FileServer(http.Dir(r.Dir)))
	server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	authorities := x509.NewCertPool()
	authorities.AddCert(server.Certificate())

	device := &chip{key: key}
	for _, certificates := range [][]tls.Certificate{{{Certificate: [][]byte{der}, PrivateKey: device}}, nil} {
		o := optionsFor(t, r, server.URL)
		o.Client, err = fetch.New(fetch.Options{
			RootCAs: authorities, TLS: &tls.Config{Certificates: certificates}, Retries: -1, Proxy: http.ProxyURL(nil),
		})
		require.NoError(t, err)
		_, err = latest(t, o)
		if certificates == nil {
			require.ErrorIs(t, err, tuf.ErrUnavailable)
			continue
		}
		require.NoError(t, err)
		require.Positive(t, device.used.Load())
		require.NoError(t, o.Client.Close())
	}
}
