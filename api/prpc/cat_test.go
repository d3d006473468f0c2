package prpc_test

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/api/prpc"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/storage"
)

// cat reads a stream with the requests of `logdog cat`: the state is asked for until the end is known, and a reader that knows none,
// and gets nothing, comes again later.
type cat struct {
	logs logdog.LogsClient
	path string

	next, end int64
	got       []uint64
}

// read asks until there is nothing new, and tells whether the stream has ended.
func (c *cat) read(t *testing.T) (bool, error) {
	t.Helper()
	for {
		resp, err := c.logs.Get(t.Context(), &logdog.GetRequest{Project: "p", Path: c.path, Index: c.next, ByteCount: 1 << 20, State: c.end < 0})
		if err != nil {
			return false, err
		}
		if c.end < 0 {
			if resp.GetDesc() == nil {
				t.Fatal("a state without a descriptor") // an error to the tool
			}
			c.end = resp.GetState().GetTerminalIndex()
		}
		for _, e := range resp.GetLogs() {
			c.got = append(c.got, e.GetStreamIndex())
			c.next = int64(e.GetStreamIndex()) + 1
		}
		if c.end >= 0 && c.next > c.end {
			return true, nil
		}
		if len(resp.GetLogs()) == 0 {
			return false, nil
		}
	}
}

// A stream that is waited for, read while it grows, and read to its end, as `logdog cat` and `logdog latest` do.
func TestCat(t *testing.T) {
	c, entries := newCoordinator(t)
	h := listen(t, c.Register)
	// The tool itself would be held longer when there is nothing.
	conn := prpc.NewClient(prpc.ClientConfig{Host: strings.TrimPrefix(h.URL, "http://"), Insecure: true, HTTP: h.Client(), UserAgent: "like logdog"})
	ctx, services := t.Context(), logdog.NewServicesClient(conn)
	reading := &cat{logs: logdog.NewLogsClient(conn), path: "a/b/+/stdout", end: -1}
	latest := func() []*logpb.LogEntry {
		t.Helper()
		resp, err := reading.logs.Tail(ctx, &logdog.TailRequest{Project: "p", Path: reading.path, State: true})
		if err != nil || resp.GetDesc() == nil || len(resp.GetLogs()) > 1 {
			t.Fatal(resp, err)
		}
		return resp.GetLogs()
	}

	registered, err := logdog.NewRegistrationClient(conn).RegisterPrefix(ctx, &logdog.RegisterPrefixRequest{Project: "p", Prefix: "a/b"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reading.read(t); status.Code(err) != codes.NotFound { // which the tool waits on
		t.Fatal(err)
	}
	desc := decode(t, exchanges(t)[2].Response, &logdog.GetResponse{}).GetDesc()
	desc.Prefix = "a/b"
	stream, err := services.RegisterStream(ctx, &logdog.RegisterStreamRequest{
		Project: "p", Secret: registered.GetSecret(), ProtoVersion: "1", Desc: encode(t, desc), TerminalIndex: -1,
	})
	if err != nil {
		t.Fatal(err)
	}
	if ended, err := reading.read(t); ended || err != nil || len(reading.got) != 0 || len(latest()) != 0 {
		t.Fatal(ended, err, reading.got)
	}
	// Each entry takes more than half of what the tool asks for at once.
	line := []byte(strings.Repeat("x", 600<<10))
	for i := range types.MessageIndex(5) {
		e := &logpb.LogEntry{
			StreamIndex: uint64(i), Sequence: uint64(i),
			Content: &logpb.LogEntry_Text{Text: &logpb.Text{Lines: []*logpb.Text_Line{{Value: line, Delimiter: "\n"}}}},
		}
		err := entries.Put(ctx, storage.PutRequest{Stream: storage.Stream{Project: "p", Path: "a/b/+/stdout"}, Index: i, Values: [][]byte{encode(t, e)}})
		if err != nil {
			t.Fatal(err)
		}
		if i == 2 {
			if ended, err := reading.read(t); ended || err != nil || !slices.Equal(reading.got, []uint64{0, 1, 2}) {
				t.Fatal(ended, err, reading.got)
			}
		}
	}
	_, err = services.TerminateStream(ctx, &logdog.TerminateStreamRequest{Project: "p", Id: stream.GetId(), Secret: registered.GetSecret(), TerminalIndex: 4})
	if err != nil {
		t.Fatal(err)
	}
	if ended, err := reading.read(t); !ended || err != nil || !slices.Equal(reading.got, []uint64{0, 1, 2, 3, 4}) {
		t.Fatal(ended, err, reading.got)
	}
	if last := latest(); len(last) != 1 || last[0].GetStreamIndex() != 4 {
		t.Error(last)
	}
}
