package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/daybook-dev/daybook/coordinator/state/postgres"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/testkit"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/storage"
	"github.com/daybook-dev/daybook/storage/runs"
)

var stream = storage.Stream{Project: "p", Path: "a/+/b"}

func value(index types.MessageIndex) []byte { return fmt.Appendf(nil, "entry %d", index) }

// exec changes the database behind the store's back.
func exec(t testing.TB, s *Storage, text string, args ...any) {
	t.Helper()
	if _, err := s.pool.Exec(t.Context(), text, args...); err != nil {
		t.Fatal(err)
	}
}

func TestOpenRefuses(t *testing.T) {
	address := testkit.Database(t)
	refused := func(address string, kind fault.Kind, text string) {
		t.Helper()
		s, err := Open(t.Context(), address, Options{})
		if err == nil {
			_ = s.Close()
		}
		if !fault.Is(err, kind) || !strings.Contains(fmt.Sprint(err), text) {
			t.Errorf("%s: %v, of kind %v", address, err, fault.KindOf(err))
		}
	}
	refused("postgres://%", fault.Invalid, "address")
	refused(strings.Replace(address, "/test", "/nothing", 1), fault.Precondition, "nothing")
	refused(strings.Replace(address, "user=daybook", "user=nobody", 1), fault.Precondition, "nobody")
	refused(address+"&synchronous_commit=off", fault.Precondition, "synchronous_commit = on")
	refused("postgres://127.0.0.1:1/x", fault.Transient, "127.0.0.1")
	s := openStorage(t, address, never)
	exec(t, s, `INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, true)`)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	refused(address, fault.Precondition, "newer")
}

// Entries and the Coordinator's state may share a database, and processes that start together set it up once.
func TestSharedDatabase(t *testing.T) {
	address := testkit.Database(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			s, err := Open(t.Context(), address, Options{})
			if err != nil {
				t.Error(err)
				return
			}
			if err := s.Put(t.Context(), storage.PutRequest{Stream: stream, Values: [][]byte{value(0)}}); err != nil {
				t.Error(err)
			}
			_ = s.Close()
		})
		wg.Go(func() {
			s, err := postgres.Open(t.Context(), address, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Error(err)
				return
			}
			_ = s.Close()
		})
	}
	wg.Wait()
	s := openStorage(t, address, never)
	defer func() { _ = s.Close() }()
	if e, err := s.Tail(t.Context(), stream); err != nil || !bytes.Equal(e.Data, value(0)) {
		t.Errorf("Tail = %q, %v", e.Data, err)
	}
}

// A block that is not as it was written is an error, and neither an end nor another entry.
func TestDamagedBlocks(t *testing.T) {
	s := openStorage(t, testkit.Database(t), never)
	defer func() { _ = s.Close() }()
	values := [][]byte{bytes.Repeat([]byte("one "), 100), bytes.Repeat([]byte("two "), 100)}
	for what, change := range map[string]string{
		"empty":           `data = ''`,
		"unknown format":  `data = '\x07'`,
		"no zstd":         `data = '\x01020304'`,
		"cut":             `data = substr(data, 1, octet_length(data) - 3)`,
		"a bit":           `data = set_bit(data, 200, 1 - get_bit(data, 200))`,
		"more entries":    `last = 2`,
		"fewer entries":   `first = 1`,
		"negative":        `first = -1`,
		"backwards":       `first = 5`,
		"a huge count":    `first = 0, last = 9000000000000000000`,
		"a huge size":     `size = 2000000000`,
		"a negative size": `size = -1`,
		"plain and cut":   `data = '\x0005'`,
	} {
		if err := s.Put(t.Context(), storage.PutRequest{Stream: stream, Values: values}); err != nil {
			t.Fatal(err)
		}
		exec(t, s, `UPDATE blocks SET `+change)
		got := 0
		err := s.Get(t.Context(), storage.GetRequest{Stream: stream}, func(storage.Entry) bool { got++; return true })
		if !fault.Is(err, fault.DataLoss) || got > 0 {
			t.Errorf("%s: Get gave %d entries, %v", what, got, err)
		}
		if e, err := s.Tail(t.Context(), stream); !fault.Is(err, fault.DataLoss) {
			t.Errorf("%s: Tail = %d, %v", what, e.Index, err)
		}
		if err := s.Expunge(t.Context(), stream); err != nil {
			t.Fatal(err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, b := range encode(runs.Run{First: 3, Values: [][]byte{[]byte("one"), bytes.Repeat([]byte("two"), 50), {}}}) {
		f.Add(int64(b.first), int64(b.last), b.size, b.data)
	}
	f.Add(int64(0), int64(0), 4, []byte("\x00\x03one"))
	f.Fuzz(func(t *testing.T, first, last int64, size int, data []byte) {
		b := block{first: types.MessageIndex(first), last: types.MessageIndex(last), size: size, data: data}
		r, err := b.decode()
		if err == nil && r.Span() != (runs.Span{First: b.first, End: b.last + 1}) {
			t.Errorf("%d..%d decodes to %v", first, last, r.Span())
		}
	})
}

// Connections that break at any moment lose nothing that was acknowledged, and repeat nothing.
func TestBrokenConnections(t *testing.T) {
	address := testkit.Database(t)
	s := openStorage(t, address, never)
	defer func() { _ = s.Close() }()
	killer, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = killer.Close(context.Background()) }()
	var killing sync.WaitGroup
	const n = 60
	for i := types.MessageIndex(0); i < n; i++ {
		killing.Wait()
		killing.Go(func() { // while the next batch is on its way
			_, err := killer.Exec(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
				WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'daybook'`)
			if err != nil {
				t.Error(err)
			}
		})
		b := s.NewBatch()
		err := b.Put(storage.PutRequest{Stream: stream, Index: i, Values: [][]byte{value(i), value(i + 1)}}) // the second comes again
		b.SetCheckpoint("r", int64(i)+1)
		for err == nil {
			if err = b.Commit(t.Context()); err == nil {
				break
			}
			if !fault.Is(err, fault.Transient) {
				t.Fatalf("Commit: %v, of kind %v", err, fault.KindOf(err))
			}
			err = nil
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	killing.Wait()
	next := types.MessageIndex(0)
	err = s.Get(t.Context(), storage.GetRequest{Stream: stream}, func(e storage.Entry) bool {
		if e.Index != next || !bytes.Equal(e.Data, value(e.Index)) {
			t.Errorf("entry %d is %q, want entry %d", e.Index, e.Data, next)
		}
		next++
		return true
	})
	if err != nil || next != n+1 {
		t.Errorf("%d entries, %v", next, err)
	}
	if e, err := s.Tail(t.Context(), stream); err != nil || e.Index != n {
		t.Errorf("Tail = %d, %v", e.Index, err)
	}
	if position, err := s.Checkpoint(t.Context(), "r"); err != nil || position != n {
		t.Errorf("Checkpoint = %d, %v", position, err)
	}
}

// The space of streams that were expunged is used again.
func TestSpaceIsReclaimed(t *testing.T) {
	s := openStorage(t, testkit.Database(t), never)
	defer func() { _ = s.Close() }()
	noise := make([]byte, 1<<20)
	for i := range noise {
		noise[i] = byte(i*i*7919>>8 ^ i)
	}
	var first int64
	for round := range 5 {
		for i := range types.MessageIndex(8) {
			for k := range noise[:1024] {
				noise[k*1024] = byte(round) ^ byte(i) ^ byte(k) // not to be compressed to nothing
			}
			if err := s.Put(t.Context(), storage.PutRequest{Stream: stream, Index: i, Values: [][]byte{noise}}); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Expunge(t.Context(), stream); err != nil {
			t.Fatal(err)
		}
		exec(t, s, `VACUUM blocks`) // as autovacuum does, when it comes to it
		exec(t, s, `VACUUM streams`)
		var size, rows int64
		err := s.pool.QueryRow(t.Context(), `SELECT pg_total_relation_size('blocks'), (SELECT count(*) FROM blocks) + (SELECT count(*) FROM streams)`).Scan(&size, &rows)
		if err != nil {
			t.Fatal(err)
		}
		if rows != 0 {
			t.Errorf("%d rows are left", rows)
		}
		if round == 0 {
			first = max(size, 1<<20)
		}
		if size > 2*first {
			t.Errorf("%d bytes are in use after round %d, %d after the first", size, round, first)
		}
	}
}

// No query reads more than it has to, whatever the planner knows of the tables.
func TestPlans(t *testing.T) {
	s := openStorage(t, testkit.Database(t), never)
	defer func() { _ = s.Close() }()
	id := idOf(stream)
	for text, args := range map[string][]any{
		selectBlocks:  {id[:], int64(5), 10, 1000},
		selectKeys:    {id[:], int64(5), 10},
		selectTail:    {id[:]},
		selectChanges: {[][]byte{id[:]}},
		existing:      {int64(1), int64(5), int64(10)},
		fillGap:       {int64(1), int64(5)},
		changeStreams: {[]int64{1}, []int64{2}, []int64{3}, int64(4)},
		lockStreams:   {[][]byte{id[:]}},
	} {
		err := s.on(t.Context(), func(c *pgxpool.Conn) error {
			rows, err := c.Query(t.Context(), `EXPLAIN `+text, args...)
			if err != nil {
				return err
			}
			plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil {
				return err
			}
			whole := strings.Join(plan, "\n")
			sorts := strings.Count(whole, "Sort") > 0 && text != lockStreams // a few streams are sorted, not what is in them
			if strings.Contains(whole, "Seq Scan") || sorts {
				t.Errorf("%s\n%s", text, whole)
			}
			return nil
		})
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// However many blocks lie behind a gap, it is filled at last. Here a slow database stands for many blocks.
func TestFillsGapsForLong(t *testing.T) {
	t.Parallel()
	address := testkit.Database(t)
	s := openStorage(t, address, never)
	if err := s.Put(t.Context(), storage.PutRequest{Stream: stream, Index: 1, Values: [][]byte{value(1), value(2)}}); err != nil {
		t.Fatal(err)
	}
	exec(t, s, `CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(6); RETURN NEW; END $$`)
	exec(t, s, `CREATE TRIGGER slow BEFORE UPDATE ON streams FOR EACH ROW WHEN (NEW.next = 3) EXECUTE FUNCTION slow()`)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStorage(t, address+"&statement_timeout=5s", never)
	defer s.Close()
	if err := s.Put(t.Context(), storage.PutRequest{Stream: stream, Index: 0, Values: [][]byte{value(0)}}); err != nil {
		t.Fatal(err)
	}
	if e, err := s.Tail(t.Context(), stream); err != nil || e.Index != 2 {
		t.Errorf("Tail = %d, %v", e.Index, err)
	}
}

// The last index there can be is an index like others.
func TestLastIndex(t *testing.T) {
	s := openStorage(t, testkit.Database(t), never)
	defer func() { _ = s.Close() }()
	const last = types.MessageIndex(math.MaxInt64 - 1)
	for range 2 {
		err := s.Put(t.Context(), storage.PutRequest{Stream: stream, Index: last - 1, Values: [][]byte{value(1), value(2)}})
		if err != nil {
			t.Fatal(err)
		}
	}
	var got []types.MessageIndex
	err := s.Get(t.Context(), storage.GetRequest{Stream: stream, Index: last}, func(e storage.Entry) bool {
		got = append(got, e.Index)
		return true
	})
	if err != nil || len(got) != 1 || got[0] != last {
		t.Errorf("Get gave %v, %v", got, err)
	}
	if _, err := s.Tail(t.Context(), stream); !errors.Is(err, storage.ErrDoesNotExist) {
		t.Errorf("Tail: %v", err)
	}
}
