package pebble

import (
	"context"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/storage"
)

// TestReclaim checks that expunged streams give their space back without further writes.
func TestReclaim(t *testing.T) {
	s, err := Open("d", Options{FS: vfs.NewMem()})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	defer s.Close()
	const streams = 4
	stream := func(i int) storage.Stream {
		return storage.Stream{Project: "p", Path: types.StreamPath(fmt.Sprint("a/+/", i))}
	}
	for i := range types.MessageIndex(3) {
		for k := range streams {
			if err := s.Put(t.Context(), storage.PutRequest{Stream: stream(k), Index: i, Values: [][]byte{make([]byte, 1<<20)}}); err != nil {
				t.Fatalf("Put: %v", err)
			}
		}
	}
	if err := s.db.Flush(); err != nil {
		t.Fatalf("Flush: %v", err)
	}
	if s.db.Metrics().BlobFiles.LiveCount == 0 {
		t.Fatal("no values lie apart from their keys")
	}
	for k := range streams {
		if err := s.Expunge(t.Context(), stream(k)); err != nil {
			t.Fatalf("Expunge: %v", err)
		}
	}
	s.reclaim.expunged(minGarbage) // as if they had been larger
	s.reclaim.running.Wait()
	if m := s.db.Metrics().BlobFiles; m.LiveCount != 0 {
		t.Errorf("%d files of values with %d bytes are left", m.LiveCount, m.LiveSize)
	}
}

// Streams that end together are expunged together: most of them while the space of the first is given back.
func TestReclaimWhatComesMeanwhile(t *testing.T) {
	s, err := Open("d", Options{FS: vfs.NewMem()})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	defer s.Close()
	r := newReclaimer(s.db, func(err error) { t.Error(err) })
	defer r.close()
	compactions := 0
	r.usage = func() uint64 { return 0 }
	r.compact = func(context.Context) error {
		if compactions++; compactions < 3 {
			r.expunged(minGarbage)
		} else {
			r.expunged(1) // which is not worth another one
		}
		return nil
	}
	r.expunged(minGarbage)
	r.running.Wait()
	if compactions != 3 {
		t.Errorf("%d compactions", compactions)
	}
	r.expunged(minGarbage)
	r.running.Wait()
	if compactions != 4 {
		t.Errorf("%d compactions after another expunge", compactions)
	}
}
