package streamclient

import (
	"io"
	"maps"
	"time"

	"github.com/daybook-dev/daybook/streamproto"
)

// Option is something to say about a stream when it is opened. Later options win.
type Option func(*settings)

type settings struct {
	flags      streamproto.Flags
	forProcess bool
	confirm    bool
	viewerURL  *string
	tee        io.Writer
}

// WithContentType sets the MIME type, in place of the default for the type of stream.
func WithContentType(contentType string) Option {
	return func(s *settings) { s.flags.ContentType = contentType }
}

// WithTimestamp sets the time that the times of all entries are relative to, in place of now.
func WithTimestamp(t time.Time) Option {
	return func(s *settings) { s.flags.Timestamp = t }
}

// WithTags sets all tags: keys and values in turn. An odd number of arguments panics.
func WithTags(keyValues ...string) Option {
	if len(keyValues)%2 != 0 {
		panic("streamclient: WithTags has a key without a value")
	}
	tags := make(map[string]string, len(keyValues)/2)
	for i := 0; i < len(keyValues); i += 2 {
		tags[keyValues[i]] = keyValues[i+1]
	}
	return WithTagMap(tags)
}

// WithTagMap sets all tags.
func WithTagMap(tags map[string]string) Option {
	tags = maps.Clone(tags)
	return func(s *settings) { s.flags.Tags = tags }
}

// Binary makes the stream one of bytes without lines.
func Binary() Option {
	return func(s *settings) { s.flags.Type = streamproto.Binary }
}

// ForProcess makes NewStream return an *os.File where there is an operating system below the stream, so that it can be the
// output of a command:
//
//	cmd.Stdout = out
//
// The stream ends when every process that has the file has closed it, so close it here once the command is started. Its
// errors are those of the operating system.
func ForProcess() Option {
	return func(s *settings) { s.forProcess = true }
}

// Tee copies what is written to w as well, before the Butler gets it. What w fails at does not keep it from the Butler.
func Tee(w io.Writer) Option {
	return func(s *settings) { s.tee = w }
}

// Confirm makes the Butler answer, which Daybook's can: the stream is open only when the Butler has accepted it. The error is a
// *streamproto.RefusedError if it has not, and ErrNoReply, wrapped, if it is one that cannot. If viewerURL is not nil, it is set
// to the address of the page that shows the stream, or to "" if there is none. Close then returns when the Butler has read
// everything.
func Confirm(viewerURL *string) Option {
	return func(s *settings) { s.confirm, s.viewerURL = true, viewerURL }
}
