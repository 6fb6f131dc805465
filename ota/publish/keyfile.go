package publish

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"filippo.io/age"

	"github.com/pawl-ota/pawl/ota/durable"
	"github.com/pawl-ota/pawl/ota/release"
)

// ErrKeys is returned when keys are missing, or cannot be read.
var ErrKeys = errors.New("keys are missing or of no use")

// MaxThreshold is the highest threshold that keys are made for.
const MaxThreshold = 16

// maxKeyFile is the longest key file in bytes.
const maxKeyFile = 64 << 10

// KeyType is a kind of key. It is stored as its word.
type KeyType string

// The values of [KeyType].
const (
	Ed25519 KeyType = "ed25519" // the default
	ECDSA   KeyType = "ecdsa"   // on the curve P-256
	RSA     KeyType = "rsa"     // of 3072 bits, for signatures with PSS
)

// KeyDir is a folder with one file for each key: ROLE.N.pem with the private
// key as PKCS #8, or ROLE.N.pem.age with the same encrypted by age under a
// passphrase. The files have mode 0600. Move those of a role elsewhere to take
// the role offline. Beside each is ROLE.N.pub.pem with the public half, which is
// no secret: it names the key to others, and after the key was lost.
type KeyDir struct {
	Path string
	// Passphrase is asked for the passphrase of an encrypted file. nil means
	// that none is known.
	Passphrase func(file string) (string, error)

	// Type is what keys are made of; empty means Ed25519. Spare is how many keys
	// more than the threshold Make makes for root and for targets: so many can
	// be lost.
	Type  KeyType
	Spare int

	// WorkFactor is how hard a passphrase is to try out, as the power of two
	// that scrypt takes; 0 means age's default, a second or so.
	WorkFactor int
}

// Make makes the keys that are not there yet, threshold and Spare of them for
// root and for targets and one for the others, and returns all. Where encrypt
// is set the files it makes are encrypted under the passphrase. Called again
// after it was cut short it carries on.
func (d KeyDir) Make(threshold int, encrypt bool) (Keys, error) {
	if threshold < 1 || threshold > MaxThreshold {
		return nil, fmt.Errorf("cannot make keys: a threshold of %d is not from 1 to %d", threshold, MaxThreshold)
	}
	if d.Spare < 0 || d.Spare > MaxThreshold {
		return nil, fmt.Errorf("cannot make keys: %d spare ones are not from 0 to %d", d.Spare, MaxThreshold)
	}
	if err := durable.MkdirAll(d.Path, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make keys: %w", err)
	}
	keys := Keys{}
	for _, role := range Roles() {
		n := 1
		if role == Root || role == Targets {
			n = threshold + d.Spare
		}
		for i := range n {
			key, err := d.loadOrMake(keyName(role, i+1), encrypt)
			if err != nil {
				return nil, err
			}
			keys[role] = append(keys[role], key)
		}
	}
	return keys, nil
}

// New makes one more key for a role, beside those that are there, and returns
// the path of its public half. It counts for nothing until [Repository.Rotate] or
// [Repository.Delegate] says so.
func (d KeyDir) New(role Role, encrypt bool) (key crypto.Signer, public string, err error) {
	if err := release.CheckName(string(role)); err != nil {
		return nil, "", fmt.Errorf("cannot make key: role: %w", err)
	}
	if err := durable.MkdirAll(d.Path, 0o700); err != nil {
		return nil, "", fmt.Errorf("cannot make key: %w", err)
	}
	files, err := d.files(".pub") // and those that were lost
	if err != nil {
		return nil, "", fmt.Errorf("cannot make key: %w", err)
	}
	n := 1
	for _, f := range files {
		if f.role == role && f.n >= n {
			n = f.n + 1
		}
	}
	key, err = d.loadOrMake(keyName(role, n), encrypt)
	return key, filepath.Join(d.Path, publicName(keyName(role, n))), err
}

func keyName(role Role, n int) string { return fmt.Sprintf("%s.%d.pem", role, n) }
func publicName(name string) string   { return strings.TrimSuffix(name, ".pem") + ".pub.pem" }
func marshalPEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func (d KeyDir) loadOrMake(name string, encrypt bool) (crypto.Signer, error) {
	key, err := d.load(name)
	if errors.Is(err, fs.ErrNotExist) {
		key, err = d.make(name, encrypt)
	}
	if err != nil {
		return nil, err
	}
	path := filepath.Join(d.Path, publicName(name))
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	public := marshalPEM("PUBLIC KEY", der)
	if there, readErr := os.ReadFile(path); err == nil && (readErr != nil || !bytes.Equal(there, public)) {
		err = durable.WriteFile(path, public, 0o644)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot make key: %w", err)
	}
	return key, nil
}

// make makes the key name.
func (d KeyDir) make(name string, encrypt bool) (crypto.Signer, error) {
	private, err := generate(d.Type)
	if err != nil {
		return nil, fmt.Errorf("cannot make key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("cannot make key: %w", err)
	}
	data := marshalPEM("PRIVATE KEY", der)
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

func generate(kind KeyType) (crypto.Signer, error) {
	switch kind {
	case "", Ed25519:
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	case ECDSA:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case RSA:
		return rsa.GenerateKey(rand.Reader, 3072)
	}
	return nil, fmt.Errorf("type %q is not %s, %s or %s", kind, Ed25519, ECDSA, RSA)
}

// keyFile is the file of a private key.
type keyFile struct {
	role Role
	n    int
}

// files lists the private keys, whether encrypted or not, by role and number;
// with the ending ".pub" the public ones too.
func (d KeyDir) files(also ...string) (list []keyFile, err error) {
	entries, err := os.ReadDir(d.Path)
	for _, e := range entries {
		stem, ok := strings.CutSuffix(strings.TrimSuffix(e.Name(), ".age"), ".pem")
		for _, end := range also {
			stem = strings.TrimSuffix(stem, end)
		}
		i := strings.LastIndexByte(stem, '.')
		if !ok || i < 1 {
			continue
		}
		n, err := strconv.Atoi(stem[i+1:])
		if err == nil && n > 0 && keyName(Role(stem[:i]), n) == stem+".pem" {
			list = append(list, keyFile{Role(stem[:i]), n})
		}
	}
	slices.SortFunc(list, func(a, b keyFile) int { return cmp.Or(cmp.Compare(a.role, b.role), cmp.Compare(a.n, b.n)) })
	return slices.Compact(list), err
}

// Load reads the keys of roles. A role without a file has no keys: a verb that
// has to sign for it says so. A file that cannot be read is an error.
func (d KeyDir) Load(roles ...Role) (Keys, error) {
	return d.loadThose(func(role Role) bool { return slices.Contains(roles, role) })
}

// LoadAll reads all keys of the folder but those of the roles without.
func (d KeyDir) LoadAll(without ...Role) (Keys, error) {
	return d.loadThose(func(role Role) bool { return !slices.Contains(without, role) })
}

func (d KeyDir) loadThose(wanted func(Role) bool) (Keys, error) {
	files, err := d.files()
	if err != nil {
		return nil, fmt.Errorf("cannot read keys: %w", err)
	}
	keys := Keys{}
	for _, f := range files {
		if !wanted(f.role) {
			continue
		}
		key, err := d.load(keyName(f.role, f.n))
		if err != nil {
			return nil, err
		}
		keys[f.role] = append(keys[f.role], key)
	}
	return keys, nil
}

// ReadPublicKey reads the public half of a key: the file that lies beside a key
// of [KeyDir], or that a hardware module gives (PKIX in PEM).
func ReadPublicKey(path string) (crypto.PublicKey, error) {
	data, err := (&disk{}).readFile(path, maxKeyFile)
	if err != nil {
		return nil, fmt.Errorf("cannot read public key: %w", err)
	}
	block, rest := pem.Decode(data)
	if block == nil || block.Type != "PUBLIC KEY" || len(bytes.TrimSpace(rest)) != 0 {
		return nil, fmt.Errorf("cannot read public key: %w: %s is not one public key in PEM (PKIX)", ErrKeys, path)
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err == nil {
		_, err = KeyID(key)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read public key: %w: %s: %w", ErrKeys, path, err)
	}
	return key, nil
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
