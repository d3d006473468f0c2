package disklog

import (
	"container/list"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/daybook-dev/daybook/internal/vfs"
	"github.com/daybook-dev/daybook/journal/broker/engine"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// content is the file of a fragment. While the fragment is open the file is named by its first offset and openSuffix, and
// when it is finished by the fragment's content name.
type content struct {
	files *files
	dir   string
	begin protocol.Offset

	// reserved is how much disk space the file takes.
	reserved atomic.Int64

	// syncing is held during a sync, so that whoever finds nothing to sync knows that it is done. failure is that of a sync:
	// nothing can be said of the file any more.
	syncing sync.Mutex
	failure error

	mu sync.Mutex // guards the name, and what has yet to be synced
	// name is the file's name in dir.
	name string
	// named is set once the name is durable.
	named bool
	// dirty is set when the file has been written since the last sync.
	dirty bool

	// Guarded by files.mu.
	file    vfs.File
	users   int
	recent  *list.Element // in files.idle, when the file is open and nobody uses it
	removed bool          // the file goes when the last user is gone
}

const openSuffix = ".open"

func openName(begin protocol.Offset) string { return fmt.Sprintf("%016x%s", int64(begin), openSuffix) }

func finishedName(f engine.Fragment) string {
	sum := protocol.SHA1SumFromDigest(f.Sum)
	frag := protocol.Fragment{Begin: int64(f.Begin), End: int64(f.End), Sum: sum, CompressionCodec: protocol.CompressionCodec_NONE}
	return frag.ContentName()
}

// parseContentName returns the first offset of the fragment that a file is named for.
func parseContentName(journal protocol.Journal, name string) (begin protocol.Offset, ok bool) {
	if hex, isOpen := strings.CutSuffix(name, openSuffix); isOpen {
		var v int64
		if n, err := fmt.Sscanf(hex, "%x", &v); n != 1 || err != nil || openName(protocol.Offset(v)) != name {
			return 0, false
		}
		return protocol.Offset(v), true
	}
	f, err := protocol.ParseFragmentFromRelativePath(journal, name)
	if err != nil || f.GetCompressionCodec() != protocol.CompressionCodec_NONE {
		return 0, false
	}
	return protocol.Offset(f.GetBegin()), true
}

// files keeps the files of fragments open that were used last. A fragment that nobody uses costs no descriptor for long.
type files struct {
	fs   vfs.FS
	most int
	// held is how much disk space all files take.
	held atomic.Int64

	mu   sync.Mutex
	idle list.List // of *content, the most recently used first
	open int
}

// use opens the file, or finds it open. The caller must call unuse.
func (c *content) use() (vfs.File, error) {
	s := c.files
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.removed {
		return nil, fs.ErrNotExist
	}
	if c.file == nil {
		f, err := s.fs.Open(c.path())
		if err != nil {
			return nil, err
		}
		s.opened(c, f)
	} else if c.recent != nil {
		s.idle.Remove(c.recent)
		c.recent = nil
	}
	c.users++
	return c.file, nil
}

// unuse ends a use.
func (c *content) unuse() error {
	s := c.files
	s.mu.Lock()
	defer s.mu.Unlock()
	c.users--
	if c.users > 0 {
		return nil
	}
	if c.removed {
		return s.remove(c)
	}
	c.recent = s.idle.PushFront(c)
	return s.shrink()
}

// create creates the file, empty.
func (c *content) create() error {
	s := c.files
	s.mu.Lock()
	defer s.mu.Unlock()
	f, err := s.fs.Create(c.path())
	if err != nil {
		return err
	}
	s.opened(c, f)
	c.recent = s.idle.PushFront(c)
	return s.shrink()
}

// drop removes the file as soon as nobody uses it.
func (c *content) drop() error {
	s := c.files
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.removed {
		return nil
	}
	c.removed = true
	if c.users > 0 {
		return nil
	}
	return s.remove(c)
}

// forget closes the file, which nobody uses and somebody is about to replace.
func (c *content) forget() error {
	s := c.files
	s.mu.Lock()
	defer s.mu.Unlock()
	c.takes(0)
	return s.close(c)
}

// takes notes how much disk space the file takes.
func (c *content) takes(size int64) { c.files.held.Add(size - c.reserved.Swap(size)) }

func (c *content) path() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return filepath.Join(c.dir, c.name)
}

// rename gives the file its final name. It needs SyncDir to be durable.
func (c *content) rename(name string) error {
	s := c.files
	// With s.mu nobody opens the file meanwhile.
	s.mu.Lock()
	defer s.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.name == name || c.removed {
		return nil
	}
	if c.users == 0 {
		// Not every system renames open files.
		if err := s.close(c); err != nil {
			return err
		}
	}
	if err := s.fs.Rename(filepath.Join(c.dir, c.name), filepath.Join(c.dir, name)); err != nil {
		return err
	}
	c.name, c.named = name, false
	return nil
}

// The methods below are called with mu held.

func (s *files) opened(c *content, f vfs.File) {
	c.file = f
	s.open++
}

func (s *files) close(c *content) error {
	if c.file == nil {
		return nil
	}
	if c.recent != nil {
		s.idle.Remove(c.recent)
		c.recent = nil
	}
	f := c.file
	c.file = nil
	s.open--
	return f.Close()
}

func (s *files) remove(c *content) error {
	c.takes(0)
	if err := errors.Join(s.close(c), s.fs.Remove(c.path())); err != nil {
		return fmt.Errorf("remove a fragment's file: %w", err)
	}
	return nil
}

func (s *files) shrink() error {
	for s.open > s.most && s.idle.Len() > 0 {
		if err := s.close(s.idle.Back().Value.(*content)); err != nil {
			return fmt.Errorf("close a fragment's file: %w", err)
		}
	}
	return nil
}

// closeAll closes the files that nobody uses.
func (s *files) closeAll() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for s.idle.Len() > 0 {
		errs = append(errs, s.close(s.idle.Back().Value.(*content)))
	}
	return errors.Join(errs...)
}

// write writes content that belongs at a position of the file. The caller holds the journal's lock.
func (c *content) write(p []byte, at int64) error {
	f, err := c.use()
	if err != nil {
		return err
	}
	err = c.reserve(f, at+int64(len(p)))
	if err == nil {
		_, err = f.WriteAt(p, at)
	}
	// Not before the write: a sync in between would take the mark away and miss the bytes.
	c.mu.Lock()
	c.dirty = true
	c.mu.Unlock()
	return errors.Join(err, c.unuse())
}

// reserve reserves disk space in growing steps: growing a file with each write costs the file system more than the write.
func (c *content) reserve(f vfs.File, size int64) error {
	const least, most = 64 << 10, 16 << 20
	reserved := c.reserved.Load()
	if size <= reserved {
		return nil
	}
	want := max(size, reserved+min(max(reserved, least), most))
	if err := f.Preallocate(want); err != nil {
		return err
	}
	c.takes(want)
	return nil
}

// sync makes the file durable, and its name too unless the caller syncs the directory.
func (c *content) sync() error {
	c.syncing.Lock()
	defer c.syncing.Unlock()
	if c.failure != nil {
		return c.failure
	}
	c.mu.Lock()
	dirty := c.dirty
	c.dirty = false
	c.mu.Unlock()
	if !dirty {
		return nil
	}
	f, err := c.use()
	if err != nil {
		c.mu.Lock()
		c.dirty = true
		c.mu.Unlock()
		return err
	}
	c.failure = f.Sync()
	return errors.Join(c.failure, c.unuse())
}

// passes reports whether an error says that a sync was not even tried, for lack of file descriptors.
func passes(err error) bool { return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) }

// trim gives reserved space beyond the content back.
func (c *content) trim(size int64) error {
	f, err := c.use()
	if err != nil {
		return err
	}
	c.takes(size)
	return errors.Join(f.Truncate(size), c.unuse())
}
