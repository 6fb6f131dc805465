package publish

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"io"
	"slices"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// Role is a role of The Update Framework. It is stored as its word.
type Role string

// The values of [Role].
const (
	Root      Role = "root"      // says which keys count; may stay offline
	Targets   Role = "targets"   // signs what is released
	Snapshot  Role = "snapshot"  // signs which metadata belongs together
	Timestamp Role = "timestamp" // signs that the repository is fresh
)

// Roles returns all roles.
func Roles() []Role { return []Role{Root, Targets, Snapshot, Timestamp} }

// Keys sign for the roles. A verb needs those of the roles that it signs for,
// as many as the threshold of the role says. Ed25519, ECDSA P-256 and RSA keys
// of 2048 bits and more can sign; where they are is up to the Signer.
type Keys map[Role][]crypto.Signer

// signer makes a crypto.Signer one of sigstore's, which go-tuf signs with.
type signer struct{ key crypto.Signer }

func (s signer) PublicKey(...signature.PublicKeyOption) (crypto.PublicKey, error) {
	return s.key.Public(), nil
}

func (s signer) SignMessage(message io.Reader, _ ...signature.SignOption) ([]byte, error) {
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

// tufKey returns the public half of key as the metadata holds it.
func tufKey(key crypto.Signer) (*metadata.Key, string, error) {
	switch public := key.Public().(type) {
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
	k, err := metadata.KeyFromPublicKey(key.Public())
	if err != nil {
		return nil, "", err
	}
	id, err := k.ID()
	return k, id, err
}

// signers returns the keys that root names for role.
func signers(role Role, root *metadata.RootType, keys Keys) ([]crypto.Signer, error) {
	wanted, ok := root.Roles[string(role)]
	if !ok {
		return nil, fmt.Errorf("cannot sign %s: the root does not know the role", role)
	}
	var list []crypto.Signer
	done := map[string]bool{}
	for _, key := range keys[role] {
		_, id, err := tufKey(key)
		if err != nil {
			return nil, fmt.Errorf("cannot sign %s: %w", role, err)
		}
		if !done[id] && slices.Contains(wanted.KeyIDs, id) {
			done[id] = true
			list = append(list, key)
		}
	}
	if len(list) < max(1, wanted.Threshold) {
		return nil, fmt.Errorf("cannot sign %s: %w: %d of the repository's keys for it are there, %d have to sign", role, ErrKeys, len(list), wanted.Threshold)
	}
	return list, nil
}

// sign signs meta anew with the keys that root names for role.
func sign[T metadata.Roles](meta *metadata.Metadata[T], role Role, root *metadata.RootType, keys Keys) error {
	list, err := signers(role, root, keys)
	if err != nil {
		return err
	}
	meta.Signatures = []metadata.Signature{}
	for _, key := range list {
		if _, err := meta.Sign(signer{key}); err != nil {
			return fmt.Errorf("cannot sign %s: %w", role, err)
		}
	}
	return nil
}
