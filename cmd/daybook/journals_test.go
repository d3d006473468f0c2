package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/protocol"
	"github.com/daybook-dev/daybook/journal/spectree"
)

func frame(payload string) string {
	b := append([]byte{}, frameMagic[:]...)
	return string(binary.LittleEndian.AppendUint32(b, uint32(len(payload)))) + payload
}

func TestRecords(t *testing.T) {
	for _, c := range []struct {
		name string
		next func(*bufio.Reader) ([]byte, error)
		in   string
		want []string
		ok   bool
	}{
		{"lines", nextLine, "a\r\n\nlonger than the buffer is\n", []string{"a\r\n", "\n", "longer than the buffer is\n"}, true},
		{"no lines", nextLine, "", nil, true},
		{"cut line", nextLine, "a\nb", []string{"a\n"}, false},
		{"frames", nextFrame, frame("x") + frame(""), []string{frame("x"), frame("")}, true},
		{"cut header", nextFrame, frame("x")[:6], nil, false},
		{"cut frame", nextFrame, frame("x") + frame("yz")[:9], []string{frame("x")}, false},
		{"no frame", nextFrame, "12345678", nil, false},
		{"huge frame", nextFrame, "\x66\x33\x93\x36\xff\xff\xff\xff", nil, false},
	} {
		in := bufio.NewReaderSize(strings.NewReader(c.in), 16)
		var got []string
		var err error
		for err == nil {
			var record []byte
			if record, err = c.next(in); err == nil {
				got = append(got, string(record))
			}
		}
		if !slices.Equal(got, c.want) || c.ok != errors.Is(err, io.EOF) || !c.ok && !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %q, %v", c.name, got, err)
		}
	}
}

func FuzzFrames(f *testing.F) {
	f.Add([]byte(frame("hello") + frame("")))
	f.Fuzz(func(t *testing.T, b []byte) {
		var out []byte
		for in := bufio.NewReader(bytes.NewReader(b)); ; {
			record, err := nextFrame(in)
			if err != nil {
				break
			}
			out = append(out, record...)
		}
		if !bytes.HasPrefix(b, out) {
			t.Errorf("frames %q of %q", out, b)
		}
	})
}

func TestMapRecord(t *testing.T) {
	names := []string{"acme/a", "acme/b", "acme/c"}
	for _, mapping := range []string{"modulo", "rendezvous"} {
		used := make(map[string]int)
		for i := range 300 {
			key := []byte{byte(i), byte(i >> 8), 'k'}
			a, err := mapRecord(mapping, key, names)
			b, _ := mapRecord(mapping, key, names)
			if err != nil || a != b {
				t.Fatalf("%s: %q, then %q, %v", mapping, a, b, err)
			}
			used[a]++
		}
		if len(used) != 3 {
			t.Errorf("%s uses %v", mapping, used)
		}
	}
	// FNV-1a of "a" is 0xe40c292c.
	if got, _ := mapRecord("modulo", []byte("a"), names); got != names[0xe40c292c%3] {
		t.Error(got)
	}
	for _, n := range names {
		if got, err := mapRecord("direct", []byte(n), names); err != nil || got != n {
			t.Errorf("%q, %v", got, err)
		}
	}
	if _, err := mapRecord("direct", []byte("acme/d"), names); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	if got, err := mapRecord("random", nil, names); err != nil || !slices.Contains(names, got) {
		t.Errorf("%q, %v", got, err)
	}
}

func TestRecordKey(t *testing.T) {
	for _, c := range []struct {
		cmd    journalsAppendCmd
		record string
		want   string
		ok     bool
	}{
		{journalsAppendCmd{Framing: "lines"}, "key\r\n", "key", true},
		{journalsAppendCmd{Framing: "lines", Base64: true}, "a2V5\n", "key", true},
		{journalsAppendCmd{Framing: "lines", Base64: true}, "?\n", "", false},
		{journalsAppendCmd{Framing: "fixed"}, frame("key\n"), "key\n", true},
	} {
		if got, err := c.cmd.key([]byte(c.record)); string(got) != c.want || c.ok != (err == nil) {
			t.Errorf("%q: %q, %v", c.record, got, err)
		}
	}
}

func TestParseSince(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	for in, want := range map[string]int64{
		"": 0, "1600000000": 1_600_000_000, "90m": 1_700_000_000 - 5400, "2023-11-14T22:13:20Z": 1_700_000_000,
	} {
		if got, err := parseSince(in, now); err != nil || got != want {
			t.Errorf("%q: %d, %v", in, got, err)
		}
	}
	if _, err := parseSince("yesterday", now); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
}

func TestConflicts(t *testing.T) {
	at := func(revision int64) *protocol.ListResponse_Journal {
		return &protocol.ListResponse_Journal{ModRevision: revision}
	}
	for _, c := range []struct {
		revision int64
		current  *protocol.ListResponse_Journal
		conflict string
	}{
		{0, nil, ""},
		{-1, nil, ""},
		{-1, at(3), ""},
		{3, at(3), ""},
		{3, nil, "does not exist"},
		{0, at(3), "exists at revision 3"},
		{2, at(3), "is at revision 3"},
	} {
		got := conflictOf(spectree.Leaf{Spec: &protocol.JournalSpec{Name: "a/journal"}, Revision: c.revision}, c.current)
		if (got == "") != (c.conflict == "") || !strings.Contains(got, c.conflict) {
			t.Errorf("%d, %v: %q", c.revision, c.current, got)
		}
	}
}

// Without retention everything is kept.
func TestExpiredFragments(t *testing.T) {
	now := time.Unix(10_000, 0)
	page := new(protocol.FragmentsResponse)
	for _, f := range []*protocol.Fragment{
		{Begin: 1, BackingStore: "file:///", ModTime: 1000},
		{Begin: 2, BackingStore: "file:///", ModTime: 9000},
		{Begin: 3, BackingStore: "file:///", ModTime: 9500},
		{Begin: 4},
	} {
		page.Fragments = append(page.Fragments, &protocol.FragmentsResponse_XFragment{Spec: f})
	}
	for retention, want := range map[time.Duration]int{-1: 0, 0: 0, 1000 * time.Second: 2, time.Hour: 1, 24 * time.Hour: 0} {
		s := &protocol.JournalSpec{Fragment: &protocol.JournalSpec_Fragment{Retention: durationpb.New(retention)}}
		if got := expiredFragments(s, page, now); len(got) != want {
			t.Errorf("retention %v: %v", retention, got)
		}
	}
}

func TestProgressLine(t *testing.T) {
	for _, c := range []struct {
		done, total int64
		width       int
		want        string
	}{
		{50e6, 100e6, 50, "[============             ]  50% of 100 MB, 5 MB/s"},
		{50e6, 0, 20, " 50 MB, 5 MB/s"},
		{200e6, 100e6, 12, " 100% of 100"},
	} {
		got := progressLine(c.done, c.total, 10*time.Second, c.width)
		if len(got) != c.width || strings.TrimRight(got, " ") != strings.TrimRight(c.want, " ") {
			t.Errorf("%q of %d cells", got, len(got))
		}
	}
	var none *progress
	none.add(1)
	none.expect(1)
	none.end()
}

// sleepy is a broker of journals that are suspended when they are read for the first time, and later are not to be read.
type sleepy struct {
	protocol.NoopDispatchRouter
	protocol.JournalClient
	reads int
}

func (s *sleepy) Read(context.Context, *protocol.ReadRequest, ...grpc.CallOption) (grpc.ServerStreamingClient[protocol.ReadResponse], error) {
	s.reads++
	if s.reads == 1 {
		return &refusedRead{status: protocol.Status_SUSPENDED}, nil
	}
	return &refusedRead{status: protocol.Status_NOT_ALLOWED}, nil
}

type refusedRead struct {
	grpc.ClientStream
	status protocol.Status
	sent   bool
}

func (r *refusedRead) Recv() (*protocol.ReadResponse, error) {
	if r.sent {
		return nil, io.EOF
	}
	r.sent = true
	return &protocol.ReadResponse{Status: r.status}, nil
}

// Who follows a journal that slept for less time than listings tell of goes on with it.
func TestFollowGoesOnAfterASuspension(t *testing.T) {
	stderr, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer stderr.Close()
	e := &env{ctx: t.Context(), stdout: stderr, stderr: stderr, log: slog.New(slog.DiscardHandler)}
	broker := new(sleepy)
	r := &journalsReading{
		cmd: &journalsReadCmd{Follow: true}, env: e, jc: broker, next: make(map[string]int64), running: make(map[string]*runningRead),
		out: stderr, progress: newProgress(e, stderr),
	}
	listed := []*protocol.ListResponse_Journal{{Spec: &protocol.JournalSpec{Name: "acme/one"}, CreateRevision: 1}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range 2 {
		r.start(ctx, listed, true, cancel)
		r.readers.Wait()
	}
	if broker.reads != 2 {
		t.Errorf("%d reads", broker.reads)
	}
}
