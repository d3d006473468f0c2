package reader

import (
	"context"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/storage"
)

const (
	// partBytes is the most that is read for followers at once, in bytes of entries.
	partBytes = 64 << 10
	// keptBytes is how much of what was read last is kept for those who are a little late. Others read for themselves.
	keptBytes = 64 << 10
)

// feeds has the streams that are being followed. What comes to one that several follow is read and encoded once for all of them.
type feeds struct {
	mu sync.Mutex
	of map[storage.Stream]*followed
}

// followed is a stream and how many follow it. Its feed is nil until it is asked for.
type followed struct {
	followers int
	feed      *feed
}

// enter counts a follower. It must call leave.
func (f *feeds) enter(key storage.Stream) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.of == nil {
		f.of = make(map[storage.Stream]*followed)
	}
	if f.of[key] == nil {
		f.of[key] = new(followed)
	}
	f.of[key].followers++
}

// leave ends what enter began. The last but one ends the feed.
func (f *feeds) leave(key storage.Stream) {
	f.mu.Lock()
	s := f.of[key]
	s.followers--
	var ending *feed
	if s.followers < 2 {
		ending, s.feed = s.feed, nil
	}
	if s.followers == 0 {
		delete(f.of, key)
	}
	f.mu.Unlock()
	if ending != nil {
		ending.stop()
		<-ending.ended
	}
}

// get returns the feed of a stream that the caller has entered, or nil if nobody else follows it. One that begins, also in place of one
// that could not go on, has what comes from next on.
func (f *feeds) get(r *Reader, s *state.Stream, next types.MessageIndex) *feed {
	key := storageKey(s)
	f.mu.Lock()
	defer f.mu.Unlock()
	of := f.of[key]
	if of.followers < 2 {
		return nil
	}
	if of.feed == nil || of.feed.isOver() {
		ctx, stop := context.WithCancel(r.closing)
		of.feed = &feed{
			entries: recent{r.storage, key}, stream: s, stop: stop, ended: make(chan struct{}), head: next, changed: make(chan struct{}),
		}
		go of.feed.run(ctx)
	}
	return of.feed
}

// feed reads what comes to a stream and holds the end of it for its followers, encoded. It is of an open stream that was never
// archived, and goes no further than a gap.
type feed struct {
	entries recent
	stream  *state.Stream
	stop    context.CancelFunc
	ended   chan struct{} // closed when run has ended

	mu sync.Mutex
	// head is the first index that was not read.
	head types.MessageIndex
	// parts end at head, each where the next one begins.
	parts []*part
	bytes int // of parts
	// over says that nothing more is read.
	over bool
	// changed is closed when head has moved or over has become true.
	changed chan struct{}
}

// part is a run of entries.
type part struct {
	first, end types.MessageIndex
	// response is a FollowResponse, encoded: a message without fields that keeps what it does not know. So it is copied for
	// each follower, and nothing else.
	response *emptypb.Empty
}

// run reads until it is stopped or cannot go on. Followers read for themselves then, and see why.
func (f *feed) run(ctx context.Context) {
	defer close(f.ended)
	defer f.stop()
	defer f.move(nil)
	changed, stop := f.entries.storage.Watch(f.entries.stream)
	defer stop()
	for {
		logs, why, err := read(ctx, f.stream, f.entries, wanted{index: f.head, bytes: partBytes})
		if err != nil {
			return
		}
		if len(logs) > 0 {
			p, err := newPart(logs)
			if err != nil {
				return
			}
			f.move(p)
		}
		if why == atLimit {
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

func newPart(logs []*logpb.LogEntry) (*part, error) {
	encoded, err := proto.Marshal(&daybookv1.FollowResponse{Logs: logs})
	if err != nil {
		return nil, err
	}
	first := types.MessageIndex(logs[0].GetStreamIndex())
	p := &part{first: first, end: first + types.MessageIndex(len(logs)), response: new(emptypb.Empty)}
	p.response.ProtoReflect().SetUnknown(encoded)
	return p, nil
}

func (p *part) size() int { return len(p.response.ProtoReflect().GetUnknown()) }

// from returns what the part has from an index on.
func (p *part) from(next types.MessageIndex) (proto.Message, error) {
	if next == p.first {
		return p.response, nil
	}
	resp := new(daybookv1.FollowResponse)
	if err := proto.Unmarshal(p.response.ProtoReflect().GetUnknown(), resp); err != nil {
		return nil, err
	}
	resp.Logs = resp.Logs[next-p.first:]
	return resp, nil
}

// move adds a part, or ends the feed if it is nil, and wakes those who wait.
func (f *feed) move(p *part) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p == nil {
		f.over, f.parts = true, nil
	} else {
		f.head = p.end
		f.parts = append(f.parts, p)
		f.bytes += p.size()
		for len(f.parts) > 1 && f.bytes > keptBytes {
			f.bytes -= f.parts[0].size()
			f.parts = slices.Delete(f.parts, 0, 1)
		}
	}
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *feed) isOver() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.over
}

// after returns the part in which next lies; or, if that has not come yet, a channel that is closed when something has. With neither
// the follower reads for itself.
func (f *feed) after(next types.MessageIndex) (*part, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.over:
		return nil, nil
	case next >= f.head:
		return nil, f.changed
	}
	for _, p := range f.parts {
		if p.first <= next && next < p.end {
			return p, nil
		}
	}
	return nil, nil
}

// share sends what the feed has for as long as nothing else happens. It returns when the stream's state has changed, or with again when
// there may be something to read that the feed does not have.
func (f *follower) share(ctx context.Context, feed *feed, stateChanged <-chan struct{}) (again bool, err error) {
	for {
		p, wait := feed.after(f.next)
		if p != nil {
			m, err := p.from(f.next)
			if err != nil {
				return false, err
			}
			if err := f.send(m); err != nil {
				return false, err
			}
			f.next = p.end
			continue
		}
		if wait == nil {
			f.behind = f.next
			select {
			case <-stateChanged:
				return false, nil
			default:
				return true, nil
			}
		}
		select {
		case <-wait:
		case <-stateChanged:
			return false, nil
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}
