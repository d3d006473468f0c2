package disklog

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

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
		t.Errorf("with damaged checkpoints only: %v", err)
	}
	for _, name := range disk.Files() {
		if strings.HasPrefix(name, "/data/checkpoint/") {
			if err := disk.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := Open(t.Context(), "/data", small(disk)); !fault.Is(err, fault.DataLoss) {
		t.Errorf("without any checkpoint: %v", err)
	}
}

// A log of another version is not taken for a damaged one, which people would throw away.
func TestCheckpointOfAnotherVersion(t *testing.T) {
	disk := vfs.NewMem()
	enginetest.Close(t, open(t, "/data", small(disk)))
	for _, name := range disk.Files() {
		if !strings.HasPrefix(name, "/data/checkpoint/") {
			continue
		}
		f, err := disk.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		size, err := f.Size()
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, size)
		if _, err := f.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		b = append([]byte(checkpointKind+"4\n"), b[len(checkpointMagic):len(b)-4]...)
		b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
		if _, err := f.WriteAt(b, 0); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	_, err := Open(t.Context(), "/data", small(disk))
	if !fault.Is(err, fault.Precondition) || !strings.Contains(err.Error(), "another version") {
		t.Errorf("Open: %v", err)
	}
}

// settled returns a disk with every kind of file, after a crash: content that only the log has, checkpoints, finished and open
// fragments of two journals, and one that a store has. want is the content of each journal.
func settled(t *testing.T) (disk *vfs.Mem, want map[protocol.Journal]string) {
	t.Helper()
	disk = vfs.NewMem()
	opts := small(disk)
	opts.SegmentSize = 16 << 10
	l := open(t, "/data", opts)
	want = make(map[protocol.Journal]string)
	for _, name := range []protocol.Journal{"test/a", "test/b"} {
		enginetest.Create(t, l, name)
	}
	add := func(size int, force bool) {
		for name, x := range map[protocol.Journal]string{"test/a": "a", "test/b": "b"} {
			a := enginetest.Append(strings.Repeat(x, size))
			a.Roll.Force = force
			a.Union = protocol.MustLabelSet("size", fmt.Sprint(size))
			enginetest.Must(t, l, name, a)
			want[name] += string(a.Content)
		}
	}
	for range 2 {
		add(70, false)
		add(250, false)
		if err := l.checkpoint(); err != nil {
			t.Fatal(err)
		}
		add(50, true)
	}
	f := engine.StoredFragment{Fragment: enginetest.State(t, l, "test/b").Finished[0], Store: "file:///a/", Modified: 1}
	if err := l.Stored(t.Context(), "test/b", f); err != nil {
		t.Fatal(err)
	}
	add(30, false)
	out := disk.Clone()
	enginetest.Close(t, l)
	return out, want
}

// survey is what a log says of its journals.
type survey struct {
	// lost is how many bytes of each journal are known to be damaged, short how many are missing at its end.
	lost, short map[protocol.Journal]int
	// told says that there was a report.
	told bool
}

// examine opens a log on a disk that somebody has damaged, and checks that no byte it returns is wrong, and that it goes on.
// An error is one of Open.
func examine(t *testing.T, where string, disk *vfs.Mem, want map[protocol.Journal]string) (survey, error) {
	t.Helper()
	reports := new(strings.Builder)
	registry := prometheus.NewRegistry()
	opts := small(disk)
	opts.SegmentSize, opts.Registerer = 16<<10, registry
	opts.Logger = slog.New(slog.NewTextHandler(reports, nil))
	l, err := Open(t.Context(), "/data", opts)
	if err != nil {
		return survey{}, err
	}
	defer enginetest.Close(t, l)
	s := survey{lost: make(map[protocol.Journal]int), short: make(map[protocol.Journal]int), told: reports.Len() > 0}
	for name, content := range want {
		if l.Specs().Get(name) == nil {
			s.short[name] = len(content)
			continue
		}
		state := enginetest.State(t, l, name)
		head := int(state.Head)
		if head > len(content) {
			t.Fatalf("%s: %s ends at %d instead of %d", where, name, head, len(content))
		}
		s.short[name] = len(content) - head
		for _, f := range append(slices.Clone(state.Finished), state.Open) {
			s.lost[name] += examineFragment(t, where, l, name, f, content)
		}
		if s.lost[name] > 0 && !strings.Contains(reports.String(), string(name)) && !s.told {
			// Rot of a fragment's file is found when it is read, and tells the place then.
			s.told = true
		}
		if res := enginetest.Must(t, l, name, enginetest.Append("go on")); int(res.Begin) != head {
			t.Fatalf("%s: %s goes on at %d after %d", where, name, res.Begin, head)
		}
	}
	return s, nil
}

// examineFragment returns how many bytes cannot be read. The error says which journal and where.
func examineFragment(t *testing.T, where string, l *Log, name protocol.Journal, f engine.Fragment, content string) (lost int) {
	t.Helper()
	if f.Len() == 0 {
		return 0
	}
	r, err := l.Open(t.Context(), name, f)
	if fault.Is(err, fault.DataLoss) {
		return int(f.Len())
	}
	if err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	defer r.Close()
	b := make([]byte, f.Len())
	n, err := r.ReadAt(b, f.Begin)
	if string(b[:n]) != content[f.Begin:int(f.Begin)+n] {
		t.Fatalf("%s: %s has wrong bytes in [%d, %d)", where, name, f.Begin, f.End)
	}
	if n < len(b) {
		if !fault.Is(err, fault.DataLoss) || !strings.Contains(err.Error(), fmt.Sprintf("read %s at %d", name, int(f.Begin)+n)) {
			t.Fatalf("%s: read of [%d, %d) of %s: %v", where, f.Begin, f.End, name, err)
		}
	}
	return len(b) - n
}

// TestFlip inverts a bit of every third byte of every file. Nothing wrong is ever served; what is lost is told; and what belongs to one
// journal costs the other nothing.
func TestFlip(t *testing.T) {
	disk, want := settled(t)
	kinds := make(map[string]int)
	for _, name := range disk.Files() {
		f, err := disk.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		size, err := f.Size()
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(name, "/data/log/") {
			// Behind the records there are zeros, of which nobody makes anything.
			records := end(t, disk, name)
			size = records[len(records)-1] + 100
		}
		kinds[strings.Split(name, "/")[2]]++
		for at := int64(len(kinds)); at < size; at += 3 { // which hits every byte of some record's header
			where := fmt.Sprintf("%s byte %d", name, at)
			d := disk.Clone()
			d.Flip(name, at*8+at%8)
			s, err := examine(t, where, d, want)
			if err != nil {
				t.Fatalf("%s: %v", where, err)
			}
			for j := range want {
				if (s.lost[j] > 0 || s.short[j] > 0) && !s.told {
					t.Fatalf("%s: %s lost %d and %d bytes without a report", where, j, s.lost[j], s.short[j])
				}
			}
			if strings.HasPrefix(name, "/data/journals/0000000000000001") && (s.lost["test/b"] > 0 || s.short["test/b"] > 0) {
				t.Fatalf("%s: another journal lost something: %+v", where, s)
			}
			if strings.HasPrefix(name, "/data/journals/") && s.short["test/a"]+s.short["test/b"] > 0 ||
				strings.HasPrefix(name, "/data/checkpoint/") && s.lost["test/a"]+s.lost["test/b"]+s.short["test/a"]+s.short["test/b"] > 0 {
				t.Fatalf("%s: %+v", where, s)
			}
		}
	}
	if kinds["log"] == 0 || kinds["checkpoint"] != 2 || kinds["journals"] < 4 {
		t.Errorf("files: %v", kinds)
	}
}

// TestFilesGone empties, cuts and removes each file, and puts strangers beside them.
func TestFilesGone(t *testing.T) {
	disk, want := settled(t)
	for _, name := range disk.Files() {
		for _, how := range []string{"gone", "empty", "cut"} {
			where := name + " " + how
			d := disk.Clone()
			f, err := d.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			size, err := f.Size()
			if err != nil {
				t.Fatal(err)
			}
			switch how {
			case "gone":
				err = d.Remove(name)
			case "empty":
				err = f.Truncate(0)
			case "cut":
				err = f.Truncate(size / 3)
			}
			if err != nil {
				t.Fatal(err)
			}
			s, err := examine(t, where, d, want)
			if err != nil {
				t.Fatalf("%s: %v", where, err)
			}
			for j := range want {
				if s.lost[j]+s.short[j] > 0 && !s.told {
					t.Errorf("%s: %s lost something without a report: %+v", where, j, s)
				}
			}
		}
	}

	d := disk.Clone()
	for _, dir := range []string{"/data", "/data/log", "/data/checkpoint", "/data/journals", "/data/journals/0000000000000001", "/data/staging"} {
		for _, name := range []string{"README", "lost+found/x", "0000000000000009x", "ffffffffffffffffff", ".hidden"} {
			path := dir + "/" + name
			if err := d.MkdirAll(path[:strings.LastIndex(path, "/")]); err != nil {
				t.Fatal(err)
			}
			f, err := d.Create(path)
			if err == nil {
				_, err = f.WriteAt([]byte("not ours"), 0)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	strangers := len(d.Files())
	s, err := examine(t, "strangers", d, want)
	if err != nil || s.told || s.lost["test/a"]+s.lost["test/b"]+s.short["test/a"]+s.short["test/b"] > 0 {
		t.Errorf("with strangers: %+v, %v", s, err)
	}
	left := 0
	for _, name := range d.Files() {
		if f, err := d.Open(name); err == nil {
			b := make([]byte, 8)
			if _, err := f.ReadAt(b, 0); err == nil && string(b) == "not ours" {
				left++
			}
		}
	}
	if want := 6 * 5; left != want {
		t.Errorf("%d of %d strangers are left, of %d files", left, want, strangers)
	}
}
