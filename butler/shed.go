package butler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/daybook-dev/daybook/logs/logpb"
)

// WhenFull says what becomes of data while the output takes nothing and the memory is full.
type WhenFull string

// The policies.
const (
	// Block makes whoever writes the stream wait. It is the default.
	Block WhenFull = "block"
	// Drop makes it wait for a moment; then data is dropped, until there is room again. The place is marked in streams of text, and
	// the amount is in the tag DroppedTag of every stream.
	Drop WhenFull = "drop"
)

const (
	// patience is how long a writer is held while nothing at all is taken.
	patience = 5 * time.Second
	// recovered is how much has to be taken after a gap until the writer may be held again.
	recovered = 1 << 20
	// scratchSize is how much is dropped at once.
	scratchSize = 64 << 10
)

// shedder reads a stream into memory, and drops what there is no memory for.
type shedder struct {
	*reader
	patience time.Duration
	// taken is what was committed since the last gap; it is large if there was none.
	taken int64
	// missing is what was dropped since the last mark, dropped all of it.
	missing, dropped int64
	// mark goes before what is read next, and after it fill zeros.
	mark []byte
	fill uint64
	// datagrams follows the lengths in a stream of datagrams, which must not be torn; nil for other streams.
	datagrams *lengths
	scratch   []byte
	// end is what ended the stream while data was dropped.
	end error
}

func newShedder(r *reader) *shedder {
	h := &shedder{reader: r, patience: r.b.patience, taken: recovered}
	if r.s.Desc().GetStreamType() == logpb.StreamType_DATAGRAM {
		h.datagrams = new(lengths)
	}
	return h
}

// buffer returns memory to read into.
func (h *shedder) buffer(ctx context.Context) ([]byte, error) {
	for {
		buf, err := h.room(ctx)
		switch {
		case err != nil:
			return nil, err
		case len(h.mark) > 0:
			n := copy(buf, h.mark)
			h.mark = h.mark[n:]
			h.s.Commit(n)
		case h.fill > 0:
			n := int(min(uint64(len(buf)), h.fill))
			clear(buf[:n])
			h.fill -= uint64(n)
			h.s.Commit(n)
		case h.end != nil:
			return nil, h.end
		default:
			return buf, nil
		}
	}
}

// commit says that n bytes of buf were read.
func (h *shedder) commit(buf []byte, n int) {
	if h.datagrams != nil {
		h.datagrams.follow(buf[:n])
	}
	h.taken += int64(n)
	h.s.Commit(n)
}

// room returns memory, and drops what comes until there is some.
func (h *shedder) room(ctx context.Context) ([]byte, error) {
	buf, err := h.s.TryBuffer()
	if buf != nil || err != nil {
		return buf, err
	}
	if h.end != nil {
		return h.s.Buffer(ctx) // nobody is held any more
	}
	if h.taken >= recovered {
		wait, cancel := context.WithTimeout(ctx, h.patience)
		buf, err = h.s.Buffer(wait)
		cancel()
		if err == nil || ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return buf, err
		}
	}
	return h.shed(ctx)
}

// shed drops what comes until there is room, and notes how the gap is to be marked.
func (h *shedder) shed(ctx context.Context) ([]byte, error) {
	h.taken = 0
	if h.scratch == nil {
		h.scratch = make([]byte, scratchSize)
	}
	if d := h.datagrams; d != nil && h.fill == 0 {
		// What is left of a datagram whose begin was taken becomes zeros. If not even its length is known, that comes first.
		for d.inLength() && h.end == nil {
			h.mark = append(h.mark, h.drop(1)...)
		}
		h.fill = d.left
	}
	for {
		if h.datagrams == nil || h.datagrams.atBorder() || h.end != nil {
			buf, err := h.s.TryBuffer()
			if buf != nil || err != nil || h.end != nil {
				h.mark = append(h.mark, h.marker()...)
				if buf == nil && err == nil {
					buf, err = h.s.Buffer(ctx)
				}
				return buf, err
			}
		}
		n := scratchSize
		if d := h.datagrams; d != nil {
			if n = int(min(d.left, scratchSize)); n == 0 {
				n = 1 // of the next length
			}
		}
		h.missing += int64(len(h.drop(n)))
	}
}

// drop reads at most n bytes to drop them.
func (h *shedder) drop(n int) []byte {
	m, err := h.in.Read(h.scratch[:n])
	if h.datagrams != nil {
		h.datagrams.follow(h.scratch[:m])
	}
	if err != nil {
		h.end = err
	}
	return h.scratch[:m]
}

// marker returns what stands for the gap, and counts it.
func (h *shedder) marker() []byte {
	missing := h.missing
	h.dropped += missing
	h.missing = 0
	h.b.addDropped(missing)
	if missing == 0 || h.s.Desc().GetStreamType() != logpb.StreamType_TEXT {
		return nil
	}
	return fmt.Appendf(nil, "\n[daybook: %d bytes of output are missing here: the spool took nothing for %v]\n", missing, h.patience)
}

// lengths follows a sequence of datagrams, each with its length before it.
type lengths struct {
	left  uint64 // bytes of the datagram that follow
	size  uint64 // of the length, as far as it is known
	shift uint
}

// inLength reports whether a part of a length was followed.
func (l *lengths) inLength() bool { return l.shift > 0 }

// atBorder reports whether a length follows.
func (l *lengths) atBorder() bool { return l.left == 0 && l.shift == 0 }

func (l *lengths) follow(p []byte) {
	for len(p) > 0 {
		if l.left > 0 {
			n := min(l.left, uint64(len(p)))
			l.left -= n
			p = p[n:]
			continue
		}
		b := p[0]
		p = p[1:]
		if l.shift < 64 {
			l.size |= uint64(b&0x7f) << l.shift
		}
		if l.shift += 7; b < 0x80 {
			l.left, l.size, l.shift = l.size, 0, 0
		}
	}
}
