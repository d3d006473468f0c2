package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/vfs"
	pb "github.com/daybook-dev/daybook/journal/protocol"
)

// kill ends a service with everything that is pending left in its directory.
func kill(t *testing.T, s *AppendService) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = s.Close(ctx)
}

// away is a broker that never answers.
func away() *broker {
	return &broker{fail: func(string, stage) error { return errUnavailable }}
}

func spoolFiles(t *testing.T, dir, state string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*", "*"+state))
	wantNil(t, err)
	return names
}

func TestNextServiceSends(t *testing.T) {
	dir := t.TempDir()
	s := openService(t, away().start(t), dir, withMaxBatch(10))
	for i := range 100 {
		put(t, s, request(fmt.Sprintf("test/journal-%d", i%3)), fmt.Sprintf("%d,", i))
	}
	meta := put(t, s, &pb.AppendRequest{Journal: "test/journal-0;meta", UnionRegisters: pb.MustLabelSet("aa", "b")}, "registers")
	kill(t, s)
	wantErrorIs(t, meta.Err(), context.Canceled)

	b := &broker{}
	s = openService(t, b.start(t), dir)
	if n, batches := s.Pending(); n == 0 || batches < 3 {
		t.Logf("pending: %d bytes in %d batches", n, batches) // Some may have been sent already.
	}
	last := put(t, s, request("test/journal-0"), "new")
	wantNil(t, last.Err())
	wantNil(t, s.Drain(t.Context()))
	for j := range 3 {
		var want strings.Builder
		for i := j; i < 100; i += 3 {
			fmt.Fprintf(&want, "%d,", i)
		}
		if j == 0 {
			want.WriteString("registersnew")
		}
		wantContent(t, b, fmt.Sprintf("test/journal-%d", j), want.String())
	}
	for _, c := range b.commits() {
		if string(c.content) == "registers" && c.request.UnionRegisters.ValueOf("aa") != "b" {
			t.Errorf("the request was lost: %v", c.request)
		}
	}
	wantNil(t, s.Close(t.Context()))
	entries, err := os.ReadDir(dir)
	wantNil(t, err)
	if len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestSpoolHasOneOwner(t *testing.T) {
	dir := t.TempDir()
	rjc := (&broker{}).start(t)
	s := openService(t, rjc, dir)
	if _, err := OpenAppendService(t.Context(), rjc, dir); !fault.Is(err, fault.Precondition) {
		t.Errorf("got %v", err)
	}
	wantNil(t, s.Close(t.Context()))
	openService(t, rjc, dir)
}

// Whatever the end of the process cuts off, exactly the releases that were complete arrive.
func TestTornTail(t *testing.T) {
	dir := t.TempDir()
	s := openService(t, away().start(t), dir)
	first := put(t, s, request("test/journal"), "in flight")
	waitFor(t, func() bool { return inFlight(s, "test/journal", first) })
	records := []string{"one", "", "three three", "4"}
	for _, r := range records {
		put(t, s, request("test/journal"), r)
	}
	kill(t, s)
	files := spoolFiles(t, dir, stateQueued)
	if len(files) != 2 {
		t.Fatalf("got files %v", files)
	}
	whole, err := os.ReadFile(files[1])
	wantNil(t, err)

	begin := len(whole)
	for _, r := range records {
		begin -= recordHeader + len(r)
	}
	for cut := range len(whole) + 1 {
		data := whole[:cut]
		var want []string
		for end, i := begin, 0; i < len(records); i++ {
			if end += recordHeader + len(records[i]); end <= cut {
				want = append(want, records[i])
			}
		}
		f := scanBytes(t, data)
		switch {
		case len(want) == 0:
			if f != nil {
				t.Fatalf("cut at %d: something is left", cut)
			}
		case f == nil:
			t.Fatalf("cut at %d: nothing is left", cut)
		default:
			if got := fileContent(t, f); got != strings.Join(want, "") {
				t.Fatalf("cut at %d: got %q, want %q", cut, got, want)
			}
		}
		// A tail of zeros or of garbage is as good as none.
		for _, tail := range []string{strings.Repeat("\x00", 20), "\xff\xff\xff\xff\xff\xff\xff\xff\xff", "\x04\x00\x00\x80abcdefgh"} {
			if cut < begin {
				continue
			}
			f := scanBytes(t, append(append([]byte{}, data...), tail...))
			if got := fileContent(t, f); got != strings.Join(want, "") {
				t.Fatalf("cut at %d with a bad tail: got %q, want %q", cut, got, want)
			}
		}
	}
}

// scanBytes lets a spool find a file of the given content.
func scanBytes(t testing.TB, data []byte) *spoolFile {
	t.Helper()
	dir := t.TempDir()
	wantNoError(t, os.Mkdir(filepath.Join(dir, "j"), 0o700))
	wantNoError(t, os.WriteFile(filepath.Join(dir, "j", "0000000000000001"+stateQueued), data, 0o600))
	s := newAppendService(context.Background(), nil, nil)
	defer s.cancel()
	sp, found, err := openSpool(vfs.OS, dir, 0, s.log)
	wantNoError(t, err)
	defer func() { wantNoError(t, sp.lock.Unlock()) }()
	if len(found) == 0 {
		return nil
	}
	return found[0]
}

func wantNoError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func fileContent(t testing.TB, f *spoolFile) string {
	t.Helper()
	if f == nil {
		return ""
	}
	r, err := f.read()
	wantNoError(t, err)
	defer f.rest()
	var out strings.Builder
	for {
		chunk, err := r.next(make([]byte, 16)) // Small, so that headers and records are split.
		wantNoError(t, err)
		if len(chunk) == 0 {
			return out.String()
		}
		out.Write(chunk)
	}
}

func TestDamagedHeaderIsPutAside(t *testing.T) {
	dir := t.TempDir()
	s := openService(t, away().start(t), dir)
	put(t, s, request("test/journal"), strings.Repeat("content", 10))
	kill(t, s)
	path := spoolFiles(t, dir, stateQueued)[0]
	data, err := os.ReadFile(path)
	wantNil(t, err)
	data[headerSize+1] ^= 1
	wantNil(t, os.WriteFile(path, data, 0o600))

	b := &broker{}
	s = openService(t, b.start(t), dir)
	wantNil(t, s.Close(t.Context()))
	if len(b.commits()) != 0 || len(spoolFiles(t, dir, stateDamaged)) != 1 {
		t.Errorf("files %v", spoolFiles(t, dir, ""))
	}
}

// A release that went bad is not thrown away, and neither is what is behind it; what is before it is sent.
func TestDamagedReleaseIsPutAside(t *testing.T) {
	for bad, want := range []string{"", "one", "onetwo"} {
		dir := t.TempDir()
		s := openService(t, away().start(t), dir)
		first := put(t, s, request("test/journal"), "in flight")
		waitFor(t, func() bool { return inFlight(s, "test/journal", first) })
		for _, text := range []string{"one", "two", "six"} {
			put(t, s, request("test/journal"), text)
		}
		kill(t, s)
		path := spoolFiles(t, dir, stateQueued)[1]
		data, err := os.ReadFile(path)
		wantNil(t, err)
		data[len(data)-(3-bad)*(recordHeader+3)+recordHeader] ^= 1
		wantNil(t, os.WriteFile(path, data, 0o600))

		b := &broker{}
		s = openService(t, b.start(t), dir)
		wantNil(t, s.Close(t.Context()))
		wantContent(t, b, "test/journal", "in flight"+want)
		left := spoolFiles(t, dir, "")
		if len(left) != 1 || filepath.Ext(left[0]) != stateDamaged {
			t.Errorf("release %d: left behind are %v", bad, left)
			continue
		}
		if kept, err := os.ReadFile(left[0]); err != nil || string(kept) != string(data) {
			t.Errorf("release %d: the file was changed, %v", bad, err)
		}
	}
}

// A record that goes bad while the service runs is neither sent nor forgotten.
func TestDamageWhileRunning(t *testing.T) {
	dir := t.TempDir()
	b := &broker{}
	s := openService(t, b.start(t), dir)
	op := NewAsyncOperation()
	p := s.StartAppend(request("test/journal"), OpFutures{op: {}})
	_, _ = p.Writer().WriteString("content")
	wantNil(t, p.Release())
	f, err := os.OpenFile(spoolFiles(t, dir, stateQueued)[0], os.O_RDWR, 0)
	wantNil(t, err)
	info, err := f.Stat()
	wantNil(t, err)
	_, err = f.WriteAt([]byte("X"), info.Size()-1)
	wantNil(t, errors.Join(err, f.Close()))
	op.Resolve(nil)
	if err := p.Err(); !fault.Is(err, fault.DataLoss) {
		t.Errorf("got %v", err)
	}
	if len(b.commits()) != 0 || len(spoolFiles(t, dir, stateFailed)) != 1 {
		t.Errorf("files %v", spoolFiles(t, dir, ""))
	}
}

func TestFailedIsTriedByTheNext(t *testing.T) {
	dir := t.TempDir()
	s := openService(t, (&broker{fail: func(string, stage) error { return brokerStatus(pb.Status_JOURNAL_NOT_FOUND) }}).start(t), dir)
	wantErrorIs(t, put(t, s, request("test/journal"), "a").Err(), ErrJournalNotFound)
	wantErrorIs(t, s.Close(t.Context()), ErrJournalNotFound)
	if n := len(spoolFiles(t, dir, stateFailed)); n != 1 {
		t.Fatalf("%d files failed", n)
	}
	b := &broker{}
	s = openService(t, b.start(t), dir)
	wantNil(t, s.Close(t.Context()))
	wantContent(t, b, "test/journal", "a")
}

func TestFailedDependencyKeepsContent(t *testing.T) {
	dir := t.TempDir()
	b := &broker{}
	rjc := b.start(t)
	s := openService(t, rjc, dir)
	bad := errors.New("not registered")
	p := s.StartAppend(request("test/journal"), OpFutures{FinishedOperation(bad): {}})
	_, _ = p.Writer().WriteString("a")
	wantNil(t, p.Release())
	wantErrorIs(t, s.Close(t.Context()), bad)
	wantContent(t, b, "test/journal", "")

	s = openService(t, rjc, dir)
	wantNil(t, s.Close(t.Context()))
	wantContent(t, b, "test/journal", "a")
}

func TestRecoveredBarrier(t *testing.T) {
	dir := t.TempDir()
	s := openService(t, away().start(t), dir)
	put(t, s, request("test/data"), "data")
	p := s.StartAppend(request("test/checkpoint"), s.PendingExcept("test/checkpoint"))
	_, _ = p.Writer().WriteString("checkpoint")
	wantNil(t, p.Release())
	kill(t, s)

	var once sync.Once
	b := &broker{fail: func(j string, at stage) (err error) {
		if j == "test/data" && at == atCommit {
			once.Do(func() { err = errUnavailable })
		}
		return err
	}}
	s = openService(t, b.start(t), dir)
	wantNil(t, s.Close(t.Context()))
	if got := b.commits(); len(got) != 2 || string(got[1].content) != "checkpoint" {
		t.Errorf("got %d commits, the last of %q", len(got), got[len(got)-1].content)
	}
}

func TestSpoolLimit(t *testing.T) {
	b := &broker{hold: make(chan struct{})}
	testSpoolLimit(t, b, openService(t, b.start(t), t.TempDir(), WithSpoolLimit(16<<10)))
}

func TestUnlinkedSpoolLimit(t *testing.T) {
	b := &broker{hold: make(chan struct{})}
	testSpoolLimit(t, b, newService(t, b, WithSpoolLimit(16<<10)))
}

func testSpoolLimit(t *testing.T, b *broker, s *AppendService) {
	t.Helper()
	record := strings.Repeat("x", 1000)
	first := put(t, s, request("test/journal"), record)
	waitFor(t, func() bool { return inFlight(s, "test/journal", first) })
	n := 1
	for {
		p := s.StartAppend(request("test/journal"), nil)
		_, _ = p.Writer().WriteString(record)
		if err := p.Release(); err != nil {
			if !fault.Is(err, fault.Exhausted) {
				t.Fatal(err)
			}
			break
		}
		n++
	}
	if n < 10 || n > 16 {
		t.Errorf("%d releases fit", n)
	}
	if err := s.WaitForRoom(t.Context(), 1<<20); !fault.Is(err, fault.Invalid) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantErrorIs(t, s.WaitForRoom(ctx, 2000), context.Canceled)

	close(b.hold)
	wantNil(t, s.WaitForRoom(t.Context(), 2000))
	wantNil(t, put(t, s, request("test/journal"), "y").Err())
	wantNil(t, s.Drain(t.Context()))
	wantContent(t, b, "test/journal", strings.Repeat(record, n)+"y")
	if s.spool.used != 0 {
		t.Errorf("%d bytes are accounted to nothing", s.spool.used)
	}
}

// faultyFS fails writes, as a full or broken disk does, after writing a part.
type faultyFS struct {
	vfs.FS
	mu   sync.Mutex
	fail func() error
}

func (f *faultyFS) next() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail == nil {
		return nil
	}
	return f.fail()
}

func (f *faultyFS) Create(name string) (vfs.File, error) {
	if err := f.next(); err != nil {
		return nil, err
	}
	file, err := f.FS.Create(name)
	if err != nil {
		return nil, err
	}
	return faultyFile{file, f}, nil
}

type faultyFile struct {
	vfs.File
	fs *faultyFS
}

func (f faultyFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.fs.next(); err != nil {
		n, _ := f.File.WriteAt(p[:len(p)/2], off)
		return n, err
	}
	return f.File.WriteAt(p, off)
}

func (f faultyFile) Truncate(size int64) error {
	if err := f.fs.next(); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

// Random releases, rollbacks, full disks, broken RPCs, lost acknowledgements and deaths of the process: what was released
// arrives whole and in order, at least once, and nothing else does.
func TestReleasedIsWhatArrives(t *testing.T) {
	for _, named := range []bool{true, false} {
		t.Run(fmt.Sprintf("named=%v", named), func(t *testing.T) { testReleasedIsWhatArrives(t, named) })
	}
}

func testReleasedIsWhatArrives(t *testing.T, named bool) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp("", "spool")
		wantNoError(t, err)
		defer func() { _ = os.RemoveAll(dir) }()

		rpcFaults := rapid.SliceOfN(rapid.SampledFrom([]stage{-1, -1, atOpen, atChunk, atCommit, atAnswer}), 1, 20).Draw(rt, "rpc faults")
		var mu sync.Mutex
		b := &broker{fail: func(_ string, at stage) error {
			mu.Lock()
			defer mu.Unlock()
			if len(rpcFaults) != 0 && rpcFaults[0] == at {
				rpcFaults = rpcFaults[1:]
				return errUnavailable
			}
			if len(rpcFaults) != 0 && rpcFaults[0] == -1 && at == atAnswer {
				rpcFaults = rpcFaults[1:]
			}
			return nil
		}}
		fsys := &faultyFS{FS: vfs.OS}
		rjc := b.start(t)
		open := func() *AppendService {
			opts := []AppendServiceOption{withoutWaiting, withMaxBatch(200), func(s *AppendService) { s.fs = fsys }}
			if !named {
				return NewAppendService(context.Background(), rjc, opts...)
			}
			s, err := OpenAppendService(context.Background(), rjc, dir, opts...)
			wantNoError(t, err)
			return s
		}
		s := open()
		released := map[string][]string{}
		id := 0
		rt.Repeat(map[string]func(*rapid.T){
			"release": func(rt *rapid.T) {
				j := rapid.SampledFrom([]string{"test/one", "test/two"}).Draw(rt, "journal")
				size := rapid.SampledFrom([]int{0, 10, 100, writerSize, 2 * writerSize, 40 * writerSize}).Draw(rt, "size")
				broken := rapid.IntRange(0, 6).Draw(rt, "broken") // Which disk operation fails, if there are as many.
				back := rapid.IntRange(0, 4).Draw(rt, "back") == 0
				id++
				line := fmt.Sprintf("%d%s\n", id, strings.Repeat(".", size))
				if broken > 0 {
					fsys.mu.Lock()
					fsys.fail = func() error {
						if broken--; broken == 0 {
							return syscall.ENOSPC
						}
						return nil
					}
					fsys.mu.Unlock()
				}
				p := s.StartAppend(request(j), nil)
				_, _ = p.Writer().WriteString(line)
				if back {
					p.Require(errors.New("rolled back"))
				}
				err := p.Release()
				fsys.mu.Lock()
				fsys.fail = nil
				fsys.mu.Unlock()
				switch {
				case err == nil:
					released[j] = append(released[j], line)
				case !back && !fault.Is(err, fault.Exhausted):
					rt.Fatal(err)
				}
			},
			"die": func(*rapid.T) {
				if !named {
					return // With it would end what it was given.
				}
				kill(t, s)
				s = open()
			},
			"": func(*rapid.T) {},
		})
		if err := s.Close(context.Background()); err != nil {
			rt.Fatal(err)
		}
		for _, j := range []string{"test/one", "test/two"} {
			checkArrived(rt, j, b, released[j])
		}
		if left := spoolFiles(t, dir, ""); len(left) != 0 {
			rt.Fatalf("left behind: %v", left)
		}
	})
}

// checkArrived checks that each batch is a run of what was released, and that each begins where an earlier one ended, or
// repeats.
func checkArrived(rt *rapid.T, journal string, b *broker, released []string) {
	arrived := 0
	for _, c := range b.commits() {
		if c.request.Journal != journal {
			continue
		}
		lines := strings.SplitAfter(string(c.content), "\n")
		lines = lines[:len(lines)-1]
		if len(lines) == 0 {
			rt.Fatalf("%s: an empty batch", journal)
		}
		at := -1
		for i := range released {
			if released[i] == lines[0] {
				at = i
			}
		}
		if at < 0 || at > arrived || at+len(lines) > len(released) {
			rt.Fatalf("%s: batch of %d begins at %d of %d, after %d", journal, len(lines), at, len(released), arrived)
		}
		for i, l := range lines {
			if released[at+i] != l {
				rt.Fatalf("%s: %.20q instead of %.20q", journal, l, released[at+i])
			}
		}
		arrived = max(arrived, at+len(lines))
	}
	if arrived != len(released) {
		rt.Fatalf("%s: %d of %d arrived", journal, arrived, len(released))
	}
}

func FuzzSpoolFile(f *testing.F) {
	file := &spoolFile{seq: 7, request: request("test/journal")}
	head, err := file.encodeHeader()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(head)
	f.Add(append(head, "\x03\x00\x00\x80\x00\x00\x00\x00abc"...))
	f.Add([]byte(spoolMagic))
	f.Fuzz(func(t *testing.T, data []byte) {
		if found := scanBytes(t, data); found != nil {
			if n := len(fileContent(t, found)); int64(n) != found.content {
				t.Fatalf("%d bytes instead of %d", n, found.content)
			}
		}
	})
}

func TestEscapeJournal(t *testing.T) {
	for _, c := range []struct{ journal, want pb.Journal }{
		{"ingest/a-b_c.d", "ingest%2Fa-b_c.d_"},
		{".hidden", "%2Ehidden_"},
		{"grün", "gr%C3%BCn_"},
	} {
		if got := escapeJournal(c.journal); got != string(c.want) {
			t.Errorf("%q: got %q", c.journal, got)
		}
	}
	if n := len(escapeJournal(pb.Journal(strings.Repeat("é", 256)))); n > 255 {
		t.Errorf("%d bytes", n)
	}
}

func TestReadSpool(t *testing.T) {
	read := func(dir string) string {
		var got strings.Builder
		wantNil(t, ReadSpool(dir, func(journal pb.Journal, content io.Reader) error {
			if journal != "test/journal" {
				t.Errorf("journal %s", journal)
			}
			_, err := io.Copy(&got, content)
			return err
		}))
		return got.String()
	}
	dir := filepath.Join(t.TempDir(), "spool")
	if got := read(dir); got != "" {
		t.Errorf("a directory that is not there: %q", got)
	}
	s := openService(t, away().start(t), dir, withMaxBatch(4))
	for _, c := range []string{"1,", "2,", "3,", "4,", "5,"} {
		put(t, s, request("test/journal;meta"), c)
	}
	kill(t, s)
	const want = "1,2,3,4,5,"
	if got := read(dir); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	// Wherever a file is cut off or changed, what is before it is read.
	files := spoolFiles(t, dir, stateQueued)
	path := files[len(files)-1]
	whole, err := os.ReadFile(path)
	wantNil(t, err)
	for n := range whole {
		changed := slices.Clone(whole)
		changed[n] ^= 1
		for _, content := range [][]byte{whole[:n], changed} {
			wantNil(t, os.WriteFile(path, content, 0o600))
			if got := read(dir); !strings.HasPrefix(want, got) || len(files) > 1 && got == "" || got == want {
				t.Errorf("%d bytes: %q", n, got)
			}
		}
	}
}
