// Package directory is an output that writes streams as files below a directory (spec butler 8.5):
//
//	a/.meta.b     the descriptor of stream a/b, as protobuf JSON
//	a/b           its content, if it is text or binary, byte for byte
//	a/_00000.b    its first datagram, if it is a sequence of datagrams; more digits when five are not enough
//
// No segment of a name begins with a dot or an underscore, so these do not collide. Where a name would need a file and a directory of
// one name, what comes later gets "_other." before it. Segments that are too long for a file system are cut and end in "%" and a part of
// their SHA-256; on Windows a colon becomes "%3A".
//
// A file is synced when its stream ends, or at Close. A stream that cannot be written is given up, and does not disturb the others.
package directory

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/butler/output"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

// maxOpen is how many files are open at once.
const maxOpen = 128

// other distinguishes what a file or directory of the same name keeps from its name.
const other = "_other."

// Output writes files. It is safe for concurrent use.
type Output struct {
	base string

	mu      sync.Mutex
	streams map[types.StreamName]*stream
	// open are the streams that have an open file; the one that was written last comes last.
	open  []*stream
	stats output.Stats
}

var _ interface {
	output.Output
	output.Extender
} = (*Output)(nil)

// New returns an output that writes below base, which is made if it does not exist. Files of the same names are replaced.
func New(base string) (*Output, error) {
	base, err := filepath.Abs(base)
	if err == nil {
		err = os.MkdirAll(base, 0o750)
	}
	if err != nil {
		return nil, fmt.Errorf("directory output: %w", err)
	}
	return &Output{base: base, streams: make(map[types.StreamName]*stream)}, nil
}

// SendBundle implements output.Output. Its error tells of the streams that were given up; the rest of the bundle is written.
func (o *Output) SendBundle(bundle *logpb.ButlerLogBundle) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	var errs []error
	for _, e := range bundle.GetEntries() {
		if err := o.write(e); err != nil {
			o.stats.Errors++
			errs = append(errs, fmt.Errorf("directory output: stream %s: %w", e.GetDesc().GetName(), err))
		}
	}
	if len(errs) > 0 {
		o.stats.DiscardedMessages++
	} else {
		o.stats.SentMessages++
		o.stats.SentBytes += int64(proto.Size(bundle))
	}
	return errors.Join(errs...)
}

// write writes what a bundle says of a stream.
func (o *Output) write(e *logpb.ButlerLogBundle_Entry) error {
	name := types.StreamName(e.GetDesc().GetName())
	if err := name.Validate(); err != nil {
		return err
	}
	s := o.streams[name]
	if s == nil {
		s = &stream{datagrams: e.GetDesc().GetStreamType() == logpb.StreamType_DATAGRAM}
		o.streams[name] = s
		if s.err = s.create(o.base, name, e.GetDesc()); s.err == nil && !s.datagrams {
			s.err = o.touch(s)
		}
	}
	if s.err != nil {
		return s.err
	}
	for _, le := range e.GetLogs() {
		if s.err = o.entry(s, le); s.err != nil {
			return errors.Join(s.err, o.close(s))
		}
	}
	if e.GetTerminal() {
		s.err = o.close(s)
		s.buf = nil
	}
	return s.err
}

func (o *Output) entry(s *stream, e *logpb.LogEntry) error {
	if err := o.touch(s); err != nil {
		return err
	}
	for _, l := range e.GetText().GetLines() {
		s.buf = append(append(s.buf, l.GetValue()...), l.GetDelimiter()...)
	}
	s.buf = append(s.buf, e.GetBinary().GetData()...)
	d := e.GetDatagram()
	s.buf = append(s.buf, d.GetData()...)
	_, err := s.file.Write(s.buf)
	s.buf = s.buf[:0]
	if err != nil {
		return err
	}
	if p := d.GetPartial(); d != nil && (p == nil || p.GetLast()) {
		err = o.close(s)
		s.started = false
		s.count++
	}
	return err
}

// touch opens the stream's file, and closes the one that was not used for the longest time if there are too many.
func (o *Output) touch(s *stream) error {
	if s.file != nil {
		if i := slices.Index(o.open, s); i < len(o.open)-1 {
			o.open = append(slices.Delete(o.open, i, i+1), s)
		}
		return nil
	}
	if len(o.open) == maxOpen {
		if err := o.close(o.open[0]); err != nil {
			return err
		}
	}
	flags := os.O_WRONLY | os.O_CREATE | os.O_APPEND
	if !s.started {
		flags |= os.O_TRUNC
	}
	f, err := os.OpenFile(s.path(), flags, 0o640)
	if err != nil {
		return err
	}
	s.file, s.started = f, true
	o.open = append(o.open, s)
	return nil
}

// close closes the stream's file, if it is open.
func (o *Output) close(s *stream) error {
	if s.file == nil {
		return nil
	}
	o.open = slices.DeleteFunc(o.open, func(o *stream) bool { return o == s })
	f := s.file
	s.file = nil
	return errors.Join(f.Sync(), f.Close())
}

// stream is a stream that has files.
type stream struct {
	dir, last string
	datagrams bool
	count     int // of datagrams that are complete
	file      *os.File
	// started says that the file is ours, and what comes is appended.
	started bool
	buf     []byte
	// err is why the stream was given up.
	err error
}

func (s *stream) path() string {
	if s.datagrams {
		return filepath.Join(s.dir, fmt.Sprintf("_%05d.%s", s.count, s.last))
	}
	return filepath.Join(s.dir, s.last)
}

// create makes the directories of a stream, decides on its file's name, and writes its descriptor.
func (s *stream) create(base string, name types.StreamName, desc *logpb.LogStreamDescriptor) error {
	namespace, last := name.Split()
	s.dir, s.last = base, segment(string(last))
	for _, seg := range namespace.Segments() {
		next := filepath.Join(s.dir, segment(seg))
		if info, err := os.Stat(next); err == nil && !info.IsDir() {
			next = filepath.Join(s.dir, other+segment(seg))
		}
		if err := os.MkdirAll(next, 0o750); err != nil {
			return err
		}
		s.dir = next
	}
	if info, err := os.Stat(filepath.Join(s.dir, s.last)); err == nil && info.IsDir() && !s.datagrams {
		s.last = other + s.last
	}
	d := proto.CloneOf(desc)
	d.Prefix = ""
	meta, err := protojson.MarshalOptions{UseProtoNames: true, Indent: "  "}.Marshal(d)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(s.dir, ".meta."+s.last), append(meta, '\n'), 0o640)
}

// MaxSendBundles implements output.Output: files grow in the order of the bundles.
func (*Output) MaxSendBundles() int { return 1 }

// MaxSize implements output.Output.
func (*Output) MaxSize() int { return 1 << 30 }

// URLConstructionEnv implements output.Output.
func (o *Output) URLConstructionEnv() output.Environment {
	return output.Environment{CoordinatorHost: "file://" + filepath.ToSlash(o.base)}
}

// Stats implements output.Output. Messages are bundles.
func (o *Output) Stats() output.Stats {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.stats
}

// Extensions implements output.Extender: streams without data have an empty file.
func (*Output) Extensions() bool { return true }

// Close implements output.Output. It may be called again.
func (o *Output) Close(context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	var errs []error
	for len(o.open) > 0 {
		errs = append(errs, o.close(o.open[0]))
	}
	return errors.Join(errs...)
}
