package pebble

import (
	"os"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/daybook-dev/daybook/internal/fault"
	files "github.com/daybook-dev/daybook/internal/vfs"
)

// spaceInterval is the time between two attempts to write to a full disk.
const spaceInterval = 250 * time.Millisecond

// space keeps writes that find the disk full waiting until there is room, because Pebble cannot go on after a failed one: it would
// end the process. Who writes through Storage does not wait, but is refused meanwhile; reads go on.
type space struct {
	mu      sync.Mutex
	waiting int           // writes
	reason  error         // of the last one that began to wait
	full    chan struct{} // closed while some wait
}

func newSpace() *space { return &space{full: make(chan struct{})} }

// lacking is closed while the disk is full.
func (s *space) lacking() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.full
}

// err returns nil while there is room.
func (s *space) err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting == 0 {
		return nil
	}
	return fault.New(fault.Transient, "there is no room for entries until space is freed on the disk: %w", s.reason)
}

// refusal is the error of what met a full disk. There may be room again by now.
func (s *space) refusal() error {
	if err := s.err(); err != nil {
		return err
	}
	return fault.New(fault.Transient, "there was no room for entries on the disk")
}

// retry calls op until it does not fail for lack of space.
func (s *space) retry(op func() error) error {
	err := op()
	if !files.IsNoSpace(err) {
		return err
	}
	s.wait(err)
	defer s.goOn()
	ticker := time.NewTicker(spaceInterval)
	defer ticker.Stop()
	for files.IsNoSpace(err) {
		<-ticker.C // for as long as it takes: whoever closes the store does not wait for this
		err = op()
	}
	return err
}

func (s *space) wait(reason error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting++; s.waiting == 1 {
		close(s.full)
	}
	s.reason = reason
}

func (s *space) goOn() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting--; s.waiting == 0 {
		s.full = make(chan struct{})
	}
}

// patientFS is a file system whose writes wait for space. A sync that fails stays failed: nobody knows what became of the data.
type patientFS struct {
	vfs.FS
	space *space
}

// Unwrap lets Pebble find the file system below.
func (fs patientFS) Unwrap() vfs.FS { return fs.FS }

func (fs patientFS) open(open func() (vfs.File, error)) (f vfs.File, err error) {
	err = fs.space.retry(func() (err error) { f, err = open(); return err })
	if err != nil {
		return nil, err
	}
	return patientFile{f, fs.space}, nil
}

func (fs patientFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return fs.open(func() (vfs.File, error) { return fs.FS.Create(name, c) })
}

func (fs patientFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return fs.open(func() (vfs.File, error) { return fs.FS.OpenReadWrite(name, c, opts...) })
}

func (fs patientFS) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return fs.open(func() (vfs.File, error) { return fs.FS.ReuseForWrite(oldname, newname, c) })
}

func (fs patientFS) Link(oldname, newname string) error {
	return fs.space.retry(func() error { return fs.FS.Link(oldname, newname) })
}

func (fs patientFS) Rename(oldname, newname string) error {
	return fs.space.retry(func() error { return fs.FS.Rename(oldname, newname) })
}

func (fs patientFS) MkdirAll(dir string, perm os.FileMode) error {
	return fs.space.retry(func() error { return fs.FS.MkdirAll(dir, perm) })
}

// patientFile is a file of a patientFS. Preallocating does not wait: Pebble goes on without.
type patientFile struct {
	vfs.File
	space *space
}

func (f patientFile) Write(p []byte) (written int, err error) {
	err = f.space.retry(func() error {
		n, err := f.File.Write(p[written:]) // what fits is written
		written += n
		return err
	})
	return written, err
}

func (f patientFile) WriteAt(p []byte, offset int64) (written int, err error) {
	err = f.space.retry(func() error {
		n, err := f.File.WriteAt(p[written:], offset+int64(written))
		written += n
		return err
	})
	return written, err
}
