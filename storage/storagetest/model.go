package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/storage"
	"github.com/daybook-dev/daybook/storage/memory"
)

// testModel runs random operations on the store and on storage/memory and compares what they answer.
func testModel(t *testing.T, e Engine) {
	rapid.Check(t, func(rt *rapid.T) {
		m := &machine{ctx: t.Context(), tb: t, engine: e, store: e.Open(t), model: memory.New()}
		defer func() {
			if err := m.store.Close(); err != nil {
				rt.Errorf("Close: %v", err)
			}
		}()
		rt.Repeat(rapid.StateMachineActions(m))
	})
}

// machine holds a store and its model in the same state. Its exported methods are the actions that rapid chooses from.
type machine struct {
	ctx    context.Context
	tb     testing.TB
	engine Engine
	store  storage.Storage
	model  *memory.Storage
	serial int // makes every value different
}

func (m *machine) stream(t *rapid.T) storage.Stream {
	return rapid.SampledFrom([]storage.Stream{streamA, streamB, streamC}).Draw(t, "stream")
}

func (m *machine) request(t *rapid.T) storage.PutRequest {
	r := storage.PutRequest{Stream: m.stream(t), Index: types.MessageIndex(rapid.IntRange(0, 12).Draw(t, "index"))}
	for range rapid.IntRange(0, 5).Draw(t, "values") {
		m.serial++
		r.Values = append(r.Values, fmt.Appendf(nil, "value %d", m.serial))
	}
	return r
}

// Put puts a run that may overlap others.
func (m *machine) Put(t *rapid.T) {
	r := m.request(t)
	if err := errors.Join(m.store.Put(m.ctx, r), m.model.Put(m.ctx, r)); err != nil {
		t.Fatalf("Put: %v", err)
	}
}

// Batch commits several runs and checkpoints.
func (m *machine) Batch(t *rapid.T) {
	a, b := m.store.NewBatch(), m.model.NewBatch()
	defer a.Close()
	defer b.Close()
	for range rapid.IntRange(0, 4).Draw(t, "puts") {
		r := m.request(t)
		if err := errors.Join(a.Put(r), b.Put(r)); err != nil {
			t.Fatalf("Batch.Put: %v", err)
		}
	}
	for range rapid.IntRange(0, 2).Draw(t, "checkpoints") {
		reader := rapid.SampledFrom([]string{"", "r", "rr"}).Draw(t, "reader")
		offset := rapid.Int64Range(0, 1<<62).Draw(t, "offset")
		a.SetCheckpoint(reader, offset)
		b.SetCheckpoint(reader, offset)
	}
	if a.Size() != b.Size() {
		t.Fatalf("Size = %d, want %d", a.Size(), b.Size())
	}
	if err := errors.Join(a.Commit(m.ctx), b.Commit(m.ctx)); err != nil {
		t.Fatalf("Commit: %v", err)
	}
}

// Expunge removes a stream.
func (m *machine) Expunge(t *rapid.T) {
	s := m.stream(t)
	if err := errors.Join(m.store.Expunge(m.ctx, s), m.model.Expunge(m.ctx, s)); err != nil {
		t.Fatalf("Expunge: %v", err)
	}
}

// Reopen closes the store and opens it again, which may take a while.
func (m *machine) Reopen(t *rapid.T) {
	if m.engine.Reopen == nil || rapid.IntRange(0, 4).Draw(t, "seldom") > 0 {
		t.Skip()
	}
	m.store = m.engine.Reopen(m.tb, m.store)
}

// Get compares a part of a stream.
func (m *machine) Get(t *rapid.T) {
	r := storage.GetRequest{
		Stream: m.stream(t), Index: types.MessageIndex(rapid.IntRange(-1, 20).Draw(t, "index")),
		Limit: rapid.IntRange(0, 6).Draw(t, "limit"), KeysOnly: rapid.Bool().Draw(t, "keysOnly"),
	}
	m.compare(t, r)
}

func (m *machine) compare(t *rapid.T, r storage.GetRequest) {
	var got, want []storage.Entry
	collect := func(to *[]storage.Entry) storage.GetCallback {
		return func(e storage.Entry) bool {
			e.Data = bytes.Clone(e.Data)
			*to = append(*to, e)
			return true
		}
	}
	if err := errors.Join(m.store.Get(m.ctx, r, collect(&got)), m.model.Get(m.ctx, r, collect(&want))); err != nil {
		t.Fatalf("Get %+v: %v", r, err)
	}
	if r.KeysOnly { // data may be there all the same
		for i := range got {
			got[i].Data = nil
		}
	}
	if !slices.EqualFunc(want, got, sameEntry) {
		t.Fatalf("Get %+v (-want +got):\n%s", r, cmp.Diff(want, got))
	}
}

func sameEntry(a, b storage.Entry) bool { return a.Index == b.Index && bytes.Equal(a.Data, b.Data) }

// Check is called after each action.
func (m *machine) Check(t *rapid.T) {
	for _, s := range []storage.Stream{streamA, streamB, streamC} {
		m.compare(t, storage.GetRequest{Stream: s})
		got, gotErr := m.store.Tail(m.ctx, s)
		want, wantErr := m.model.Tail(m.ctx, s)
		if !errors.Is(gotErr, wantErr) {
			t.Fatalf("Tail of %s: %v, want %v", s, gotErr, wantErr)
		}
		if !sameEntry(want, got) {
			t.Fatalf("Tail of %s (-want +got):\n%s", s, cmp.Diff(want, got))
		}
	}
	for _, reader := range []string{"", "r", "rr"} {
		got, gotErr := m.store.Checkpoint(m.ctx, reader)
		want, wantErr := m.model.Checkpoint(m.ctx, reader)
		if gotErr != nil || wantErr != nil || got != want {
			t.Fatalf("Checkpoint of %q = %d, %v; want %d, %v", reader, got, gotErr, want, wantErr)
		}
	}
}
