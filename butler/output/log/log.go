// Package log is an output that writes every entry to a logger, to look at what a Butler would ship.
package log

import (
	"context"
	"encoding/hex"
	"log/slog"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/butler/output"
	"github.com/daybook-dev/daybook/logs/logpb"
)

// maxSize is the most bytes of a bundle: what is looked at should come soon.
const maxSize = 1 << 20

// Output writes records of level info: one for what a bundle says of a stream, one for each log entry, and one for each line. It
// is safe for concurrent use.
type Output struct {
	logger      *slog.Logger
	bytes, logs atomic.Int64
}

var _ interface {
	output.Output
	output.Extender
} = (*Output)(nil)

// New returns an output that writes to the logger.
func New(logger *slog.Logger) *Output { return &Output{logger: logger} }

// SendBundle implements output.Output.
func (o *Output) SendBundle(bundle *logpb.ButlerLogBundle) error {
	for _, e := range bundle.GetEntries() {
		log := o.logger.With("stream", e.GetDesc().GetName())
		what := []any{"entries", len(e.GetLogs()), "type", e.GetDesc().GetStreamType().String(), "content_type", e.GetDesc().GetContentType()}
		if tags := e.GetDesc().GetTags(); len(tags) > 0 {
			what = append(what, "tags", tags)
		}
		switch {
		case e.GetTerminalEmpty():
			what = append(what, "end", "without an entry")
		case e.GetTerminal():
			what = append(what, "end", e.GetTerminalIndex())
		}
		if reason := e.GetEnded().GetReason(); reason != "" {
			what = append(what, "reason", reason)
		}
		log.Info("stream", what...)
		for _, le := range e.GetLogs() {
			entry(log, le)
		}
		o.logs.Add(int64(len(e.GetLogs())))
	}
	o.bytes.Add(int64(proto.Size(bundle)))
	return nil
}

func entry(log *slog.Logger, e *logpb.LogEntry) {
	log.Info("entry", "offset", e.GetTimeOffset().AsDuration(), "index", e.GetStreamIndex(), "prefix_index", e.GetPrefixIndex(), "sequence", e.GetSequence())
	switch c := e.GetContent().(type) {
	case *logpb.LogEntry_Text:
		for _, l := range c.Text.GetLines() {
			log.Info("line", "text", string(l.GetValue()), "delimiter", l.GetDelimiter())
		}
	case *logpb.LogEntry_Binary:
		log.Info("binary", "hex", hex.EncodeToString(c.Binary.GetData()))
	case *logpb.LogEntry_Datagram:
		what := []any{"hex", hex.EncodeToString(c.Datagram.GetData())}
		if p := c.Datagram.GetPartial(); p != nil {
			what = append(what, "part", p.GetIndex(), "size", p.GetSize(), "last", p.GetLast())
		}
		log.Info("datagram", what...)
	}
}

// MaxSendBundles implements output.Output.
func (*Output) MaxSendBundles() int { return 1 }

// MaxSize implements output.Output.
func (*Output) MaxSize() int { return maxSize }

// URLConstructionEnv implements output.Output: there is nothing to link to.
func (*Output) URLConstructionEnv() output.Environment { return output.Environment{} }

// Stats implements output.Output. Messages are log entries.
func (o *Output) Stats() output.Stats {
	return output.Stats{SentBytes: o.bytes.Load(), SentMessages: o.logs.Load()}
}

// Extensions implements output.Extender.
func (*Output) Extensions() bool { return true }

// Close implements output.Output.
func (*Output) Close(context.Context) error { return nil }
