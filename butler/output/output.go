// Package output is what a Butler ships its bundles to. Implementations lie in the packages below.
//
// The Butler's owner makes an output, gives it to the Butler, waits for the Butler, and then closes the output.
package output

import (
	"context"

	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

// Output delivers bundles. All methods are safe for concurrent use (spec butler 8.1).
type Output interface {
	// SendBundle ships one bundle. nil means that the output answers for it from now on; an error that it is lost for good, so
	// an output tries again by itself as long as that can help. It may block, which is the back-pressure.
	//
	// The output may set the bundle's top-level fields. It must not change anything else, and must not keep anything of the
	// bundle after it returned: the bundler uses the memory again.
	SendBundle(bundle *logpb.ButlerLogBundle) error
	// MaxSendBundles is how many calls of SendBundle may run at once; zero or less means one. With more than one, bundles may
	// arrive in another order than they were made in.
	MaxSendBundles() int
	// MaxSize is the most bytes of a serialized bundle, not counting the project, prefix and secret that the output itself may
	// add; zero or less is no limit.
	MaxSize() int
	// URLConstructionEnv is what is needed to make links to the streams.
	URLConstructionEnv() Environment
	// Stats tells what was done so far.
	Stats() Stats
	// Close ships what is left and releases the output. When the context ends first, it returns with an error, and what is
	// left is lost unless the output says otherwise. It is called once, when no SendBundle runs or follows.
	Close(ctx context.Context) error
}

// Extender is implemented by outputs whose receiver may know the extensions of the bundle.
type Extender interface {
	// Extensions reports whether the receiver knows ButlerLogBundle.Entry.announce and terminal_empty. Without it, a stream
	// that never has an entry is not mentioned to the output.
	Extensions() bool
}

// Environment says where the streams can be looked at. All fields are empty when there is nothing to link to.
type Environment struct {
	CoordinatorHost string
	Project         types.Project
	Prefix          types.StreamName
}

// Stats counts what an output did since it was made.
type Stats struct {
	// SentBytes and SentMessages are what was delivered, in the output's own units.
	SentBytes, SentMessages int64
	// DiscardedMessages were given up.
	DiscardedMessages int64
	// Errors is the number of failed calls.
	Errors int64
}
