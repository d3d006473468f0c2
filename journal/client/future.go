package client

// OpFuture is an operation that runs in the background.
type OpFuture interface {
	// Done is closed when the operation has finished.
	Done() <-chan struct{}
	// Err waits for Done and returns the outcome.
	Err() error
}

// OpFutures is a set of operations.
type OpFutures map[OpFuture]struct{}

// IsSubsetOf reports whether every operation of o is in other, too.
func (o OpFutures) IsSubsetOf(other OpFutures) bool {
	for f := range o {
		if _, ok := other[f]; !ok {
			return false
		}
	}
	return true
}

// AsyncOperation is an OpFuture that its maker resolves.
type AsyncOperation struct {
	done chan struct{}
	err  error
}

// NewAsyncOperation returns an operation that has not finished.
func NewAsyncOperation() *AsyncOperation { return &AsyncOperation{done: make(chan struct{})} }

// FinishedOperation returns an operation that has finished with err.
func FinishedOperation(err error) OpFuture {
	o := NewAsyncOperation()
	o.Resolve(err)
	return o
}

// Done is closed by Resolve.
func (o *AsyncOperation) Done() <-chan struct{} { return o.done }

// Err waits for Resolve and returns its error.
func (o *AsyncOperation) Err() error {
	<-o.done
	return o.err
}

// Resolve finishes the operation. It must be called once; a second call panics.
func (o *AsyncOperation) Resolve(err error) {
	o.err = err
	close(o.done)
}
