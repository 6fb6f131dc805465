package delta

import "math/bits"

// model is all that is expected of what comes next in a group: writer and
// reader keep equal ones. It is about 3.5 MiB, whatever goes through; of a quick
// group 1.2 MiB are used.
type model struct {
	*mixing
	quick bool

	more    prob // is there another patch
	oldSize number
	growth  signed // of the new blob over the old one
	seek    signed
	insert  number
	plain   prob // are the inserted bytes of the patch nearly chance
	tokens  tokenModel
	items   itemModel
}

func newModel(quick bool) *model {
	m := &model{quick: quick}
	if !quick {
		m.mixing = newMixing()
	}
	m.tokens.init()
	m.items.init()
	return m
}

// number is a model of numbers from 0 to 2^47-2: how many bits, the upper three
// of them, and the others as they are.
type number struct {
	class [64]prob
	upper [48][8]prob
}

// signed is a model of numbers of both signs, written as 0, -1, 1, -2 … would be.
type signed struct {
	zero, sign prob
	size       number
}

// A token is a stretch of bytes that are as expected, and a difference for the
// byte behind them; the difference of 0 ends a copy. They are held in one
// number, gap times 512 and the difference plus 256; those with a long gap are
// not remembered.
type token uint32

const (
	maxGap  = 1<<23 - 2
	noToken = token(maxGap+1) << 9
	end     = 256 // the difference of 0
)

func makeToken(gap int64, diff uint32) token {
	if gap > maxGap {
		return noToken | token(diff)
	}
	return token(gap)<<9 | token(diff)
}

// guess is the token that came last after certain others, and how often in a
// row.
type guess struct {
	t     token
	count uint8
}

func (g *guess) learn(t token) {
	switch {
	case g.t == t && g.count > 0:
		g.count = min(g.count+1, 15)
	case g.count > 1:
		g.count /= 2
	default:
		g.t, g.count = t, 1
	}
}

const (
	longGuesses  = 15 // bits
	shortGuesses = 14
	rows         = 9
)

// tokenModel expects tokens by those before: first the one that followed the
// last three of them before, then the one that followed the last one; and then
// gap and difference on their own.
type tokenModel struct {
	last        [3]token
	long, short []guess
	longHit     [16][3]prob
	shortHit    [16][2]prob

	gapA     [64][64]short // by the gap before
	gapB     []short       // by the two gaps before
	gapC     [4][512][64]short
	gapW     [64]weights
	gapUpper [64][8]prob

	diffA [64][512]short  // by the gap
	diffB [512][512]short // by the difference before
	diffC []short         // by both and the one before
	diffW [512]weights
}

func (t *tokenModel) init() {
	t.long, t.short = make([]guess, 1<<longGuesses), make([]guess, 1<<shortGuesses)
	t.gapB, t.diffC = make([]short, 64<<12), make([]short, 512<<rows)
}

func hash(v uint64, n uint) uint32 { return uint32(v * 0x9e3779b97f4a7c15 >> (64 - n)) }

func (t *tokenModel) guesses() (long, short *guess) {
	a, b, c := uint64(t.last[0]), uint64(t.last[1]), uint64(t.last[2])
	return &t.long[hash(a^b<<21^c<<42^c>>22, longGuesses)], &t.short[hash(a, shortGuesses)]
}

// learn remembers a token, which is never guessed where its gap is too long.
func (t *tokenModel) learn(long, short *guess, x token) {
	if x < noToken {
		long.learn(x)
		short.learn(x)
	}
	t.last[2], t.last[1], t.last[0] = t.last[1], t.last[0], x
}

// gapSymbol names a gap up to 31, or the number of its bits.
func gapSymbol(gap int64) uint32 {
	if gap < 32 {
		return uint32(gap)
	}
	return 32 + uint32(bits.Len64(uint64(gap))) - 6
}

// contexts of a gap, and of a difference.
func (t *tokenModel) gapRows(at int64) (a, b, c []short) {
	g1, g2 := gapSymbol(int64(t.last[0]>>9)), gapSymbol(int64(t.last[1]>>9))
	row := int(g1<<6|g2) * 64
	return t.gapA[g1][:], t.gapB[row : row+64], t.gapC[at&3][t.last[0]&511][:]
}

// gapRow and diffRow are the contexts in a quick group: of the three the one
// that says most by itself.
func (t *tokenModel) gapRow() []short {
	row := int(gapSymbol(int64(t.last[0]>>9))<<6|gapSymbol(int64(t.last[1]>>9))) * 64
	return t.gapB[row : row+64]
}

func (t *tokenModel) diffRow(gap int64) []short { return t.diffA[gapSymbol(gap)][:] }

func (t *tokenModel) diffRows(gap int64, at int64) (a, b, c []short) {
	g, d1, d2 := gapSymbol(gap), t.last[0]&511, t.last[1]&511
	row := int(hash(uint64(g)<<18|uint64(d1)<<9|uint64(d2), rows)) * 512
	return t.diffA[g][:], t.diffB[d1][:], t.diffC[row : row+512]
}

// What inserted bytes are made of.
const (
	itemByte   = iota
	itemMatch  // a distance and a length
	itemRepeat // one of the last distances, and a length
	itemRaw    // many bytes as they are
)

const (
	window   = 1 << 20
	rawRun   = 4 << 10  // raw bytes come in so many
	rawMax   = 64 << 10 // and are at most so many at a time
	minMatch = 2
)

// itemModel expects inserted bytes by the inserted bytes before.
type itemModel struct {
	kind     [4][4][4]prob
	repeats  [4]prob
	length   [2]number
	distance [4]number
	rawRuns  number

	plain plain           // where the bytes are nearly chance
	byteA [256][256]short // by the byte before
	byteB []short         // by the two before
	byteC [512][256]short // by the byte at the last distance
	byteW [2][256]weights

	kinds [2]uint32
	reps  [4]int64
}

const byteRows = 10

func (t *itemModel) init() {
	t.plain.init()
	t.byteB = make([]short, 256<<byteRows)
	t.reps = [4]int64{1, 1, 1, 1}
}

func (t *itemModel) remember(kind uint32) { t.kinds[1], t.kinds[0] = t.kinds[0], kind }

func (t *itemModel) byteRows(b1, b2, like byte) (a, b, c []short, w *[256]weights) {
	row := int(hash(uint64(b1)<<8|uint64(b2), byteRows)) * 256
	after := 0
	if t.kinds[0] != itemByte {
		after = 1
	}
	return t.byteA[b1][:], t.byteB[row : row+256], t.byteC[after<<8|int(like)][:], &t.byteW[after]
}

// use brings the distance i to the front, push puts another one there.
func (t *itemModel) use(i int) {
	d := t.reps[i]
	copy(t.reps[1:], t.reps[:i])
	t.reps[0] = d
}

func (t *itemModel) push(d int64) {
	copy(t.reps[1:], t.reps[:3])
	t.reps[0] = d
}
