package bigtable

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/bigtable/admin/apiv2/adminpb"
	"cloud.google.com/go/bigtable/bttest"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/daybook-dev/daybook/storage"
	"github.com/daybook-dev/daybook/storage/storagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// never is an interval for tests that must not be woken without a reason.
const never = -1

// service is Google's emulator, with failures on demand.
type service struct {
	admin  adminpb.BigtableTableAdminClient
	tables atomic.Int64
	// fail, if set, is called with the name of each call and may make it fail.
	fail atomic.Pointer[func(method string) error]

	mu    sync.Mutex
	names map[storage.Storage]string
}

func newService(t testing.TB) *service {
	t.Helper()
	s := &service{names: make(map[storage.Storage]string)}
	server, err := bttest.NewServer("127.0.0.1:0", grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage),
		grpc.UnaryInterceptor(func(ctx context.Context, r any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			if err := s.failure(info.FullMethod); err != nil {
				return nil, err
			}
			return next(ctx, r)
		}),
		grpc.StreamInterceptor(func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			if err := s.failure(info.FullMethod); err != nil {
				return err
			}
			return next(srv, stream)
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	t.Setenv(emulatorVariable, server.Addr)
	conn, err := grpc.NewClient(server.Addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	s.admin = adminpb.NewBigtableTableAdminClient(conn)
	return s
}

func (s *service) failure(method string) error {
	if fail := s.fail.Load(); fail != nil {
		return (*fail)(method)
	}
	return nil
}

// failing makes calls fail until mend is called.
func (s *service) failing(fail func(method string) error) (mend func()) {
	s.fail.Store(&fail)
	return func() { s.fail.Store(nil) }
}

// table creates a table and returns its address.
func (s *service) table(t testing.TB) string {
	t.Helper()
	id := fmt.Sprint("table", s.tables.Add(1))
	_, err := s.admin.CreateTable(t.Context(), &adminpb.CreateTableRequest{
		Parent: "projects/p/instances/i", TableId: id, Table: &adminpb.Table{ColumnFamilies: map[string]*adminpb.ColumnFamily{family: {}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return "bigtable://p/i/" + id
}

func (s *service) open(t testing.TB, address string, interval time.Duration) *Storage {
	t.Helper()
	store, err := open(t.Context(), address, Options{}, interval)
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names[store] = address
	return store
}

func (s *service) addressOf(store storage.Storage) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.names[store]
}

func TestStorage(t *testing.T) {
	s := newService(t)
	reopen := func(t testing.TB, store storage.Storage) storage.Storage {
		address := s.addressOf(store)
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
		return s.open(t, address, never)
	}
	storagetest.Run(t, storagetest.Engine{
		Open:   func(t testing.TB) storage.Storage { return s.open(t, s.table(t), never) },
		Reopen: reopen,
		Crash:  reopen, // nothing is kept here
		Peer: func(t testing.TB, store storage.Storage) storage.Storage {
			return s.open(t, s.addressOf(store), pollInterval)
		},
		Break: func(testing.TB, storage.Storage) func() {
			return s.failing(func(string) error { return status.Error(codes.Unavailable, "broken") })
		},
	})
}

func Benchmark(b *testing.B) {
	s := newService(b)
	storagetest.Bench(b, func(b *testing.B) storage.Storage { return s.open(b, s.table(b), pollInterval) })
}
