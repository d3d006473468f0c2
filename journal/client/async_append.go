package client

import (
	"bufio"
	"io"

	"google.golang.org/protobuf/proto"

	pb "github.com/daybook-dev/daybook/journal/protocol"
)

// AsyncAppend is an append that an AppendService will make. It is a batch: StartAppend may return the same one to many
// callers, one after the other, and all their content reaches the journal in one piece.
//
// The caller of StartAppend has the Writer to itself until it calls Release, which it must do exactly once.
type AsyncAppend struct {
	op       *AsyncOperation
	request  *pb.AppendRequest
	response *pb.AppendResponse
	deps     OpFutures
	queue    *queue        // nil if the request is invalid.
	writer   *bufio.Writer // The queue's, or one that discards.
	required error         // Of the current holder.
	file     *spoolFile    // nil until something was written.

	// Guarded by the queue's mutex.
	releases int  // Successful ones.
	sealed   bool // Nobody may join any more.
}

// Writer returns where the content goes. Its errors may be ignored, since Release returns them.
func (p *AsyncAppend) Writer() *bufio.Writer { return p.writer }

// Require makes Release fail with the first err that is not nil, and roll the caller's content back.
func (p *AsyncAppend) Require(err error) *AsyncAppend {
	if p.required == nil {
		p.required = err
	}
	return p
}

// Release ends the caller's use of the append. If it returns nil, the content is in the spool and will be appended; Done and
// Err tell when that has happened. Otherwise nothing that the caller wrote will be appended.
//
// The error is of the kind fault.Exhausted if the spool or its disk is full, the context's if the service has ended, or what was
// given to Require.
//
// A Release without content makes an append of no bytes, which serves as a barrier.
func (p *AsyncAppend) Release() error {
	if p.queue == nil {
		return p.op.Err()
	}
	return p.queue.release(p)
}

// Done is closed when the append was made, or has failed for good, or the service has ended.
func (p *AsyncAppend) Done() <-chan struct{} { return p.op.Done() }

// Err waits for Done and returns the outcome of the whole batch.
func (p *AsyncAppend) Err() error { return p.op.Err() }

// Request returns the request. It must not be modified.
func (p *AsyncAppend) Request() *pb.AppendRequest { return p.request }

// Response returns the response, which describes the whole batch. It may be called after Done.
func (p *AsyncAppend) Response() *pb.AppendResponse {
	<-p.Done()
	return p.response
}

// refusedAppend returns an append that has failed already.
func refusedAppend(req *pb.AppendRequest, err error) *AsyncAppend {
	p := &AsyncAppend{
		op:       NewAsyncOperation(),
		request:  proto.CloneOf(req),
		response: new(pb.AppendResponse),
		writer:   bufio.NewWriterSize(io.Discard, 16),
	}
	p.op.Resolve(err)
	return p
}

// equalRequests compares every field. It runs with each StartAppend, where a comparison by reflection would be most of the
// cost.
func equalRequests(a, b *pb.AppendRequest) bool {
	return a.Journal == b.Journal && a.DoNotProxy == b.DoNotProxy && a.Offset == b.Offset && a.Suspend == b.Suspend &&
		a.MinEtcdRevision == b.MinEtcdRevision &&
		equalMessages(a.Header, b.Header) &&
		equalMessages(a.CheckRegisters, b.CheckRegisters) &&
		equalMessages(a.UnionRegisters, b.UnionRegisters) &&
		equalMessages(a.SubtractRegisters, b.SubtractRegisters)
}

func equalMessages[M interface {
	comparable
	proto.Message
}](a, b M) bool {
	var none M
	return a == none && b == none || proto.Equal(a, b)
}
