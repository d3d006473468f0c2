package broker

import (
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// put appends the body of a request.
func (g *gateway) put(w http.ResponseWriter, r *http.Request, journal protocol.Journal) {
	if !r.ProtoAtLeast(1, 1) && r.Header.Get("Content-Length") == "" {
		// The end of such a body is that of the connection, which may have been cut.
		http.Error(w, "the length of the body is required", http.StatusLengthRequired)
		return
	}
	body := &bodyReader{body: r.Body, journal: journal, first: firstChunk(r.ContentLength)}
	stream := &appendStream{ctx: rpcContext(r), recv: body.next}
	if err := g.broker.Append(stream); err != nil {
		// Somebody may still wait for the body of a client that has stalled, and the server for him.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now())
		callError(w, err)
		return
	}
	resp := stream.resp
	routeHeaders(w.Header(), r, resp.GetHeader().GetRoute())
	if s := resp.GetStatus(); s != protocol.Status_OK {
		http.Error(w, s.String(), http.StatusInternalServerError)
		return
	}
	commit := resp.GetCommit()
	sum := commit.GetSum().ToDigest()
	for name, value := range map[string]string{
		"X-Commit-Begin":    strconv.FormatInt(commit.GetBegin(), 10),
		"X-Commit-End":      strconv.FormatInt(commit.GetEnd(), 10),
		"X-Commit-SHA1-Sum": hex.EncodeToString(sum[:]),
		"X-Write-Head":      strconv.FormatInt(commit.GetEnd(), 10),
	} {
		w.Header().Set(name, value)
	}
	w.WriteHeader(http.StatusNoContent)
}

// bodyChunk is how much of a body is a message.
const bodyChunk = 64 << 10

// firstChunk is the size of the first message's buffer: many bodies are small.
func firstChunk(length int64) int {
	if length >= 0 && length < bodyChunk {
		return int(length) + 1 // so that the read that fills it finds the end, too
	}
	return bodyChunk
}

// bodyReader makes the messages of an append from the body of a request. Only a body that was read to its end ends with
// the message that commits.
type bodyReader struct {
	body    io.Reader
	journal protocol.Journal
	first   int

	opened, ended, committed bool
	buf                      []byte
	msg                      protocol.AppendRequest
}

func (b *bodyReader) next() (*protocol.AppendRequest, error) {
	switch {
	case !b.opened:
		b.opened = true
		return &protocol.AppendRequest{Journal: string(b.journal)}, nil
	case b.committed:
		return nil, io.EOF
	}
	buf := b.buf
	switch {
	case buf == nil && b.first != 0:
		// The append keeps the first message's bytes, and copies those of the others.
		buf, b.first = make([]byte, b.first), 0
	case buf == nil:
		b.buf = make([]byte, bodyChunk)
		buf = b.buf
	}
	for !b.ended {
		n, err := b.body.Read(buf)
		if errors.Is(err, io.EOF) {
			b.ended = true
		} else if err != nil {
			return nil, fault.New(fault.Invalid, "append to %s: rolled back, since the body could not be read to its end: %w", b.journal, err)
		}
		if n > 0 {
			b.msg.Reset()
			b.msg.Content = buf[:n]
			return &b.msg, nil
		}
	}
	b.committed = true
	return new(protocol.AppendRequest), nil
}
