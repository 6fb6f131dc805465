package otatest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
)

// Object is a JSON object of TUF metadata, which a test may change at will.
type Object = map[string]any

// TUFKey is a key of a [TUFRepo].
type TUFKey struct {
	// ID is what signatures and roles name it by. It is the one that the
	// specification derives; a test may give it another.
	ID string
	// Public is how metadata shows it.
	Public Object
	sign   func(message []byte) []byte
}

// NewTUFKey returns a new Ed25519 key.
func NewTUFKey() TUFKey {
	public, private, err := ed25519.GenerateKey(nil)
	must(err)
	return newTUFKey("ed25519", "ed25519", hex.EncodeToString(public), func(m []byte) []byte { return ed25519.Sign(private, m) })
}

// NewTUFKeyECDSA returns a new key on the curve P-256 of that keytype: "ecdsa", or
// "ecdsa-sha2-nistp256" as some implementations say.
func NewTUFKeyECDSA(keytype string) TUFKey {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	return newTUFKey(keytype, "ecdsa-sha2-nistp256", publicPEM(private.Public()), signHashed(private, crypto.SHA256))
}

// NewTUFKeyRSA returns a new RSA key that signs by PSS.
func NewTUFKeyRSA() TUFKey {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	must(err)
	how := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
	return newTUFKey("rsa", "rsassa-pss-sha256", publicPEM(private.Public()), signHashed(private, how))
}

func newTUFKey(keytype, scheme, public string, sign func([]byte) []byte) TUFKey {
	k := TUFKey{Public: Object{"keytype": keytype, "scheme": scheme, "keyval": Object{"public": public}}, sign: sign}
	sum := sha256.Sum256(canonical(k.Public))
	k.ID = hex.EncodeToString(sum[:])
	return k
}

func signHashed(key crypto.Signer, opts crypto.SignerOpts) func([]byte) []byte {
	return func(message []byte) []byte {
		sum := sha256.Sum256(message)
		signature, err := key.Sign(rand.Reader, sum[:], opts)
		must(err)
		return signature
	}
}

func publicPEM(key crypto.PublicKey) string {
	der, err := x509.MarshalPKIXPublicKey(key)
	must(err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// canonical encodes v as canonical JSON, which for what metadata holds is JSON with
// sorted keys, without spaces, and without what escapes HTML.
func canonical(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	must(e.Encode(v))
	return bytes.ReplaceAll(bytes.TrimSuffix(b.Bytes(), []byte("\n")), []byte(`\n`), []byte("\n"))
}

// sign returns the metadata file of signed, with a signature by each key.
func sign(signed Object, keys []TUFKey) []byte {
	signatures := []any{}
	message := canonical(signed)
	for _, k := range keys {
		signatures = append(signatures, Object{"keyid": k.ID, "sig": hex.EncodeToString(k.sign(message))})
	}
	data, err := json.Marshal(Object{"signed": signed, "signatures": signatures})
	must(err)
	return data
}

// must panics where only the test's own code can be wrong.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
