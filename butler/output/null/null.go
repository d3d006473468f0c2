// Package null is the output that discards everything, for measurements and for programs that want no logs.
package null

import (
	"context"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/butler/output"
	"github.com/daybook-dev/daybook/logs/logpb"
)

// Output counts and discards. The zero value is ready for use; it is safe for concurrent use.
type Output struct{ bytes, messages atomic.Int64 }

var _ interface {
	output.Output
	output.Extender
} = (*Output)(nil)

// SendBundle implements output.Output. Messages are the entries of the bundle.
func (o *Output) SendBundle(bundle *logpb.ButlerLogBundle) error {
	o.messages.Add(int64(len(bundle.GetEntries())))
	o.bytes.Add(int64(proto.Size(bundle)))
	return nil
}

// MaxSendBundles implements output.Output.
func (*Output) MaxSendBundles() int { return 1 }

// MaxSize implements output.Output.
func (*Output) MaxSize() int { return 1 << 30 }

// URLConstructionEnv implements output.Output.
func (*Output) URLConstructionEnv() output.Environment {
	return output.Environment{Project: "null", Prefix: "null"}
}

// Stats implements output.Output.
func (o *Output) Stats() output.Stats {
	return output.Stats{SentBytes: o.bytes.Load(), SentMessages: o.messages.Load()}
}

// Extensions implements output.Extender.
func (*Output) Extensions() bool { return true }

// Close implements output.Output.
func (*Output) Close(context.Context) error { return nil }
