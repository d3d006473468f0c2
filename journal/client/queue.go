package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/internal/fault"
	pb "github.com/daybook-dev/daybook/journal/protocol"
)

// writerSize is the buffer of a Writer. A Release of less costs one system call.
const writerSize = 8 << 10

// queue is the chain of batches of one journal.
//
// All batches but the last are complete. The last one is open for callers, who hold it one after the other, until it is sealed
// because it is being sent, or because a caller needed another one behind it.
type queue struct {
	service *AppendService
	journal pb.Journal

	// Used by the holder alone.
	record recordWriter
	writer *bufio.Writer
	// Used by the sender alone.
	chunks chunking

	mu      sync.Mutex
	changed sync.Cond // A holder has let go.
	chain   []*AsyncAppend
	holder  *AsyncAppend
	waiting int      // Callers that wait to be the holder.
	running bool     // A goroutine sends.
	failed  OpFuture // Of the last batch that finished, if it failed.
}

func newQueue(s *AppendService, journal pb.Journal) *queue {
	q := &queue{service: s, journal: journal}
	q.changed.L = &q.mu
	q.writer = bufio.NewWriterSize(&q.record, writerSize)
	return q
}

// start makes the caller the holder of a batch that suits its request. q.mu must be held; it is unlocked.
func (q *queue) start(req *pb.AppendRequest, deps OpFutures) *AsyncAppend {
	q.waiting++
	for q.holder != nil {
		q.changed.Wait()
	}
	q.waiting--

	p := q.joins(req, deps)
	if p == nil {
		if err := validateStart(req); err != nil {
			q.mu.Unlock()
			q.service.forget(q)
			return refusedAppend(req, err)
		}
		q.complete()
		p = &AsyncAppend{
			op:       NewAsyncOperation(),
			request:  proto.CloneOf(req),
			response: new(pb.AppendResponse),
			deps:     maps.Clone(deps),
			queue:    q,
			writer:   q.writer,
		}
		q.chain = append(q.chain, p)
	}
	q.holder = p
	q.mu.Unlock()

	q.record.begin(q.service.spool, p)
	return p
}

// joins returns the last batch if the request may join it.
func (q *queue) joins(req *pb.AppendRequest, deps OpFutures) *AsyncAppend {
	if len(q.chain) == 0 {
		return nil
	}
	last := q.chain[len(q.chain)-1]
	if !last.sealed && last.file.contentLength() <= q.service.maxBatch && deps.IsSubsetOf(last.deps) && equalRequests(last.request, req) {
		return last
	}
	return nil
}

// complete seals the last batch, since another one follows.
func (q *queue) complete() {
	if len(q.chain) == 0 {
		return
	}
	last := q.chain[len(q.chain)-1]
	last.sealed = true
	if len(q.chain) > 1 {
		// It will be some time until it is sent; there may be many of them by then.
		last.file.rest()
	}
}

// release commits or rolls back what the holder wrote.
func (q *queue) release(p *AsyncAppend) error {
	q.mu.Lock()
	held := q.holder == p
	q.mu.Unlock()
	if !held {
		panic("client: Release of an AsyncAppend that the caller does not hold")
	}
	err := p.required
	if err == nil {
		err = q.service.ctx.Err()
	}
	content := int64(0)
	if err == nil {
		content, err = q.record.commit(q.writer)
	}
	clean := true
	if err != nil {
		clean = q.record.rollback()
	}
	q.writer.Reset(&q.record)
	p.required = nil

	q.mu.Lock()
	q.holder = nil
	if err == nil && !q.running {
		// The first release of the only batch.
		err = q.service.launch(q.run)
		q.running = err == nil
	}
	var dropped *spoolFile
	switch {
	case err == nil:
		if p.releases++; p.releases == 1 {
			q.service.spool.pend(content, 1)
		} else {
			q.service.spool.pend(content, 0)
		}
	case p.releases == 0:
		// There is nothing in it, so there is nothing to do.
		q.chain = q.chain[:len(q.chain)-1]
		dropped = p.file
		p.op.Resolve(nil)
	case !clean:
		p.sealed = true
	}
	q.changed.Broadcast()
	q.mu.Unlock()

	if err != nil {
		dropped.remove()
		q.service.forget(q)
	}
	return err
}

// run sends batch after batch until there is none.
func (q *queue) run() {
	for {
		p := q.next()
		if p == nil {
			q.service.forget(q)
			return
		}
		q.finish(p, q.deliver(p))
	}
}

// next seals the first batch and returns it, or nil if there is nothing to send.
func (q *queue) next() *AsyncAppend {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.chain) == 0 || q.chain[0].releases == 0 {
		q.running = false
		return nil
	}
	p := q.chain[0]
	p.sealed = true
	for q.holder == p {
		q.changed.Wait()
	}
	return p
}

// deliver makes the append, for as long as it takes.
func (q *queue) deliver(p *AsyncAppend) error {
	s := q.service
	if err := q.await(p.deps); err != nil {
		return err
	}
	if p.file.contentLength() == 0 && (p.request.UnionRegisters != nil || p.request.SubtractRegisters != nil) {
		return fault.New(fault.Invalid, "append to %s: registers cannot be modified without content", p.request.Journal)
	}
	for attempt := 0; ; attempt++ {
		response, err := q.send(p)
		if err == nil || s.ctx.Err() == nil && s.isPermanent(err, p.request, attempt) {
			p.response = response
			return err
		}
		if s.ctx.Err() != nil {
			return s.ctx.Err()
		}
		s.metrics.retry()
		if attempt != 0 {
			s.log.Warn("append failed, trying again", "journal", p.request.Journal, "attempt", attempt, "error", err)
		}
		if err := s.wait(s.ctx, attempt); err != nil {
			return err
		}
	}
}

func (q *queue) await(deps OpFutures) error {
	for f := range deps {
		select {
		case <-f.Done():
			if err := f.Err(); err != nil {
				return fmt.Errorf("dependency failed: %w", err)
			}
		case <-q.service.ctx.Done():
			return q.service.ctx.Err()
		}
	}
	return nil
}

// send makes one attempt.
func (q *queue) send(p *AsyncAppend) (*pb.AppendResponse, error) {
	a := NewAppender(q.service.ctx, q.service.RoutedJournalClient, p.request)
	r, err := p.file.read()
	if err != nil {
		return a.Response, err
	}
	if p.file.contentLength() <= maxPipelined/2 {
		return q.sendSmall(p, r)
	}
	buf := chunks.Get().(*[chunkSize]byte)
	defer chunks.Put(buf)
	began := time.Now()
	// Should this fail, perhaps because messages were too large for the connection, the next attempt begins with small ones.
	a.chunks, q.chunks = q.chunks, chunking{}
	for {
		chunk, err := r.next(buf[:a.chunks.size()])
		if err != nil {
			a.Abort()
			return a.Response, err
		}
		if len(chunk) == 0 {
			if err = a.Close(); err == nil {
				q.chunks = a.chunks
				q.chunks.answered(p.file.contentLength(), time.Since(began))
			}
			return a.Response, err
		}
		if _, err := a.Write(chunk); err != nil {
			return a.Response, err
		}
	}
}

// sendSmall sends content that takes half of a small buffer at most, which leaves room for what is between it in the file.
func (q *queue) sendSmall(p *AsyncAppend, r *recordReader) (*pb.AppendResponse, error) {
	small := smalls.Get().(*[maxPipelined]byte)
	n := 0
	for {
		chunk, err := r.next(small[n:])
		if err != nil {
			smalls.Put(small)
			return new(pb.AppendResponse), err
		}
		if len(chunk) == 0 {
			return appendSmall(q.service.ctx, q.service.RoutedJournalClient, p.request, small, n)
		}
		n += len(chunk)
	}
}

// isPermanent reports whether another attempt would fail in the same way. Callers that are not known, or may not do this, have a
// second in which keys may be changed.
func (s *AppendService) isPermanent(err error, req *pb.AppendRequest, attempt int) bool {
	for _, e := range []error{
		ErrFragmentStoreUnhealthy, ErrIndexHasGreaterOffset, ErrJournalNotFound, ErrNotAllowed, ErrRegisterMismatch, ErrWrongAppendOffset,
	} {
		if errors.Is(err, e) {
			return !s.fenceAndWait || req.CheckRegisters == nil
		}
	}
	switch kind := fault.KindOf(err); {
	case errors.Is(err, ErrSuspended):
		return req.Suspend != pb.AppendRequest_SUSPEND_RESUME // It is then what was asked for, or what was to be left as it is.
	case kind == fault.Denied, kind == fault.Unauthenticated:
		return attempt >= 5
	}
	return fault.Is(err, fault.Invalid) || errors.Is(err, errSpoolDamaged)
}

// finish takes the first batch off the queue.
func (q *queue) finish(p *AsyncAppend, err error) {
	s := q.service
	switch {
	case err == nil:
		p.file.sent()
	case s.ctx.Err() != nil && isContextError(err):
		p.file.leave()
	default:
		s.fail(err)
		s.log.Error("append failed for good", "journal", p.request.Journal, "bytes", p.file.contentLength(), "error", err)
		p.file.fail()
	}
	s.metrics.finished(p.file.contentLength(), err)
	s.spool.pend(-p.file.contentLength(), -1)

	q.mu.Lock()
	q.chain[0] = nil
	q.chain = q.chain[1:]
	q.failed = nil
	if err != nil {
		q.failed = FinishedOperation(err)
	}
	q.mu.Unlock()
	p.op.Resolve(err)
}

// fail counts a failure for good.
func (s *AppendService) fail(err error) {
	s.life.Lock()
	defer s.life.Unlock()
	if s.failures++; s.failures == 1 {
		s.failure = err
	}
}

// launch starts a goroutine, unless the service has ended.
func (s *AppendService) launch(run func()) error {
	s.life.Lock()
	defer s.life.Unlock()
	if s.closed {
		return context.Canceled
	}
	s.loops.Go(run)
	return nil
}

// forget drops a queue that has nothing left to remember, unless that was done and the journal has another one by now.
func (s *AppendService) forget(q *queue) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q.mu.Lock()
	defer q.mu.Unlock()
	if s.queues[q.journal] == q && len(q.chain) == 0 && q.holder == nil && q.waiting == 0 && q.failed == nil && !q.running {
		delete(s.queues, q.journal)
	}
}
