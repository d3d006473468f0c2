package butler

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/daybook-dev/daybook/butler/bundler"
	"github.com/daybook-dev/daybook/butler/redact"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

// Tags that streams have from their end on, where the receiver knows of them.
const (
	// RedactedTag is the tag with the number of secrets that were redacted.
	RedactedTag = "daybook.redacted"
	// DroppedTag is the tag with the number of bytes that were dropped, see Drop.
	DroppedTag = "daybook.dropped_bytes"
)

// Answerer is implemented by streams whose program waits to hear whether its stream was taken.
type Answerer interface {
	// Answer is called once: after the stream was taken and before it is read, with the address of the page that will show it,
	// or an empty string if there is none; or with the reason of the refusal, just before the stream is closed.
	Answer(viewerURL string, err error)
}

// drainable is a stream that can be read as far as it has come without waiting for more.
type drainable interface {
	SetReadDeadline(time.Time) error
}

// reader reads one stream.
type reader struct {
	b  *Butler
	rc io.ReadCloser
	// in is what is read: rc, redacted.
	in  *redact.Reader
	s   *bundler.Stream
	end sync.Once
}

func (b *Butler) newReader(rc io.ReadCloser, s *bundler.Stream) *reader {
	r := &reader{b: b, rc: rc, s: s}
	switch secrets := b.config.Redact; s.Desc().GetStreamType() {
	case logpb.StreamType_DATAGRAM:
		r.in = secrets.Datagrams(rc)
	case logpb.StreamType_BINARY:
		r.in = secrets.Reader(rc, redact.KeepLength)
	default:
		r.in = secrets.Reader(rc, redact.Shorten)
	}
	return r
}

// read reads a stream to its end.
func (b *Butler) read(e *stream, r *reader) {
	stop := context.AfterFunc(b.ctx, r.close)
	var shed *shedder
	if b.config.WhenFull == Drop {
		shed = newShedder(r)
	}
	var reason string
	defer func() {
		if p := recover(); p != nil {
			b.log.Error("the reader of a stream panicked", "stream", e.name, "panic", p, "stack", string(debug.Stack()))
			reason = "the Butler failed to read it"
		}
		stop()
		r.close()
		r.s.SetEnd(r.info(reason, shed))
		r.s.Close()
		b.ended(e)
	}()
	if a, ok := r.rc.(Answerer); ok {
		a.Answer(b.viewerURL(e.name), nil)
	}
	err := r.copy(b.ctx, shed)
	switch {
	case errors.Is(err, io.EOF):
	case b.isStopping():
		reason = "cut off: the Butler was stopped"
	default:
		reason = fmt.Sprintf("reading it failed: %.500v", err)
		b.log.Warn("a stream ended early", "stream", e.name, "error", err)
	}
}

// copy reads until something ends it.
func (r *reader) copy(ctx context.Context, shed *shedder) error {
	for {
		var buf []byte
		var err error
		if shed != nil {
			buf, err = shed.buffer(ctx)
		} else {
			buf, err = r.s.Buffer(ctx)
		}
		if err != nil {
			return err
		}
		n, err := r.in.Read(buf)
		if shed != nil {
			shed.commit(buf, n)
		} else {
			r.s.Commit(n)
		}
		if err != nil {
			return err
		}
	}
}

// info returns what is to be said of the end of the stream, or nil. The reason is empty if it ended by itself.
func (r *reader) info(reason string, shed *shedder) *logpb.StreamEnd {
	tags := make(map[string]string)
	if n := r.in.Count(); n > 0 {
		tags[RedactedTag] = strconv.FormatInt(n, 10)
	}
	if shed != nil && shed.dropped > 0 {
		tags[DroppedTag] = strconv.FormatInt(shed.dropped, 10)
	}
	if reason == "" && len(tags) == 0 {
		return nil
	}
	return &logpb.StreamEnd{Reason: reason, Tags: tags}
}

// close closes the stream, once.
func (r *reader) close() {
	r.end.Do(func() {
		if err := r.rc.Close(); err != nil {
			r.b.log.Debug("closing a stream", "stream", r.s.Name(), "error", err)
		}
	})
}

// drain makes the stream end soon: when what has come so far is read, if the stream can tell, and at once otherwise.
func (r *reader) drain() {
	if d, ok := r.rc.(drainable); ok && d.SetReadDeadline(time.Now().Add(drainLimit)) == nil {
		return
	}
	r.close()
}

// ended notes that a stream is not read any more.
func (b *Butler) ended(e *stream) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !e.ended {
		e.ended = true
		e.reader = nil
		b.running--
		b.broadcast()
	}
}

// viewerURL returns the address of the page that shows a stream, or an empty string if there is none.
func (b *Butler) viewerURL(name types.StreamName) string {
	env := b.config.Output.URLConstructionEnv()
	if env.CoordinatorHost == "" || strings.Contains(env.CoordinatorHost, "://") || env.Project == "" || env.Prefix == "" {
		return ""
	}
	u := types.ViewerURL(env.CoordinatorHost, env.Project, env.Prefix.Join(name))
	if isLoopback(env.CoordinatorHost) {
		u = "http" + strings.TrimPrefix(u, "https")
	}
	return u
}

// isLoopback reports whether a server is on this machine, and so, by convention, without encryption.
func isLoopback(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		return false
	}
	ip := net.ParseIP(name)
	return name == "localhost" || ip != nil && ip.IsLoopback()
}
