package butler

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/daybook-dev/daybook/butler/bundler"
	"github.com/daybook-dev/daybook/logs/types"
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
	b   *Butler
	rc  io.ReadCloser
	s   *bundler.Stream
	end sync.Once
}

// read reads a stream to its end.
func (b *Butler) read(e *stream, r *reader) {
	stop := context.AfterFunc(b.ctx, r.close)
	defer func() {
		if p := recover(); p != nil {
			b.log.Error("the reader of a stream panicked", "stream", e.name, "panic", p, "stack", string(debug.Stack()))
		}
		stop()
		r.close()
		r.s.Close()
		b.ended(e)
	}()
	if a, ok := r.rc.(Answerer); ok {
		a.Answer(b.viewerURL(e.name), nil)
	}
	for {
		buf, err := r.s.Buffer(b.ctx)
		if err != nil {
			if b.ctx.Err() == nil {
				b.log.Error("a stream ended early", "stream", e.name, "error", err)
			}
			return
		}
		n, err := r.rc.Read(buf)
		r.s.Commit(n)
		if err != nil {
			if !errors.Is(err, io.EOF) && !b.isStopping() {
				b.log.Warn("reading a stream", "stream", e.name, "error", err)
			}
			return
		}
	}
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
