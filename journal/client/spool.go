package client

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/filelock"
	"github.com/daybook-dev/daybook/internal/vfs"
	pb "github.com/daybook-dev/daybook/journal/protocol"
)

// The states of spool files, which are the extensions of their names.
const (
	stateQueued  = ".queued"  // To be sent.
	stateFailed  = ".failed"  // Failed for good; the next service tries again.
	stateDamaged = ".damaged" // It has something that cannot be read. What could be was sent.
)

const spoolLock = "LOCK"

// spool is the files of a service, and the account of their size.
type spool struct {
	fs    vfs.FS
	dir   string // Empty for unlinked temporary files.
	lock  *filelock.Lock
	limit int64 // Zero for none.

	bytes   atomic.Int64 // Pending content.
	batches atomic.Int64

	mu     sync.Mutex
	closed bool
	seq    uint64
	used   int64         // Counted if there is a limit.
	freed  chan struct{} // Closed when used shrinks; nil if nobody waits.
}

func newSpool(fsys vfs.FS, dir string, limit int64) *spool {
	return &spool{fs: fsys, dir: dir, limit: limit}
}

// openSpool locks a directory and returns what is in it, in order.
func openSpool(fsys vfs.FS, dir string, limit int64, log *slog.Logger) (*spool, []*spoolFile, error) {
	if err := fsys.MkdirAll(dir); err != nil {
		return nil, nil, fmt.Errorf("open spool: %w", err)
	}
	lock, err := filelock.TryLock(filepath.Join(dir, spoolLock))
	if errors.Is(err, filelock.ErrLocked) {
		return nil, nil, fault.New(fault.Precondition, "open spool %s: %w", dir, err)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("open spool: %w", err)
	}
	sp := newSpool(fsys, dir, limit)
	sp.lock = lock
	found, err := sp.scan(log)
	if err != nil {
		_ = lock.Unlock()
		return nil, nil, fmt.Errorf("open spool %s: %w", dir, err)
	}
	return sp, found, nil
}

// scan finds the files of earlier services and removes what is void.
func (sp *spool) scan(log *slog.Logger) ([]*spoolFile, error) {
	dirs, err := sp.fs.ReadDir(sp.dir)
	if err != nil {
		return nil, err
	}
	var found []*spoolFile
	for _, d := range dirs {
		if !d.IsDir() {
			continue
		}
		dir := filepath.Join(sp.dir, d.Name())
		entries, err := sp.fs.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			f, err := sp.adopt(filepath.Join(dir, e.Name()), log)
			if err != nil {
				return nil, err
			}
			if f != nil {
				found = append(found, f)
			}
		}
		// Succeeds if nothing is left in it.
		_ = sp.fs.Remove(dir)
	}
	slices.SortFunc(found, func(a, b *spoolFile) int { return cmp.Compare(a.seq, b.seq) })
	return found, nil
}

// ReadSpool calls f with the content of each batch that is left in the directory of an append service, if there is one, in their order.
// Files that are damaged are read as far as they are good. Nothing is changed, and no service may have the directory meanwhile.
func ReadSpool(dir string, f func(journal pb.Journal, content io.Reader) error) error {
	var paths []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.Type().IsRegular() && slices.Contains([]string{stateQueued, stateFailed}, filepath.Ext(path)):
			paths = append(paths, path)
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read spool: %w", err)
	}
	// By sequence numbers, which are of one length.
	slices.SortFunc(paths, func(a, b string) int { return cmp.Compare(filepath.Base(a), filepath.Base(b)) })
	for _, path := range paths {
		if err := readSpoolFile(path, f); err != nil {
			return fmt.Errorf("read spool: %w", err)
		}
	}
	return nil
}

func readSpoolFile(path string, f func(journal pb.Journal, content io.Reader) error) error {
	file := &spoolFile{spool: newSpool(vfs.OS, filepath.Dir(path), 0), path: path}
	if err := file.open(); err != nil {
		return err
	}
	defer file.rest()
	var err error
	if file.size, err = file.file.Size(); err != nil {
		return err
	}
	if err := file.recover(); errors.Is(err, errSpoolDamaged) {
		return nil
	} else if err != nil {
		return err
	}
	r, err := file.read()
	if err != nil {
		return err
	}
	return f(pb.Journal(file.request.Journal).StripMeta(), &contentReader{r: r, buf: make([]byte, chunkSize)})
}

// contentReader reads the content of records as one.
type contentReader struct {
	r         *recordReader
	buf, rest []byte
}

func (c *contentReader) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		var err error
		if c.rest, err = c.r.next(c.buf); err != nil {
			return 0, err
		}
		if len(c.rest) == 0 {
			return 0, io.EOF
		}
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// adopt takes in a file of an earlier service; nil if there is nothing to send in it.
func (sp *spool) adopt(path string, log *slog.Logger) (*spoolFile, error) {
	base, state := strings.TrimSuffix(filepath.Base(path), filepath.Ext(path)), filepath.Ext(path)
	seq, err := strconv.ParseUint(base, 16, 64)
	if err != nil || state != stateQueued && state != stateFailed && state != stateDamaged {
		log.Warn("spool has a file that is not of its own", "path", path)
		return nil, nil
	}
	sp.seq = max(sp.seq, seq)

	f := &spoolFile{spool: sp, path: path, seq: seq}
	if err := f.open(); err != nil {
		return nil, err
	}
	if f.size, err = f.file.Size(); err != nil {
		return nil, err
	}
	sp.used += f.size
	if state == stateDamaged {
		f.rest()
		return nil, nil
	}
	err = f.recover()
	switch {
	case errors.Is(err, errSpoolDamaged) && f.size > headerSize:
		// It had a header when it was written, so this is not what the end of a process leaves behind.
		log.Error("spool has a damaged file, which is put aside", "path", path, "error", err)
		f.rename(stateDamaged)
		return nil, nil
	case errors.Is(err, errSpoolDamaged), err == nil && f.end == f.begin && !f.damaged:
		f.remove()
		return nil, nil
	case err != nil:
		return nil, err
	}
	if f.damaged {
		log.Error("spool has a damaged release; what is before it is sent, and the file put aside", "path", path,
			"journal", f.request.Journal, "position", f.end, "bytes", f.size-f.end)
		if f.end == f.begin {
			f.rename(stateDamaged)
			return nil, nil
		}
	} else if cut := f.size - f.end; cut != 0 {
		log.Info("spool has an unfinished release, which is cut off", "path", path, "journal", f.request.Journal, "bytes", cut)
	}
	if state == stateFailed {
		f.rename(stateQueued)
	} else {
		f.rest()
	}
	return f, nil
}

// create makes the file of a batch.
func (sp *spool) create(req *pb.AppendRequest, dependent bool) (*spoolFile, error) {
	sp.mu.Lock()
	if sp.closed {
		sp.mu.Unlock()
		return nil, fault.New(fault.Canceled, "the append service is closed")
	}
	sp.seq++
	f := &spoolFile{spool: sp, seq: sp.seq, request: req, dependent: dependent}
	sp.mu.Unlock()

	header, err := f.encodeHeader()
	if err != nil {
		return nil, err
	}
	if err := f.make(); err != nil {
		if vfs.IsNoSpace(err) {
			return nil, fault.New(fault.Exhausted, "create spool file: %w", err)
		}
		return nil, fmt.Errorf("create spool file: %w", err)
	}
	if err := f.writeAt(header, 0); err != nil {
		f.remove()
		return nil, err
	}
	f.begin = int64(len(header))
	f.end = f.begin
	return f, nil
}

// make creates the file itself. One without a directory is made when there is much in it.
func (f *spoolFile) make() (err error) {
	if f.spool.dir == "" {
		return nil
	}
	dir := filepath.Join(f.spool.dir, escapeJournal(pb.Journal(f.request.Journal).StripMeta()))
	if err := f.spool.fs.MkdirAll(dir); err != nil {
		return err
	}
	f.path = filepath.Join(dir, fmt.Sprintf("%016x%s", f.seq, stateQueued))
	f.file, err = f.spool.fs.Create(f.path)
	return err
}

// makeUnlinked creates a temporary file that ends with the process. Where a file in use cannot be removed it is when it
// is released.
func (f *spoolFile) makeUnlinked() (err error) {
	if f.dir, err = os.MkdirTemp("", "daybook-append-"); err != nil {
		return err
	}
	f.path = filepath.Join(f.dir, "spool")
	f.file, err = f.spool.fs.Create(f.path)
	_ = os.RemoveAll(f.dir)
	return err
}

// open opens a file that rests.
func (f *spoolFile) open() (err error) {
	if f.file != nil || f.spool.dir == "" {
		return nil
	}
	if f.file, err = f.spool.fs.Open(f.path); err != nil {
		return fmt.Errorf("open spool file: %w", err)
	}
	return nil
}

// rest closes a file that can be opened again, and gives the memory of another one back.
func (f *spoolFile) rest() {
	if f == nil {
		return
	}
	if f.spool.dir == "" {
		if f.flush() == nil { // else it stays where it is
			f.tail = nil
		}
		return
	}
	if f.file == nil {
		return
	}
	// Nothing depends on it: what was written is with the operating system already.
	_ = f.file.Close()
	f.file = nil
}

// leave keeps the file for the next service, if there can be one.
func (f *spoolFile) leave() {
	if f.spool.dir == "" {
		f.remove()
		return
	}
	f.rest()
}

// rename gives the file another state. If that fails it keeps the old one, which is no worse than a crash before.
func (f *spoolFile) rename(state string) {
	f.rest()
	path := strings.TrimSuffix(f.path, filepath.Ext(f.path)) + state
	if f.spool.fs.Rename(f.path, path) == nil {
		f.path = path
	}
}

// fail keeps the content of a batch that cannot be sent.
func (f *spoolFile) fail() {
	if f.spool.dir == "" {
		f.remove()
		return
	}
	f.rename(stateFailed)
}

// sent gives up the file of a batch that was acknowledged, unless there is something in it that could not be sent.
func (f *spoolFile) sent() {
	if f != nil && f.damaged {
		f.rename(stateDamaged)
		return
	}
	f.remove()
}

// remove removes the file for good. If that fails it will be sent again after a restart, as if the process had
// ended before.
func (f *spoolFile) remove() {
	if f == nil {
		return
	}
	if f.file != nil {
		_ = f.file.Close()
		f.file = nil
	}
	if f.dir != "" {
		_ = os.RemoveAll(f.dir)
	} else if f.path != "" {
		_ = f.spool.fs.Remove(f.path)
	}
	f.tail, f.flushed = nil, 0
	f.spool.unreserve(f.size)
	f.size = 0
}

// reserve takes n bytes of the limit.
func (sp *spool) reserve(n int64) error {
	if sp.limit == 0 {
		return nil
	}
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if sp.closed {
		return fault.New(fault.Canceled, "the append service is closed")
	}
	if sp.used+n > sp.limit {
		return fault.New(fault.Exhausted, "spool is full: %d of %d bytes are waiting to be sent", sp.used, sp.limit)
	}
	sp.used += n
	return nil
}

func (sp *spool) unreserve(n int64) {
	if sp.limit == 0 {
		return
	}
	sp.mu.Lock()
	defer sp.mu.Unlock()
	sp.used -= n
	if n > 0 && sp.freed != nil {
		close(sp.freed)
		sp.freed = nil
	}
}

// room returns nil if a release of n bytes would fit, or a channel that is closed when there is more room than now.
func (sp *spool) room(n int64) (<-chan struct{}, error) {
	const overhead = headerSize + 4096 // For the request of a new file; larger ones are exotic.
	sp.mu.Lock()
	defer sp.mu.Unlock()
	n += recordHeader + overhead
	switch {
	case sp.limit == 0 || sp.used+n <= sp.limit:
		return nil, nil
	case n > sp.limit:
		return nil, fault.New(fault.Invalid, "a spool of %d bytes can never hold a release of %d", sp.limit, n-recordHeader-overhead)
	}
	if sp.freed == nil {
		sp.freed = make(chan struct{})
	}
	return sp.freed, nil
}

// pend counts content that was released, or, negative, that need not be sent any more.
func (sp *spool) pend(bytes, batches int64) {
	sp.bytes.Add(bytes)
	if batches != 0 {
		sp.batches.Add(batches)
	}
}

func (sp *spool) pending() (bytes int64, batches int) {
	return sp.bytes.Load(), int(sp.batches.Load())
}

// close forbids further files and gives the directory back.
func (sp *spool) close() error {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if sp.closed {
		return nil
	}
	sp.closed = true
	if sp.lock == nil {
		return nil
	}
	if dirs, err := sp.fs.ReadDir(sp.dir); err == nil {
		for _, d := range dirs {
			if d.IsDir() {
				_ = sp.fs.Remove(filepath.Join(sp.dir, d.Name())) // Succeeds if it is empty.
			}
		}
	}
	return sp.lock.Unlock()
}

// escapeJournal returns a directory name for a journal, on any file system. It need not be unique: each file names its
// journal.
func escapeJournal(j pb.Journal) string {
	const most = 120
	var b strings.Builder
	for i := 0; i < len(j) && b.Len() < most; i++ {
		switch c := j[i]; {
		case '0' <= c && c <= '9', 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', c == '-', c == '_', c == '.' && i != 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	// A final dot would be dropped by Windows, and a plain name might be that of a device there.
	return b.String() + "_"
}
