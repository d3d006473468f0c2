package disklog

import (
	"fmt"
	"testing"

	"github.com/daybook-dev/daybook/internal/vfs"
	"github.com/daybook-dev/daybook/journal/broker/engine/enginetest"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// TestManyJournals starts a log with many journals, few of which have content, after a stop and after a crash.
func TestManyJournals(t *testing.T) {
	const journals, used = 10_000, 300
	disk := vfs.NewMem()
	opts := Options{FS: disk, SegmentSize: 8 << 20, OpenFiles: 8}
	l := open(t, "/data", opts)
	var changes []*protocol.ApplyRequest_Change
	for i := range journals {
		changes = append(changes, &protocol.ApplyRequest_Change{Upsert: enginetest.Spec(many(i))})
	}
	if _, err := l.Apply(t.Context(), changes); err != nil {
		t.Fatal(err)
	}
	for i := range used {
		enginetest.Must(t, l, many(i*7), enginetest.Append("content"))
	}
	crashed := disk.Clone()
	enginetest.Close(t, l)
	crashed.PowerLoss(nil)
	for what, d := range map[string]*vfs.Mem{"stop": disk, "crash": crashed} {
		opts.FS = d
		l := open(t, "/data", opts)
		if n := len(l.Specs().All); n != journals {
			t.Errorf("after a %s: %d journals", what, n)
		}
		for i := range used {
			if got := enginetest.Content(t, l, many(i*7)); string(got) != "content" {
				t.Errorf("after a %s: %q", what, got)
			}
		}
		enginetest.Close(t, l)
		l.files.mu.Lock()
		if l.files.open != 0 {
			t.Errorf("after a %s: %d files are still open", what, l.files.open)
		}
		l.files.mu.Unlock()
	}
}

func many(i int) protocol.Journal { return protocol.Journal(fmt.Sprintf("many/journal-%05d", i)) }
