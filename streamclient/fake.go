package streamclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"

	"github.com/daybook-dev/daybook/logs/frame"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/streamproto"
)

// Fake stands in for a Butler in tests of programs, and records what they write. It is safe for concurrent use.
type Fake struct {
	id int // 0 if it is not registered

	mu         sync.Mutex
	streams    map[types.StreamName]*fakeStream
	redactions []string
	err        error
}

// FakeStream is what a Fake knows of a stream.
type FakeStream struct {
	// Flags is what the program said of the stream. Its name is with the namespace.
	Flags streamproto.Flags
	// Data is all that was written to a stream of text or of bytes.
	Data []byte
	// Datagrams are those of a stream of datagrams.
	Datagrams [][]byte
	Closed    bool
}

// NewFake returns a fake and a client of it.
func NewFake(namespace types.StreamName) (*Client, *Fake) {
	f := &Fake{streams: make(map[types.StreamName]*fakeStream)}
	return &Client{f, namespace}, f
}

var fakes = struct {
	sync.Mutex
	byID map[int]*Fake
	last int
}{byID: make(map[int]*Fake)}

// RegisterFake returns a fake with an address, until Unregister.
func RegisterFake() *Fake {
	_, f := NewFake("")
	fakes.Lock()
	defer fakes.Unlock()
	fakes.last++
	f.id = fakes.last
	fakes.byID[f.id] = f
	return f
}

func dialFake(value string) (butler, error) {
	id, err := strconv.Atoi(value)
	if err != nil {
		return nil, fmt.Errorf("a fake has a number, not %.40q", value)
	}
	fakes.Lock()
	defer fakes.Unlock()
	f, ok := fakes.byID[id]
	if !ok {
		return nil, fmt.Errorf("no fake %d is registered", id)
	}
	return f, nil
}

// Address returns what New takes, also through the environment. That of a fake that was never registered is empty.
func (f *Fake) Address() string {
	if f.id == 0 {
		return ""
	}
	return fmt.Sprintf("fake:%d", f.id)
}

// Unregister makes the address unknown to New. Clients that are there go on. It may be called again.
func (f *Fake) Unregister() {
	fakes.Lock()
	defer fakes.Unlock()
	delete(fakes.byID, f.id)
}

// SetError makes all that is opened from now on fail with err, or work again if it is nil.
func (f *Fake) SetError(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

// Streams returns a copy of all that was opened and written so far.
func (f *Fake) Streams() map[types.StreamName]FakeStream {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := make(map[types.StreamName]FakeStream, len(f.streams))
	for name, s := range f.streams {
		all[name] = s.copy()
	}
	return all
}

// Stream returns a copy of one of Streams, or the zero value if there is none.
func (f *Fake) Stream(name types.StreamName) FakeStream {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, ok := f.streams[name]
	if !ok {
		return FakeStream{}
	}
	return s.copy()
}

// Redactions returns the values that were added.
func (f *Fake) Redactions() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.redactions)
}

func (f *Fake) open(_ context.Context, s *settings) (io.WriteCloser, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	name := s.flags.Name
	err := f.err
	if err == nil && f.streams[name] != nil {
		err = errors.New("the name is taken")
		if s.confirm {
			err = &streamproto.RefusedError{Code: streamproto.Exists, Reason: err.Error()}
		}
	}
	if err != nil {
		return nil, err
	}
	s.accepted("")
	w := &fakeStream{fake: f, flags: s.flags}
	f.streams[name] = w
	return w, nil
}

func (f *Fake) redact(_ context.Context, values []string) error {
	if _, err := streamproto.AppendRedact(nil, values); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return f.err
	}
	f.redactions = append(f.redactions, values...)
	return nil
}

// fakeStream is an open stream of a fake, whose lock guards it.
type fakeStream struct {
	fake   *Fake
	flags  streamproto.Flags
	data   []byte
	closed bool
}

func (s *fakeStream) Write(p []byte) (int, error) {
	s.fake.mu.Lock()
	defer s.fake.mu.Unlock()
	if s.closed {
		return 0, fmt.Errorf("write to stream %q: %w", s.flags.Name, io.ErrClosedPipe)
	}
	s.data = append(s.data, p...)
	return len(p), nil
}

func (s *fakeStream) Close() error {
	s.fake.mu.Lock()
	defer s.fake.mu.Unlock()
	if s.closed {
		return fmt.Errorf("close stream %q: %w", s.flags.Name, io.ErrClosedPipe)
	}
	s.closed = true
	return nil
}

func (s *fakeStream) copy() FakeStream {
	c := FakeStream{Flags: s.flags, Data: slices.Clone(s.data), Closed: s.closed}
	if s.flags.Type != streamproto.Datagram {
		return c
	}
	rest := c.Data
	for c.Data = nil; ; {
		var d []byte
		var err error
		if d, rest, err = frame.Cut(rest, streamproto.MaxDatagramSize); err != nil {
			return c // at the end, or within a datagram that is being written
		}
		c.Datagrams = append(c.Datagrams, d)
	}
}
