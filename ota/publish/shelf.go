package publish

import (
	"context"
	"io"
	"os"
	"runtime"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/pawl-ota/pawl/internal/codec"
	"github.com/pawl-ota/pawl/ota/release"
)

// shelf holds pieces as they will be stored, in their order, until it is known
// what comes before them in the pack. Pieces are compressed on all cores, and
// come out in the order in which they were put in: the result does not depend on
// the number of cores.
type shelf struct {
	f     *os.File
	n     int64
	items []*shelved
	at    map[release.Digest]int // in items
	queue chan *squeezing        // in order, for the writer
	jobs  chan *squeezing
	quit  chan struct{} // closed when the writer failed
	done  chan error    // of the writer
	work  sync.WaitGroup
}

// shelved is a piece as it is stored: on the shelf, or in an earlier pack.
type shelved struct {
	release.Blob
	spot
}

// squeezing is a piece that is compressed.
type squeezing struct {
	item  *shelved
	data  []byte
	codec release.Codec
	ready chan struct{}
}

// maxEncoders bounds what compression holds: an encoder has tables of some 40 MB.
const maxEncoders = 8

func newShelf(f *os.File) (*shelf, error) {
	workers := min(runtime.GOMAXPROCS(0), maxEncoders)
	s := &shelf{f: f, at: map[release.Digest]int{}, queue: make(chan *squeezing, 4*workers),
		jobs: make(chan *squeezing), quit: make(chan struct{}), done: make(chan error, 1)}
	for range workers {
		enc, err := newEncoder()
		if err != nil {
			close(s.jobs)
			return nil, err
		}
		s.work.Go(func() {
			for j := range s.jobs {
				j.squeeze(enc)
			}
		})
	}
	go s.write()
	return s, nil
}

// newEncoder compresses pieces one by one.
func newEncoder() (*zstd.Encoder, error) {
	return zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false),
		zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithWindowSize(codec.MaxWindow))
}

func (j *squeezing) squeeze(enc *zstd.Encoder) {
	defer close(j.ready)
	j.codec = release.Raw
	if out := enc.EncodeAll(j.data, nil); len(out) < len(j.data) {
		j.data, j.codec = out, release.Zstd
	}
}

// has reports whether the piece is on the shelf already.
func (s *shelf) has(d release.Digest) bool {
	_, ok := s.at[d]
	return ok
}

// add adds a piece that lies at a spot already.
func (s *shelf) add(b release.Blob, at spot) *shelved {
	it := &shelved{b, at}
	s.at[b.Digest] = len(s.items)
	s.items = append(s.items, it)
	return it
}

// put adds the piece b, whose bytes are data from now on the shelf's. It is the
// caller's that it is not there yet.
func (s *shelf) put(ctx context.Context, b release.Blob, data []byte) error {
	j := &squeezing{item: s.add(b, spot{size: b.Size}), data: data, ready: make(chan struct{})}
	for _, to := range []chan *squeezing{s.queue, s.jobs} {
		select {
		case to <- j:
		case <-s.quit:
			return context.Canceled // finish says why
		case <-ctx.Done():
			if to == s.jobs {
				close(j.ready)
			}
			return ctx.Err()
		}
	}
	return nil
}

// write puts what is ready into the file.
func (s *shelf) write() {
	var failed error
	for j := range s.queue {
		if failed != nil {
			continue
		}
		<-j.ready
		at := &j.item.spot // the writer's alone until finish
		at.offset, at.length, at.codec = s.n, int64(len(j.data)), j.codec
		n, err := s.f.Write(j.data)
		s.n += int64(n)
		if failed = err; err != nil {
			close(s.quit)
		}
	}
	s.done <- failed
}

// finish waits until all is written. It is called once, whatever put said.
func (s *shelf) finish() error {
	close(s.jobs)
	close(s.queue)
	s.work.Wait()
	return <-s.done
}

// open returns the stored bytes of an item.
func (s *shelf) open(d *disk, it *shelved) (io.ReadCloser, error) {
	if it.pack.IsZero() {
		return io.NopCloser(io.NewSectionReader(s.f, it.offset, it.length)), nil
	}
	f, err := os.Open(d.path(release.PackName(it.pack)))
	if err != nil {
		return nil, err
	}
	return &opened{io.NopCloser(io.NewSectionReader(f, it.offset, it.length)), f}, nil
}
