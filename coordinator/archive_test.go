package coordinator_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/archive"
	"github.com/daybook-dev/daybook/coordinator"
	"github.com/daybook-dev/daybook/coordinator/reader"
	"github.com/daybook-dev/daybook/internal/bucket"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/storage"
)

// What is told of a stream, and what is read of it, is the same before and after it went into a real archive.
func TestRealArchive(t *testing.T) {
	b, err := bucket.CreateDir(t.TempDir(), "archive")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	archives, err := archive.NewReader(archive.NewPlaces(b, nil), 10)
	if err != nil {
		t.Fatal(err)
	}
	h := newHouse(t, func(c *coordinator.Config) { c.Archives = reader.FromArchive(archives) })
	logs, v1 := h.serve()
	const n = 100
	id := h.register("stdout")
	// The last line is not finished.
	unfinished := &logpb.LogEntry{StreamIndex: n, Sequence: 2 * n, ContentOffset: 6 * n, Content: &logpb.LogEntry_Text{Text: &logpb.Text{
		Lines: []*logpb.Text_Line{{Value: []byte("unfinished")}},
	}}}
	entries := make([][]byte, n+1)
	for i := range n {
		entries[i], err = proto.Marshal(entry(i))
		if err != nil {
			t.Fatal(err)
		}
	}
	if entries[n], err = proto.Marshal(unfinished); err != nil {
		t.Fatal(err)
	}
	err = h.storage.Put(t.Context(), storage.PutRequest{
		Stream: storage.Stream{Project: project, Path: types.StreamName(prefix).Join("stdout")}, Values: entries,
	})
	if err != nil {
		t.Fatal(err)
	}
	h.terminate(id, n)
	look := func() (*daybookv1.Stream, []*logpb.LogEntry, []*logpb.LogEntry) {
		t.Helper()
		path := prefix + "/+/stdout"
		s, err := v1.GetStream(t.Context(), &daybookv1.GetStreamRequest{Project: project, Path: path})
		if err != nil {
			t.Fatal(err)
		}
		all, err := logs.Get(t.Context(), &logdog.GetRequest{Project: project, Path: path})
		if err != nil {
			t.Fatal(err)
		}
		last, err := logs.Tail(t.Context(), &logdog.TailRequest{Project: project, Path: path})
		if err != nil {
			t.Fatal(err)
		}
		return s, all.GetLogs(), last.GetLogs()
	}
	before, all, last := look()

	m, err := archive.Write(t.Context(), b, archive.Params{Project: project, Desc: descriptor("stdout"), TerminalIndex: n}, func(yield func(archive.Entry, error) bool) {
		for i, data := range entries {
			if !yield(archive.Entry{Index: types.MessageIndex(i), Data: data}, nil) {
				return
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.Services().ArchiveStream(t.Context(), &logdog.ArchiveStreamRequest{
		Project: project, Id: id, LogEntryCount: m.EntryCount, TerminalIndex: int64(m.LastIndex), StreamUrl: m.StreamURL, StreamSize: m.StreamSize,
		IndexUrl: m.IndexURL, IndexSize: m.IndexSize, ContentSize: m.ContentSize, Lines: m.Lines,
	})
	if err != nil {
		t.Fatal(err)
	}
	h.expunge("stdout")
	after, allAfter, lastAfter := look()
	if !proto.Equal(before, after) || before.GetState() != daybookv1.StreamState_COMPLETE {
		t.Errorf("before: %v\nafter: %v", before, after)
	}
	equal(t, "entries", indices(allAfter), indices(all))
	equal(t, "last entry", indices(lastAfter), indices(last))
}
