package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/daybook-dev/daybook/api/client"
	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/butler"
	"github.com/daybook-dev/daybook/butler/output"
	"github.com/daybook-dev/daybook/butler/output/daybook"
	"github.com/daybook-dev/daybook/butler/output/null"
	"github.com/daybook-dev/daybook/butler/redact"
	"github.com/daybook-dev/daybook/butler/streamserver"
	journalclient "github.com/daybook-dev/daybook/journal/client"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/streamclient"
)

// butlerArg makes this program a Butler with work to do, so that its CPU time and memory are those of a process.
const butlerArg = "work-as-butler"

// work is what a Butler has to do.
type work struct {
	// Server is where the bundles go, and Spool is their spool; without, they go to the null output.
	Server, Spool string `json:",omitempty"`
	// Streams share the bytes; Idle is how many more are open and silent.
	Streams, Idle int
	Bytes         int64
	// Kind is one of the keys of kinds.
	Kind string
	// Values and Pattern are what is redacted.
	Values  int    `json:",omitempty"`
	Pattern string `json:",omitempty"`
	// Open is how many streams programs open over the socket, with a line each.
	Open int `json:",omitempty"`
}

// kinds are what streams consist of, and how much of it a read returns. The data counts as the Butler's memory, so there is little of it,
// but several times what compression looks back.
var kinds = map[string]struct {
	typ  logpb.StreamType
	read int
	data func() []byte
}{
	"lines":         {logpb.StreamType_TEXT, 64 << 10, func() []byte { return linesOf80(4 << 20) }},
	"one-byte":      {logpb.StreamType_TEXT, 1, func() []byte { return linesOf80(1 << 20) }},
	"64-bytes":      {logpb.StreamType_TEXT, 64, func() []byte { return linesOf80(1 << 20) }},
	longLines:       {logpb.StreamType_TEXT, 64 << 10, func() []byte { return bytes.ReplaceAll(linesOf80(1<<20), []byte("\n"), []byte(" ")) }},
	"1-KiB-packets": {logpb.StreamType_DATAGRAM, 64 << 10, packets},
}

// longLines are lines of longLine bytes.
const (
	longLines = "10-MiB-lines"
	longLine  = 10 << 20
)

// linesOf80 returns about n bytes of lines of 80 bytes, as compilers and tests print them.
func linesOf80(n int) []byte {
	words := []string{"compile", "link", "test", "ok", "core/engine.o", "core/parser.o", "net/http.o", "passed", "in", "cached", "warning:", "unused"}
	rnd := rand.New(rand.NewPCG(1, 2))
	out := make([]byte, 0, n)
	for i := 0; len(out)+80 <= n; i++ {
		line := fmt.Appendf(nil, "2026-01-02T03:04:05.%06dZ [%5d]", i*7919%1_000_000, rnd.IntN(100_000))
		for len(line) < 79 {
			line = append(append(line, ' '), words[rnd.IntN(len(words))]...)
		}
		out = append(append(out, line[:79]...), '\n')
	}
	return out
}

func packets() []byte {
	var out []byte
	for lines := linesOf80(1 << 20); len(lines) >= 1<<10; lines = lines[1<<10:] {
		out = append(binary.AppendUvarint(out, 1<<10), lines[:1<<10]...)
	}
	return out
}

// source is a stream that has the same data again and again, whole.
type source struct {
	data []byte
	at   int
	// left is how many bytes are not read yet; read is the most that is read at once.
	left int64
	read int
	// line is the length of lines that are longer than the data, and toEnd what is left of one; zero if it has its line feeds itself.
	line, toEnd int
}

func (s *source) Read(p []byte) (int, error) {
	if s.left <= 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), s.read)], s.data[s.at:])
	s.at = (s.at + n) % len(s.data)
	s.left -= int64(n)
	if s.line > 0 {
		if s.toEnd <= n {
			p[s.toEnd-1] = '\n'
			s.toEnd += s.line
		}
		s.toEnd -= n
	}
	return n, nil
}

func (s *source) Close() error { return nil }

// runAsButler does the work. It reports whether the process was started for that.
func runAsButler(args []string) bool {
	if len(args) != 2 || args[0] != butlerArg {
		return false
	}
	debug.SetMemoryLimit(72 << 20) // as daybook run does
	debug.SetGCPercent(50)
	var w work
	err := json.Unmarshal([]byte(args[1]), &w)
	if err == nil {
		var took time.Duration
		if took, err = w.do(context.Background()); err == nil {
			fmt.Printf("took %d ns for %d bytes\n", took, w.Bytes)
			return true
		}
	}
	fmt.Fprintln(os.Stderr, "bench:", err)
	os.Exit(1)
	return true
}

// do returns how long it took from the first byte to the end of all streams, and with a server until that has everything.
func (w *work) do(ctx context.Context) (time.Duration, error) {
	out, closeOutput, err := w.output(ctx)
	if err != nil {
		return 0, err
	}
	secrets, err := w.secrets()
	if err != nil {
		return 0, err
	}
	b, err := butler.New(ctx, butler.Config{Output: out, BufferLogs: true, MaxBufferAge: 50 * time.Millisecond, Redact: secrets})
	if err != nil {
		return 0, err
	}
	var idle []*io.PipeWriter
	for i := range w.Idle {
		r, p := io.Pipe()
		idle = append(idle, p)
		if err := b.AddStream(r, descriptor(fmt.Sprintf("idle/%d", i), logpb.StreamType_TEXT)); err != nil {
			return 0, err
		}
	}
	kind := kinds[w.Kind]
	var data []byte
	if kind.data != nil {
		data = kind.data()
	}
	var server *streamserver.Server
	if w.Open > 0 {
		if server, err = streamserver.Listen("", streamserver.Config{}); err != nil {
			return 0, err
		}
		b.AddStreamServer(server)
	}

	start := time.Now()
	repetitions := w.Bytes / int64(max(w.Streams, 1)) / int64(max(len(data), 1))
	w.Bytes = repetitions * int64(len(data)) * int64(w.Streams)
	for i := range w.Streams {
		s := &source{data: data, left: repetitions * int64(len(data)), read: kind.read}
		if w.Kind == longLines {
			s.line, s.toEnd = longLine, longLine
		}
		if err := b.AddStream(s, descriptor(fmt.Sprintf("busy/%d", i), kind.typ)); err != nil {
			return 0, err
		}
	}
	if w.Open > 0 {
		err = openStreams(ctx, server.Address(), w.Open)
	}
	if w.Idle > 0 {
		b.DrainNamespace(ctx, "busy")
	}
	for _, p := range idle {
		_ = p.Close() // never fails
	}
	b.Activate()
	err = errors.Join(err, b.Wait(), closeOutput())
	return time.Since(start), err
}

func descriptor(name string, t logpb.StreamType) *logpb.LogStreamDescriptor {
	return &logpb.LogStreamDescriptor{Name: name, StreamType: t, ContentType: "text/plain", Timestamp: timestamppb.Now()}
}

func (w *work) output(ctx context.Context) (out output.Output, done func() error, err error) {
	if w.Server == "" {
		return new(null.Output), func() error { return nil }, nil
	}
	conn, err := client.Dial(w.Server)
	if err != nil {
		return nil, nil, err
	}
	o, err := daybook.New(ctx, daybook.Config{
		Project: "local", Prefix: "bench", SpoolDir: w.Spool,
		Journals: journalclient.NewClient(conn, journalclient.DialConfig{}), Registration: logdog.NewRegistrationClient(conn),
	})
	if err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	return o, func() error { return errors.Join(o.Close(ctx), conn.Close()) }, nil
}

func (w *work) secrets() (*redact.Set, error) {
	set := new(redact.Set)
	for i := range w.Values {
		if err := set.Add(fmt.Sprintf("secret-value-%04d-of-the-environment", i)); err != nil {
			return nil, err
		}
	}
	if w.Pattern != "" {
		return set, set.AddPattern(w.Pattern)
	}
	return set, nil
}

// openStreams opens streams, as eight programs would.
func openStreams(ctx context.Context, address string, n int) error {
	c, err := streamclient.New(address, "programs")
	if err != nil {
		return err
	}
	const programs = 8
	failed := make([]error, programs)
	var all sync.WaitGroup
	for p := range programs {
		all.Go(func() {
			for i := p; i < n && failed[p] == nil; i += programs {
				s, err := c.NewStream(ctx, types.StreamName(fmt.Sprintf("stream/%d", i)))
				if err == nil {
					_, err = io.WriteString(s, "a line\n")
					err = errors.Join(err, s.Close())
				}
				failed[p] = err
			}
		})
	}
	all.Wait()
	return errors.Join(failed...)
}
