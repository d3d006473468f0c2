package streamproto

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

const (
	// MaxReplySize is the most bytes of a reply, with its line feed.
	MaxReplySize = 16 << 10
	// MaxReasonSize is the most bytes of a reason.
	MaxReasonSize = 1 << 10
)

// Code says why something was refused, for programs. Others than those below may come from a later version, and mean Internal.
type Code string

// The codes.
const (
	// Malformed is a handshake that cannot be decoded, or did not come in time.
	Malformed Code = "malformed"
	// Invalid is a name, tag, type or value that is not allowed.
	Invalid Code = "invalid"
	// Exists is a name that was used before.
	Exists Code = "exists"
	// Closed says that the Butler, or the stream's namespace, takes no more streams.
	Closed Code = "closed"
	// Exhausted says that a limit is reached.
	Exhausted Code = "exhausted"
	// Unsupported is an operation that is not known, or not offered.
	Unsupported Code = "unsupported"
	// Internal is anything else.
	Internal Code = "internal"
)

// Reply is what a Butler answers to a handshake of version 2: a line with a JSON object.
type Reply struct {
	Accepted bool `json:"accepted"`
	// URL is of an accepted stream: the page that shows it, or empty.
	URL string `json:"url,omitempty"`
	// Code and Reason are of what was refused.
	Code   Code   `json:"code,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// Err returns why it was refused, as a *RefusedError, or nil.
func (r *Reply) Err() error {
	if r.Accepted {
		return nil
	}
	return &RefusedError{r.Code, r.Reason}
}

// RefusedError is the reason of a Butler that refused something.
type RefusedError struct {
	Code   Code
	Reason string
}

func (e *RefusedError) Error() string {
	if e.Reason == "" {
		return fmt.Sprintf("the Butler refused it (%s)", e.Code)
	}
	return fmt.Sprintf("the Butler refused it (%s): %s", e.Code, e.Reason)
}

// AppendReply appends the line of a reply to dst. A reason that is too long is cut; a URL that is too long is left out.
func AppendReply(dst []byte, r *Reply) []byte {
	short := *r
	short.Reason = cutText(strings.ToValidUTF8(r.Reason, "\uFFFD"), MaxReasonSize)
	b := marshalReply(&short)
	if len(b) > MaxReplySize {
		short.URL = ""
		b = marshalReply(&short)
	}
	return append(dst, b...)
}

func marshalReply(r *Reply) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // a shell has to find the URL
	_ = e.Encode(r)        // text and a boolean
	return b.Bytes()
}

// cutText returns the beginning of s, at most n bytes, of whole characters.
func cutText(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// ReadReply reads a reply. It may read what follows, which there is none of. The error is io.EOF when there is no reply: the peer
// does not know version 2.
func ReadReply(r io.Reader) (*Reply, error) {
	var line []byte
	for buf := make([]byte, 512); ; {
		n, err := r.Read(buf)
		i := bytes.IndexByte(buf[:n], '\n')
		if i >= 0 {
			n = i
		}
		line = append(line, buf[:n]...)
		switch {
		case len(line) >= MaxReplySize:
			return nil, fmt.Errorf("reply: longer than %d bytes", MaxReplySize)
		case i >= 0:
			return decodeReply(line)
		case errors.Is(err, io.EOF) && len(line) == 0:
			return nil, io.EOF
		case errors.Is(err, io.EOF):
			return nil, fmt.Errorf("reply: %w", io.ErrUnexpectedEOF)
		case err != nil:
			return nil, fmt.Errorf("reply: %w", err)
		}
	}
}

func decodeReply(line []byte) (*Reply, error) {
	r := new(Reply)
	if err := json.Unmarshal(line, r); err != nil {
		return nil, fmt.Errorf("reply: %w", err)
	}
	return r, nil
}
