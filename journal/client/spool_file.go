package client

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/vfs"
	pb "github.com/daybook-dev/daybook/journal/protocol"
)

// The format of a spool file; docs/formats/spool.md describes it.
const (
	spoolMagic   = "DBSPOOL\x01"
	headerSize   = 32
	recordHeader = 8

	// flagDependent marks a batch that must not be sent before those ahead of it in other journals.
	flagDependent = 1

	// presentBit tells a record from the zeros of a hole.
	presentBit = 1 << 31
	// maxRecord is the most content of one Release.
	maxRecord = presentBit - 1

	maxRequest = 4 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errSpoolDamaged is wrapped by errors about content of a spool file that is not what was written.
var errSpoolDamaged = errors.New("spool file is damaged")

// spoolFile is the file of one batch.
type spoolFile struct {
	spool     *spool
	path      string // What it is called; unlinked if the spool has no directory.
	dir       string // The private directory of an unlinked file.
	seq       uint64
	request   *pb.AppendRequest
	dependent bool
	damaged   bool // Behind end is a release that cannot be read.

	file vfs.File // nil while it rests, and while all that there is of an unlinked one is in tail.
	// tail is what is yet to be written to an unlinked file, from position flushed on. Such a file does not survive the
	// process anyway, so it is written in large pieces, or not at all.
	tail    []byte
	flushed int64
	// begin and end enclose the records of successful releases, which have so much content.
	begin, end, content int64
	// size is what the file occupies of the spool's limit.
	size int64
}

// contentLength returns the released content; nil has none.
func (f *spoolFile) contentLength() int64 {
	if f == nil {
		return 0
	}
	return f.content
}

// encodeHeader returns the header of the file.
func (f *spoolFile) encodeHeader() ([]byte, error) {
	b := make([]byte, headerSize, headerSize+256)
	copy(b, spoolMagic)
	b, err := proto.MarshalOptions{}.MarshalAppend(b, f.request)
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	if len(b)-headerSize > maxRequest {
		return nil, fault.New(fault.Invalid, "the request has %d bytes; at most %d are allowed", len(b)-headerSize, maxRequest)
	}
	flags := uint32(0)
	if f.dependent {
		flags |= flagDependent
	}
	binary.LittleEndian.PutUint32(b[8:], uint32(len(b)-headerSize))
	binary.LittleEndian.PutUint32(b[12:], flags)
	binary.LittleEndian.PutUint64(b[16:], f.seq)
	binary.LittleEndian.PutUint32(b[24:], headerSum(b))
	return b, nil
}

// headerSum covers everything but itself.
func headerSum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:24], castagnoli), castagnoli, b[28:])
}

// decodeHeader reads the header of a file that an earlier process has written.
func (f *spoolFile) decodeHeader() error {
	head := make([]byte, headerSize)
	if _, err := f.file.ReadAt(head, 0); err != nil {
		return damagedOr(err, "header is cut off")
	}
	n := binary.LittleEndian.Uint32(head[8:])
	if string(head[:len(spoolMagic)]) != spoolMagic || n > maxRequest {
		return fmt.Errorf("%w: header is not one", errSpoolDamaged)
	}
	b := append(head, make([]byte, n)...)
	if _, err := f.file.ReadAt(b[headerSize:], headerSize); err != nil {
		return damagedOr(err, "request is cut off")
	}
	if binary.LittleEndian.Uint32(b[24:]) != headerSum(b) {
		return fmt.Errorf("%w: checksum of the header does not match", errSpoolDamaged)
	}
	f.request = new(pb.AppendRequest)
	if err := proto.Unmarshal(b[headerSize:], f.request); err != nil {
		return fmt.Errorf("%w: request: %w", errSpoolDamaged, err)
	}
	if err := validateStart(f.request); err != nil {
		return fmt.Errorf("%w: request: %w", errSpoolDamaged, err)
	}
	f.seq = binary.LittleEndian.Uint64(b[16:])
	f.dependent = binary.LittleEndian.Uint32(b[12:])&flagDependent != 0
	f.begin = int64(len(b))
	f.end = f.begin
	return nil
}

// damagedOr tells the end of a file from a failure to read it.
func damagedOr(err error, what string) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: %s", errSpoolDamaged, what)
	}
	return fmt.Errorf("read spool file: %w", err)
}

// recover finds the records of an earlier process: all whole ones from the beginning.
func (f *spoolFile) recover() error {
	if err := f.decodeHeader(); err != nil {
		return err
	}
	r := recordReader{file: f, pos: f.begin, limit: f.size, whole: f.begin}
	buf := chunks.Get().(*[chunkSize]byte)
	defer chunks.Put(buf)
	for {
		chunk, err := r.next(buf[:])
		if err != nil && !errors.Is(err, errSpoolDamaged) {
			return err
		}
		if err != nil || len(chunk) == 0 {
			f.end, f.content = r.whole, r.wholeContent
			f.damaged = err != nil && !r.torn
			return nil
		}
	}
}

// maxTail is how much of an unlinked file is kept in memory at most.
const maxTail = 256 << 10

// writeAt writes within the spool's limit.
func (f *spoolFile) writeAt(p []byte, off int64) error {
	if grow := off + int64(len(p)) - f.size; grow > 0 {
		if err := f.spool.reserve(grow); err != nil {
			return err
		}
		f.size += grow
	}
	if f.spool.dir == "" {
		return f.writeTail(p, off)
	}
	return f.writeFile(p, off)
}

func (f *spoolFile) writeFile(p []byte, off int64) error {
	if _, err := f.file.WriteAt(p, off); err != nil {
		if vfs.IsNoSpace(err) {
			return fault.New(fault.Exhausted, "write spool: %w", err)
		}
		return fmt.Errorf("write spool: %w", err)
	}
	return nil
}

// writeTail writes to an unlinked file. All that is in it before off has been written, but for the space of a record's header.
func (f *spoolFile) writeTail(p []byte, off int64) error {
	if off < f.flushed {
		return f.writeFile(p, off) // a header; what follows it was written before
	}
	at := int(off - f.flushed)
	for len(f.tail) < at {
		f.tail = append(f.tail, 0)
	}
	if len(p) >= maxTail && at == len(f.tail) {
		if err := f.flush(); err != nil {
			return err
		}
		if err := f.writeFile(p, off); err != nil {
			return err
		}
		f.flushed += int64(len(p))
		return nil
	}
	if n := copy(f.tail[at:], p); n < len(p) {
		f.tail = append(f.tail, p[n:]...)
	}
	if len(f.tail) >= maxTail {
		return f.flush()
	}
	return nil
}

// flush writes the tail of an unlinked file.
func (f *spoolFile) flush() error {
	if len(f.tail) == 0 {
		return nil
	}
	if f.file == nil {
		if err := f.makeUnlinked(); err != nil {
			if vfs.IsNoSpace(err) {
				return fault.New(fault.Exhausted, "create spool file: %w", err)
			}
			return fmt.Errorf("create spool file: %w", err)
		}
	}
	if err := f.writeFile(f.tail, f.flushed); err != nil {
		return err
	}
	f.flushed += int64(len(f.tail))
	f.tail = f.tail[:0]
	return nil
}

// readAt fills p, or fails.
func (f *spoolFile) readAt(p []byte, off int64) error {
	if f.spool.dir == "" {
		if inFile := max(0, f.flushed-off); inFile < int64(len(p)) {
			if n := copy(p[inFile:], f.tail[max(0, off-f.flushed):]); n < len(p)-int(inFile) {
				return io.EOF
			}
			p = p[:inFile]
		}
		if len(p) == 0 {
			return nil
		}
	}
	_, err := f.file.ReadAt(p, off)
	return err
}

// cut removes what is behind the last release.
func (f *spoolFile) cut() error {
	if f.spool.dir == "" && f.end >= f.flushed {
		f.tail = f.tail[:f.end-f.flushed]
		return nil
	}
	if err := f.file.Truncate(f.end); err != nil {
		return err
	}
	f.tail, f.flushed = nil, f.end
	return nil
}

// recordWriter writes what a holder writes as one record. Its header comes last, so nothing is there before all of it is.
type recordWriter struct {
	spool *spool
	batch *AsyncAppend
	pos   int64 // Where the next byte of content goes.
	n     int64 // Content so far.
	crc   uint32
	// final is set when no more content will follow the next Write, which may then carry the header along.
	final, done bool
	scratch     [recordHeader + writerSize]byte
}

// begin begins the record of a new holder.
func (w *recordWriter) begin(sp *spool, p *AsyncAppend) {
	w.spool, w.batch = sp, p
	w.n, w.crc, w.final, w.done = 0, 0, false, false
	if p.file != nil {
		w.pos = p.file.end + recordHeader
	}
}

// ensure makes the batch's file.
func (w *recordWriter) ensure() error {
	if w.batch.file != nil {
		return nil
	}
	f, err := w.spool.create(w.batch.request, len(w.batch.deps) != 0)
	if err != nil {
		return err
	}
	w.batch.file = f
	w.pos = f.end + recordHeader
	return nil
}

// Write implements io.Writer below the holder's bufio.Writer.
func (w *recordWriter) Write(p []byte) (int, error) {
	if err := w.ensure(); err != nil {
		return 0, err
	}
	if w.n+int64(len(p)) > maxRecord {
		return 0, fault.New(fault.Invalid, "append to %s: more than %d bytes in one Release", w.batch.request.Journal, maxRecord)
	}
	f := w.batch.file
	w.crc = crc32.Update(w.crc, castagnoli, p)
	if w.final && w.n == 0 && len(p) <= writerSize {
		w.n = int64(len(p))
		w.putHeader(w.scratch[:])
		copy(w.scratch[recordHeader:], p)
		if err := f.writeAt(w.scratch[:recordHeader+len(p)], f.end); err != nil {
			return 0, err
		}
		w.done = true
	} else {
		if err := f.writeAt(p, w.pos); err != nil {
			return 0, err
		}
		w.n += int64(len(p))
	}
	w.pos += int64(len(p))
	return len(p), nil
}

func (w *recordWriter) putHeader(b []byte) {
	binary.LittleEndian.PutUint32(b, uint32(w.n)|presentBit)
	binary.LittleEndian.PutUint32(b[4:], recordSum(w.crc, b[:4]))
}

// recordSum covers the content and then the length.
func recordSum(content uint32, length []byte) uint32 {
	return crc32.Update(content, castagnoli, length[:4])
}

// commit completes the record with what is left in the buffer, and returns how much content it has.
func (w *recordWriter) commit(buf *bufio.Writer) (int64, error) {
	w.final = true
	if err := buf.Flush(); err != nil {
		return 0, err
	}
	if err := w.ensure(); err != nil {
		return 0, err
	}
	f := w.batch.file
	if !w.done {
		w.putHeader(w.scratch[:recordHeader])
		if err := f.writeAt(w.scratch[:recordHeader], f.end); err != nil {
			return 0, err
		}
	}
	f.end = w.pos
	f.content += w.n
	return w.n, nil
}

// rollback removes the unfinished record, and reports whether the file can be written on.
func (w *recordWriter) rollback() bool {
	f := w.batch.file
	if f == nil || f.size == f.end {
		return true
	}
	if err := f.cut(); err != nil {
		return false
	}
	f.spool.unreserve(f.size - f.end)
	f.size = f.end
	return true
}

// recordReader returns the content of a file's records, checked.
type recordReader struct {
	file  *spoolFile
	pos   int64 // In the file.
	limit int64

	inside bool
	length [4]byte
	want   uint32
	left   int64
	crc    uint32
	torn   bool // The end is one that a process leaves which dies.

	// What of it is known to be whole: the end of the last record that was checked, and the content up to there.
	whole, wholeContent, content int64
}

// read returns a reader of the released content.
func (f *spoolFile) read() (*recordReader, error) {
	if err := f.open(); err != nil {
		return nil, err
	}
	return &recordReader{file: f, pos: f.begin, limit: f.end, whole: f.begin}, nil
}

// next fills buf, which must have room for a record's header, with content and returns it. It returns nothing at the end. An
// error that wraps errSpoolDamaged may come after content of the bad record was returned.
func (r *recordReader) next(buf []byte) ([]byte, error) {
	for {
		n := min(int64(len(buf)), r.limit-r.pos)
		if n == 0 {
			if r.inside {
				r.torn = true
				return nil, r.damaged("record is cut off")
			}
			return nil, nil
		}
		raw := buf[:n]
		if err := r.file.readAt(raw, r.pos); err != nil {
			return nil, damagedOr(err, "file is cut off")
		}
		used, out, err := r.strip(raw)
		r.pos += int64(used)
		if err != nil || len(out) != 0 {
			return out, err
		}
		if used == 0 {
			r.torn = true
			return nil, r.damaged("record is cut off")
		}
	}
}

// strip removes the headers of records from raw, in place, and returns how much of raw it has used.
func (r *recordReader) strip(raw []byte) (used int, content []byte, err error) {
	out := 0
	for used < len(raw) {
		if !r.inside {
			if len(raw)-used < recordHeader {
				break // With the next read.
			}
			h := raw[used:]
			length := binary.LittleEndian.Uint32(h)
			if length&presentBit == 0 {
				r.torn = binary.LittleEndian.Uint64(h) == 0
				return used, raw[:out], r.damaged("record has no header")
			}
			copy(r.length[:], h)
			r.want = binary.LittleEndian.Uint32(h[4:])
			r.left, r.crc, r.inside = int64(length&^presentBit), 0, true
			used += recordHeader
		}
		n := int(min(r.left, int64(len(raw)-used)))
		r.crc = crc32.Update(r.crc, castagnoli, raw[used:used+n])
		copy(raw[out:], raw[used:used+n])
		out += n
		used += n
		r.left -= int64(n)
		r.content += int64(n)
		if r.left == 0 {
			if recordSum(r.crc, r.length[:]) != r.want {
				return used, raw[:out], r.damaged("checksum of a record does not match")
			}
			r.inside = false
			r.whole, r.wholeContent = r.pos+int64(used), r.content
		}
	}
	return used, raw[:out], nil
}

func (r *recordReader) damaged(what string) error {
	return fault.New(fault.DataLoss, "%w: %s after position %d of %s: %s", errSpoolDamaged, r.file.request.GetJournal(), r.whole, r.file.path, what)
}
