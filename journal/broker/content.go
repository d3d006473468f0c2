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
	*bufio.Reader
	path          string // of the fragment's file, with its store
	at, end       protocol.Offset
	rest          int64 // of what was asked for
	file, decoder io.Closer
	release       func()
	// verified says that what is read is verified at the fragment's end.
	verified bool

	// cancel ends the connection to the store; detach unbinds that from the caller's context.
	cancel context.CancelFunc
	detach func() bool
	// paused keeps the reader when it stops before the fragment's end; nil does not.
	paused *pausedReaders
	failed bool
	expire *time.Timer
}

// openStored opens a fragment in a store. Content in no codec is read from where it is wanted. All that is read from its
// beginning to its end is verified before the end is returned.
func (b *Broker) openStored(ctx context.Context, f *protocol.Fragment, from, to protocol.Offset) (_ io.ReadCloser, err error) {
	if b.stores == nil {
		return nil, fault.New(fault.Precondition, "read from %s: this broker uses no stores", f.GetBackingStore())
	}
	path := f.GetBackingStore() + " " + f.ContentPath()
	if c := b.paused.take(path, from); c != nil {
		if c.seek(ctx, from, to) == nil {
			return c, nil
		}
		c.shutQuietly() // the store has ended it
	}
	st, err := b.stores.Acquire(ctx, protocol.FragmentStore(f.GetBackingStore()))
	if err != nil {
		return nil, err
	}
	c := &storedContent{path: path, at: protocol.Offset(f.GetBegin()), end: protocol.Offset(f.GetEnd()), release: st.Release}
	// A reader that is paused outlives the call.
	var whole context.Context
	whole, c.cancel = context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("read %s from %s: %w", f.ContentPath(), f.GetBackingStore(), err), c.shut())
		}
	}()
	if f.GetCompressionCodec() == protocol.CompressionCodec_NONE && to-from < c.end-c.at {
		file, err := st.Get(ctx, f, int64(from-c.at), int64(to-from))
		if err != nil {
			return nil, err
		}
		c.file, c.Reader, c.at = file, bufio.NewReader(file), from
		return c, c.seek(ctx, from, to)
	}
	stop := context.AfterFunc(ctx, c.cancel)
	defer stop()
	file, err := st.Get(whole, f, 0, -1)
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
		return nil, err
	}
	c.decoder, c.verified, c.paused = decoder, true, &b.paused
	c.Reader = bufio.NewReader(fragment.Verify(decoder, f))
	return c, c.seek(ctx, from, to)
}

// seek has the reader go on at an offset, which is not before where it is, up to another.
func (c *storedContent) seek(ctx context.Context, from, to protocol.Offset) error {
	c.detach = context.AfterFunc(ctx, c.cancel)
	n, err := io.CopyN(io.Discard, c.Reader, int64(from-c.at))
	c.at += protocol.Offset(n)
	if err == nil {
		_, err = c.Peek(1)
	}
	if err != nil {
		c.failed = true
		return early(err)
	}
	c.rest = int64(to - from)
	return nil
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
	c.at += protocol.Offset(n)
	if err == nil && c.verified && c.at == c.end {
		// The last bytes are not returned unless all of the content has the fragment's sum.
		if _, end := c.Peek(1); end == nil {
			n, err = 0, fault.New(fault.DataLoss, "there is more content than the fragment's")
		} else if !errors.Is(end, io.EOF) {
			n, err = 0, end
		}
	}
	if err != nil {
		c.failed = true
		return n, early(err)
	}
	return n, nil
}

// Close ends the use of the reader, or lets it pause.
func (c *storedContent) Close() error {
	alive := c.detach()
	if alive && c.paused != nil && !c.failed && c.rest == 0 && c.at < c.end && c.paused.put(c) {
		return nil
	}
	return c.shut()
}

// shut ends the use of the store.
func (c *storedContent) shut() error {
	var errs []error
	for _, closer := range []io.Closer{c.decoder, c.file} {
		if closer != nil {
			errs = append(errs, closer.Close())
		}
	}
	c.cancel()
	c.release()
	return errors.Join(errs...)
}

// shutQuietly ends a reader of which everything wanted has been read.
func (c *storedContent) shutQuietly() { _ = c.shut() }

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
