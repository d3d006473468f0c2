package streamclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/streamproto"
)

// onePiece is the largest datagram in bytes that is copied behind its length, so that both are one write.
const onePiece = 64 << 10

// DatagramStream is an open stream of datagrams.
type DatagramStream struct {
	name types.StreamName

	mu  sync.Mutex
	w   io.WriteCloser
	buf []byte
}

// SendDatagram writes one datagram, which may be empty and has at most streamproto.MaxDatagramSize bytes; a larger one is an
// error, and the stream goes on. It waits while the Butler cannot take it, and keeps nothing of the data.
func (d *DatagramStream) SendDatagram(data []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	b, err := streamproto.AppendDatagramHeader(d.buf[:0], len(data))
	if err != nil {
		return fmt.Errorf("stream %q: %w", d.name, err)
	}
	if len(data) <= onePiece {
		b, data = append(b, data...), nil
	}
	d.buf = b
	if _, err := d.w.Write(b); err != nil {
		return err
	}
	if data != nil {
		_, err = d.w.Write(data)
	}
	return err
}

// Close ends the stream. It does not wait for a datagram on its way, which then fails.
func (d *DatagramStream) Close() error { return d.w.Close() }

// teed is a stream with a copy, both in the same order.
type teed struct {
	io.WriteCloser
	mu   sync.Mutex
	copy io.Writer
}

// Write returns what the stream said, and what the copy said besides.
func (t *teed) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, copyErr := t.copy.Write(p)
	n, err := t.WriteCloser.Write(p)
	if copyErr != nil {
		copyErr = fmt.Errorf("tee: %w", copyErr)
	}
	return n, errors.Join(err, copyErr)
}

// null is no Butler.
type null struct{}

func (null) open(_ context.Context, s *settings) (io.WriteCloser, error) {
	s.accepted("")
	if s.forProcess {
		return os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	}
	return discard{io.Discard}, nil
}

func (null) redact(context.Context, []string) error { return nil }

type discard struct{ io.Writer }

func (discard) Close() error { return nil }
