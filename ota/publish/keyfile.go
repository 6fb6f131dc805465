package publish

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"filippo.io/age"

	"github.com/pawl-ota/pawl/ota/durable"
)

// ErrKeys is returned when keys are missing, or cannot be read.
var ErrKeys = errors.New("keys are missing or of no use")

// MaxThreshold is the highest threshold that keys are made for.
const MaxThreshold = 16

// maxKeyFile is the longest key file in bytes.
const maxKeyFile = 64 << 10

// KeyDir is a folder with one file for each key: ROLE.N.pem with the private
// key as PKCS #8, or ROLE.N.pem.age with the same encrypted by age under a
// passphrase. The files have mode 0600. Move those of a role elsewhere to take
// the role offline.
type KeyDir struct {
	Path string
	// Passphrase is asked for the passphrase of an encrypted file. nil means
	// that none is known.
	Passphrase func(file string) (string, error)

	// WorkFactor is how hard a passphrase is to try out, as the power of two
	// that scrypt takes; 0 means age's default, a second or so.
	WorkFactor int
}

// Make makes the keys that are not there yet, threshold Ed25519 keys for root
// and for targets and one for the others, and returns all. Where encrypt is
// set the files it makes are encrypted under the passphrase. Called again after
// it was cut short it carries on.
func (d KeyDir) Make(threshold int, encrypt bool) (Keys, error) {
	if threshold < 1 || threshold > MaxThreshold {
		return nil, fmt.Errorf("cannot make keys: a threshold of %d is not from 1 to %d", threshold, MaxThreshold)
	}
	if err := durable.MkdirAll(d.Path, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make keys: %w", err)
	}
	keys := Keys{}
	for _, role := range Roles() {
		n := 1
		if role == Root || role == Targets {
			n = threshold
		}
		for i := range n {
			key, err := d.loadOrMake(fmt.Sprintf("%s.%d.pem", role, i+1), encrypt)
			if err != nil {
				return nil, err
			}
			keys[role] = append(keys[role], key)
		}
	}
	return keys, nil
}

func (d KeyDir) loadOrMake(name string, encrypt bool) (crypto.Signer, error) {
	key, err := d.load(name)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("cannot make key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("cannot make key: %w", err)
	}
	data := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	if encrypt {
		name += ".age"
		if data, err = d.encrypt(name, data); err != nil {
			return nil, fmt.Errorf("cannot make key %s: %w", name, err)
		}
	}
	if err := durable.WriteFile(filepath.Join(d.Path, name), data, 0o600); err != nil {
		return nil, fmt.Errorf("cannot make key: %w", err)
	}
	return private, nil
}

// Load reads the keys of roles. A role without a file has no keys: a verb that
// has to sign for it says so.
func (d KeyDir) Load(roles ...Role) (Keys, error) {
	keys := Keys{}
	for _, role := range roles {
		for i := range MaxThreshold {
			key, err := d.load(fmt.Sprintf("%s.%d.pem", role, i+1))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, err
			}
			keys[role] = append(keys[role], key)
		}
	}
	return keys, nil
}

// load reads the plain or the encrypted file of a key.
func (d KeyDir) load(name string) (crypto.Signer, error) {
	data, err := readKeyFile(filepath.Join(d.Path, name))
	if errors.Is(err, fs.ErrNotExist) {
		name += ".age"
		if data, err = readKeyFile(filepath.Join(d.Path, name)); err == nil {
			data, err = d.decrypt(name, data)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read key: %w", err)
	}
	block, rest := pem.Decode(data)
	if block == nil || block.Type != "PRIVATE KEY" || len(bytes.TrimSpace(rest)) != 0 {
		return nil, fmt.Errorf("cannot read key: %w: %s is not one private key in PEM (PKCS #8)", ErrKeys, name)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("cannot read key: %w: %s: %w", ErrKeys, name, err)
	}
	s, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("cannot read key: %w: %s: a %T cannot sign", ErrKeys, name, key)
	}
	return s, nil
}

// readKeyFile refuses a plain key that others on the machine can read.
func readKeyFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%w: %s can be read or written by others (mode %o); chmod 600 it", ErrKeys, path, info.Mode().Perm())
	}
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err == nil && len(data) > maxKeyFile {
		err = fmt.Errorf("%w: %s is longer than %d bytes", ErrKeys, path, maxKeyFile)
	}
	return data, err
}

func (d KeyDir) passphrase(name string) (string, error) {
	if d.Passphrase == nil {
		return "", fmt.Errorf("%w: %s is encrypted and no passphrase is given", ErrKeys, name)
	}
	return d.Passphrase(name)
}

func (d KeyDir) encrypt(name string, data []byte) ([]byte, error) {
	pass, err := d.passphrase(name)
	if err != nil {
		return nil, err
	}
	to, err := age.NewScryptRecipient(pass)
	if err != nil {
		return nil, err
	}
	if d.WorkFactor != 0 {
		to.SetWorkFactor(d.WorkFactor)
	}
	var buf bytes.Buffer
	w, err := age.Encrypt(&buf, to)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

func (d KeyDir) decrypt(name string, data []byte) ([]byte, error) {
	pass, err := d.passphrase(name)
	if err != nil {
		return nil, err
	}
	id, err := age.NewScryptIdentity(pass)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrKeys, name, err)
	}
	r, err := age.Decrypt(bytes.NewReader(data), id)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrKeys, name, err)
	}
	return io.ReadAll(io.LimitReader(r, maxKeyFile))
}
