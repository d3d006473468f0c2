package memory_test

import (
	"errors"
	"testing"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/storage"
	"github.com/daybook-dev/daybook/storage/memory"
	"github.com/daybook-dev/daybook/storage/storagetest"
)

func TestStorage(t *testing.T) {
	storagetest.Run(t, storagetest.Engine{
		Open: func(testing.TB) storage.Storage { return memory.New() },
		Break: func(_ testing.TB, s storage.Storage) func() {
			m := s.(*memory.Storage)
			m.SetErr(fault.New(fault.Transient, "broken"))
			return func() { m.SetErr(nil) }
		},
	})
}

func TestKnobs(t *testing.T) {
	s := memory.New()
	name := storage.Stream{Project: "p", Path: "a/+/b"}
	if err := s.Put(t.Context(), storage.PutRequest{Stream: name, Values: [][]byte{{1}, {2}, {3}}}); err != nil {
		t.Fatal(err)
	}
	s.MaxGetCount = 2
	var kept [][]byte
	err := s.Get(t.Context(), storage.GetRequest{Stream: name}, func(e storage.Entry) bool {
		kept = append(kept, e.Data)
		return true
	})
	if err != nil || len(kept) != 2 || kept[0][0] != 0 || kept[1][0] != 0 {
		t.Errorf("Get gave %v, %v; want two values that were destroyed", kept, err)
	}
	broken := errors.New("broken")
	s.SetErr(broken)
	if _, err := s.Tail(t.Context(), name); !errors.Is(err, broken) {
		t.Errorf("Tail: %v; want the error that was set", err)
	}
	s.SetErr(nil)
	if e, err := s.Tail(t.Context(), name); err != nil || e.Index != 2 {
		t.Errorf("Tail = %d, %v", e.Index, err)
	}
}
