package quarantine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path/filepath"

	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/vfs"
)

const (
	fileName = "messages"
	newName  = "messages.new"

	magic    = "DAYBOOKQ"
	version  = 1
	fileHead = 24

	recordHead = 16
	// maxRecord bounds what a record's head may announce.
	maxRecord = 1 << 30

	kindKept    = 1
	kindDropped = 2
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// head returns the file's first bytes.
func head(next int64) []byte {
	b := append(make([]byte, 0, fileHead), magic...)
	b = append(b, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, version)
	b = binary.LittleEndian.AppendUint64(b, uint64(next))
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b[12:], castagnoli))
	return b
}

// appendRecord appends a record, whose place is set by the caller.
func appendRecord(b []byte, kind uint32, about *daybookv1.QuarantinedMessage, body []byte) ([]byte, extent, error) {
	at := len(b)
	b = append(b, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, kind)
	n := proto.Size(about)
	b = binary.LittleEndian.AppendUint32(b, uint32(n))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(body)))
	b, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(b, about)
	if err != nil {
		return b[:at], extent{}, err
	}
	b = append(b, body...)
	binary.LittleEndian.PutUint32(b[at:], crc32.Checksum(b[at+4:], castagnoli))
	return b, extent{about: n, body: len(body)}, nil
}

// open reads the file, or makes it.
func (s *Store) open() error {
	fsys := s.opts.FS
	if err := fsys.MkdirAll(s.dir); err != nil {
		return err
	}
	// A file that was not finished is none.
	if err := fsys.Remove(s.path(newName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := fsys.Open(s.path(fileName))
	if errors.Is(err, fs.ErrNotExist) {
		return errors.Join(s.rewrite(), fsys.SyncDir(filepath.Dir(s.dir)))
	}
	if err != nil {
		return err
	}
	s.file = f
	if err := s.load(); err != nil {
		s.file = nil
		return errors.Join(err, f.Close())
	}
	return nil
}

// load reads what is in the file. What a crash left behind the last whole record is cut off.
func (s *Store) load() error {
	end, err := s.file.Size()
	if err != nil {
		return err
	}
	b := make([]byte, fileHead)
	if end < fileHead {
		return fault.New(fault.DataLoss, "%s has %d bytes and no head; move it away", s.path(fileName), end)
	}
	if _, err := s.file.ReadAt(b, 0); err != nil {
		return err
	}
	switch {
	case string(b[:8]) != magic || crc32.Checksum(b[12:], castagnoli) != binary.LittleEndian.Uint32(b[8:]):
		return fault.New(fault.DataLoss, "%s does not begin as it should; move it away", s.path(fileName))
	case binary.LittleEndian.Uint32(b[12:]) != version:
		return fault.New(fault.Precondition, "%s has version %d, which this program does not know: use a newer one",
			s.path(fileName), binary.LittleEndian.Uint32(b[12:]))
	}
	s.next = int64(binary.LittleEndian.Uint64(b[16:]))
	s.size = fileHead
	for s.size < end {
		if err := s.loadRecord(end); err != nil {
			if !fault.Is(err, fault.DataLoss) {
				return err
			}
			s.opts.Logger.Warn("quarantine: what lies behind the last whole record is cut off", "path", s.path(fileName), "bytes", end-s.size, "error", err)
			return s.file.Truncate(s.size)
		}
	}
	return nil
}

// loadRecord reads the record at s.size and moves behind it. One that is not whole is an error of kind DataLoss.
func (s *Store) loadRecord(end int64) error {
	var h [recordHead]byte
	if end-s.size < recordHead {
		return fault.New(fault.DataLoss, "a record's head is torn")
	}
	if _, err := s.file.ReadAt(h[:], s.size); err != nil {
		return err
	}
	e := extent{at: s.size, about: int(binary.LittleEndian.Uint32(h[8:])), body: int(binary.LittleEndian.Uint32(h[12:]))}
	if e.about > maxRecord || e.body > maxRecord || e.size() > end-s.size {
		return fault.New(fault.DataLoss, "a record is torn")
	}
	about, _, err := s.readRecord(e, true)
	if err != nil {
		return err
	}
	switch kind := binary.LittleEndian.Uint32(h[4:]); kind {
	case kindKept:
		k := &slot{id: about.GetId(), record: e, arrivals: 1}
		copy(k.sum[:], about.GetSha256())
		if n := len(s.slots); n > 0 && s.slots[n-1].id >= k.id {
			return fault.New(fault.DataLoss, "id %d comes after %d", k.id, s.slots[n-1].id)
		}
		s.insert(k)
		s.evict()
	case kindDropped:
		s.remove(about.GetId())
	default:
		return fault.New(fault.DataLoss, "a record is of the unknown kind %d", kind)
	}
	s.next = max(s.next, about.GetId()+1)
	s.size += e.size()
	return nil
}

// read reads a kept message, its body only if wanted.
func (s *Store) read(k *slot, body bool) (*daybookv1.QuarantinedMessage, []byte, error) {
	about, b, err := s.readRecord(k.record, body)
	if about != nil {
		about.Arrivals = k.arrivals
	}
	return about, b, err
}

// readRecord reads a record, and checks its sum if all of it is wanted.
func (s *Store) readRecord(e extent, all bool) (*daybookv1.QuarantinedMessage, []byte, error) {
	if s.file == nil {
		return nil, nil, fault.New(fault.Transient, "the quarantine is closed")
	}
	n := e.size()
	if !all {
		n -= int64(e.body)
	}
	b := make([]byte, n)
	if _, err := s.file.ReadAt(b, e.at); err != nil {
		return nil, nil, err
	}
	if all && crc32.Checksum(b[4:], castagnoli) != binary.LittleEndian.Uint32(b) {
		return nil, nil, fault.New(fault.DataLoss, "the record at byte %d is damaged", e.at)
	}
	about := new(daybookv1.QuarantinedMessage)
	if err := proto.Unmarshal(b[recordHead:recordHead+e.about], about); err != nil {
		return nil, nil, fault.Wrap(fault.DataLoss, err)
	}
	return about, b[recordHead+e.about:], nil
}

// append writes records to the end of the file, and moves them there if it had to be written anew before.
func (s *Store) append(b []byte, added []*slot) error {
	if s.file == nil {
		return fault.New(fault.Transient, "the quarantine is closed")
	}
	if s.broken {
		was := s.size
		if err := s.rewrite(); err != nil {
			return err
		}
		for _, a := range added {
			a.record.at += s.size - was
		}
	}
	_, err := s.file.WriteAt(b, s.size)
	if err == nil {
		err = s.file.Sync()
	}
	if err != nil {
		s.broken = true
		return fault.Wrap(fault.Transient, err)
	}
	s.size += int64(len(b))
	return nil
}

// tidy writes the file anew when most of it is what nobody wants any more. Failing that, it is done another time.
func (s *Store) tidy() {
	if dead := s.size - fileHead - s.live; dead < max(s.live, s.opts.MaxBytes/8) {
		return
	}
	if err := s.rewrite(); err != nil {
		s.opts.Logger.Warn("quarantine: cannot write the file anew", "path", s.path(fileName), "error", err)
	}
}

// rewrite writes a file with nothing but the kept messages, and puts it in the place of the other one.
func (s *Store) rewrite() error {
	fsys := s.opts.FS
	f, err := fsys.Create(s.path(newName))
	if err != nil {
		return fault.Wrap(fault.Transient, err)
	}
	places, size, err := s.copyTo(f)
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return fault.Wrap(fault.Transient, errors.Join(err, f.Close(), fsys.Remove(s.path(newName))))
	}
	err = fsys.Rename(s.path(newName), s.path(fileName))
	if err == nil {
		err = fsys.SyncDir(s.dir)
	}
	if err != nil {
		s.broken = true // nobody knows which of the two files has the name
		return fault.Wrap(fault.Transient, errors.Join(err, f.Close()))
	}
	if s.file != nil {
		_ = s.file.Close() // nobody has this file any more
	}
	s.file, s.size, s.broken = f, size, false
	for i, k := range s.slots {
		k.record.at = places[i]
	}
	return nil
}

// copyTo writes the kept messages to f and returns where they lie there, and the size of it all.
func (s *Store) copyTo(f vfs.File) (places []int64, size int64, err error) {
	if _, err := f.WriteAt(head(s.next), 0); err != nil {
		return nil, 0, err
	}
	size = fileHead
	for _, k := range s.slots {
		b := make([]byte, k.record.size())
		if _, err := s.file.ReadAt(b, k.record.at); err != nil {
			return nil, 0, fmt.Errorf("read message %d: %w", k.id, err)
		}
		if _, err := f.WriteAt(b, size); err != nil {
			return nil, 0, err
		}
		places = append(places, size)
		size += int64(len(b))
	}
	return places, size, nil
}
