package daybook

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/api/ingest"
	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/butler/output/memory"
	"github.com/daybook-dev/daybook/journal/protocol"
	"github.com/daybook-dev/daybook/logs/envelope"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

const childVariable = "DAYBOOK_TEST_OUTPUT_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		child(os.Getenv(childVariable))
		return
	}
	goleak.VerifyTestMain(m)
}

// server is a Daybook server in memory: journals, and the registration of prefixes.
type server struct {
	protocol.UnimplementedJournalServer
	logdog.UnimplementedRegistrationServer

	mu       sync.Mutex
	down     bool
	full     bool  // appends fail for now
	refuse   error // of registrations
	deny     bool  // appends
	other    bool  // another secret than the wished one
	discard  bool  // the content of appends
	journal  string
	journals map[string][]byte
	prefixes map[string]*logdog.RegisterPrefixRequest
	attempts int
	appends  chan struct{} // receives, if there is room, at each append
}

func newServer() *server {
	return &server{
		journals: map[string][]byte{}, prefixes: map[string]*logdog.RegisterPrefixRequest{}, appends: make(chan struct{}, 1),
	}
}

// set changes the server's behaviour.
func (s *server) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *server) RegisterPrefix(_ context.Context, r *logdog.RegisterPrefixRequest) (*logdog.RegisterPrefixResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.attempts++
	if s.down {
		return nil, status.Error(codes.Unavailable, "down")
	}
	if s.refuse != nil {
		return nil, s.refuse
	}
	key := r.GetProject() + "/" + r.GetPrefix()
	if p := s.prefixes[key]; p == nil {
		s.prefixes[key] = proto.CloneOf(r)
	} else if !bytes.Equal(p.GetOpNonce(), r.GetOpNonce()) {
		return nil, status.Error(codes.AlreadyExists, "registered already")
	}
	secret := s.prefixes[key].GetWishedSecret()
	if s.other {
		secret = types.NewPrefixSecret()
	}
	return &logdog.RegisterPrefixResponse{Secret: secret, IngestJournal: s.journal, AcceptsZstd: true, ViewerUrl: "http://view/" + key}, nil
}

func (s *server) Append(stream protocol.Journal_AppendServer) error {
	open, err := stream.Recv()
	if err != nil {
		return err
	}
	var content []byte
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		content = append(content, m.GetContent()...)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down || s.full {
		return status.Error(codes.Unavailable, "down")
	}
	id := &protocol.ProcessSpec_ID{Zone: "local", Suffix: "broker"}
	resp := &protocol.AppendResponse{
		Header: &protocol.Header{
			ProcessId: id,
			Route:     &protocol.Route{Members: []*protocol.ProcessSpec_ID{id}, Endpoints: []string{"http://broker"}},
			Etcd:      &protocol.Header_Etcd{ClusterId: 1, MemberId: 1, Revision: 1, RaftTerm: 1},
		},
		Registers: &protocol.LabelSet{},
	}
	if s.deny {
		resp.Status = protocol.Status_NOT_ALLOWED
		return stream.SendAndClose(resp)
	}
	begin := int64(len(s.journals[open.GetJournal()]))
	if !s.discard {
		s.journals[open.GetJournal()] = append(s.journals[open.GetJournal()], content...)
	}
	resp.Commit = &protocol.Fragment{
		Journal: open.GetJournal(), Begin: begin, End: begin + int64(len(content)),
		Sum: protocol.SHA1SumOf(content), CompressionCodec: protocol.CompressionCodec_NONE,
	}
	select {
	case s.appends <- struct{}{}:
	default:
	}
	return stream.SendAndClose(resp)
}

// received returns what a Collector would make of the journals: each entry once. It fails the test if a bundle has the wrong
// secret, or a terminal index is lower than an entry.
func (s *server) received(t *testing.T) *memory.Output {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	out := new(memory.Output)
	for name, data := range s.journals {
		r := ingest.NewReader(bytes.NewReader(data))
		next := map[string]uint64{}
		for {
			msg, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil || r.Skipped > 0 {
				t.Fatalf("journal %s: %v, %d bytes skipped", name, err, r.Skipped)
			}
			meta, b, err := envelope.Read(msg)
			if err != nil {
				t.Fatal(err)
			}
			if proto.Size(b) > envelope.DefaultThreshold*4 && meta.GetCompression() != envelope.Zstd {
				t.Error("a large bundle is not compressed")
			}
			p := s.prefixes[b.GetProject()+"/"+b.GetPrefix()]
			if !bytes.Equal(p.GetWishedSecret(), b.GetSecret()) {
				t.Errorf("bundle of %s has another secret", b.GetPrefix())
			}
			for _, e := range b.GetEntries() {
				name := e.GetDesc().GetName()
				var fresh []*logpb.LogEntry
				for _, l := range e.GetLogs() {
					if l.GetStreamIndex() > next[name] {
						t.Errorf("%s: gap before entry %d", name, l.GetStreamIndex())
					}
					if l.GetStreamIndex() == next[name] {
						fresh = append(fresh, l)
						next[name]++
					}
				}
				e.Logs = fresh
			}
			if err := out.SendBundle(b); err != nil {
				t.Fatal(err)
			}
		}
		for name, n := range next {
			if s := out.Stream(types.StreamName(name)); s.Terminal > 0 && uint64(s.TerminalIndex)+1 < n {
				t.Errorf("%s: terminal index %d, but %d entries", name, s.TerminalIndex, n)
			}
		}
	}
	return out
}

// listen serves on a socket until the test ends.
func (s *server) listen(t testing.TB) (network, address string) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	protocol.RegisterJournalServer(g, s)
	logdog.RegisterRegistrationServer(g, s)
	var wg sync.WaitGroup
	wg.Go(func() { _ = g.Serve(l) })
	t.Cleanup(func() {
		g.Stop()
		wg.Wait()
	})
	return "unix", l.Addr().String()
}

// clients returns the clients of a server at an address.
func clients(address string) (protocol.RoutedJournalClient, logdog.RegistrationClient, io.Closer, error) {
	conn, err := grpc.NewClient("unix:"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, nil, nil, err
	}
	rjc := protocol.NewRoutedJournalClient(protocol.NewJournalClient(conn), protocol.NoopDispatchRouter{})
	return rjc, logdog.NewRegistrationClient(conn), conn, nil
}

// config returns a Config of a server, with a spool below the returned root.
func config(t testing.TB, s *server) (c Config, root string) {
	t.Helper()
	_, address := s.listen(t)
	rjc, reg, conn, err := clients(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	root = t.TempDir()
	return Config{
		Project: "local", Prefix: "user/run", Journals: rjc, Registration: reg, SpoolDir: filepath.Join(root, "spool"),
		CoordinatorHost: "host", SourceInfo: []string{"test"},
	}, root
}
