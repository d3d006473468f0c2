package postgres

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/daybook-dev/daybook/internal/testkit"
	"github.com/daybook-dev/daybook/storage"
	"github.com/daybook-dev/daybook/storage/storagetest"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// never is an interval for tests that must not be woken without a reason.
const never = -1

func openStorage(t testing.TB, address string, interval time.Duration) *Storage {
	t.Helper()
	s, err := open(t.Context(), address, Options{}, interval)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// empty removes everything.
func empty(t testing.TB, address string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	if _, err := conn.Exec(t.Context(), `DELETE FROM entries.streams; DELETE FROM entries.blocks; DELETE FROM entries.checkpoints`); err != nil {
		t.Fatal(err)
	}
}

func TestStorage(t *testing.T) {
	server := testkit.NewPostgres(t)
	address := server.Database(t)
	reopen := func(t testing.TB, s storage.Storage) storage.Storage {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return openStorage(t, address, never)
	}
	storagetest.Run(t, storagetest.Engine{
		Open: func(t testing.TB) storage.Storage {
			s := openStorage(t, address, never)
			empty(t, address)
			return s
		},
		Reopen: reopen,
		Crash: func(t testing.TB, s storage.Storage) storage.Storage {
			server.Kill()
			server.Restart(t)
			return reopen(t, s)
		},
		Peer: func(t testing.TB, _ storage.Storage) storage.Storage { return openStorage(t, address, pollInterval) },
		Break: func(t testing.TB, _ storage.Storage) func() {
			server.Kill()
			return func() { server.Restart(t) }
		},
	})
}

func Benchmark(b *testing.B) {
	storagetest.Bench(b, func(b *testing.B) storage.Storage { return openStorage(b, testkit.Database(b), pollInterval) })
}
