package block

import (
	"fmt"
	"sync"
	"time"
)

// Op is what the kernel asked of the disk.
type Op string

// The requests that change what a power cut leaves. A write with FUA arrives
// from a loop device as a write and a flush behind it.
const (
	Write   Op = "write"
	Flush   Op = "flush"
	Discard Op = "discard" // and "write zeros": the range reads as zeros afterwards
)

// Entry is one request.
type Entry struct {
	Op     Op
	Offset int64
	Length int64
	Data   []byte // of a Write
}

// Mark is a call of the program that returned when Pos entries were in the log.
type Mark struct {
	Pos  int
	Name string
}

// Log is what happened to a disk that began as Base.
type Log struct {
	Base    *Image
	Entries []Entry
	Marks   []Mark
}

// String counts what is in the log.
func (l *Log) String() string {
	count := map[Op]int{}
	var bytes int64
	for _, e := range l.Entries {
		count[e.Op]++
		bytes += int64(len(e.Data))
	}
	return fmt.Sprintf("%d writes (%d KiB), %d flushes, %d discards, %d marks",
		count[Write], bytes>>10, count[Flush], count[Discard], len(l.Marks))
}

// Recorder is a disk in memory that logs what is asked of it. Its methods may
// be called from several goroutines.
type Recorder struct {
	delay time.Duration

	mu  sync.Mutex
	now *Image
	log Log
}

// NewRecorder returns a disk with the content of base. A flush takes delay, as
// on a disk that is not made of memory: the timers of the file system then
// fall between the steps of the program.
func NewRecorder(base *Image, delay time.Duration) *Recorder {
	return &Recorder{delay: delay, now: base.Clone(), log: Log{Base: base}}
}

// Mark notes that a call of the program has returned.
func (r *Recorder) Mark(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log.Marks = append(r.log.Marks, Mark{Pos: len(r.log.Entries), Name: name})
}

// Log returns what was recorded so far.
func (r *Recorder) Log() *Log {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.log
	l.Entries = l.Entries[:len(l.Entries):len(l.Entries)]
	return &l
}

func (r *Recorder) add(e Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log.Entries = append(r.log.Entries, e)
	e.apply(r.now, e.Length)
}

func (r *Recorder) read(b []byte, off int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now.Read(b, off)
}

// apply does the first length bytes of a request.
func (e Entry) apply(m *Image, length int64) {
	switch e.Op {
	case Write:
		m.Write(e.Data[:length], e.Offset)
	case Discard:
		m.Zero(e.Offset, length)
	}
}
