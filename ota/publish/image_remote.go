package publish

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// defaultSocket is where an engine listens.
const defaultSocket = "/var/run/docker.sock"

// find looks an image up where it comes from. closer lets go of that.
func (s *images) find(name string, from ImageSource) (found foundImage, closer func(), err error) {
	ref := from.Ref
	if ref == "" {
		ref = name
	}
	if from.Pull && from.From != FromRegistry {
		return found, nil, fmt.Errorf("only an image from a registry can be left there, not one from %q", from.From)
	}
	if from.From == FromRegistry {
		found, err = s.fromRegistry(ref)
		return found, func() {}, err
	}
	store, err := s.store(ref, from)
	if err != nil {
		return found, nil, err
	}
	if from.From == FromOCI {
		found, err = fromOCI(store, ref, s.platform)
	} else {
		found, err = fromArchive(store, ref)
	}
	if err != nil {
		return found, nil, errors.Join(err, store.Close())
	}
	return found, func() { _ = store.Close() }, nil
}

func (s *images) store(ref string, from ImageSource) (fileStore, error) {
	switch from.From {
	case FromOCI, FromArchive:
		return s.openStore(from.Path)
	case FromEngine:
		return s.fromEngine(ref, from.Path)
	}
	return nil, fmt.Errorf("%q is no place for images", from.From)
}

// sameRef reports whether two references mean the same tag.
func sameRef(a, b string) bool {
	x, err := name.ParseReference(a)
	if err != nil {
		return false
	}
	y, err := name.ParseReference(b)
	return err == nil && x.Name() == y.Name()
}

// fromRegistry finds an image in a registry. Nothing is fetched but manifests
// and the configuration.
func (s *images) fromRegistry(text string) (found foundImage, err error) {
	ref, err := name.ParseReference(text)
	if err != nil {
		return found, err
	}
	opts := []remote.Option{remote.WithContext(s.ctx), remote.WithTransport(registryTransport()), remote.WithAuthFromKeychain(authn.DefaultKeychain)}
	desc, err := remote.Get(ref, opts...)
	if err != nil {
		return found, err
	}
	image, err := s.imageOf(desc, text)
	if err != nil {
		return found, err
	}
	if found.config, err = image.RawConfigFile(); err != nil {
		return found, err
	}
	digest, err := image.Digest()
	if err != nil {
		return found, err
	}
	host := ref.Context().RegistryStr()
	if host == name.DefaultRegistry {
		host = "docker.io" // as engines write it
	}
	found.ref = host + "/" + ref.Context().RepositoryStr() + "@" + digest.String()
	layers, err := image.Layers()
	if err != nil {
		return found, err
	}
	for _, l := range layers {
		n, err := l.Size()
		if err != nil {
			return found, err
		}
		found.size += n
		found.layers = append(found.layers, l.Compressed)
	}
	return found, nil
}

// imageOf takes the image for the platform.
func (s *images) imageOf(desc *remote.Descriptor, ref string) (v1.Image, error) {
	if !desc.MediaType.IsIndex() {
		return desc.Image()
	}
	index, err := desc.ImageIndex()
	if err != nil {
		return nil, err
	}
	var m ociManifest
	if err := json.Unmarshal(desc.Manifest, &m); err != nil {
		return nil, fmt.Errorf("its index: %w", err)
	}
	chosen, err := chooseManifest(m.Manifests, ref, s.platform, false)
	if err != nil {
		return nil, err
	}
	digest, err := v1.NewHash(chosen.Digest)
	if err != nil {
		return nil, err
	}
	return index.Image(digest)
}

// registryTransport speaks TLS, and plain HTTP to this machine alone.
func registryTransport() http.RoundTripper {
	return plainAtHome{&http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, TLSHandshakeTimeout: 30 * time.Second,
		ResponseHeaderTimeout: time.Minute, IdleConnTimeout: 30 * time.Second, MaxIdleConnsPerHost: 4}}
}

type plainAtHome struct{ *http.Transport }

func (t plainAtHome) RoundTrip(req *http.Request) (*http.Response, error) {
	if host := req.URL.Hostname(); req.URL.Scheme != "https" && host != "localhost" {
		if ip, err := netip.ParseAddr(host); err != nil || !ip.IsLoopback() {
			return nil, fmt.Errorf("%s is not asked without TLS", req.URL.Host)
		}
	}
	return t.Transport.RoundTrip(req)
}

// fromEngine has an engine save the image, over its interface.
func (s *images) fromEngine(ref, socket string) (fileStore, error) {
	socket = strings.TrimPrefix(socket, "unix://")
	if socket == "" {
		socket = defaultSocket
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}}
	at := url.URL{Scheme: "http", Host: "engine", Path: "/images/" + ref + "/get"}
	req, err := http.NewRequestWithContext(s.ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("cannot ask the engine: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		var said struct {
			Message string `json:"message"`
		}
		_ = json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&said)
		return nil, fmt.Errorf("the engine at %s says %s: %s", socket, resp.Status, said.Message)
	}
	return s.spoolStore(resp.Body)
}
