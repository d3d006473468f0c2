package disklog

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/vfs"
	"github.com/daybook-dev/daybook/journal/broker/engine"
	"github.com/daybook-dev/daybook/journal/broker/engine/enginetest"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// written returns a disk with a log that nobody closed, the appends of its one journal, and the name of its last segment.
func written(t *testing.T) (disk *vfs.Mem, appends []string, segment string) {
	t.Helper()
	disk = vfs.NewMem()
	opts := small(disk)
	opts.SegmentSize = 64 << 10
	l := open(t, "/data", opts)
	enginetest.Create(t, l, "test/a")
	enginetest.Create(t, l, "test/b")
	for i := range 12 {
		content := fmt.Sprintf("append %d %s;", i, strings.Repeat("x", 10*i))
		enginetest.Must(t, l, "test/a", enginetest.Append(content))
		appends = append(appends, content)
		if i < 6 {
			enginetest.Must(t, l, "test/b", enginetest.Append("other"))
		}
	}
	out := disk.Clone()
	enginetest.Close(t, l)
	for _, name := range out.Files() {
		if strings.HasPrefix(name, "/data/log/") {
			segment = name
		}
	}
	return out, appends, segment
}

// end returns where the records of a segment end.
func end(t *testing.T, disk *vfs.Mem, segment string) (records []int64) {
	t.Helper()
	var buf []byte
	b, err := readInto(disk, segment, &buf)
	if err != nil {
		t.Fatal(err)
	}
	for at := int64(0); ; {
		records = append(records, at)
		_, size, ok := parseRecord(b[at:], 1)
		if !ok {
			return records
		}
		at += int64(size)
	}
}

// TestDamage flips bits of records in the middle. Their ranges are not served, and everything else is.
func TestDamage(t *testing.T) {
	disk, appends, segment := written(t)
	whole := strings.Join(appends, "")
	records := end(t, disk, segment)
	// The first three records are the start and the two journals.
	for i := 3; i < len(records)-2; i++ {
		for _, at := range []int64{0, 5, 9, 13, 17, 30, 34, 40} {
			d := disk.Clone()
			d.Flip(segment, (records[i]+at)*8+3)
			l := open(t, "/data", small(d))
			s := enginetest.State(t, l, "test/a")
			if int(s.Head) != len(whole) {
				t.Fatalf("record %d byte %d: the journal ends at %d instead of %d", i, at, s.Head, len(whole))
			}
			lost := readAround(t, l, &s, whole)
			if other := enginetest.State(t, l, "test/b"); other.Head != 30 {
				t.Fatalf("record %d byte %d: the other journal ends at %d", i, at, other.Head)
			}
			if lost > len(appends[11])+20 {
				t.Errorf("record %d byte %d: %d bytes lost", i, at, lost)
			}
			enginetest.Must(t, l, "test/a", enginetest.Append("go on"))
			enginetest.Close(t, l)
		}
	}
}

// TestDamagedSpecs loses records about specs. What is said later holds.
func TestDamagedSpecs(t *testing.T) {
	disk := vfs.NewMem()
	opts := small(disk)
	opts.SegmentSize = 64 << 10
	l := open(t, "/data", opts)
	remove := &protocol.ApplyRequest_Change{Delete: "test/a", ExpectModRevision: -1}
	for _, c := range []*protocol.ApplyRequest_Change{
		{Upsert: enginetest.Spec("test/a")},
		remove,
		{Upsert: enginetest.Spec("test/a")},
		{Upsert: enginetest.Spec("test/a"), ExpectModRevision: -1},
		{Upsert: enginetest.Spec("test/b")},
	} {
		if _, err := l.Apply(t.Context(), []*protocol.ApplyRequest_Change{c}); err != nil {
			t.Fatal(err)
		}
	}
	specs := l.Specs()
	crashed := disk.Clone()
	enginetest.Close(t, l)
	const segment = "/data/log/0000000000000001"
	for i, at := range end(t, crashed, segment)[1:5] {
		d := crashed.Clone()
		d.Flip(segment, (at+40)*8)
		opts.FS = d
		l := open(t, "/data", opts)
		if got := l.Specs(); got.Revision != specs.Revision || len(got.All) != 2 {
			t.Errorf("record %d: revision %d, %d journals", i+1, got.Revision, len(got.All))
		}
		if s, spec := enginetest.State(t, l, "test/a"), l.Specs().Get("test/a"); s.Created != spec.Created || s.Head != 0 {
			t.Errorf("record %d: created at %d and %d", i+1, s.Created, spec.Created)
		}
		enginetest.Must(t, l, "test/a", enginetest.Append("x"))
		enginetest.Close(t, l)
	}
}

// readAround reads what can be read, checks it, and returns how much cannot.
func readAround(t *testing.T, l *Log, s *engine.State, whole string) (lost int) {
	t.Helper()
	for _, f := range append(slices.Clone(s.Finished), s.Open) {
		if f.Len() == 0 {
			continue
		}
		r, err := l.Open(t.Context(), "test/a", f)
		if err != nil {
			t.Fatal(err)
		}
		for off := f.Begin; off < f.End; off++ {
			var b [1]byte
			switch n, err := r.ReadAt(b[:], off); {
			case fault.Is(err, fault.DataLoss):
				lost++
			case n != 1:
				t.Fatalf("read at %d: %v", off, err)
			case b[0] != whole[off]:
				t.Fatalf("byte %d is %q instead of %q", off, b[0], whole[off])
			}
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return lost
}

// TestDamagedCheckpoint starts from the one before.
func TestDamagedCheckpoint(t *testing.T) {
	disk := vfs.NewMem()
	l := open(t, "/data", small(disk))
	enginetest.Create(t, l, "test/a")
	for range 3 {
		enginetest.Must(t, l, "test/a", enginetest.Append("x"))
		if err := l.checkpoint(); err != nil {
			t.Fatal(err)
		}
	}
	enginetest.Close(t, l)
	var checkpoints []string
	for _, name := range disk.Files() {
		if strings.HasPrefix(name, "/data/checkpoint/") {
			checkpoints = append(checkpoints, name)
		}
	}
	if len(checkpoints) != 2 {
		t.Fatalf("checkpoints: %v", checkpoints)
	}
	disk.Flip(checkpoints[1], 300)
	l = open(t, "/data", small(disk))
	if got := enginetest.Content(t, l, "test/a"); string(got) != "xxx" {
		t.Errorf("content %q", got)
	}
	enginetest.Close(t, l)

	disk = vfs.NewMem()
	enginetest.Close(t, open(t, "/data", small(disk)))
	for _, name := range disk.Files() {
		if strings.HasPrefix(name, "/data/checkpoint/") {
			disk.Flip(name, 300)
		}
	}
	if _, err := Open(t.Context(), "/data", small(disk)); !fault.Is(err, fault.DataLoss) {
		t.Errorf("without any checkpoint: %v", err)
	}
}
