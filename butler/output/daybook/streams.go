package daybook

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"

	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/logpb"
)

// The file of streams tells another process which streams have to be ended, and at which index: a terminal index must not be
// lower than that of any entry that was sent. So entries are noted before they are sent, and an end after it was. The bytes are
// those of docs/formats/butler-spool.md. A record that is cut off was being written when the process died, so nothing of what it
// tells was sent, and it is dropped.
const (
	itemStream byte = iota + 1
	itemNext
	itemEnd
)

// maxStreamsRecord is far more than a bundle can mention.
const maxStreamsRecord = 64 << 20

// compactAt is the size from which on the file is rewritten when it has doubled.
const compactAt = 1 << 20

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// openStream is a stream whose end was not sent.
type openStream struct {
	number uint64
	desc   *logpb.LogStreamDescriptor
	// next is one more than the highest index that may have been sent.
	next uint64
}

// streams is the file of streams. Its owner guards it.
type streams struct {
	path string
	// file is nil when it has to be opened again.
	file *os.File
	// size is the length of the file's good part, compacted what it was when it was last rewritten.
	size, compacted int64
	// unwritten has items that are not in the file.
	unwritten []byte

	open map[string]*openStream
	// ended are the streams whose end was sent. Bundles that were made before it may still come.
	ended map[string]bool
	// numbers is the number of the next stream.
	numbers uint64
}

func newStreams(path string) *streams {
	return &streams{path: path, open: make(map[string]*openStream), ended: make(map[string]bool)}
}

// openStreams reads the file, if there is one, and makes it ready for more.
func openStreams(path string) (*streams, error) {
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	s := newStreams(path)
	if s.size, err = s.replay(data); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	s.compacted = s.size
	return s, s.reopen()
}

// reopen opens the file and cuts off what is not good.
func (s *streams) reopen() error {
	f, err := os.OpenFile(s.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := f.Truncate(s.size); err != nil {
		return errors.Join(err, f.Close())
	}
	s.file = f
	return nil
}

// replay applies all good records and returns their length.
func (s *streams) replay(data []byte) (good int64, err error) {
	byNumber := make(map[uint64]*openStream)
	for rest := data; ; {
		n, k := binary.Uvarint(rest)
		if k <= 0 || n > maxStreamsRecord || uint64(len(rest)-k) < n+crc32.Size {
			return good, nil
		}
		payload := rest[k : k+int(n)]
		if crc32.Checksum(payload, castagnoli) != binary.LittleEndian.Uint32(rest[k+int(n):]) {
			return good, nil
		}
		if err := s.apply(payload, byNumber); err != nil {
			return good, fault.New(fault.DataLoss, "record at %d: %w", good, err)
		}
		size := k + int(n) + crc32.Size
		good += int64(size)
		rest = rest[size:]
	}
}

var errItem = errors.New("malformed item")

func (s *streams) apply(items []byte, byNumber map[uint64]*openStream) error {
	number := func() (uint64, bool) {
		v, k := binary.Uvarint(items)
		if k <= 0 {
			return 0, false
		}
		items = items[k:]
		return v, true
	}
	for len(items) > 0 {
		kind := items[0]
		items = items[1:]
		v, ok := number()
		if !ok {
			return errItem
		}
		switch kind {
		case itemStream:
			n, ok := number()
			if !ok || n > uint64(len(items)) {
				return errItem
			}
			d := new(logpb.LogStreamDescriptor)
			if err := proto.Unmarshal(items[:n], d); err != nil {
				return fmt.Errorf("descriptor: %w", err)
			}
			items = items[n:]
			o := &openStream{number: v, desc: d}
			s.numbers = max(s.numbers, v+1)
			s.open[d.GetName()], byNumber[v] = o, o
		case itemNext:
			next, ok := number()
			o := byNumber[v]
			if !ok || o == nil {
				return errItem
			}
			o.next = max(o.next, next)
		case itemEnd:
			o := byNumber[v]
			if o == nil {
				return errItem
			}
			delete(s.open, o.desc.GetName())
			s.ended[o.desc.GetName()] = true
		default:
			return errItem
		}
	}
	return nil
}

// note takes down what a bundle is about to send. It is not in the file before flush.
func (s *streams) note(bundle *logpb.ButlerLogBundle) error {
	for _, e := range bundle.GetEntries() {
		name := e.GetDesc().GetName()
		if s.ended[name] {
			continue
		}
		o := s.open[name]
		if o == nil {
			o = &openStream{number: s.numbers, desc: proto.CloneOf(e.GetDesc())}
			items, err := appendStream(s.unwritten, o)
			if err != nil {
				return err
			}
			s.unwritten = items
			s.numbers++
			s.open[name] = o
		}
		if logs := e.GetLogs(); len(logs) > 0 {
			if next := logs[len(logs)-1].GetStreamIndex() + 1; next > o.next {
				o.next = next
				s.unwritten = appendItem(s.unwritten, itemNext, o.number, next)
			}
		}
	}
	return nil
}

// noteEnds takes down which streams end with a bundle that was sent. It is not in the file before flush.
func (s *streams) noteEnds(bundle *logpb.ButlerLogBundle) {
	for _, e := range bundle.GetEntries() {
		if o := s.open[e.GetDesc().GetName()]; o != nil && e.GetTerminal() {
			s.unwritten = appendItem(s.unwritten, itemEnd, o.number)
			delete(s.open, e.GetDesc().GetName())
			s.ended[e.GetDesc().GetName()] = true
		}
	}
}

// flush writes everything that was noted. After an error it may be called again.
func (s *streams) flush() error {
	if s.file == nil {
		if err := s.reopen(); err != nil {
			return err
		}
	}
	if len(s.unwritten) == 0 {
		return nil
	}
	record := frameItems(s.unwritten)
	if _, err := s.file.WriteAt(record, s.size); err != nil {
		return err
	}
	s.size += int64(len(record))
	s.unwritten = s.unwritten[:0]
	if s.size > compactAt && s.size > 2*s.compacted {
		return s.compact()
	}
	return nil
}

// compact rewrites the file with nothing but the open streams, which keep their numbers.
func (s *streams) compact() error {
	var data []byte
	for _, o := range s.open {
		items, err := appendStream(nil, o)
		if err != nil {
			return err
		}
		data = append(data, frameItems(appendItem(items, itemNext, o.number, o.next))...)
	}
	// Not every system replaces a file that is open.
	err := s.file.Close()
	s.file = nil
	if err == nil {
		err = writeFile(s.path, data)
	}
	if err != nil {
		return err // the old file goes on
	}
	s.size, s.compacted = int64(len(data)), int64(len(data))
	return s.reopen()
}

func (s *streams) close() error {
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}

func appendItem(b []byte, kind byte, numbers ...uint64) []byte {
	b = append(b, kind)
	for _, n := range numbers {
		b = binary.AppendUvarint(b, n)
	}
	return b
}

func appendStream(b []byte, o *openStream) ([]byte, error) {
	return proto.MarshalOptions{}.MarshalAppend(appendItem(b, itemStream, o.number, uint64(proto.Size(o.desc))), o.desc)
}

func frameItems(items []byte) []byte {
	b := make([]byte, 0, len(items)+binary.MaxVarintLen64+crc32.Size)
	b = binary.AppendUvarint(b, uint64(len(items)))
	b = append(b, items...)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(items, castagnoli))
}
