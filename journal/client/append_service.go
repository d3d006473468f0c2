package client

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/vfs"
	pb "github.com/daybook-dev/daybook/journal/protocol"
)

// maxBatch is how much released content a batch may have and still be joined.
const maxBatch = 64 << 20

// AsyncJournalClient is a client that also appends in the background.
type AsyncJournalClient interface {
	pb.RoutedJournalClient

	// StartAppend begins an append. It waits while another caller holds the same journal. The caller then has the journal to
	// itself, and must write its content to the Writer and call Release; it must not call StartAppend for this journal before.
	//
	// Appends of a journal are made in the order of StartAppend. Appends with equal requests are made together where they can
	// be. An append begins when all its dependencies have finished, and fails if one of them did.
	//
	// A request that is not valid fails at once.
	StartAppend(req *pb.AppendRequest, dependencies OpFutures) *AsyncAppend

	// PendingExcept returns, for each journal but one, the last append that has not finished, which implies all before it.
	// As dependencies these make a barrier. The empty journal excepts none. If the last append that finished has
	// failed, that failure is included, so that it reaches whoever depends on what came before.
	PendingExcept(except pb.Journal) OpFutures
}

// AppendService makes appends in the background: batched, in order, and again until they succeed.
//
// Content waits in files. Each journal has at most one RPC in flight, and while that lasts the next batch is filled. A journal
// has a goroutine only while it has something to send.
//
// Failures that may pass are tried again for ever. Those that will not pass (the journal does not exist, or may not be
// written) fail the batch at once, or within two seconds if it is the caller's token that is refused. They do not affect the
// batches behind it.
type AppendService struct {
	pb.RoutedJournalClient

	ctx          context.Context
	cancel       context.CancelFunc
	log          *slog.Logger
	metrics      *metrics
	fenceAndWait bool
	limit        int64
	maxBatch     int64
	wait         func(ctx context.Context, attempt int) error
	fs           vfs.FS
	spool        *spool
	loops        sync.WaitGroup

	mu     sync.Mutex // Before that of a queue.
	queues map[pb.Journal]*queue

	life   sync.Mutex // After that of a queue.
	closed bool       // No goroutine may start.
	// How many batches have failed for good, and why the first did.
	failures int
	failure  error
}

var _ AsyncJournalClient = (*AppendService)(nil)

// AppendServiceOption configures an AppendService.
type AppendServiceOption func(*AppendService)

// WithLogger makes the service log what fails and is tried again. Without it nothing is logged.
func WithLogger(log *slog.Logger) AppendServiceOption {
	return func(s *AppendService) { s.log = log }
}

// WithSpoolLimit bounds the bytes of the service's files. A Release that would exceed it fails. Zero is no bound.
func WithSpoolLimit(bytes int64) AppendServiceOption {
	return func(s *AppendService) { s.limit = bytes }
}

// WithFencedRetry makes appends that check registers try again for ever after failures that will not pass, instead of
// reporting them. It is for writers that, once another one has fenced them, wait for the end of their context.
func WithFencedRetry() AppendServiceOption {
	return func(s *AppendService) { s.fenceAndWait = true }
}

// NewAppendService returns a service that keeps content in unlinked temporary files, which end with the process. It works until
// ctx ends.
func NewAppendService(ctx context.Context, rjc pb.RoutedJournalClient, opts ...AppendServiceOption) *AppendService {
	s := newAppendService(ctx, rjc, opts)
	s.spool = newSpool(s.fs, "", s.limit)
	return s
}

// OpenAppendService returns a service that keeps content in a directory, which it creates if need be. What an earlier service
// left there is sent first; PendingExcept("") returns it. The directory belongs to one service at a time, until Close; a
// second one gets an error of the kind fault.Precondition.
//
// Content is in the operating system's hands when Release returns, so it survives the death of the process, but
// not of the machine. What has failed for good stays in the directory, for the next service to try again. Dependencies on
// appends of the same service are remembered, others are not.
func OpenAppendService(ctx context.Context, rjc pb.RoutedJournalClient, dir string, opts ...AppendServiceOption) (*AppendService, error) {
	s := newAppendService(ctx, rjc, opts)
	sp, found, err := openSpool(s.fs, dir, s.limit, s.log)
	if err != nil {
		s.cancel()
		return nil, err
	}
	s.spool = sp
	s.adopt(found)
	return s, nil
}

func newAppendService(ctx context.Context, rjc pb.RoutedJournalClient, opts []AppendServiceOption) *AppendService {
	s := &AppendService{
		RoutedJournalClient: rjc,
		log:                 slog.New(slog.DiscardHandler),
		fs:                  vfs.OS,
		maxBatch:            maxBatch,
		wait:                waitBackoff,
		queues:              make(map[pb.Journal]*queue),
	}
	s.ctx, s.cancel = context.WithCancel(ctx)
	for _, o := range opts {
		o(s)
	}
	return s
}

// adopt queues the batches of an earlier service, in their order.
func (s *AppendService) adopt(found []*spoolFile) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range found {
		journal := pb.Journal(f.request.Journal).StripMeta()
		p := &AsyncAppend{
			op:       NewAsyncOperation(),
			request:  f.request,
			response: new(pb.AppendResponse),
			file:     f,
			releases: 1,
			sealed:   true,
		}
		if f.dependent {
			// What it depended on was, as far as it is still to be sent, before it in other journals.
			p.deps = make(OpFutures)
			for j, q := range s.queues {
				if j != journal {
					p.deps[q.chain[len(q.chain)-1]] = struct{}{}
				}
			}
		}
		q := s.queue(journal)
		p.queue = q
		q.chain = append(q.chain, p)
		s.spool.pend(f.content, 1)
	}
	for _, q := range s.queues {
		q.running = true
		s.loops.Go(q.run)
	}
}

// queue returns the queue of a journal, which it makes if need be. s.mu must be held.
func (s *AppendService) queue(journal pb.Journal) *queue {
	q := s.queues[journal]
	if q == nil {
		q = newQueue(s, journal)
		s.queues[journal] = q
	}
	return q
}

// StartAppend implements AsyncJournalClient.
func (s *AppendService) StartAppend(req *pb.AppendRequest, dependencies OpFutures) *AsyncAppend {
	journal := pb.Journal(req.GetJournal()).StripMeta()
	s.mu.Lock()
	q := s.queues[journal]
	if q == nil {
		// Else start validates, unless the request equals one that was.
		if err := validateStart(req); err != nil {
			s.mu.Unlock()
			return refusedAppend(req, err)
		}
		q = s.queue(journal)
	}
	q.mu.Lock()
	s.mu.Unlock()
	return q.start(req, dependencies) // Unlocks.
}

func validateStart(req *pb.AppendRequest) error {
	if !req.IsOpening() {
		return fault.New(fault.Invalid, "append: the request names no journal")
	}
	return req.Validate()
}

// PendingExcept implements AsyncJournalClient.
func (s *AppendService) PendingExcept(except pb.Journal) OpFutures {
	except = except.StripMeta()
	out := make(OpFutures)
	s.mu.Lock()
	defer s.mu.Unlock()
	for journal, q := range s.queues {
		if journal == except {
			continue
		}
		q.mu.Lock()
		if n := len(q.chain); n != 0 {
			out[q.chain[n-1]] = struct{}{}
		}
		if q.failed != nil {
			out[q.failed] = struct{}{}
		}
		q.mu.Unlock()
	}
	return out
}

// Pending returns how much content, in how many batches, was released and has not been acknowledged.
func (s *AppendService) Pending() (bytes int64, batches int) { return s.spool.pending() }

// WaitForRoom waits until a Release of n bytes would fit into the spool. It fails with the context's error, or that of the
// service, and with fault.Invalid if n bytes will never fit.
func (s *AppendService) WaitForRoom(ctx context.Context, n int64) error {
	for {
		room, err := s.spool.room(n)
		if room == nil || err != nil {
			return err
		}
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		case <-s.ctx.Done():
			return s.ctx.Err()
		}
	}
}

// Drain waits until everything that was released before the call has been acknowledged or has failed. It returns an error if
// any append of the service, also an earlier one, has failed for good: its content is not in the journal. In a spool
// directory it stays, for the next service to try again.
func (s *AppendService) Drain(ctx context.Context) error {
	var ended error
	for f := range s.PendingExcept("") {
		select {
		case <-f.Done():
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := f.Err(); isContextError(err) {
			ended = err
		}
	}
	s.life.Lock()
	defer s.life.Unlock()
	if s.failures != 0 {
		return fmt.Errorf("%d appends have failed for good, first: %w", s.failures, s.failure)
	}
	return ended
}

// Close drains the service until ctx ends, and then ends it. What was not acknowledged fails with context.Canceled; it stays in
// the spool directory, if there is one, for the next service. The error is that of Drain.
func (s *AppendService) Close(ctx context.Context) error {
	err := s.Drain(ctx)
	s.cancel()
	s.life.Lock()
	s.closed = true
	s.life.Unlock()
	s.loops.Wait()
	if closeErr := s.spool.close(); err == nil {
		err = closeErr
	}
	return err
}
