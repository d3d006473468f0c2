package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/daybook-dev/daybook/api/client"
	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/streamclient"
)

const (
	// followersPerConnection is how many of the followers share a connection, as those of one gateway or office do.
	followersPerConnection = 50
	// stampSize is the length of a line: the time of its writing, and padding.
	stampSize = 80
	// followTime is how long lines are written; the followers' delays are counted from followWarmUp on.
	followTime, followWarmUp = 11 * time.Second, time.Second
)

// measureFollowers measures many followers at once: the time from a program's write of a line to its arrival at each of them, and
// what the server takes meanwhile. The streams' lines together have the rate, and each follower has one of the streams. The
// followers, which read every line they get, and the program share the machine with the server.
func measureFollowers(r *run, followers, streams, linesPerSecond int) {
	h := r.house()
	server := h.Serve()
	socket := filepath.Join(r.TempDir(), "butler")
	butler := h.Start("butler", "--listen", "unix:"+socket, "--prefix", "busy")
	butler.Await(butler.Stdout, regexp.MustCompile(`LOGDOG_STREAM_SERVER_PATH`))
	program, err := streamclient.New("unix:"+socket, "")
	if err != nil {
		r.Fatalf("%v", err)
	}
	writers := make([]io.WriteCloser, streams)
	for i := range writers {
		if writers[i], err = program.NewStream(r.Context(), types.StreamName("out/"+strconv.Itoa(i))); err != nil {
			r.Fatalf("%v", err)
		}
	}

	var (
		delays   delayCounts
		lines    atomic.Int64
		first    sync.WaitGroup // of the followers' first lines
		cpu, own float64
	)
	first.Add(followers)
	followed, ctx := errgroup.WithContext(r.Context())
	var logs daybookv1.LogsClient
	for i := range followers {
		if i%followersPerConnection == 0 {
			conn, err := client.Dial(server.Addr)
			if err != nil {
				r.Fatalf("%v", err)
			}
			r.Cleanup(func() { _ = conn.Close() }) // everything has come
			logs = daybookv1.NewLogsClient(conn)
		}
		followed.Go(func() error {
			f := &stampReader{delays: &delays, first: &first}
			err := f.follow(ctx, logs, fmt.Sprintf("busy/+/out/%d", i%streams))
			lines.Add(f.lines)
			return err
		})
	}
	line := make([]byte, stampSize)
	for _, w := range writers { // so that everybody is known to follow
		stamp(line)
		if _, err := w.Write(line); err != nil {
			r.Fatalf("%v", err)
		}
	}
	first.Wait()
	r.Logf("all of %d follow", followers)

	start := time.Now()
	cpu, own = -cpuSeconds(r, server.Pid()), -cpuSeconds(r, os.Getpid())
	delays.from.Store(start.Add(followWarmUp).UnixNano())
	n := linesPerSecond * int(followTime/time.Second)
	for i := range n {
		time.Sleep(time.Until(start.Add(time.Duration(i) * time.Second / time.Duration(linesPerSecond))))
		stamp(line)
		if _, err := writers[i%streams].Write(line); err != nil {
			r.Fatalf("%v", err)
		}
	}
	took := time.Since(start).Seconds()
	cpu, own = cpu+cpuSeconds(r, server.Pid()), own+cpuSeconds(r, os.Getpid())
	for _, w := range writers {
		if err := w.Close(); err != nil {
			r.Fatalf("%v", err)
		}
	}
	if err := followed.Wait(); err != nil {
		r.Fatalf("%v", err)
	}
	want := int64(n/streams+1) * int64(followers)
	if got := lines.Load(); got != want {
		r.Fatalf("the followers got %d lines, want %d", got, want)
	}
	r.report("write to follower, p50", seconds, delays.quantile(0.50).Seconds())
	r.report("write to follower, p99", seconds, delays.quantile(0.99).Seconds())
	r.report("lines that arrive", perSecond, float64(want)/took)
	r.report("CPU of the server, each second", seconds, cpu/took)
	r.report("CPU of program and followers, each second", seconds, own/took)
}

// stamp makes a line of the time.
func stamp(line []byte) {
	for i := range line {
		line[i] = '.'
	}
	strconv.AppendInt(line[:0], time.Now().UnixNano(), 10)
	line[len(line)-1] = '\n'
}

// stampReader is a follower.
type stampReader struct {
	delays *delayCounts
	first  *sync.WaitGroup
	lines  int64
}

func (f *stampReader) follow(ctx context.Context, logs daybookv1.LogsClient, path string) error {
	stream, err := logs.Follow(ctx, &daybookv1.FollowRequest{Project: "local", Path: path, Wait: true})
	if err != nil {
		return err
	}
	raw := new(emptypb.Empty)
	for {
		err := stream.RecvMsg(raw)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		now := time.Now().UnixNano()
		if !f.take(raw.ProtoReflect().GetUnknown(), []protowire.Number{logsField, textField, linesField, valueField}, now) {
			return fmt.Errorf("%s: a response that cannot be read", path)
		}
	}
}

// The way to a line in a response. The responses are read as they came: followers that make objects of them would take more of this
// machine than the server does, and stand for a thousand machines.
var (
	logsField  = fieldOf(new(daybookv1.FollowResponse), "logs")
	textField  = fieldOf(new(logpb.LogEntry), "text")
	linesField = fieldOf(new(logpb.Text), "lines")
	valueField = fieldOf(new(logpb.Text_Line), "value")
)

func fieldOf(m proto.Message, name protoreflect.Name) protowire.Number {
	return m.ProtoReflect().Descriptor().Fields().ByName(name).Number()
}

// take takes the stamps of a message in which they lie at the end of a way of fields.
func (f *stampReader) take(message []byte, way []protowire.Number, now int64) bool {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return false
		}
		message = message[n:]
		if number != way[0] || kind != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(number, kind, message); n < 0 {
				return false
			}
			message = message[n:]
			continue
		}
		value, n := protowire.ConsumeBytes(message)
		if n < 0 {
			return false
		}
		message = message[n:]
		if len(way) > 1 {
			if !f.take(value, way[1:], now) {
				return false
			}
			continue
		}
		written, err := strconv.ParseInt(string(value[:min(19, len(value))]), 10, 64)
		if err != nil {
			return false
		}
		if f.lines == 0 {
			f.first.Done()
		}
		f.lines++
		f.delays.add(written, now)
	}
	return true
}

// delayCounts counts delays by tenths of a millisecond, so that there may be any number of them.
type delayCounts struct {
	// from is the time of writing of the first line that counts.
	from   atomic.Int64
	counts [100_000]atomic.Int64
}

func (d *delayCounts) add(written, now int64) {
	if from := d.from.Load(); from == 0 || written < from {
		return
	}
	d.counts[min(max(0, (now-written)/100_000), int64(len(d.counts)-1))].Add(1)
}

// quantile returns the end of the tenth of a millisecond in which the quantile lies.
func (d *delayCounts) quantile(q float64) time.Duration {
	var all int64
	for i := range d.counts {
		all += d.counts[i].Load()
	}
	left := int64(math.Ceil(q * float64(all)))
	for i := range d.counts {
		if left -= d.counts[i].Load(); left <= 0 {
			return time.Duration(i+1) * 100 * time.Microsecond
		}
	}
	return 0
}
