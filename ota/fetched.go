package ota

import "sort"

// Fetched says what the bytes of a [Result] were for: stored bytes of the
// repository, without HTTP's own. Their sum is Result.Bytes.
type Fetched struct {
	// Metadata says which releases there are and where their content lies: what a
	// Source reads for itself, and the table of a release.
	Metadata int64 `json:"metadata"`
	// Index lists what components consist of, whole or as what changed in it.
	Index int64 `json:"index"`
	// Patches make blobs of blobs that are on the device, with what says which.
	Patches int64 `json:"patches"`
	// Pieces are those of blobs that are stored as several, of which a device may
	// have some; Whole are blobs that are stored as one.
	Pieces int64 `json:"pieces"`
	Whole  int64 `json:"whole"`
	// Between was fetched because it lies between two of the others, and a further
	// request would have cost more.
	Between int64 `json:"between"`
	// Again had come before, to the same process, and was wrong or was damaged
	// where it was kept.
	Again int64 `json:"again"`
}

func (f *Fetched) all() []*int64 {
	return []*int64{&f.Metadata, &f.Index, &f.Patches, &f.Pieces, &f.Whole, &f.Between, &f.Again}
}

// Total is the sum.
func (f Fetched) Total() (n int64) {
	for _, v := range f.all() {
		n += *v
	}
	return n
}

func (f *Fetched) add(o Fetched) {
	mine := f.all()
	for i, v := range o.all() {
		*mine[i] += *v
	}
}

// purpose is what a range of the repository is fetched for.
type purpose struct {
	span
	in func(*Fetched) *int64 // where it counts
}

func forTable(f *Fetched) *int64   { return &f.Metadata }
func forIndex(f *Fetched) *int64   { return &f.Index }
func forPatches(f *Fetched) *int64 { return &f.Patches }
func forPieces(f *Fetched) *int64  { return &f.Pieces }
func forWhole(f *Fetched) *int64   { return &f.Whole }

// sortPurposes takes package sort for what it adds to a program.
func sortPurposes(all []purpose) {
	sort.Slice(all, func(i, j int) bool {
		return all[i].file < all[j].file || all[i].file == all[j].file && all[i].offset < all[j].offset
	})
}

// charge counts a range that came. all are sorted; wrong are ranges that had come
// before.
func (f *Fetched) charge(s span, all []purpose, wrong []span) {
	for _, w := range wrong {
		from, to := max(s.offset, w.offset), min(s.end, w.end)
		if w.file == s.file && from < to {
			f.Again += to - from
			f.charge(span{s.file, s.offset, from}, all, wrong)
			s.offset = to
		}
	}
	first := sort.Search(len(all), func(i int) bool {
		return all[i].file > s.file || all[i].file == s.file && all[i].end > s.offset
	})
	for _, p := range all[first:] {
		if p.file != s.file || p.offset >= s.end {
			break
		}
		if p.offset > s.offset {
			f.Between += p.offset - s.offset
			s.offset = p.offset
		}
		if to := min(p.end, s.end); to > s.offset {
			*p.in(f) += to - s.offset
			s.offset = to
		}
	}
	f.Between += max(0, s.end-s.offset)
}

// fetchedNow returns what came since it was called last, of which all bytes are
// known already.
func (u *Updater) fetchedNow(all int64) Fetched {
	f := u.causes
	u.causes = Fetched{}
	f.Metadata += max(0, all-f.Total())
	return f
}
