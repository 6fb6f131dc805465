package publish

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// Role is a role of The Update Framework: one of the four that every repository
// has, or one that targets has delegated releases to. It is stored as its word.
type Role string

// The values of [Role].
const (
	Root      Role = "root"      // says which keys count; may stay offline
	Targets   Role = "targets"   // signs what is released
	Snapshot  Role = "snapshot"  // signs which metadata belongs together
	Timestamp Role = "timestamp" // signs that the repository is fresh
)

// Roles returns the roles that every repository has.
func Roles() []Role { return []Role{Root, Targets, Snapshot, Timestamp} }

// Keys sign for the roles, delegated ones too. A verb needs those of the roles
// that it signs for, as many as the threshold of the role says. Ed25519, ECDSA P-256 and RSA keys
// of 2048 bits and more can sign; where they are is up to the Signer.
type Keys map[Role][]crypto.Signer

// KeyID returns the name of a key in the metadata: the digest of its public
// half. It is the same for a key file, a hardware module and a public key alone.
func KeyID(public crypto.PublicKey) (string, error) {
	_, id, err := tufKey(public)
	return id, err
}

// tufKey returns a public key as the metadata holds it.
func tufKey(key crypto.PublicKey) (*metadata.Key, string, error) {
	switch public := key.(type) {
	case ed25519.PublicKey:
	case *ecdsa.PublicKey:
		if public.Curve.Params().BitSize != 256 {
			return nil, "", fmt.Errorf("an ECDSA key of %d bits cannot sign; P-256 can", public.Curve.Params().BitSize)
		}
	case *rsa.PublicKey:
		if public.N.BitLen() < 2048 {
			return nil, "", fmt.Errorf("an RSA key of %d bits cannot sign; 2048 bits and more can", public.N.BitLen())
		}
	default:
		return nil, "", fmt.Errorf("a key of type %T cannot sign", public)
	}
	k, err := metadata.KeyFromPublicKey(key)
	if err != nil {
		return nil, "", err
	}
	id, err := k.ID()
	return k, id, err
}

// signer makes a crypto.Signer one of sigstore's, which go-tuf signs with.
type signer struct {
	key crypto.Signer
	err error // of key, which go-tuf does not hand on
}

func (s *signer) PublicKey(...signature.PublicKeyOption) (crypto.PublicKey, error) {
	return s.key.Public(), nil
}

func (s *signer) SignMessage(message io.Reader, _ ...signature.SignOption) (sig []byte, err error) {
	defer func() { s.err = err }()
	data, err := io.ReadAll(message)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	switch s.key.Public().(type) {
	case ed25519.PublicKey:
		return s.key.Sign(rand.Reader, data, crypto.Hash(0))
	case *rsa.PublicKey:
		return s.key.Sign(rand.Reader, sum[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256})
	default:
		return s.key.Sign(rand.Reader, sum[:], crypto.SHA256)
	}
}

// quorum says whose signatures a metadata file needs, by the word of the file
// that stands above it.
type quorum struct {
	by        string // "root 3"
	keys      map[string]*metadata.Key
	ids       []string
	threshold int
}

func rootQuorum(root *rootMeta, role Role) quorum {
	q := quorum{by: fmt.Sprintf("root %d", root.Signed.Version), keys: root.Signed.Keys}
	if r := root.Signed.Roles[string(role)]; r != nil {
		q.ids, q.threshold = r.KeyIDs, r.Threshold
	}
	return q
}

func delegateQuorum(targets *targetsMeta, role Role) quorum {
	q := quorum{by: fmt.Sprintf("targets %d", targets.Signed.Version)}
	if d := targets.Signed.Delegations; d != nil {
		for _, r := range d.Roles {
			if r.Name == string(role) {
				q.keys, q.ids, q.threshold = d.Keys, r.KeyIDs, r.Threshold
			}
		}
	}
	return q
}

func (q quorum) same(other quorum) bool {
	return q.threshold == other.threshold && slices.Equal(slices.Sorted(slices.Values(q.ids)), slices.Sorted(slices.Values(other.ids)))
}

// verify checks that as many of the keys ids signed meta as threshold says.
func (q quorum) verify(meta any, ids []string, threshold int) error {
	root := metadata.Root()
	root.Signed.Keys = q.keys
	root.Signed.Roles["it"] = &metadata.Role{KeyIDs: ids, Threshold: threshold}
	return guarded(func() error { return root.VerifyDelegate("it", meta) })
}

// met reports whether the signatures of meta are enough.
func (q quorum) met(meta any) bool { return q.verify(meta, q.ids, q.threshold) == nil }

// signed returns the ids of those keys that signed meta.
func (q quorum) signed(meta any) (ids []string) {
	for _, id := range q.ids {
		if q.verify(meta, []string{id}, 1) == nil {
			ids = append(ids, id)
		}
	}
	return ids
}

// here returns how many of keys count.
func (q quorum) here(keys []crypto.Signer) int {
	found := map[string]bool{}
	for _, key := range keys {
		if _, id, err := tufKey(key.Public()); err == nil && slices.Contains(q.ids, id) {
			found[id] = true
		}
	}
	return len(found)
}

func tooFew(role Role, n int, q quorum) error {
	return fmt.Errorf("cannot sign %s: %w: %d of the repository's keys for it are there, %d have to sign (by %s)",
		role, ErrKeys, n, q.threshold, q.by)
}

// signFor adds the signatures that keys can give and that count for one of
// the quorums. Those that are there and count stay.
func signFor[T metadata.Roles](meta *metadata.Metadata[T], keys []crypto.Signer, quorums []quorum) error {
	for _, key := range keys {
		_, id, err := tufKey(key.Public())
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(quorums, func(q quorum) bool { return slices.Contains(q.ids, id) && q.verify(meta, []string{id}, 1) != nil }) {
			continue
		}
		meta.Signatures = slices.DeleteFunc(meta.Signatures, func(s metadata.Signature) bool { return s.KeyID == id })
		s := &signer{key: key}
		if _, err := meta.Sign(s); err != nil {
			return fmt.Errorf("key %.12s: %w", id, errors.Join(err, s.err))
		}
	}
	return nil
}

// lacking returns an error that names the first of the quorums that meta does
// not meet.
func lacking(role Role, meta any, quorums []quorum) error {
	for _, q := range quorums {
		if q.met(meta) {
			continue
		}
		return tooFew(role, len(q.signed(meta)), q)
	}
	return nil
}

// guarded calls f, and makes an error of a panic: go-tuf follows pointers that
// odd metadata leaves nil.
func guarded(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the metadata cannot be read: %v", p)
		}
	}()
	return f()
}
