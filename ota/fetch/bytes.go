package fetch

// Cause is what bytes were fetched for.
type Cause int

// The values of [Cause].
const (
	Content Cause = iota
	Metadata
	Report
	causes // how many there are
)

const wasted = causes

// Bytes counts the bytes of answers, without HTTP's own and TLS's.
type Bytes struct {
	Metadata int64 `json:"metadata"`
	Content  int64 `json:"content"`
	Report   int64 `json:"report"`
	// Wasted bytes came and went to nobody: answers of errors and redirects,
	// and what came before the offset from a server that knows no ranges.
	Wasted int64 `json:"wasted"`
}

// Total is the sum.
func (b Bytes) Total() int64 { return b.Metadata + b.Content + b.Report + b.Wasted }

// Bytes returns what the Client has read so far. It may be called at any time
// from any goroutine.
func (c *Client) Bytes() Bytes {
	return Bytes{
		Metadata: c.count[Metadata].Load(),
		Content:  c.count[Content].Load(),
		Report:   c.count[Report].Load(),
		Wasted:   c.count[wasted].Load(),
	}
}

// arrived counts n bytes that nobody got yet.
func (c *Client) arrived(n int) { c.count[wasted].Add(int64(n)) }

// delivered counts n bytes that arrived as of use.
func (c *Client) delivered(cause Cause, n int) {
	c.count[wasted].Add(-int64(n))
	c.count[cause].Add(int64(n))
}
