//go:build unix

package streamserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/daybook-dev/daybook/butler"
	"github.com/daybook-dev/daybook/butler/output/memory"
	"github.com/daybook-dev/daybook/butler/output/null"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/streamproto"
)

// burstSize is how many streams the child opens.
const burstSize = 1000

func burstName(i int) types.StreamName { return types.StreamName(fmt.Sprintf("burst/%d", i)) }
func burstData(i int) string           { return fmt.Sprintf("all that stream %d says\n", i) }

// burst opens streams, writes a line to each, closes them, and returns at once.
func burst(address string) error {
	protocol, value, _ := strings.Cut(address, ":")
	var wg sync.WaitGroup
	failures := make(chan error, burstSize)
	for worker := range 8 {
		wg.Go(func() {
			for i := worker; i < burstSize; i += 8 {
				b, err := streamproto.AppendHandshake(nil, &streamproto.Flags{Name: burstName(i)})
				if err != nil {
					failures <- err
					return
				}
				conn, err := net.Dial(protocol, value)
				if err != nil {
					failures <- err
					return
				}
				if _, err := conn.Write(append(b, burstData(i)...)); err != nil {
					failures <- err
				}
				conn.Close()
			}
		})
	}
	wg.Wait()
	close(failures)
	return <-failures
}

// TestBurstBeforeTheEnd is a program that opens 1,000 streams and is gone at once, and then so is the Butler.
func TestBurstBeforeTheEnd(t *testing.T) {
	for _, address := range []string{"", "tcp4:"} {
		s, err := Listen(address, Config{})
		if err != nil {
			t.Fatal(err)
		}
		out := new(memory.Output)
		b, err := butler.New(t.Context(), butler.Config{Output: out, BufferLogs: true, MaxBufferAge: 50 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		b.AddStreamServer(s)
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), childEnv+"="+s.Address())
		if msg, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, msg)
		}
		b.Activate()
		if err := b.Wait(); err != nil {
			t.Fatal(err)
		}
		for i := range burstSize {
			s := out.Stream(burstName(i))
			if s == nil || string(s.Data) != burstData(i) || s.Terminal != 1 {
				t.Fatalf("%q: stream %d: %+v", address, i, s)
			}
		}
	}
}

// BenchmarkOpen is programs that open a stream each, write a line to it and close it, until the Butler has the ends of all.
func BenchmarkOpen(b *testing.B) {
	for _, version := range []int{1, 2} {
		for _, programs := range []int{1, 16} {
			b.Run(fmt.Sprintf("v%d/programs=%d", version, programs), func(b *testing.B) { benchmarkOpen(b, version, programs) })
		}
	}
}

func benchmarkOpen(b *testing.B, version, programs int) {
	s, err := Listen("", Config{})
	if err != nil {
		b.Fatal(err)
	}
	u, err := butler.New(b.Context(), butler.Config{Output: new(null.Output), BufferLogs: true, MaxBufferAge: 50 * time.Millisecond})
	if err != nil {
		b.Fatal(err)
	}
	u.AddStreamServer(s)
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	for range programs {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				if err := openOne(s.Address(), version, int(i)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	u.Activate()
	if err := u.Wait(); err != nil {
		b.Fatal(err)
	}
	if n := len(u.Streams()); n != b.N {
		b.Fatalf("%d of %d streams", n, b.N)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "streams/s")
}

func openOne(address string, version, i int) error {
	protocol, value, _ := strings.Cut(address, ":")
	appendTo := streamproto.AppendHandshake
	if version == 2 {
		appendTo = streamproto.AppendOpen
	}
	hello, err := appendTo(nil, &streamproto.Flags{Name: burstName(i)})
	if err != nil {
		return err
	}
	conn, err := net.Dial(protocol, value)
	for errors.Is(err, syscall.EAGAIN) { // the system's queue is full; other languages wait in connect
		runtime.Gosched()
		conn, err = net.Dial(protocol, value)
	}
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write(append(hello, "a line\n"...)); err != nil {
		return err
	}
	if version == 2 {
		r, err := streamproto.ReadReply(conn)
		if err != nil {
			return err
		}
		return r.Err()
	}
	return nil
}

// TestShutdownReadsWhatWasWritten ends a Butler while programs have streams open, and others come. What they wrote is there.
func TestShutdownReadsWhatWasWritten(t *testing.T) {
	s, err := Listen("", Config{})
	if err != nil {
		t.Fatal(err)
	}
	out := new(memory.Output)
	ctx, cancel := context.WithCancel(t.Context())
	b, err := butler.New(ctx, butler.Config{Output: out, BufferLogs: true, MaxBufferAge: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	b.AddStreamServer(s)
	protocol, value, _ := strings.Cut(s.Address(), ":")
	const streams = 200
	for i := range streams {
		hello, err := streamproto.AppendHandshake(nil, &streamproto.Flags{Name: burstName(i)})
		if err != nil {
			t.Fatal(err)
		}
		conn, err := net.Dial(protocol, value)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write(append(hello, burstData(i)...)); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if err := b.Wait(); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	for i := range streams {
		s := out.Stream(burstName(i))
		if s == nil || string(s.Data) != burstData(i) || s.Terminal != 1 {
			t.Fatalf("stream %d: %+v", i, s)
		}
	}
}

// TestProgramsHearWhatBecameOfTheirStreams asks a Butler over a real socket.
func TestProgramsHearWhatBecameOfTheirStreams(t *testing.T) {
	s, err := Listen("", Config{})
	if err != nil {
		t.Fatal(err)
	}
	out := new(memory.Output)
	b, err := butler.New(t.Context(), butler.Config{Output: out})
	if err != nil {
		t.Fatal(err)
	}
	b.AddStreamServer(s)
	b.DrainNamespace(t.Context(), "drained")
	protocol, value, _ := strings.Cut(s.Address(), ":")
	for _, c := range []struct {
		name types.StreamName
		code streamproto.Code
	}{{"a", ""}, {"a", streamproto.Exists}, {"drained/b", streamproto.Closed}, {"drained", ""}} {
		conn, err := net.Dial(protocol, value)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		hello, err := streamproto.AppendOpen(nil, &streamproto.Flags{Name: c.name})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(append(hello, "data"...)); err != nil {
			t.Fatal(err)
		}
		r, err := streamproto.ReadReply(conn)
		if err != nil || r.Accepted != (c.code == "") || r.Code != c.code {
			t.Errorf("%s: %+v, %v", c.name, r, err)
		}
		if !r.Accepted {
			continue
		}
		// The end of the connection says that everything was taken.
		if err := conn.(*net.UnixConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if rest, err := io.ReadAll(conn); len(rest) > 0 || err != nil {
			t.Errorf("%q, %v", rest, err)
		}
	}
	b.Activate()
	if err := b.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []types.StreamName{"a", "drained"} {
		if s := out.Stream(name); s == nil || string(s.Data) != "data" {
			t.Errorf("%s: %+v", name, s)
		}
	}
}
