package broker_test

import (
	"context"
	"io"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/daybook-dev/daybook/journal/broker"
	"github.com/daybook-dev/daybook/journal/broker/engine"
	"github.com/daybook-dev/daybook/journal/broker/engine/disklog"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// leaving is an engine whose client goes while the engine is asked for a journal on its behalf.
type leaving struct{ engine.Engine }

type leaveKey struct{}

func (l leaving) Load(ctx context.Context, journal protocol.Journal) (engine.State, error) {
	if leave, ok := ctx.Value(leaveKey{}).(context.CancelFunc); ok {
		leave()
	}
	return l.Engine.Load(context.WithoutCancel(ctx), journal)
}

// sentAppend is an append that has arrived whole.
type sentAppend struct {
	grpc.ServerStream
	ctx      context.Context
	messages []*protocol.AppendRequest
}

func (s *sentAppend) Context() context.Context                    { return s.ctx }
func (s *sentAppend) SendAndClose(*protocol.AppendResponse) error { return nil }

func (s *sentAppend) Recv() (*protocol.AppendRequest, error) {
	if len(s.messages) == 0 {
		return nil, io.EOF
	}
	m := s.messages[0]
	s.messages = s.messages[1:]
	return m, nil
}

// An append whose client has gone is not made any more: that may have sent it again, and more behind it.
func TestAppendOfAClientThatHasGone(t *testing.T) {
	log, err := disklog.Open(t.Context(), t.TempDir(), disklog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := log.Apply(t.Context(), []*protocol.ApplyRequest_Change{{Upsert: spec("test/journal")}}); err != nil {
		t.Fatal(err)
	}
	b, err := broker.New(t.Context(), broker.Config{
		Engine: leaving{log}, ID: &protocol.ProcessSpec_ID{Zone: "local", Suffix: "test"}, Endpoint: "http://localhost",
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancel(t.Context())
	err = b.Append(&sentAppend{ctx: context.WithValue(ctx, leaveKey{}, leave), messages: []*protocol.AppendRequest{
		{Journal: "test/journal", UnionRegisters: protocol.MustLabelSet("seq", "1")}, {Content: []byte("late")}, {},
	}})
	if status.Code(err) != codes.Canceled || ctx.Err() == nil {
		t.Errorf("the append ends with %v", err)
	}
	if state, err := log.Load(t.Context(), "test/journal"); err != nil || state.Head != 0 {
		t.Errorf("the journal ends at %d: %v", state.Head, err)
	}
	if err := b.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := log.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
