package disklog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/vfs"
	"github.com/daybook-dev/daybook/journal/broker/engine"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// reader keeps a fragment's file open, and from being removed.
type reader struct {
	journal  protocol.Journal
	fragment engine.Fragment
	content  *content
	file     vfs.File
	damaged  []span
}

// Open returns a reader of a fragment that Load returned.
func (l *Log) Open(_ context.Context, name protocol.Journal, f engine.Fragment) (engine.Reader, error) {
	j, err := l.journal(name)
	if err != nil {
		return nil, err
	}
	r := &reader{journal: name, fragment: f, content: j.content(f.Begin), damaged: j.durable.Load().damaged}
	if r.content == nil {
		if slices.ContainsFunc(r.damaged, func(d span) bool { return d.begin <= f.Begin && f.End <= d.end }) {
			return r, nil // there is no file; every read will tell why
		}
		return nil, r.trimmed()
	}
	if r.file, err = r.content.use(); err != nil {
		if r.content = j.content(f.Begin); r.content == nil {
			return nil, r.trimmed()
		}
		kind := fault.Transient // such as too many open files
		if errors.Is(err, fs.ErrNotExist) {
			kind = fault.DataLoss
		}
		return nil, fault.New(kind, "open [%d, %d) of %s: %w", f.Begin, f.End, name, err)
	}
	return r, nil
}

func (r *reader) trimmed() error {
	return fault.New(fault.NotFound, "[%d, %d) of %s is not there any more", r.fragment.Begin, r.fragment.End, r.journal)
}

func (r *reader) ReadAt(p []byte, off protocol.Offset) (int, error) {
	f := &r.fragment
	if off < f.Begin {
		return 0, fault.New(fault.OutOfRange, "read %s at %d: the fragment begins at %d", r.journal, off, f.Begin)
	}
	var end error
	if rest := int64(f.End - off); rest < int64(len(p)) {
		if rest <= 0 {
			return 0, io.EOF
		}
		p, end = p[:rest], io.EOF
	}
	for _, d := range r.damaged {
		if d.begin < off+protocol.Offset(len(p)) && d.end > off {
			end = fault.New(fault.DataLoss, "read %s at %d: bytes [%d, %d) are damaged", r.journal, off, d.begin, d.end)
			p = p[:max(0, d.begin-off)]
		}
	}
	if len(p) == 0 {
		return 0, end
	}
	n, err := r.file.ReadAt(p, int64(off-f.Begin))
	if n == len(p) {
		return n, end
	}
	if err == nil || errors.Is(err, io.EOF) {
		return n, fault.New(fault.DataLoss, "read %s at %d: the file of the fragment at %d is too short", r.journal, off, f.Begin)
	}
	return n, fault.New(fault.DataLoss, "read %s at %d: %w", r.journal, off, err)
}

func (r *reader) Close() error {
	if r.content == nil {
		return nil
	}
	if err := r.content.unuse(); err != nil {
		return fmt.Errorf("close a fragment of %s: %w", r.journal, err)
	}
	return nil
}
