package client

import (
	"context"
	"errors"
	"io"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/internal/fault"
	pb "github.com/daybook-dev/daybook/journal/protocol"
)

// WatchedList keeps a listing of journals up to date. It is for programs whose journals come and go:
//
//	list := client.NewWatchedList(ctx, jc, &protocol.ListRequest{Selector: selector}, nil)
//	for err := range list.UpdateCh() {
//		if err != nil {
//			continue // It tries again by itself.
//		}
//		use(list.List())
//	}
//
// Brokers send a new listing when specs change. Routes in it may be older than those that reads and appends learn.
type WatchedList struct {
	ctx     context.Context
	jc      pb.JournalClient
	request *pb.ListRequest // Resumes behind the last listing.
	list    atomic.Pointer[pb.ListResponse]
	updates chan error
	shared  bool // Others use the channel, too.
	done    chan struct{}
}

// NewWatchedList returns a list of what the request's selector selects, which is kept until ctx ends. There is no listing before
// the first update.
//
// Updates are sent to updateCh, which several lists may share and which should have a buffer. If it is nil the list makes one of
// its own.
func NewWatchedList(ctx context.Context, jc pb.JournalClient, req *pb.ListRequest, updateCh chan error) *WatchedList {
	w := &WatchedList{
		ctx:     ctx,
		jc:      jc,
		request: &pb.ListRequest{Selector: proto.CloneOf(req.GetSelector()), Watch: true},
		updates: updateCh,
		shared:  updateCh != nil,
		done:    make(chan struct{}),
	}
	if updateCh == nil {
		w.updates = make(chan error, 1)
	}
	go w.run()
	return w
}

// List returns the latest listing, with the journals in the order of their names, or nil if there is none yet. It must not be
// modified.
func (w *WatchedList) List() *pb.ListResponse { return w.list.Load() }

// UpdateCh returns the channel of updates: nil for a new listing, and what failed otherwise, which is tried again whatever it
// is. An update may stand for several. The channel is not closed.
func (w *WatchedList) UpdateCh() <-chan error { return w.updates }

// Done is closed when the list's context has ended and nothing of it is left.
func (w *WatchedList) Done() <-chan struct{} { return w.done }

func (w *WatchedList) run() {
	defer close(w.done)
	for attempt := 0; ; attempt++ {
		got, err := w.watch()
		if w.ctx.Err() != nil {
			return
		}
		if got {
			attempt = 0
		}
		if !got || !errors.Is(err, io.EOF) {
			w.signal(err)
		}
		if waitBackoff(w.ctx, attempt) != nil {
			return
		}
	}
}

// watch makes one RPC and takes in its listings, until it ends. It reports whether there was any.
func (w *WatchedList) watch() (got bool, err error) {
	if err := w.request.Validate(); err != nil {
		return false, err
	}
	ctx, cancel := context.WithCancel(pb.WithDispatchDefault(w.ctx))
	defer cancel()
	req := proto.CloneOf(w.request)
	stream, err := w.jc.List(ctx, req, grpc.WaitForReady(true))
	if err != nil {
		return false, mapContext(w.ctx, err)
	}
	for {
		resp, err := ReadListResponse(stream, req)
		if fault.Is(err, fault.OutOfRange) {
			w.request.WatchResume = nil // The broker was set back to before that revision.
		}
		if err != nil {
			return got, mapContext(w.ctx, err)
		}
		got = true
		w.request.WatchResume = resp.Header
		w.list.Store(resp)
		w.signal(nil)
	}
}

// signal sends an update. If nobody has taken the last one that stays, except that a new listing takes the place of a failure in
// a channel of our own.
func (w *WatchedList) signal(err error) {
	select {
	case w.updates <- err:
		return
	default:
	}
	if w.shared || err != nil {
		return
	}
	select {
	case <-w.updates: //nolint:errcheck // makes room: the newer one says all that the older one said
	default:
	}
	select {
	case w.updates <- err:
	default:
	}
}
