package delta

// A match is worth a step of its own when it is so many bytes longer than what
// is equal there without it; and one that is so long is not compared with others.
const (
	better  = 8
	goodRun = 24
)

// finder looks for approximate matches of new in old, as Colin Percival's bsdiff
// does ("Naive differences of executable code", 2003): exact matches that are
// better than going on as before are the seeds, and each is extended in both
// directions as long as more than half of the bytes are equal.
type finder struct {
	x        *index
	old, new []byte
	ops      []op
	done     int // new[:done] is described by ops, together with the match from there
	from     int // where in old the match is that begins at done
}

// find returns the steps. guess is where in old the match may go on with which
// new begins.
func (f *finder) find(guess int) []op {
	f.from = guess
	for i := 0; i < len(f.new); {
		here := min(i-f.done+f.from, len(f.old))
		run := common(f.new[i:], f.old[here:])
		if run >= goodRun {
			i += run
			continue
		}
		at, n := f.x.longest(f.new[i:])
		if n > better && at != here && n > f.equal(i, here, n)+better {
			f.flush(i, at)
			i += n
			continue
		}
		i += max(run, 1)
	}
	f.flush(len(f.new), len(f.old))
	return f.ops
}

// equal counts the bytes that are equal where new[i:i+n] is laid on old[at:].
func (f *finder) equal(i, at, n int) int {
	a, b := f.new[i:i+n], f.old[at:]
	b = b[:min(len(b), n)]
	sum := 0
	for j, c := range b {
		if a[j] == c {
			sum++
		}
	}
	return sum
}

// flush ends the match that began at done, because another was found at i that
// lies at in old: where they meet, both are extended.
func (f *finder) flush(i, at int) {
	ahead := f.ahead(i)
	back := f.back(i, at)
	if over := f.done + ahead - (i - back); over > 0 {
		cut := f.meet(i-back, at-back, over)
		ahead -= over - cut
		back -= cut
	}
	f.ops = append(f.ops, op{from: int64(f.from), copy: int64(ahead), insert: int64(i - back - f.done - ahead)})
	f.done, f.from = i-back, at-back
}

// ahead returns how far the match at done goes on before i.
func (f *finder) ahead(i int) int {
	a, b := f.new[f.done:i], f.old[f.from:]
	score, best, n := 0, 0, 0
	for j := range min(len(a), len(b)) {
		if a[j] == b[j] {
			score++
		} else {
			score--
		}
		if score > best {
			best, n = score, j+1
		}
	}
	return n
}

// back returns how far the match of new[i:] with old[at:] reaches back.
func (f *finder) back(i, at int) int {
	if i == len(f.new) {
		return 0
	}
	score, best, n := 0, 0, 0
	for j := 1; j <= min(i-f.done, at); j++ {
		if f.new[i-j] == f.old[at-j] {
			score++
		} else {
			score--
		}
		if score > best {
			best, n = score, j
		}
	}
	return n
}

// meet returns how much of over bytes from i on, that both matches describe, is
// best left to the one before; the other one lies at in old there.
func (f *finder) meet(i, at, over int) int {
	was := f.from + i - f.done
	score, best, n := 0, 0, 0
	for j := range over {
		if f.new[i+j] == f.old[was+j] {
			score++
		}
		if f.new[i+j] == f.old[at+j] {
			score--
		}
		if score > best {
			best, n = score, j+1
		}
	}
	return n
}
