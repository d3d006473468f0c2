// Package quarantine keeps the messages that a Collector could not use, so that an operator can look at them, process them again
// once the cause is mended, or drop them. Bad input never holds up a journal: it goes here, and what comes after it is read.
//
// The place is bounded in messages and in bytes; the oldest go first, and are counted. The same message is kept once, however often
// it arrives. What Keep has returned for is on stable storage.
//
// Messages hold the secrets of their prefixes, because without them they could not be processed again. The file is the owner's alone,
// and nothing that the Service shows has a secret in it.
//
// A Store is one file, described in docs/formats/quarantine.md, that one process has open. All methods are safe for concurrent use.
package quarantine

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/vfs"
)

const (
	// DefaultMaxBytes is how much a Store keeps by default.
	DefaultMaxBytes = 64 << 20
	// DefaultMaxMessages is how many messages it keeps by default.
	DefaultMaxMessages = 1000
	// What is kept of the refusals of one message.
	maxRefusals = 8
	maxError    = 300
)

// Options of Open. The zero value is good.
type Options struct {
	// MaxBytes bounds the messages and what is known of them; zero is DefaultMaxBytes. The file may be twice as large.
	MaxBytes int64
	// MaxMessages bounds their number; zero is DefaultMaxMessages.
	MaxMessages int
	// FS is where the file is; nil is the disk.
	FS vfs.FS
	// Logger gets what is wrong with the file; nil discards it.
	Logger *slog.Logger
	// Registerer receives the store's metrics; nil is none.
	Registerer prometheus.Registerer
}

// Message is a message to be kept. The id, the time, the size and the sum in About are set by Keep.
type Message struct {
	About *daybookv1.QuarantinedMessage
	Body  []byte
}

// Store keeps messages.
type Store struct {
	opts    Options
	dir     string
	metrics *metrics

	mu     sync.Mutex
	file   vfs.File // nil when closed
	size   int64    // of what is good in the file
	broken bool     // a write failed, so the file has to be written anew
	slots  []*slot  // by id
	sums   map[[sha256.Size]byte]*slot
	live   int64 // bytes of the slots' records
	next   int64 // id
	// evicted counts what newer messages pushed out since Open.
	evicted int64
}

// slot is where a message lies in the file.
type slot struct {
	id       int64
	sum      [sha256.Size]byte
	record   extent
	arrivals int64
}

// extent is a record's place.
type extent struct {
	at          int64
	about, body int
}

func (e extent) size() int64 { return recordHead + int64(e.about) + int64(e.body) }

// Open opens the store in dir, which is made if it is missing.
func Open(dir string, o Options) (*Store, error) {
	if o.MaxBytes <= 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	if o.MaxMessages <= 0 {
		o.MaxMessages = DefaultMaxMessages
	}
	if o.FS == nil {
		o.FS = vfs.OS
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Store{opts: o, dir: dir, metrics: newMetrics(o.Registerer), sums: make(map[[sha256.Size]byte]*slot), next: 1}
	if err := s.open(); err != nil {
		return nil, fmt.Errorf("quarantine: open %s: %w", dir, err)
	}
	return s, nil
}

// Close releases the file.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	s.file = nil
	return err
}

// Keep puts messages aside; all of them are on stable storage when it returns without an error. It takes those that are there
// already as arrived once more, and says of each message whether it is new.
func (s *Store) Keep(messages []Message) (fresh []bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fresh = make([]bool, len(messages))
	var buf []byte
	var added []*slot
	pending := make(map[[sha256.Size]byte]*slot)
	begin, next := s.size, s.next
	for i, m := range messages {
		sum := sha256.Sum256(m.Body)
		known := s.sums[sum]
		if known == nil {
			known = pending[sum]
		}
		if known != nil {
			known.arrivals++
			s.metrics.repeated.Inc()
			continue
		}
		fresh[i] = true
		about := describe(m, next, sum)
		at := int64(len(buf))
		var e extent
		if buf, e, err = appendRecord(buf, kindKept, about, m.Body); err != nil {
			return nil, fmt.Errorf("quarantine: keep a message: %w", err)
		}
		e.at = begin + at
		if e.size() > s.opts.MaxBytes {
			buf = buf[:at]
			s.metrics.tooLarge.Inc()
			continue
		}
		next++
		added = append(added, &slot{id: about.GetId(), sum: sum, record: e, arrivals: 1})
		pending[sum] = added[len(added)-1]
	}
	if len(added) == 0 {
		return fresh, nil
	}
	if err := s.append(buf, added); err != nil {
		return nil, fmt.Errorf("quarantine: keep %d messages: %w", len(added), err)
	}
	for _, a := range added {
		s.insert(a)
	}
	s.next = next
	s.metrics.kept.Add(float64(len(added)))
	evicted := s.evict()
	s.evicted += evicted
	s.metrics.evicted.Add(float64(evicted))
	s.tidy()
	return fresh, nil
}

// describe fills in what Keep knows, and leaves out what would take too much room.
func describe(m Message, id int64, sum [sha256.Size]byte) *daybookv1.QuarantinedMessage {
	about := &daybookv1.QuarantinedMessage{
		Id: id, Kept: timestamppb.New(time.Now()), Size: int64(len(m.Body)), Sha256: sum[:],
		Journal: m.About.GetJournal(), Offset: m.About.GetOffset(),
		Project: clip(m.About.GetProject()), Prefix: clip(m.About.GetPrefix()),
		Refused: max(m.About.GetRefused(), int64(len(m.About.GetRefusals()))),
	}
	for _, r := range m.About.GetRefusals()[:min(maxRefusals, len(m.About.GetRefusals()))] {
		about.Refusals = append(about.Refusals, &daybookv1.Refusal{
			Reason: r.GetReason(), Stream: clip(r.GetStream()), Entries: r.GetEntries(), Error: clip(r.GetError()),
		})
	}
	return about
}

// List returns what is kept, the oldest first.
func (s *Store) List() ([]*daybookv1.QuarantinedMessage, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*daybookv1.QuarantinedMessage, len(s.slots))
	for i, kept := range s.slots {
		about, _, err := s.read(kept, false)
		if err != nil {
			return nil, fmt.Errorf("quarantine: list: %w", err)
		}
		out[i] = about
	}
	return out, nil
}

// Get returns a message. That there is none with this id is an error of kind fault.NotFound.
func (s *Store) Get(id int64) (Message, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.find(id)
	if !ok {
		return Message{}, fault.New(fault.NotFound, "no message %d is in the quarantine; daybook quarantine ls shows what is", id)
	}
	about, body, err := s.read(s.slots[i], true)
	if err != nil {
		return Message{}, fmt.Errorf("quarantine: get message %d: %w", id, err)
	}
	return Message{About: about, Body: body}, nil
}

// Drop removes messages for good, and returns how many there were. Ids that are not there are none.
func (s *Store) Drop(ids ...int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var buf []byte
	var gone []int64
	for _, id := range ids {
		if _, ok := s.find(id); !ok || slices.Contains(gone, id) {
			continue
		}
		var err error
		if buf, _, err = appendRecord(buf, kindDropped, &daybookv1.QuarantinedMessage{Id: id}, nil); err != nil {
			return 0, fmt.Errorf("quarantine: drop message %d: %w", id, err)
		}
		gone = append(gone, id)
	}
	if len(gone) == 0 {
		return 0, nil
	}
	if err := s.append(buf, nil); err != nil {
		return 0, fmt.Errorf("quarantine: drop %d messages: %w", len(gone), err)
	}
	for _, id := range gone {
		s.remove(id)
	}
	s.tidy()
	return len(gone), nil
}

// Evicted returns how many messages were pushed out by newer ones since Open.
func (s *Store) Evicted() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.evicted
}

// ids returns the ids of what is kept, the oldest first.
func (s *Store) ids() []int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]int64, len(s.slots))
	for i, k := range s.slots {
		out[i] = k.id
	}
	return out
}

func (s *Store) find(id int64) (int, bool) {
	return slices.BinarySearchFunc(s.slots, id, func(k *slot, id int64) int { return cmp.Compare(k.id, id) })
}

func (s *Store) insert(k *slot) {
	s.slots = append(s.slots, k)
	s.sums[k.sum] = k
	s.live += k.record.size()
	s.measure()
}

func (s *Store) remove(id int64) {
	i, ok := s.find(id)
	if !ok {
		return
	}
	k := s.slots[i]
	s.slots = slices.Delete(s.slots, i, i+1)
	delete(s.sums, k.sum)
	s.live -= k.record.size()
	s.measure()
}

// evict removes the oldest messages until the rest is within the bounds, and returns how many. Nothing is written: whoever reads the
// file does the same.
func (s *Store) evict() (n int64) {
	for len(s.slots) > s.opts.MaxMessages || s.live > s.opts.MaxBytes {
		s.remove(s.slots[0].id)
		n++
	}
	return n
}

func (s *Store) measure() {
	s.metrics.messages.Set(float64(len(s.slots)))
	s.metrics.bytes.Set(float64(s.live))
}

// clip bounds a text that senders choose.
func clip(text string) string {
	if len(text) <= maxError {
		return text
	}
	cut := maxError
	for cut > 0 && text[cut]&0xc0 == 0x80 { // within a character
		cut--
	}
	return text[:cut] + "…"
}

// path is the file's name, or that of one that is being written.
func (s *Store) path(name string) string { return filepath.Join(s.dir, name) }
