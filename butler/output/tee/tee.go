// Package tee is an output that ships every bundle to several others.
package tee

import (
	"context"
	"errors"
	"sync"

	"github.com/daybook-dev/daybook/butler/output"
	"github.com/daybook-dev/daybook/logs/logpb"
)

// Output ships to others, which it owns. It is as fast as the slowest of them. It is safe for concurrent use.
type Output struct{ outputs []output.Output }

var _ interface {
	output.Output
	output.Extender
} = (*Output)(nil)

// New returns an output that ships to all of outputs. Links to streams are those of the first one that has any.
func New(outputs ...output.Output) *Output { return &Output{outputs} }

// SendBundle implements output.Output. What fails at one output arrives at the others all the same.
func (o *Output) SendBundle(bundle *logpb.ButlerLogBundle) error {
	return o.each(func(out output.Output) error {
		// An output may set the top-level fields. What is below is shared, and not changed.
		return out.SendBundle(&logpb.ButlerLogBundle{
			DeprecatedSource: bundle.GetDeprecatedSource(), Timestamp: bundle.GetTimestamp(), Entries: bundle.GetEntries(),
			Project: bundle.GetProject(), Prefix: bundle.GetPrefix(), Secret: bundle.GetSecret(),
		})
	})
}

// Close implements output.Output.
func (o *Output) Close(ctx context.Context) error {
	return o.each(func(out output.Output) error { return out.Close(ctx) })
}

// each calls fn with all outputs at once.
func (o *Output) each(fn func(output.Output) error) error {
	errs := make([]error, len(o.outputs))
	var wg sync.WaitGroup
	for i, out := range o.outputs {
		wg.Go(func() { errs[i] = fn(out) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// MaxSendBundles implements output.Output.
func (o *Output) MaxSendBundles() int {
	n := 0
	for i, out := range o.outputs {
		if m := max(1, out.MaxSendBundles()); i == 0 || m < n {
			n = m
		}
	}
	return n
}

// MaxSize implements output.Output.
func (o *Output) MaxSize() int {
	size := 0
	for _, out := range o.outputs {
		if n := out.MaxSize(); n > 0 && (size == 0 || n < size) {
			size = n
		}
	}
	return size
}

// URLConstructionEnv implements output.Output.
func (o *Output) URLConstructionEnv() output.Environment {
	for _, out := range o.outputs {
		if e := out.URLConstructionEnv(); e != (output.Environment{}) {
			return e
		}
	}
	return output.Environment{}
}

// Stats implements output.Output: the sums.
func (o *Output) Stats() output.Stats {
	var sum output.Stats
	for _, out := range o.outputs {
		s := out.Stats()
		sum.SentBytes += s.SentBytes
		sum.SentMessages += s.SentMessages
		sum.DiscardedMessages += s.DiscardedMessages
		sum.Errors += s.Errors
	}
	return sum
}

// Extensions implements output.Extender: a receiver that does not know the extensions must not get any.
func (o *Output) Extensions() bool {
	for _, out := range o.outputs {
		if x, ok := out.(output.Extender); !ok || !x.Extensions() {
			return false
		}
	}
	return true
}
