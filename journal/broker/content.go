package broker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/broker/engine"
	"github.com/daybook-dev/daybook/journal/fragment"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// urlLife is how long the URLs of fragments in responses to reads are good.
const urlLife = time.Minute

// open returns a reader of a fragment's content from one offset to another. NotFound says that the fragment was dropped.
func (b *Broker) open(ctx context.Context, journal protocol.Journal, f *indexed, from, to protocol.Offset) (io.ReadCloser, error) {
	if !f.local() {
		r, err := b.openStored(ctx, f.message(journal), from, to)
		if fault.Is(err, fault.NotFound) && !b.lose(journal, f) {
			return nil, fault.New(fault.DataLoss, "[%d, %d) of %s is not in its store any more: %w", f.Begin, f.End, journal, err)
		}
		return r, err
	}
	content, err := b.engine.Open(ctx, journal, f.Fragment)
	if err != nil {
		return nil, err
	}
	return &localContent{Reader: content, at: from}, nil
}

// localContent reads what the engine holds.
type localContent struct {
	engine.Reader
	at protocol.Offset
}

func (l *localContent) Read(p []byte) (int, error) {
	n, err := l.ReadAt(p, l.at)
	l.at += protocol.Offset(n)
	return n, err
}

// storedContent reads what a store holds.
type storedContent struct {
	io.Reader
	file, decoder io.Closer
	release       func()
	// check is read to its end after the last byte, which is not returned unless all of the content has the fragment's sum.
	check io.Reader
	rest  int64
}

// openStored opens a fragment in a store. Content in no codec is read from where it is wanted. All that is read from its
// beginning to its end is verified before the end is returned.
func (b *Broker) openStored(ctx context.Context, f *protocol.Fragment, from, to protocol.Offset) (_ io.ReadCloser, err error) {
	if b.stores == nil {
		return nil, fault.New(fault.Precondition, "read from %s: this broker uses no stores", f.GetBackingStore())
	}
	st, err := b.stores.Acquire(ctx, protocol.FragmentStore(f.GetBackingStore()))
	if err != nil {
		return nil, err
	}
	c := &storedContent{release: st.Release, rest: int64(to - from)}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	skip := int64(from) - f.GetBegin()
	if f.GetCompressionCodec() == protocol.CompressionCodec_NONE && skip > 0 {
		file, err := st.Get(ctx, f, skip, c.rest)
		if err != nil {
			return nil, err
		}
		c.file, c.Reader = file, file
		return c, nil
	}
	file, err := st.Get(ctx, f, 0, -1)
	if err != nil {
		return nil, err
	}
	c.file = file
	codec := f.GetCompressionCodec()
	raw := bufio.NewReader(file)
	if codec == protocol.CompressionCodec_GZIP_OFFLOAD_DECOMPRESSION {
		// Some stores take the compression off, and others return what was stored.
		if magic, _ := raw.Peek(2); string(magic) == "\x1f\x8b" {
			codec = protocol.CompressionCodec_GZIP
		}
	}
	decoder, err := fragment.NewReader(raw, codec)
	if err != nil {
		return nil, fmt.Errorf("read %s from %s: %w", f.ContentPath(), f.GetBackingStore(), err)
	}
	c.decoder = decoder
	c.Reader = fragment.Verify(decoder, f)
	if _, err := io.CopyN(io.Discard, c.Reader, skip); err != nil {
		return nil, fmt.Errorf("read %s from %s: %w", f.ContentPath(), f.GetBackingStore(), early(err))
	}
	if int64(to) == f.GetEnd() {
		c.check = c.Reader
	}
	return c, nil
}

// early makes an end that comes too early a loss of data.
func early(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fault.New(fault.DataLoss, "the content ends early")
	}
	return err
}

// Read reads what was asked for, and fails if there is less.
func (c *storedContent) Read(p []byte) (int, error) {
	if c.rest == 0 {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), c.rest)]
	n, err := io.ReadFull(c.Reader, p)
	c.rest -= int64(n)
	if err != nil {
		return n, early(err)
	}
	if c.rest == 0 && c.check != nil {
		if k, err := c.check.Read(make([]byte, 1)); k != 0 || !errors.Is(err, io.EOF) {
			if err == nil || errors.Is(err, io.EOF) {
				err = fault.New(fault.DataLoss, "there is more content than the fragment's")
			}
			return 0, err
		}
	}
	return n, nil
}

// Close ends the use of the store.
func (c *storedContent) Close() error {
	var errs []error
	for _, closer := range []io.Closer{c.decoder, c.file} {
		if closer != nil {
			errs = append(errs, closer.Close())
		}
	}
	c.release()
	return errors.Join(errs...)
}

// lose notes that a store does not have a fragment any more, so that readers jump over it. It reports whether it could: the
// stores of the journal may be others by now, and then nobody looks after that one.
func (b *Broker) lose(journal protocol.Journal, f *indexed) bool {
	s := b.keeper.shelf(journal)
	if s == nil {
		return false
	}
	b.logger.Warn("a fragment is gone from its store, and was not removed from here", "journal", journal, "begin", f.Begin, "end", f.End, "store", f.Store)
	s.update(func(next *shelved) {
		if f.known {
			next.missing[f.Begin] = true
			return
		}
		kept := next.listed[:0]
		for _, l := range next.listed {
			if l.Begin != f.Begin {
				kept = append(kept, l)
			}
		}
		next.listed = kept
	})
	return true
}

// readURL returns the URL from which a reader can fetch a stored fragment. That of a directory is of no use elsewhere, and
// some credentials do not suffice to sign one: such fragments are always read through the broker.
func (b *Broker) readURL(ctx context.Context, f *protocol.Fragment) (string, error) {
	u, err := b.sign(ctx, f, urlLife, false)
	if fault.Is(err, fault.Unimplemented) {
		return "", nil
	}
	return u, err
}

// sign returns a URL of a stored fragment. Those of directories are left out unless they are asked for.
func (b *Broker) sign(ctx context.Context, f *protocol.Fragment, ttl time.Duration, directories bool) (string, error) {
	if b.stores == nil {
		return "", nil
	}
	st, err := b.stores.Acquire(ctx, protocol.FragmentStore(f.GetBackingStore()))
	if err != nil {
		return "", err
	}
	defer st.Release()
	if !st.Shared() && !directories {
		return "", nil
	}
	return st.Sign(ctx, f, ttl)
}
