package daybook

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/butler"
	"github.com/daybook-dev/daybook/butler/output"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/testkit"
	"github.com/daybook-dev/daybook/logs/envelope"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

func open(t *testing.T, ctx context.Context, c Config) *Output {
	t.Helper()
	o, err := New(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func desc(name string) *logpb.LogStreamDescriptor {
	return &logpb.LogStreamDescriptor{Name: name, ContentType: "text/plain", Timestamp: timestamppb.Now()}
}

// bundle has one stream with lines from index on.
func bundle(name string, index uint64, end bool, lines ...string) *logpb.ButlerLogBundle {
	e := &logpb.ButlerLogBundle_Entry{Desc: desc(name)}
	for i, l := range lines {
		e.Logs = append(e.Logs, &logpb.LogEntry{
			StreamIndex: index + uint64(i),
			Content:     &logpb.LogEntry_Text{Text: &logpb.Text{Lines: []*logpb.Text_Line{{Value: []byte(l), Delimiter: "\n"}}}},
		})
	}
	if end {
		e.Terminal, e.TerminalIndex = true, index+uint64(len(lines))-1
	}
	return &logpb.ButlerLogBundle{Entries: []*logpb.ButlerLogBundle_Entry{e}}
}

func send(t *testing.T, o *Output, b *logpb.ButlerLogBundle) {
	t.Helper()
	if err := o.SendBundle(b); err != nil {
		t.Fatal(err)
	}
}

func wantGone(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there (%v)", path, err)
	}
}

func TestButlerToServer(t *testing.T) {
	s := newServer()
	s.journal = "daybook/ingest/007"
	c, root := config(t, s)
	viewer := make(chan string, 1)
	c.OnRegistered = func(url string) { viewer <- url }
	o := open(t, t.Context(), c)
	b, err := butler.New(t.Context(), butler.Config{Output: o, BufferLogs: true, MaxBufferAge: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for i := range 20 {
		name := fmt.Sprintf("s%d", i)
		want[name] = strings.Repeat(name+" says something\r\n", i*1000)
		if err := b.AddStream(io.NopCloser(strings.NewReader(want[name])), desc(name)); err != nil {
			t.Fatal(err)
		}
	}
	b.Activate()
	if err := b.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := <-viewer; got != "http://view/local/user/run" {
		t.Error(got)
	}
	if err := o.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := o.Pending(); n != 0 {
		t.Errorf("%d bytes pending after Flush", n)
	}
	if err := o.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantGone(t, c.SpoolDir)
	// Bundles may overtake each other, so the order in the journal is not that of the entries.
	got := s.prefixes["local/user/run"]
	if !slices.Contains(got.GetSourceInfo(), "test") || len(got.GetOpNonce()) != nonceLength {
		t.Errorf("%v", got.GetSourceInfo())
	}
	var data int
	for _, j := range s.journals {
		data += len(j)
	}
	if data == 0 || o.Stats().SentBytes != int64(data) {
		t.Errorf("%d bytes in the journals, %+v", data, o.Stats())
	}
	if spools, err := Spools(root); err != nil || len(spools) != 0 {
		t.Errorf("%v %v", spools, err)
	}
}

// TestServerComesLate has no server at first, and then one that goes away for a while.
func TestServerComesLate(t *testing.T) {
	s := newServer()
	s.down = true
	c, root := config(t, s)
	o := open(t, t.Context(), c)
	send(t, o, bundle("s", 0, false, "early"))
	info, err := os.Stat(filepath.Join(c.SpoolDir, claimFile))
	if err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Fatalf("%v %v", info.Mode(), err)
	}
	spools, err := Spools(root)
	if err != nil || len(spools) != 1 || !spools[0].Alive || spools[0].Prefix != "user/run" || spools[0].Bytes == 0 || spools[0].Age() < 0 {
		t.Fatalf("%+v %v", spools, err)
	}
	if err := Resume(t.Context(), c.SpoolDir, ResumeConfig{Journals: c.Journals, Registration: c.Registration}); !fault.Is(err, fault.Precondition) {
		t.Errorf("resumed while the owner lives: %v", err)
	}
	if o.Pending() == 0 {
		t.Error("nothing is pending")
	}
	s.set(func() { s.down = false })
	<-s.appends
	s.set(func() { s.down = true })
	send(t, o, bundle("s", 1, true, "late"))
	s.set(func() { s.down = false })
	if err := o.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := s.received(t).Stream("s"); string(got.Data) != "early\nlate\n" || got.TerminalIndex != 1 {
		t.Errorf("%q %d", got.Data, got.TerminalIndex)
	}
}

func TestCloseLeavesTheRestInTheSpool(t *testing.T) {
	s := newServer()
	s.down = true
	c, root := config(t, s)
	o := open(t, t.Context(), c)
	send(t, o, bundle("s", 0, true, "a", "b"))
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := o.Close(gone); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	spools, err := Spools(root)
	if err != nil || len(spools) != 1 || spools[0].Alive {
		t.Fatalf("%+v %v", spools, err)
	}
	resume := ResumeConfig{Journals: c.Journals, Registration: c.Registration}
	if err := Resume(gone, c.SpoolDir, resume); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	s.set(func() { s.down = false })
	if err := Resume(t.Context(), c.SpoolDir, resume); err != nil {
		t.Fatal(err)
	}
	wantGone(t, c.SpoolDir)
	if got := s.received(t).Stream("s"); string(got.Data) != "a\nb\n" || got.Terminal != 1 {
		t.Errorf("%+v", got)
	}
	if err := Resume(t.Context(), c.SpoolDir, resume); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
}

func TestRefusal(t *testing.T) {
	for name, set := range map[string]func(*server){
		"exists":       func(s *server) { s.refuse = status.Error(codes.AlreadyExists, "taken") },
		"other secret": func(s *server) { s.other = true },
		"denied":       func(s *server) { s.deny = true },
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer()
			set(s)
			c, _ := config(t, s)
			problems := make(chan error, 10)
			c.OnProblem = func(err error) { problems <- err }
			o := open(t, t.Context(), c)
			// It may have been refused already.
			_ = o.SendBundle(bundle("s", 0, false, "a"))
			problem := <-problems
			if err := o.SendBundle(bundle("s", 1, false, "b")); !errors.Is(err, problem) {
				t.Errorf("%v, want %v", err, problem)
			}
			if err := o.Flush(t.Context()); !errors.Is(err, problem) {
				t.Error(err)
			}
			if err := o.Close(t.Context()); !errors.Is(err, problem) {
				t.Error(err)
			}
			if len(problems) != 0 {
				t.Error("told more than once")
			}
			if _, err := os.Stat(c.SpoolDir); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestResumeEndsOrphans(t *testing.T) {
	s := newServer()
	c, _ := config(t, s)
	ctx, kill := context.WithCancel(t.Context())
	o := open(t, ctx, c)
	send(t, o, bundle("ended", 0, true, "x"))
	send(t, o, bundle("cut", 0, false, "1", "2", "3"))
	send(t, o, &logpb.ButlerLogBundle{Entries: []*logpb.ButlerLogBundle_Entry{{Desc: desc("announced"), Announce: true}}})
	if err := o.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	kill()
	if err := o.Close(t.Context()); err != nil {
		t.Fatal(err) // nothing was left to send
	}
	if err := Resume(t.Context(), c.SpoolDir, ResumeConfig{Journals: c.Journals, Registration: c.Registration}); err != nil {
		t.Fatal(err)
	}
	wantGone(t, c.SpoolDir)
	got := s.received(t)
	for name, index := range map[types.StreamName]types.MessageIndex{"ended": 0, "cut": 2, "announced": -1} {
		if g := got.Stream(name); g.Terminal != 1 || g.TerminalIndex != index || g.TerminalEmpty != (index < 0) || (g.Ended.GetReason() == orphaned) != (name != "ended") {
			t.Errorf("%s: %+v", name, g)
		}
	}
}

// TestResumeOfDamagedStreams damages the file of streams at every byte: no stream ends below an entry that is in the spool.
func TestResumeOfDamagedStreams(t *testing.T) {
	s := newServer()
	s.down = true
	c, _ := config(t, s)
	ctx, kill := context.WithCancel(t.Context())
	o := open(t, ctx, c)
	send(t, o, bundle("cut", 0, false, "1", "2"))
	send(t, o, bundle("ended", 0, true, "x"))
	send(t, o, bundle("cut", 2, false, "3"))
	kill()
	if err := o.Close(t.Context()); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	s.set(func() { s.down = false })
	path := filepath.Join(c.SpoolDir, streamsFile)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	saved := t.TempDir() + "/saved"
	if err := os.CopyFS(saved, os.DirFS(c.SpoolDir)); err != nil {
		t.Fatal(err)
	}
	for n := range whole {
		changed := slices.Clone(whole)
		changed[n] ^= 1
		for how, content := range map[string][]byte{"cut off": whole[:n], "changed": changed} {
			s.set(func() { s.journals = map[string][]byte{} })
			if err := os.RemoveAll(c.SpoolDir); err != nil {
				t.Fatal(err)
			}
			if err := os.CopyFS(c.SpoolDir, os.DirFS(saved)); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := Resume(t.Context(), c.SpoolDir, ResumeConfig{Journals: c.Journals, Registration: c.Registration}); err != nil {
				t.Fatalf("%s at %d: %v", how, n, err)
			}
			wantGone(t, c.SpoolDir)
			got := s.received(t)
			if cut := got.Stream("cut"); string(cut.Data) != "1\n2\n3\n" || cut.Terminal != 1 || cut.TerminalIndex != 2 || cut.Ended.GetReason() != orphaned {
				t.Errorf("%s at %d: cut: %+v", how, n, cut)
			}
			if ended := got.Stream("ended"); string(ended.Data) != "x\n" || ended.TerminalIndex != 0 || ended.Ended != nil {
				t.Errorf("%s at %d: ended: %+v", how, n, ended)
			}
		}
	}
}

// TestResumeGivesUp has servers that take nothing.
func TestResumeGivesUp(t *testing.T) {
	for name, set := range map[string]func(*server){
		"registrations": func(s *server) { s.refuse = status.Error(codes.Unavailable, "the disk is full") },
		"appends":       func(s *server) { s.full = true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer()
			c, _ := config(t, s)
			ctx, kill := context.WithCancel(t.Context())
			s.set(func() { s.down = true })
			o := open(t, ctx, c)
			send(t, o, bundle("s", 0, false, "a"))
			kill()
			_ = o.Close(t.Context()) // it was killed
			s.set(func() { s.down = false; set(s) })
			r := ResumeConfig{Journals: c.Journals, Registration: c.Registration, Patience: 2 * time.Second}
			err := Resume(t.Context(), c.SpoolDir, r)
			if !fault.Is(err, fault.Deadline) || name == "registrations" && !strings.Contains(err.Error(), "the disk is full") {
				t.Error(err)
			}
			s.set(func() { s.full = false; s.refuse = nil })
			r.Patience = testkit.Patience
			if err := Resume(t.Context(), c.SpoolDir, r); err != nil {
				t.Fatal(err)
			}
			if got := s.received(t).Stream("s"); string(got.Data) != "a\n" || got.Terminal != 1 {
				t.Errorf("%+v", got)
			}
		})
	}
}

// TestDamagedClaim has a spool that nobody can send.
func TestDamagedClaim(t *testing.T) {
	s := newServer()
	c, root := config(t, s)
	if err := open(t, t.Context(), c).SendBundle(bundle("s", 0, false, "a")); err != nil {
		t.Fatal(err)
	}
	damaged := filepath.Join(root, "damaged")
	if err := os.Mkdir(damaged, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(damaged, claimFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	spools, err := Spools(root)
	if err != nil || len(spools) != 2 {
		t.Fatalf("%v %v", spools, err)
	}
	for _, got := range spools {
		switch got.Name() {
		case "local/user/run":
			if !got.Alive || got.Err != nil {
				t.Errorf("%+v", got)
			}
		case "damaged":
			if got.Alive || !fault.Is(got.Err, fault.DataLoss) {
				t.Errorf("%+v", got)
			}
		default:
			t.Errorf("%+v", got)
		}
	}
	r := ResumeConfig{Journals: c.Journals, Registration: c.Registration}
	if err := Resume(t.Context(), damaged, r); !fault.Is(err, fault.DataLoss) {
		t.Error(err)
	}
	if err := Drop(damaged); err != nil {
		t.Error(err)
	}
	wantGone(t, damaged)
}

func TestFullSpoolBlocks(t *testing.T) {
	s := newServer()
	s.down = true
	c, _ := config(t, s)
	c.SpoolLimit = 64 << 10
	ctx, cancel := context.WithCancel(t.Context())
	o := open(t, ctx, c)
	done := make(chan error)
	go func() {
		for i := uint64(0); ; i++ {
			if err := o.SendBundle(bundle("s", i, false, fmt.Sprintf("%08d", i))); err != nil {
				done <- err
				return
			}
		}
	}()
	for o.Pending() < 50<<10 {
		select {
		case err := <-done:
			t.Fatal(err)
		default:
			runtime.Gosched()
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := o.Close(t.Context()); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	s.set(func() { s.down = false })
	if err := Resume(t.Context(), c.SpoolDir, ResumeConfig{Journals: c.Journals, Registration: c.Registration}); err != nil {
		t.Fatal(err)
	}
	s.received(t)
}

func TestConfigIsChecked(t *testing.T) {
	s := newServer()
	good, root := config(t, s)
	for name, change := range map[string]func(*Config){
		"project":   func(c *Config) { c.Project = "-" },
		"prefix":    func(c *Config) { c.Prefix = "/" },
		"clients":   func(c *Config) { c.Journals = nil },
		"no spool":  func(c *Config) { c.SpoolDir = "" },
		"not empty": func(c *Config) { c.SpoolDir = root },
	} {
		if err := os.WriteFile(filepath.Join(root, "file"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		c := good
		change(&c)
		if _, err := New(t.Context(), c); !fault.Is(err, fault.Invalid) && !fault.Is(err, fault.Precondition) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSplit(t *testing.T) {
	b := &logpb.ButlerLogBundle{Project: "p", Prefix: "x", Secret: types.NewPrefixSecret()}
	b.Entries = append(b.Entries, bundle("small", 0, true, "x").Entries[0],
		bundle("large", 0, true, slices.Repeat([]string{strings.Repeat("y", 1<<20)}, 25)...).Entries[0])
	parts, err := output.Split(b, envelope.MaxSize)
	if err != nil || len(parts) < 3 {
		t.Fatalf("%d parts, %v", len(parts), err)
	}
	next, ends := uint64(0), 0
	for _, p := range parts {
		if n := proto.Size(p); n > envelope.MaxSize || len(p.GetSecret()) == 0 {
			t.Errorf("part of %d bytes", n)
		}
		for _, e := range p.GetEntries() {
			if e.GetDesc().GetName() != "large" {
				continue
			}
			for _, l := range e.GetLogs() {
				if l.GetStreamIndex() != next {
					t.Errorf("entry %d, want %d", l.GetStreamIndex(), next)
				}
				next++
			}
			if e.GetTerminal() {
				ends++
			}
		}
	}
	if next != 25 || ends != 1 {
		t.Errorf("%d entries, %d ends", next, ends)
	}
	if _, err := output.Split(bundle("huge", 0, true, strings.Repeat("z", 11<<20)), envelope.MaxSize); err == nil {
		t.Error("an entry of 11 MiB was taken")
	}
}

// child is a program that captures lines until it is killed. Its argument is "address|spool".
func child(arg string) {
	address, spool, _ := strings.Cut(arg, "|")
	rjc, reg, _, err := clients(address)
	if err != nil {
		panic(err)
	}
	o, err := New(context.Background(), Config{
		Project: "local", Prefix: "user/killed", Journals: rjc, Registration: reg, SpoolDir: spool,
	})
	if err != nil {
		panic(err)
	}
	out := bufio.NewWriter(os.Stdout)
	for i := uint64(0); ; i++ {
		if err := o.SendBundle(bundle("s", i, false, fmt.Sprintf("line %d", i))); err != nil {
			panic(err)
		}
		fmt.Fprintln(out, i)
		if err := out.Flush(); err != nil {
			panic(err)
		}
	}
}

// TestKill kills a process again and again while it sends, with a server and without one.
func TestKill(t *testing.T) {
	s := newServer()
	_, address := s.listen(t)
	rjc, reg, conn, err := clients(address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for round, lines := range []int{1, 40, 300} {
		for _, down := range []bool{false, true} {
			s.set(func() {
				s.down = down
				s.journals = map[string][]byte{}
				s.prefixes = map[string]*logdog.RegisterPrefixRequest{}
			})
			spool := filepath.Join(t.TempDir(), "spool")
			cmd := exec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(os.Environ(), childVariable+"="+address+"|"+spool)
			cmd.Stderr = os.Stderr
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			// What it says to have sent is what must arrive.
			acknowledged := -1
			r := bufio.NewScanner(stdout)
			for acknowledged < lines && r.Scan() {
				if _, err := fmt.Sscan(r.Text(), &acknowledged); err != nil {
					t.Fatal(err)
				}
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // killed

			s.set(func() { s.down = false })
			if err := Resume(t.Context(), spool, ResumeConfig{Journals: rjc, Registration: reg}); err != nil {
				t.Fatal(err)
			}
			wantGone(t, spool)
			got := s.received(t).Stream("s")
			var want strings.Builder
			for i := range len(got.Entries) {
				fmt.Fprintf(&want, "line %d\n", i)
			}
			if string(got.Data) != want.String() || len(got.Entries) <= acknowledged {
				t.Errorf("round %d: %d entries, at least %d expected", round, len(got.Entries), acknowledged+1)
			}
			if got.Terminal != 1 || int(got.TerminalIndex) < len(got.Entries)-1 {
				t.Errorf("round %d: %d ends, index %d of %d", round, got.Terminal, got.TerminalIndex, len(got.Entries))
			}
		}
	}
}
