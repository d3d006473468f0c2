//go:build unix

package foreign

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/daybook-dev/daybook/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// raw is the codec of messages that are bytes already. Its name makes the content type: stock clients send the bare one.
type raw struct{ name string }

func (raw) Marshal(v any) ([]byte, error) { return v.([]byte), nil }
func (raw) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), data...)
	return nil
}
func (r raw) Name() string { return r.name }

// client calls the service by the names of its methods.
type client struct {
	t    testing.TB
	ctx  context.Context
	conn *grpc.ClientConn
}

// dial connects to an endpoint, as stock clients do.
func dial(t testing.TB, endpoint string, opts ...grpc.DialOption) *client {
	t.Helper()
	u, err := url.Parse(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	target := u.Host
	if u.Scheme == "unix" {
		target = "unix://" + u.Path // the host is for people
	}
	conn, err := grpc.NewClient(target, append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithInitialConnWindowSize(math.MaxInt32),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, MaxDelay: 5 * time.Second}}),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{}), grpc.MaxCallRecvMsgSize(16<<20)),
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), testkit.Patience)
	t.Cleanup(cancel)
	return &client{t, ctx, conn}
}

// server is the one that is tested, with its data.
type server struct {
	*testkit.Server
	data string
}

// serve starts the server and connects to it.
func serve(t *testing.T) (*server, *client) {
	t.Helper()
	h := testkit.NewHouse(t)
	s := h.Serve()
	return &server{s, h.Data}, dial(t, s.URL)
}

// with returns the client with another context.
func (c *client) with(ctx context.Context) *client { return &client{c.t, ctx, c.conn} }

// invoke makes a call of one request and one response, which is validated.
func (c *client) invoke(method string, req object) (object, error) {
	var out []byte
	if err := c.conn.Invoke(c.ctx, "/protocol.Journal/"+method, encode(requestOf(method), req), &out); err != nil {
		return nil, err
	}
	return c.response(method, out, true)
}

func requestOf(method string) string {
	if method == "ListFragments" {
		return "FragmentsRequest"
	}
	return method + "Request"
}

func (c *client) response(method string, b []byte, first bool) (object, error) {
	name := strings.TrimSuffix(requestOf(method), "Request") + "Response"
	resp, err := decode(name, b)
	if err == nil {
		err = validate(name, resp, first)
	}
	if err != nil {
		c.t.Errorf("%s: a client would not take the response %v: %v", method, resp, err)
	}
	return resp, err
}

// must is invoke of a call that has to succeed, with this status.
func (c *client) must(want int, method string, req object) object {
	c.t.Helper()
	resp, err := c.invoke(method, req)
	if err != nil || resp.num("status") != want {
		c.t.Fatalf("%s %v: status %d, %v; want status %d", method, req, resp.num("status"), err, want)
	}
	return resp
}

// stream is a call of any number of messages.
type stream struct {
	c      *client
	method string
	grpc.ClientStream
	received int
}

func (c *client) open(method string) *stream {
	c.t.Helper()
	s, err := c.conn.NewStream(c.ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/protocol.Journal/"+method)
	if err != nil {
		c.t.Fatal(err)
	}
	return &stream{c: c, method: method, ClientStream: s}
}

// start opens a stream for which there is one request.
func (c *client) start(method string, req object) *stream {
	c.t.Helper()
	s := c.open(method)
	s.send(req)
	_ = s.CloseSend()
	return s
}

// send sends a request. What fails then shows in what is received.
func (s *stream) send(req object) { _ = s.SendMsg(encode(requestOf(s.method), req)) }

// recv returns the next response, which is validated.
func (s *stream) recv() (object, error) {
	var out []byte
	if err := s.RecvMsg(&out); err != nil {
		return nil, err
	}
	s.received++
	return s.c.response(s.method, out, s.received == 1)
}

// append appends content, a message for each chunk, and returns the response.
func (c *client) append(opening object, chunks ...string) (object, error) {
	s := c.open("Append")
	s.send(opening)
	for _, chunk := range chunks {
		s.send(object{"content": []byte(chunk)})
	}
	s.send(object{}) // which is the wish to commit
	_ = s.CloseSend()
	resp, err := s.recv()
	if err == nil {
		if _, end := s.recv(); !errors.Is(end, io.EOF) {
			c.t.Errorf("an append ends with %v", end)
		}
	}
	return resp, err
}

func (c *client) mustAppend(journal string, chunks ...string) object {
	c.t.Helper()
	resp, err := c.append(object{"journal": journal}, chunks...)
	if err != nil || resp.num("status") != ok {
		c.t.Fatalf("append to %s: %v, %v", journal, resp, err)
	}
	return resp
}

// readAll reads until the stream ends. It checks what a reader relies on: content follows what tells about it, without a gap.
func (c *client) readAll(req object) (content string, metas []object) {
	c.t.Helper()
	s := c.start("Read", req)
	next := req.num("offset")
	var last object
	for {
		resp, err := s.recv()
		switch {
		case errors.Is(err, io.EOF):
			return content, metas
		case err != nil:
			c.t.Fatalf("read %v: %v", req, err)
		case len(resp.bytes("content")) == 0:
			last, metas = resp, append(metas, resp)
			if resp.num("status") == ok && resp.num("offset") < next {
				c.t.Fatalf("read %v: offset %d after %d", req, resp.num("offset"), next)
			}
			next = max(next, resp.num("offset"))
		default:
			if resp.num("offset") != next || next < last.sub("fragment").num("begin") || next+len(resp.bytes("content")) > last.sub("fragment").num("end") {
				c.t.Fatalf("read %v: content at %d, want %d, in %v", req, resp.num("offset"), next, last)
			}
			content += string(resp.bytes("content"))
			next += len(resp.bytes("content"))
		}
	}
}

func (o object) bytes(name string) []byte { v, _ := o[name].([]byte); return v }

// spec is that of a journal.
func spec(name string, change ...func(spec, fragment object)) object {
	fragment := object{"length": 1 << 20, "compression_codec": 1, "refresh_interval": object{"seconds": 300}}
	s := object{"name": name, "replication": 1, "labels": object{}, "fragment": fragment}
	for _, f := range change {
		f(s, fragment)
	}
	return s
}

// create creates journals.
func (c *client) create(specs ...object) {
	c.t.Helper()
	var changes []object
	for _, s := range specs {
		changes = append(changes, object{"upsert": s})
	}
	c.must(ok, "Apply", object{"changes": changes})
}

// refused fails the test unless err is a gRPC error of one of these codes.
func (c *client) refused(what string, err error, want ...codes.Code) {
	c.t.Helper()
	for _, code := range want {
		if status.Code(err) == code {
			return
		}
	}
	c.t.Errorf("%s: %v, want %v", what, err, want)
}

// await calls f until it returns true.
func await(t testing.TB, what string, f func() bool) {
	t.Helper()
	ticks := time.NewTicker(20 * time.Millisecond)
	defer ticks.Stop()
	for end := time.After(testkit.Patience); !f(); {
		select {
		case <-ticks.C:
		case <-end:
			t.Fatalf("%s has not come about", what)
		}
	}
}

// files returns the files below a directory whose names match.
func files(t testing.TB, dir, name string) (out []string) {
	t.Helper()
	pattern := regexp.MustCompile(name)
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && pattern.MatchString(path) {
			out = append(out, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(fmt.Errorf("look for files: %w", err))
	}
	return out
}
