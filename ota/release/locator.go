package release

// LocatorFormat is the word that a locator starts with.
const LocatorFormat = "pawl-locator/0"

// Locator says where the content of one release lies in the repository. It is
// signed like the release, and may be replaced without touching the release.
type Locator struct {
	Format string `json:"format"`
	ID
	Release Digest  `json:"release"` // of the release document
	Packs   []Pack  `json:"packs"`
	Table   Blob    `json:"table"` // of the stored table file
	Patches []Patch `json:"patches,omitempty"`
}

// Pack is one file of stored blobs.
type Pack struct {
	Name string `json:"name"` // in the repository
	Size int64  `json:"size"` // bytes
}

// Patch is a stored way to make one blob from another.
type Patch struct {
	To     Blob   `json:"to"`
	From   Digest `json:"from"`
	Pack   int    `json:"pack"` // which of Locator.Packs
	Offset int64  `json:"offset"`
	Length int64  `json:"length"`
	Codec  Codec  `json:"codec"`
}

// Codec is how stored bytes become a blob. It is stored as its word.
type Codec string

// Place is where a stored blob lies.
type Place struct {
	Pack   string // name in the repository
	Offset int64
	Length int64
	Codec  Codec
}
