package disklog

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/daybook-dev/daybook/internal/vfs"
)

// segment is a file of the log, open for writing. Its name is its number, sixteen hexadecimal digits.
type segment struct {
	number uint64
	file   vfs.File
	// written is how much of the file has been written at some time. A sync of bytes below it has nothing but content to
	// write, since the file system knows already which blocks have content.
	written int64
}

// writeAhead is how many zeros follow a write into blocks that were never written, so that the writes after it are cheap.
const writeAhead = 256 << 10

var zeros [writeAhead]byte

// write writes b, which ends below size, the length of the file.
func (s *segment) write(b []byte, at, size int64) error {
	if end := at + int64(len(b)); end > s.written {
		ahead := min(writeAhead, size-end)
		if len(b) < writeAhead && ahead > 0 {
			if _, err := s.file.WriteAt(zeros[:ahead], end); err != nil {
				return err
			}
		} else {
			ahead = 0
		}
		s.written = end + ahead
	}
	_, err := s.file.WriteAt(b, at)
	return err
}

// segments makes new segments, from retired ones if there are any. Its methods may be called concurrently.
type segments struct {
	fs   vfs.FS
	dir  string
	size int64

	mu      sync.Mutex
	next    uint64   // the number of the next segment
	retired []uint64 // files that may be used again
}

func segmentName(number uint64) string { return fmt.Sprintf("%016x", number) }

func (s *segments) path(number uint64) string { return filepath.Join(s.dir, segmentName(number)) }

// make makes the next segment. Its name is durable when make returns, and all of its space is reserved.
func (s *segments) make() (*segment, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	seg, err := s.reuse()
	if seg == nil && err == nil {
		seg, err = s.create()
	}
	if err == nil {
		if err = s.fs.SyncDir(s.dir); err != nil {
			_ = seg.file.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("make segment %s of the log: %w", segmentName(s.next), err)
	}
	s.next++
	return seg, nil
}

func (s *segments) reuse() (*segment, error) {
	n := len(s.retired)
	if n == 0 {
		return nil, nil
	}
	if err := s.fs.Rename(s.path(s.retired[n-1]), s.path(s.next)); err != nil {
		return nil, err
	}
	s.retired = s.retired[:n-1]
	f, err := s.fs.Open(s.path(s.next))
	if err != nil {
		return nil, err
	}
	if size, err := f.Size(); err != nil || size != s.size {
		return nil, errors.Join(err, f.Close()) // made with another option; a new one replaces it
	}
	return &segment{number: s.next, file: f, written: s.size}, nil
}

func (s *segments) create() (*segment, error) {
	path := s.path(s.next)
	f, err := s.fs.Create(path)
	if err != nil {
		return nil, err
	}
	err = f.Preallocate(s.size)
	if err == nil {
		err = f.Truncate(s.size)
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		// On a full disk, what was reserved must not stay.
		return nil, errors.Join(err, f.Close(), s.fs.Remove(path))
	}
	return &segment{number: s.next, file: f}, nil
}

// retireBefore gives back the files before a segment, whose records are no longer needed.
func (s *segments) retireBefore(number uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	all, err := listSegments(s.fs, s.dir)
	if err != nil {
		return fmt.Errorf("list segments of the log: %w", err)
	}
	s.retired = s.retired[:0]
	for _, n := range all {
		if n >= number {
			break
		}
		// What a burst leaves over is worth more as free space than as time saved by the next burst.
		const most = 2
		if len(s.retired) < most {
			s.retired = append(s.retired, n)
		} else if err := s.fs.Remove(s.path(n)); err != nil {
			return fmt.Errorf("remove a segment of the log: %w", err)
		}
	}
	return nil
}

// listSegments returns the numbers of the segments in a directory, ascending.
func listSegments(fsys vfs.FS, dir string) ([]uint64, error) {
	entries, err := fsys.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []uint64
	for _, e := range entries {
		n, err := strconv.ParseUint(e.Name(), 16, 64)
		if err == nil && segmentName(n) == e.Name() && e.Type().IsRegular() {
			out = append(out, n)
		}
	}
	return out, nil
}
