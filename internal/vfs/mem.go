package vfs

import (
	"io"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Mem is a file system in memory that remembers what has been synced. PowerLoss turns it into what a disk might hold after the
// power was cut. Files that are open stay usable, as they do for a process that has not noticed yet; use Clone to cut the power
// of a copy.
type Mem struct {
	mu   sync.Mutex
	dirs map[string]bool
	// names are as programs see them, durable as the disk has them.
	names, durable map[string]*memNode
	used, limit    int64
}

// memNode is a file's content, whatever its name.
type memNode struct {
	data, durable []byte
	// pending are the writes since the last sync.
	pending []memWrite
}

type memWrite struct {
	at   int64
	data []byte
	// size, if not negative, is a new length instead.
	size int64
}

var _ FS = (*Mem)(nil)

// NewMem returns an empty file system.
func NewMem() *Mem {
	return &Mem{dirs: map[string]bool{"/": true, ".": true}, names: map[string]*memNode{}, durable: map[string]*memNode{}}
}

// Limit sets how many bytes of content fit; zero is no limit.
func (m *Mem) Limit(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.limit = bytes
}

// Used returns how many bytes of content there are.
func (m *Mem) Used() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.used
}

// Clone returns an independent copy, with what has been synced and what has not.
func (m *Mem) Clone() *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := NewMem()
	out.used = m.used
	for d := range m.dirs {
		out.dirs[d] = true
	}
	nodes := map[*memNode]*memNode{}
	clone := func(n *memNode) *memNode {
		if c := nodes[n]; c != nil {
			return c
		}
		c := &memNode{data: slices.Clone(n.data), durable: slices.Clone(n.durable), pending: slices.Clone(n.pending)}
		nodes[n] = c
		return c
	}
	for name, n := range m.names {
		out.names[name] = clone(n)
	}
	for name, n := range m.durable {
		out.durable[name] = clone(n)
	}
	return out
}

// PowerLoss drops what has not been synced. With r, some of it survives: each name either way, and of each file's writes any
// part, in sectors of 512 bytes, since disks write in any order.
func (m *Mem) PowerLoss(r *rand.Rand) {
	m.mu.Lock()
	defer m.mu.Unlock()
	names := map[string]*memNode{}
	for name, n := range m.durable {
		names[name] = n
	}
	if r != nil {
		m.keepNames(names, r)
	}
	m.used = 0
	seen := map[*memNode]bool{}
	for _, name := range sortedNames(names) {
		n := names[name]
		if seen[n] {
			continue
		}
		seen[n] = true
		if r != nil {
			for _, w := range n.pending {
				n.keep(w, r)
			}
		}
		n.data, n.pending = slices.Clone(n.durable), nil
		m.used += int64(len(n.data))
	}
	m.names = names
	m.durable = map[string]*memNode{}
	for name, n := range names {
		m.durable[name] = n
	}
}

// keepNames makes some of the changes of names that have not been synced. A file that was renamed has one of its names.
func (m *Mem) keepNames(names map[string]*memNode, r *rand.Rand) {
	old := map[*memNode]string{}
	for name, n := range m.durable {
		old[n] = name
	}
	exists := map[*memNode]bool{}
	for _, n := range m.names {
		exists[n] = true
	}
	for _, name := range sortedNames(m.names) {
		n := m.names[name]
		if m.durable[name] == n || r.IntN(2) == 0 {
			continue
		}
		names[name] = n
		if before, ok := old[n]; ok && names[before] == n {
			delete(names, before)
		}
	}
	for _, name := range sortedNames(m.durable) {
		if n := m.durable[name]; !exists[n] && names[name] == n && r.IntN(2) == 0 {
			delete(names, name)
		}
	}
}

func sortedNames(names map[string]*memNode) []string {
	out := make([]string, 0, len(names))
	for name := range names {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// keep applies any part of a write to what is durable.
func (n *memNode) keep(w memWrite, r *rand.Rand) {
	if w.size >= 0 {
		if r.IntN(2) == 0 {
			n.durable = resize(n.durable, w.size)
		}
		return
	}
	const sector = 512
	for at := int64(0); at < int64(len(w.data)); {
		next := min(int64(len(w.data)), ((w.at+at)/sector+1)*sector-w.at)
		if r.IntN(2) == 0 {
			if end := w.at + next; end > int64(len(n.durable)) {
				n.durable = resize(n.durable, end)
			}
			copy(n.durable[w.at+at:], w.data[at:next])
		}
		at = next
	}
}

func resize(b []byte, size int64) []byte {
	if size <= int64(len(b)) {
		return b[:size]
	}
	return append(b, make([]byte, size-int64(len(b)))...)
}

// Flip inverts a bit of a file, as a failing disk does.
func (m *Mem) Flip(name string, bit int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.names[name]
	n.data[bit/8] ^= 1 << (bit % 8)
	if bit/8 < int64(len(n.durable)) {
		n.durable[bit/8] ^= 1 << (bit % 8)
	}
}

// Files returns the names of all files, sorted.
func (m *Mem) Files() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return sortedNames(m.names)
}

func pathError(op, name string, err error) error { return &fs.PathError{Op: op, Path: name, Err: err} }

// Open implements FS.
func (m *Mem) Open(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.names[name]
	if n == nil {
		return nil, pathError("open", name, fs.ErrNotExist)
	}
	return &memFile{m, n, name}, nil
}

// Create implements FS.
func (m *Mem) Create(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.dirs[filepath.Dir(name)] {
		return nil, pathError("create", name, fs.ErrNotExist)
	}
	n := m.names[name]
	if n == nil {
		n = new(memNode)
		m.names[name] = n
	}
	m.used -= int64(len(n.data))
	n.data = nil
	n.pending = append(n.pending, memWrite{size: 0})
	return &memFile{m, n, name}, nil
}

// Rename implements FS.
func (m *Mem) Rename(oldName, newName string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.names[oldName]
	if n == nil || !m.dirs[filepath.Dir(newName)] {
		return pathError("rename", oldName, fs.ErrNotExist)
	}
	if replaced := m.names[newName]; replaced != nil && replaced != n {
		m.used -= int64(len(replaced.data))
	}
	delete(m.names, oldName)
	m.names[newName] = n
	return nil
}

// Remove implements FS.
func (m *Mem) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := m.names[name]; n != nil {
		m.used -= int64(len(n.data))
		delete(m.names, name)
		return nil
	}
	if !m.dirs[name] {
		return pathError("remove", name, fs.ErrNotExist)
	}
	for other := range m.names {
		if strings.HasPrefix(other, name+string(filepath.Separator)) {
			return pathError("remove", name, syscall.ENOTEMPTY)
		}
	}
	delete(m.dirs, name)
	return nil
}

// MkdirAll creates directories. They are durable at once: a missing one would only be created again.
func (m *Mem) MkdirAll(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for ; !m.dirs[dir]; dir = filepath.Dir(dir) {
		m.dirs[dir] = true
	}
	return nil
}

// ReadDir implements FS.
func (m *Mem) ReadDir(dir string) ([]fs.DirEntry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.dirs[dir] {
		return nil, pathError("readdir", dir, fs.ErrNotExist)
	}
	var out []fs.DirEntry
	for name, n := range m.names {
		if filepath.Dir(name) == dir {
			out = append(out, memEntry{filepath.Base(name), int64(len(n.data)), 0})
		}
	}
	for name := range m.dirs {
		if name != dir && filepath.Dir(name) == dir {
			out = append(out, memEntry{filepath.Base(name), 0, fs.ModeDir})
		}
	}
	slices.SortFunc(out, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return out, nil
}

// SyncDir implements FS.
func (m *Mem) SyncDir(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.dirs[dir] {
		return pathError("sync", dir, fs.ErrNotExist)
	}
	for name := range m.durable {
		if filepath.Dir(name) == dir && m.names[name] == nil {
			delete(m.durable, name)
		}
	}
	for name, n := range m.names {
		if filepath.Dir(name) == dir {
			m.durable[name] = n
		}
	}
	return nil
}

// memEntry is an entry of a directory.
type memEntry struct {
	name string
	size int64
	mode fs.FileMode
}

func (e memEntry) Name() string               { return e.name }
func (e memEntry) IsDir() bool                { return e.mode.IsDir() }
func (e memEntry) Type() fs.FileMode          { return e.mode }
func (e memEntry) Info() (fs.FileInfo, error) { return e, nil }
func (e memEntry) Size() int64                { return e.size }
func (e memEntry) Mode() fs.FileMode          { return e.mode | 0o600 }
func (e memEntry) ModTime() time.Time         { return time.Time{} }
func (e memEntry) Sys() any                   { return nil }

type memFile struct {
	fs   *Mem
	node *memNode
	name string
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if off >= int64(len(f.node.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.node.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if end := off + int64(len(p)); end > int64(len(f.node.data)) {
		if err := f.grow(end); err != nil {
			return 0, err
		}
	}
	copy(f.node.data[off:], p)
	f.node.pending = append(f.node.pending, memWrite{at: off, data: slices.Clone(p), size: -1})
	return len(p), nil
}

func (f *memFile) grow(size int64) error {
	more := size - int64(len(f.node.data))
	if f.fs.limit > 0 && f.fs.used+more > f.fs.limit {
		return pathError("write", f.name, syscall.ENOSPC)
	}
	f.fs.used += more
	f.node.data = resize(f.node.data, size)
	return nil
}

func (f *memFile) Size() (int64, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return int64(len(f.node.data)), nil
}

func (f *memFile) Sync() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	f.node.sync()
	return nil
}

// sync applies what is pending, rather than copying everything.
func (n *memNode) sync() {
	for _, w := range n.pending {
		if w.size >= 0 {
			n.durable = resize(n.durable, w.size)
			continue
		}
		if end := w.at + int64(len(w.data)); end > int64(len(n.durable)) {
			n.durable = resize(n.durable, end)
		}
		copy(n.durable[w.at:], w.data)
	}
	n.pending = nil
}

func (f *memFile) Truncate(size int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if size > int64(len(f.node.data)) {
		if err := f.grow(size); err != nil {
			return err
		}
	} else {
		f.fs.used -= int64(len(f.node.data)) - size
		f.node.data = f.node.data[:size]
	}
	f.node.pending = append(f.node.pending, memWrite{size: size})
	return nil
}

// Preallocate fails if the space is not there, but does not take it.
func (f *memFile) Preallocate(size int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if more := size - int64(len(f.node.data)); f.fs.limit > 0 && f.fs.used+more > f.fs.limit {
		return pathError("preallocate", f.name, syscall.ENOSPC)
	}
	return nil
}

func (f *memFile) Close() error { return nil }
