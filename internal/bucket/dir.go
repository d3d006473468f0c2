package bucket

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/daybook-dev/daybook/internal/fault"
)

const (
	// partialPrefix begins the names of files that are being written. They lie in the base directory.
	partialPrefix = ".partial-"
	// markerName is the file that tells the base directory from an empty mount point.
	markerName = ".daybook-bucket"
	// A partial file that was not written to for so long was left by a crash.
	partialAge = 24 * time.Hour
	// sweepEvery is the time between two looks for such files.
	sweepEvery = time.Hour
)

// Dir is a bucket in a directory. Any number of processes can share it.
//
// An object is a file. It is written under a temporary name in the base directory, or in a tree next to its place, synced, and
// renamed; then the directories are synced. A base directory that vanished (an unmounted disk) is never made anew.
type Dir struct {
	name string
	root *os.Root
	// tree says that the directory is not ours alone, and has no marker.
	tree bool

	mu    sync.Mutex
	swept time.Time
}

var _ Bucket = (*Dir)(nil)

// CreateDir opens the bucket in dir and makes it if dir does not exist or is empty. name is what URLs call the bucket.
func CreateDir(dir, name string) (*Dir, error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, kinded("create", dir, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, kinded("create", dir, err)
	}
	if len(entries) == 0 {
		if err := mark(dir); err != nil {
			return nil, kinded("create", dir, err)
		}
	}
	return OpenDir(dir, name)
}

// mark makes dir a bucket, durably.
func mark(dir string) error {
	f, err := os.Create(filepath.Join(dir, markerName))
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteString("This directory holds objects of Daybook.\n"); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return syncDir(root, ".")
}

// OpenDir opens the bucket in dir. A directory that is no bucket is refused: it may be a mount point without its disk.
func OpenDir(dir, name string) (*Dir, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, kinded("open", dir, err)
	}
	d := &Dir{name: name, root: root}
	err = d.present()
	if err == nil {
		err = d.sweep()
	}
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return d, nil
}

// OpenTree opens a directory that holds whatever it holds as a bucket. What is no object of ours may be listed.
func OpenTree(dir, name string) (*Dir, error) {
	root, err := os.OpenRoot(dir)
	if notThere(err) {
		return nil, fault.New(fault.Transient, "bucket: open %s: %w: %w", dir, ErrMissing, err)
	}
	if err != nil {
		return nil, kinded("open", dir, err)
	}
	return &Dir{name: name, root: root, tree: true}, nil
}

// present fails if the base directory is not there.
func (d *Dir) present() error {
	if d.tree {
		return d.presentTree()
	}
	_, err := d.root.Lstat(markerName)
	if errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.Transient, "bucket: %s has no file %s: the disk is not mounted, or this is no bucket: %w", d.root.Name(), markerName, ErrMissing)
	}
	if err != nil {
		return kinded("find", markerName, err)
	}
	return nil
}

// presentTree fails if the directory's name does not lead to it any more: it was removed, or a disk was mounted over it.
func (d *Dir) presentTree() error {
	named, err := os.Stat(d.root.Name())
	if err == nil {
		var held fs.FileInfo
		if held, err = d.root.Stat("."); err == nil && !os.SameFile(named, held) {
			err = errors.New("another directory has taken its place")
		}
	}
	if err != nil {
		return fault.New(fault.Transient, "bucket: %s: %w: %w", d.root.Name(), ErrMissing, err)
	}
	return nil
}

// sweep removes partial files that a crash left, if it did not look for them lately.
func (d *Dir) sweep() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.tree || time.Since(d.swept) < sweepEvery {
		return nil // a tree is swept where it is listed
	}
	entries, err := d.readDir(".")
	if err != nil {
		return kinded("list", ".", err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), partialPrefix) {
			continue
		}
		info, err := e.Info()
		if err == nil && time.Since(info.ModTime()) > partialAge {
			err = d.root.Remove(e.Name())
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return kinded("clean up", e.Name(), err)
		}
	}
	d.swept = time.Now()
	return nil
}

func (d *Dir) readDir(name string) ([]fs.DirEntry, error) {
	f, err := d.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.ReadDir(-1)
}

// kinded names the operation and gives an error of the file system its kind.
func kinded(op, key string, err error) error {
	kind := fault.Transient
	switch {
	case notThere(err):
		kind = fault.NotFound
	case errors.Is(err, fs.ErrPermission):
		kind = fault.Denied
	}
	return fault.New(kind, "bucket: %s %s: %w", op, key, err)
}

// notThere reports whether err says that there is no such file, also because something above it is no directory.
func notThere(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// missing is kinded for a file that should be there, and tells a missing object from a missing bucket.
func (d *Dir) missing(op, key string, err error) error {
	if notThere(err) {
		if gone := d.present(); gone != nil {
			return gone
		}
	}
	return kinded(op, key, err)
}

// Create implements Bucket.
func (d *Dir) Create(ctx context.Context, key string) (Writer, error) {
	if err := errors.Join(ValidateKey(key), ctx.Err()); err != nil {
		return nil, err
	}
	if err := d.present(); err != nil {
		return nil, err
	}
	if err := d.sweep(); err != nil {
		return nil, err
	}
	f, partial, err := d.createPartial(path.Dir(key))
	if err != nil {
		return nil, kinded("create", key, err)
	}
	return &dirWriter{ctx: ctx, dir: d, key: key, partial: partial, file: f}, nil
}

// createPartial creates the file that an object in the directory dir is written to.
func (d *Dir) createPartial(dir string) (*os.File, string, error) {
	const flags = os.O_WRONLY | os.O_CREATE | os.O_EXCL
	partial := partialPrefix + rand.Text()
	if !d.tree {
		f, err := d.root.OpenFile(partial, flags, 0o666)
		return f, partial, err
	}
	// Another file system may be mounted on the way, and files are not renamed across that.
	partial = path.Join(dir, partial)
	var f *os.File
	err := d.among(dir, 0o750, func() (err error) {
		f, err = d.root.OpenFile(partial, flags, 0o640)
		return err
	})
	return f, partial, err
}

// among makes a directory and does something in it, again if a Delete has removed the directory meanwhile.
func (d *Dir) among(dir string, perm fs.FileMode, do func() error) error {
	for attempt := 0; ; attempt++ {
		err := d.root.MkdirAll(dir, perm)
		if err == nil {
			err = do()
		}
		// MkdirAll tells of directories that vanish on the way in either form.
		if err == nil || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrExist) || attempt == 100 {
			return err
		}
	}
}

// Upload implements Bucket.
func (d *Dir) Upload(ctx context.Context, key string, o Object) error {
	if o.IfAbsent {
		if _, err := d.Stat(ctx, key); err == nil {
			return exists(key)
		}
	}
	return upload(ctx, d, key, o)
}

func exists(key string) error {
	return fault.New(fault.Exists, "bucket: upload %s: there is such an object", key)
}

type dirWriter struct {
	ctx          context.Context // of Create: a Writer lives within it
	dir          *Dir
	key, partial string
	file         *os.File
	ended        bool
}

func (w *dirWriter) Write(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := w.file.Write(p)
	if err != nil {
		err = kinded("write", w.key, err)
	}
	return n, err
}

func (w *dirWriter) Commit() error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	if err := w.file.Sync(); err != nil {
		return kinded("sync", w.key, err)
	}
	w.ended = true
	err := w.file.Close()
	if err == nil {
		err = w.dir.publish(w.partial, w.key)
	}
	if err != nil {
		_ = w.dir.root.Remove(w.partial) // the sweep finds what is left
		return kinded("commit", w.key, err)
	}
	return nil
}

func (w *dirWriter) Abort() {
	if w.ended {
		return
	}
	w.ended = true
	_ = w.file.Close()
	_ = w.dir.root.Remove(w.partial) // the sweep finds what is left
}

// publish renames a partial file to its key and makes that durable.
func (d *Dir) publish(partial, key string) error {
	parent := path.Dir(key)
	perm := fs.FileMode(0o777)
	if d.tree {
		perm = 0o750
	}
	if err := d.among(parent, perm, func() error { return d.root.Rename(partial, key) }); err != nil {
		return err
	}
	// All directories on the way are synced: one that is there already may have been made by another a moment ago.
	for dir := parent; ; dir = path.Dir(dir) {
		if err := syncDir(d.root, dir); err != nil && !errors.Is(err, fs.ErrNotExist) { // deleted again meanwhile
			return err
		}
		if dir == "." {
			return nil
		}
	}
}

// Get implements Bucket.
func (d *Dir) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := errors.Join(ValidateKey(key), ctx.Err()); err != nil {
		return nil, err
	}
	if offset < 0 {
		return nil, fault.New(fault.Invalid, "bucket: get %s: offset %d", key, offset)
	}
	f, err := d.open(key)
	if err != nil {
		return nil, err
	}
	if length < 0 {
		length = 1<<63 - 1 - offset
	}
	return &dirReader{ctx: ctx, key: key, section: io.NewSectionReader(f, offset, length), file: f}, nil
}

func (d *Dir) open(key string) (*os.File, error) {
	f, err := d.root.Open(key)
	if err != nil {
		return nil, d.missing("get", key, err)
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, errors.Join(kinded("get", key, err), f.Close())
	}
	return f, nil
}

type dirReader struct {
	ctx     context.Context // of Get: the reader lives within it
	key     string
	section *io.SectionReader
	file    *os.File
}

func (r *dirReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := r.section.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = kinded("read", r.key, err)
	}
	return n, err
}

func (r *dirReader) Close() error { return r.file.Close() }

// Stat implements Bucket.
func (d *Dir) Stat(ctx context.Context, key string) (Info, error) {
	if err := errors.Join(ValidateKey(key), ctx.Err()); err != nil {
		return Info{}, err
	}
	info, err := d.root.Stat(key)
	if err == nil && info.IsDir() {
		err = fs.ErrNotExist
	}
	if err != nil {
		return Info{}, d.missing("stat", key, err)
	}
	return Info{Key: key, Size: info.Size(), Modified: info.ModTime()}, nil
}

// List implements Bucket.
func (d *Dir) List(ctx context.Context, prefix string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		if err := d.present(); err != nil {
			yield(Info{}, err)
			return
		}
		// What lies above the prefix may be large and need not be looked at.
		top := "."
		if i := strings.LastIndexByte(prefix, '/'); i > 0 && ValidateKey(prefix[:i]) == nil {
			top = prefix[:i]
		}
		d.walk(ctx, top, prefix, yield)
	}
}

// walk lists a directory; it returns false when the caller has enough.
func (d *Dir) walk(ctx context.Context, dir, prefix string, yield func(Info, error) bool) bool {
	fail := func(err error) bool {
		yield(Info{}, err)
		return false
	}
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	entries, err := d.readDir(dir)
	if notThere(err) {
		return true // removed meanwhile, or never there
	}
	if err != nil {
		return fail(kinded("list", dir, err))
	}
	// Keys sort by their bytes, so a directory sorts with the '/' that follows its name.
	keys := make([]string, 0, len(entries))
	for _, e := range entries {
		key := path.Join(dir, e.Name())
		if dir == "." && e.Name() == markerName {
			continue
		}
		if strings.HasPrefix(e.Name(), partialPrefix) && (d.tree || dir == ".") {
			d.clean(key, e)
			continue
		}
		if e.IsDir() {
			key += "/"
		}
		if strings.HasPrefix(key, prefix) || strings.HasSuffix(key, "/") && strings.HasPrefix(prefix, key) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	for _, key := range keys {
		if sub, ok := strings.CutSuffix(key, "/"); ok {
			if !d.walk(ctx, sub, prefix, yield) {
				return false
			}
			continue
		}
		info, err := d.root.Stat(key)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fail(kinded("list", key, err))
		}
		if !yield(Info{Key: key, Size: info.Size(), Modified: info.ModTime()}, nil) {
			return false
		}
	}
	return true
}

// clean removes a partial file of a tree, if it is old. What cannot be removed stays until the next time.
func (d *Dir) clean(name string, e fs.DirEntry) {
	if info, err := e.Info(); d.tree && err == nil && time.Since(info.ModTime()) > partialAge {
		_ = d.root.Remove(name)
	}
}

// Delete implements Bucket. Directories that it empties go too.
func (d *Dir) Delete(ctx context.Context, key string) error {
	if err := errors.Join(ValidateKey(key), ctx.Err()); err != nil {
		return err
	}
	if _, err := d.Stat(ctx, key); err != nil {
		if fault.Is(err, fault.NotFound) {
			return nil
		}
		return err
	}
	if err := d.root.Remove(key); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return kinded("delete", key, err)
	}
	dir := path.Dir(key)
	for ; dir != "." && d.root.Remove(dir) == nil; dir = path.Dir(dir) {
	}
	if err := syncDir(d.root, dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return kinded("delete", key, err)
	}
	return nil
}

// SignedURL implements Bucket.
func (d *Dir) SignedURL(_ context.Context, key string, _ time.Duration) (string, error) {
	return "", fault.New(fault.Unimplemented, "bucket: sign a URL of %s: a directory has none that others can use", key)
}

// URL implements Bucket. It does not tell the directory, which may be moved.
func (d *Dir) URL(key string) string { return makeURL("dir", d.name, key) }

// KeyOf implements Bucket.
func (d *Dir) KeyOf(url string) (string, error) { return splitURL("dir", d.name, url) }

// Close implements Bucket.
func (d *Dir) Close() error {
	if err := d.root.Close(); err != nil {
		return fmt.Errorf("bucket: close %s: %w", d.root.Name(), err)
	}
	return nil
}
