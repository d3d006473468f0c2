package prpc

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/api/prpc/prpcpb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// logs is logdog.Logs with one method.
type logs struct {
	logdog.UnimplementedLogsServer
	get func(context.Context, *logdog.GetRequest) (*logdog.GetResponse, error)
}

func (l logs) Get(ctx context.Context, r *logdog.GetRequest) (*logdog.GetResponse, error) {
	return l.get(ctx, r)
}

// echo answers with the project that was asked for.
func echo(_ context.Context, r *logdog.GetRequest) (*logdog.GetResponse, error) {
	return &logdog.GetResponse{Project: r.GetProject()}, nil
}

func failWith(err error) func(context.Context, *logdog.GetRequest) (*logdog.GetResponse, error) {
	return func(context.Context, *logdog.GetRequest) (*logdog.GetResponse, error) { return nil, err }
}

type getter = func(context.Context, *logdog.GetRequest) (*logdog.GetResponse, error)

// serve serves logdog.Logs and returns the address.
func serve(t *testing.T, get getter, change ...func(*Config)) *httptest.Server {
	t.Helper()
	c := Config{Logger: slog.New(slog.DiscardHandler)}
	for _, f := range change {
		f(&c)
	}
	s := NewServer(c)
	logdog.RegisterLogsServer(s, logs{get: get})
	return listen(t, s)
}

func listen(t *testing.T, s *Server) *httptest.Server {
	t.Helper()
	h := httptest.NewServer(s)
	t.Cleanup(h.Close)
	// What the client would add by itself is not to be seen.
	h.Client().Transport.(*http.Transport).DisableCompression = true
	return h
}

type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) code() string { return a.header.Get(headerCode) }

// post makes a request; headers are name, value, name, value.
func post(t *testing.T, s *httptest.Server, path string, body []byte, headers ...string) answer {
	t.Helper()
	return request(t, s, http.MethodPost, path, body, headers...)
}

func request(t *testing.T, s *httptest.Server, method, path string, body []byte, headers ...string) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	resp, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(b)}
}

const getPath = "/prpc/logdog.Logs/Get"

func encoded(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestEncodings(t *testing.T) {
	s := serve(t, echo)
	types := []string{binary: "application/prpc; encoding=binary", json: "application/json", text: "application/prpc; encoding=text"}
	requests := []string{
		binary: string(encoded(t, &logdog.GetRequest{Project: "p"})),
		json:   `{"project":"p","nobodyKnows":{"a":[1]}}`,
		text:   `project: "p" nobody_knows: 5`,
	}
	check := func(name string, a answer, out encoding) {
		t.Helper()
		want := http.Header{
			"Content-Type": {types[out]}, "X-Content-Type-Options": {"nosniff"}, "X-Prpc-Grpc-Code": {"0"},
			"Content-Length": {fmt.Sprint(len(a.body))},
		}
		if diff := cmp.Diff(want, a.header); diff != "" || a.status != 200 {
			t.Errorf("%s: %d %s", name, a.status, diff)
		}
		body := a.body
		if out == json {
			var ok bool
			if body, ok = strings.CutPrefix(body, ")]}'\n"); !ok || !strings.HasSuffix(body, "\n") {
				t.Errorf("%s: %q", name, a.body)
			}
		}
		got := &logdog.GetResponse{}
		if err := out.unmarshal([]byte(body), got); err != nil || got.GetProject() != "p" {
			t.Errorf("%s: %q, %v", name, a.body, err)
		}
	}
	for in := binary; in <= text; in++ {
		for out := binary; out <= text; out++ {
			name := types[in] + " to " + types[out]
			check(name, post(t, s, getPath, []byte(requests[in]), "Content-Type", types[in], "Accept", types[out]), out)
		}
	}
	check("no headers", post(t, s, getPath, []byte(requests[binary])), binary)
	check("gRPC", post(t, s, getPath, []byte(requests[binary]), "Content-Type", "application/grpc"), binary)
	check("original names", post(t, s, getPath, []byte(`{"project":"p", "log_count": -1, "byte_count": "5"}`), "Content-Type", "application/json"), binary)
	if a := post(t, s, getPath, nil); a.code() != "0" || a.body != "" {
		t.Errorf("empty body: %+v", a)
	}
}

func TestRefusals(t *testing.T) {
	s := serve(t, echo)
	for _, tc := range []struct {
		name, method, path, body string
		headers                  []string
		status                   int
		code                     string // empty: no header of pRPC
	}{
		{"unknown service", "POST", "/prpc/logdog.Nothing/Get", "", nil, 501, "12"},
		{"unknown method", "POST", "/prpc/logdog.Logs/Nothing", "", nil, 501, "12"},
		{"method that nobody wrote", "POST", "/prpc/logdog.Logs/Tail", "", nil, 501, "12"},
		{"GET", "GET", getPath, "", nil, 405, ""},
		{"PUT", "PUT", getPath, "", nil, 405, ""},
		{"deep path", "POST", getPath + "/more", "", nil, 404, ""},
		{"no method", "POST", "/prpc/logdog.Logs", "", nil, 404, ""},
		{"empty method", "POST", "/prpc/logdog.Logs/", "", nil, 404, ""},
		{"empty service", "POST", "/prpc//Get", "", nil, 404, ""},
		{"nothing", "POST", "/prpc/", "", nil, 404, ""},
		{"Content-Type", "POST", getPath, "", []string{"Content-Type", "text/html"}, 415, "3"},
		{"Accept", "POST", getPath, "", []string{"Accept", "text/html"}, 406, "3"},
		{"q", "POST", getPath, "", []string{"Accept", "*/*;q=x"}, 400, "3"},
		{"q of a coding", "POST", getPath, "", []string{"Accept-Encoding", "br;q=x"}, 400, "3"},
		{"binary body", "POST", getPath, "\xff", nil, 400, "3"},
		{"JSON body", "POST", getPath, "{", []string{"Content-Type", "application/json"}, 400, "3"},
		{"empty JSON body", "POST", getPath, "", []string{"Content-Type", "application/json"}, 400, "3"},
		{"text body", "POST", getPath, "project", []string{"Content-Type", "application/prpc; encoding=text"}, 400, "3"},
		{"deep JSON", "POST", getPath, `{"x":` + strings.Repeat("[", 1<<20), []string{"Content-Type", "application/json"}, 400, "3"},
		{"deep text", "POST", getPath, strings.Repeat("a{", 4<<20), []string{"Content-Type", "application/prpc; encoding=text"}, 400, "3"},
		{"timeout", "POST", getPath, "", []string{headerTimeout, "1x"}, 400, "3"},
		{"size 0", "POST", getPath, "", []string{headerMaxResponseSize, "0"}, 400, "3"},
		{"size -1", "POST", getPath, "", []string{headerMaxResponseSize, "-1"}, 400, "3"},
		{"size x", "POST", getPath, "", []string{headerMaxResponseSize, "x"}, 400, "3"},
		{"metadata", "POST", getPath, "", []string{"X-Bin", "x"}, 400, "3"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := request(t, s, tc.method, tc.path, []byte(tc.body), tc.headers...)
			if a.status != tc.status || a.code() != tc.code || len(a.body) < 10 || !strings.HasSuffix(a.body, "\n") ||
				a.header.Get("Content-Type") != "text/plain; charset=utf-8" || a.header.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%d, code %q, %q", a.status, a.code(), a.body)
			}
			if tc.status == 405 && a.header.Get("Allow") != "OPTIONS, POST" {
				t.Error(a.header)
			}
		})
	}
}

func TestOutcomes(t *testing.T) {
	const secret = "where the secrets are"
	for _, tc := range []struct {
		err    error
		code   string
		status int
		shown  bool
	}{
		{status.Error(codes.Canceled, secret), "1", 499, true},
		{status.Error(codes.Unknown, secret), "2", 500, false},
		{status.Error(codes.InvalidArgument, secret), "3", 400, true},
		{status.Error(codes.DeadlineExceeded, secret), "4", 504, false},
		{status.Error(codes.NotFound, secret), "5", 404, true},
		{status.Error(codes.AlreadyExists, secret), "6", 409, true},
		{status.Error(codes.PermissionDenied, secret), "7", 403, true},
		{status.Error(codes.ResourceExhausted, secret), "8", 429, true},
		{status.Error(codes.FailedPrecondition, secret), "9", 400, true},
		{status.Error(codes.Aborted, secret), "10", 409, true},
		{status.Error(codes.OutOfRange, secret), "11", 400, true},
		{status.Error(codes.Unimplemented, secret), "12", 501, false},
		{status.Error(codes.Internal, secret), "13", 500, false},
		{status.Error(codes.Unavailable, secret), "14", 503, false},
		{status.Error(codes.DataLoss, secret), "15", 500, false},
		{status.Error(codes.Unauthenticated, secret), "16", 401, true},
		{status.Error(99, secret), "99", 500, false},
		{errors.New(secret), "2", 500, false},
		{context.Canceled, "1", 499, true},
		{fmt.Errorf("wrapped: %w", context.DeadlineExceeded), "4", 504, false},
		{fmt.Errorf("wrapped: %w", status.Error(codes.NotFound, secret)), "5", 404, true},
	} {
		var log bytes.Buffer
		s := serve(t, failWith(tc.err), func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
		a := post(t, s, getPath, nil, "Accept", "application/json")
		want := http.Header{
			"Content-Type": {"text/plain; charset=utf-8"}, "X-Content-Type-Options": {"nosniff"}, "X-Prpc-Grpc-Code": {tc.code},
			"Content-Length": {fmt.Sprint(len(a.body))},
		}
		if diff := cmp.Diff(want, a.header); diff != "" || a.status != tc.status {
			t.Errorf("%v: %d %s", tc.err, a.status, diff)
		}
		if shown := strings.Contains(a.body, status.Convert(tc.err).Message()); shown != tc.shown || len(a.body) < 10 {
			t.Errorf("%v: %q", tc.err, a.body)
		}
		s.Close() // waits for the handler
		if logged := log.Len() > 0; logged == tc.shown {
			t.Errorf("%v: logged %q", tc.err, log.String())
		}
	}
}

func TestDetails(t *testing.T) {
	s, err := status.New(codes.NotFound, "gone").WithDetails(protoadapt.MessageV1Of(durationpb.New(time.Second)), protoadapt.MessageV1Of(&logdog.GetRequest{Project: "p"}))
	if err != nil {
		t.Fatal(err)
	}
	h := serve(t, failWith(s.Err()))
	for e := binary; e <= text; e++ {
		a := post(t, h, getPath, nil, "Accept", e.mediaType())
		if a.code() != "5" || a.body != "gone\n" {
			t.Errorf("%v: %+v", e, a)
		}
		var got []*anypb.Any
		for _, v := range a.header[headerDetails] {
			b, err := base64.StdEncoding.DecodeString(v)
			d := &anypb.Any{}
			if err = errors.Join(err, e.unmarshal(b, d)); err != nil {
				t.Fatal(err)
			}
			got = append(got, d)
		}
		if diff := cmp.Diff(s.Proto().GetDetails(), got, protocmp.Transform()); diff != "" {
			t.Errorf("%v: %s", e, diff)
		}
	}

	p := status.New(codes.NotFound, "gone").Proto()
	p.Details = []*anypb.Any{{TypeUrl: "type.googleapis.com/nobody.Knows"}}
	h = serve(t, failWith(status.FromProto(p).Err()))
	if a := post(t, h, getPath, nil); a.code() != "5" || len(a.header[headerDetails]) != 1 {
		t.Errorf("binary, of an unknown type: %+v", a)
	}
	if a := post(t, h, getPath, nil, "Accept", "application/json"); a.code() != "13" || a.header[headerDetails] != nil {
		t.Errorf("JSON, of an unknown type: %+v", a)
	}
}

func TestBudget(t *testing.T) {
	ended := make(chan error, 1)
	s := serve(t, func(ctx context.Context, _ *logdog.GetRequest) (*logdog.GetResponse, error) {
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, status.Error(codes.Internal, "something else")
	})
	for _, budget := range []string{"20m", "20000u", "20000000n"} {
		a := post(t, s, getPath, nil, headerTimeout, budget)
		if a.code() != "4" || a.status != 504 || !errors.Is(<-ended, context.DeadlineExceeded) {
			t.Errorf("%s: %+v", budget, a)
		}
	}
	if a := post(t, s, getPath, nil, headerTimeout, "-1S"); a.code() != "4" || len(ended) != 0 {
		t.Errorf("negative: %+v", a)
	}
	s = serve(t, func(ctx context.Context, _ *logdog.GetRequest) (*logdog.GetResponse, error) {
		d, ok := ctx.Deadline()
		if left := time.Until(d); !ok || left > time.Hour || left < 50*time.Minute {
			t.Error("left:", left, ok)
		}
		return &logdog.GetResponse{}, nil
	})
	for _, budget := range []string{"1H", "60M", "3600S"} {
		if a := post(t, s, getPath, nil, headerTimeout, budget); a.code() != "0" {
			t.Errorf("%s: %+v", budget, a)
		}
	}
}

// A client that goes away ends its call.
func TestClientGoesAway(t *testing.T) {
	entered, ended := make(chan struct{}), make(chan error, 1)
	s := serve(t, func(ctx context.Context, _ *logdog.GetRequest) (*logdog.GetResponse, error) {
		close(entered)
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, ctx.Err()
	})
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", getPath)
	<-entered
	conn.Close()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestSlowBody(t *testing.T) {
	s := serve(t, echo)
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n%s: 30m\r\n\r\nabc", getPath, headerTimeout)
	b, err := io.ReadAll(conn) // the connection is closed
	if err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 504 ") || !strings.Contains(string(b), headerCode+": 4\r\n") {
		t.Fatalf("%q, %v", b, err)
	}

	// Without a budget, a body has the time that its size takes on a slow line.
	synctest.Test(t, func(t *testing.T) {
		var until time.Time
		began := time.Now()
		p := &patientReader{
			ctx: t.Context(), from: bytes.NewReader(make([]byte, 10*slowest)), began: began,
			deadline: func(t time.Time) error { until = t; return nil },
		}
		b := make([]byte, slowest)
		for i := range time.Duration(10) {
			if n, err := p.Read(b); n != len(b) || err != nil {
				t.Fatal(n, err)
			}
			if got := until.Sub(began); got != bodyGrace+i*time.Second {
				t.Fatalf("after %d: %v", i, got)
			}
			time.Sleep(time.Second)
		}
	})
}

func TestMetadataOfCalls(t *testing.T) {
	s := serve(t, func(ctx context.Context, r *logdog.GetRequest) (*logdog.GetResponse, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		if r.GetProject() == "refuse" {
			return nil, errors.Join(grpc.SetHeader(ctx, metadata.Pairs("x-kept", "1")), grpc.SetHeader(ctx, metadata.Pairs("X-Prpc-Grpc-Code", "0")))
		}
		if _, ok := peer.FromContext(ctx); !ok {
			t.Error("no peer")
		}
		if method, _ := grpc.Method(ctx); method != "/logdog.Logs/Get" {
			t.Error(method)
		}
		if err := grpc.SetTrailer(ctx, metadata.Pairs("a", "b")); err == nil {
			t.Error("a trailer was taken")
		}
		out := metadata.MD{}
		for k, v := range md {
			out["got-"+k] = v
		}
		return &logdog.GetResponse{}, errors.Join(grpc.SetHeader(ctx, out), grpc.SendHeader(ctx, metadata.Pairs("sent", "1")))
	})
	a := post(t, s, getPath, nil, "X-Bin", "AAE=", "X-Bin", "Ag==,/w==", "X-Own", "1", "X-Own", "2", "Host", "ignored",
		"Accept", "*/*", "X-Prpc-Nothing", "1", "Access-Control-Nothing", "1", "Authorization", "Bearer x", "User-Agent", "me")
	host := strings.TrimPrefix(s.URL, "http://")
	want := http.Header{
		"Got-X-Bin": {"AAE=", "Ag==", "/w=="}, "Got-X-Own": {"1", "2"}, "Got-Host": {host}, "Got-Authorization": {"Bearer x"},
		"Got-User-Agent": {"me"}, "Got-:authority": nil, "Sent": {"1"},
		"Content-Length": {"0"}, "Content-Type": {binary.mediaType()}, "X-Content-Type-Options": {"nosniff"}, "X-Prpc-Grpc-Code": {"0"},
	}
	delete(want, "Got-:authority") // not a header's name, so it stays inside
	delete(want, "Got-Host")
	if got := a.header.Values("Got-Host"); !slices.Contains(got, host) {
		t.Error(got)
	}
	a.header.Del("Got-Host")
	if diff := cmp.Diff(want, a.header); diff != "" {
		t.Error(diff)
	}
	if a := post(t, s, getPath, []byte("\x0a\x06refuse")); a.code() != "13" || a.header.Get("X-Kept") != "1" {
		t.Errorf("%+v", a)
	}
}

func zip(t *testing.T, chunks ...[]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	for _, c := range chunks {
		if _, err := z.Write(c); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestRequestSizes(t *testing.T) {
	server := NewServer(Config{Logger: slog.New(slog.DiscardHandler)})
	logdog.RegisterLogsServer(server, logs{get: echo})
	if server.maxRequest != 64<<20 {
		t.Error(server.maxRequest)
	}
	const limit = 1 << 20 // keeps the test quick
	server.maxRequest = limit
	s := listen(t, server)
	plain := encoded(t, &logdog.GetRequest{Project: "p"})
	zipped := zip(t, plain)
	// The largest request that is taken: a known field as long as it can be.
	largest := append([]byte("\x0a\xfc\xff\x3f"), make([]byte, limit-4)...)
	for _, tc := range []struct {
		name     string
		body     []byte
		encoding string
		code     string
		status   int
	}{
		{"gzip", zipped, "gzip", "0", 200},
		{"another coding is ignored", plain, "br", "0", 200},
		{"largest", largest, "", "0", 200},
		{"too large", append(slices.Clone(largest), 0), "", "14", 503},
		{"largest, compressed", zip(t, largest), "gzip", "0", 200},
		{"too large, compressed", zip(t, largest, []byte{0}), "gzip", "14", 503},
		{"bomb", zip(t, make([]byte, 8<<20)), "gzip", "14", 503},
		{"empty gzip", nil, "gzip", "1", 499},
		{"truncated gzip", zipped[:len(zipped)-3], "gzip", "1", 499},
		{"head of gzip", zipped[:5], "gzip", "1", 499},
		{"no gzip", []byte("this is something else"), "gzip", "3", 400},
		{"damaged gzip", append(slices.Clone(zipped[:len(zipped)-6]), 1, 2, 3, 4, 5, 6), "gzip", "3", 400},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := post(t, s, getPath, tc.body, "Content-Encoding", tc.encoding)
			if a.code() != tc.code || a.status != tc.status {
				t.Errorf("%d, code %s, %.200q", a.status, a.code(), a.body)
			}
			if tc.code == "14" && !strings.Contains(a.body, "1048576") {
				t.Error(a.body)
			}
		})
	}

	// What is announced to be too large is not waited for, and neither is what comes without announcement.
	for _, head := range []string{"Content-Length: 1048577\r\n\r\n", "Content-Length: 9223372036854775807\r\n\r\n"} {
		conn, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\n%s", getPath, head)
		if b, err := io.ReadAll(conn); err != nil || !strings.Contains(string(b), headerCode+": 14\r\n") || !strings.Contains(string(b), "Connection: close\r\n") {
			t.Errorf("%q, %v", b, err)
		}
		conn.Close()
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+getPath, io.MultiReader(bytes.NewReader(plain))) // chunked
	if err != nil {
		t.Fatal(err)
	}
	resp, err := s.Client().Do(r)
	if err != nil || resp.Header.Get(headerCode) != "0" {
		t.Fatal(resp, err)
	}
	resp.Body.Close()
}

func TestResponseSizes(t *testing.T) {
	s := serve(t, func(context.Context, *logdog.GetRequest) (*logdog.GetResponse, error) {
		return &logdog.GetResponse{Project: strings.Repeat("x", 3033)}, nil
	})
	size := len(post(t, s, getPath, nil).body)
	if size != 3036 {
		t.Fatal(size)
	}
	if a := post(t, s, getPath, nil, headerMaxResponseSize, "3036"); a.code() != "0" || len(a.body) != size {
		t.Error("just fits:", a.code())
	}
	a := post(t, s, getPath, nil, headerMaxResponseSize, "3035")
	if a.code() != "14" || a.status != 503 || !strings.Contains(a.body, "3036") || !strings.Contains(a.body, "3035") {
		t.Errorf("%+v", a)
	}
	b, err := base64.StdEncoding.DecodeString(a.header.Get(headerDetails))
	detail := &anypb.Any{}
	if err = errors.Join(err, proto.Unmarshal(b, detail)); err != nil {
		t.Fatal(err)
	}
	got, err := detail.UnmarshalNew()
	want := &prpcpb.ErrorDetails{Error: &prpcpb.ErrorDetails_ResponseTooBig{ResponseTooBig: &prpcpb.ResponseTooBig{ResponseSize: 3036, ResponseLimit: 3035}}}
	if diff := cmp.Diff(proto.Message(want), got, protocmp.Transform()); diff != "" || err != nil {
		t.Error(diff, err)
	}
	// The prefix and the last LF of JSON count.
	size = len(post(t, s, getPath, nil, "Accept", "application/json").body)
	if a := post(t, s, getPath, nil, "Accept", "application/json", headerMaxResponseSize, fmt.Sprint(size-1)); a.code() != "14" {
		// White space varies between builds only.
		t.Errorf("%+v", a)
	}
}

func TestCompression(t *testing.T) {
	for _, tc := range []struct {
		policy Compression
		size   int
		accept string
		coding string
		want   bool
	}{
		{CompressAll, 2000, "application/json", "gzip", true},
		{CompressAll, 2000, "", "br, gzip;q=0", true},
		{CompressAll, 2000, "", "br", false},
		{CompressAll, 2000, "", "", false},
		{CompressAll, compressAbove - 3, "", "gzip", false}, // and 3 bytes before
		{CompressAll, compressAbove - 2, "", "gzip", true},
		{CompressExceptJSON, 2000, "", "gzip", true},
		{CompressExceptJSON, 2000, "application/json", "gzip", false},
		{CompressNone, 2000, "", "gzip", false},
	} {
		s := serve(t, func(context.Context, *logdog.GetRequest) (*logdog.GetResponse, error) {
			return &logdog.GetResponse{Project: strings.Repeat("x", tc.size)}, nil
		}, func(c *Config) { c.Compression = tc.policy })
		a := post(t, s, getPath, nil, "Accept", tc.accept, "Accept-Encoding", tc.coding, headerMaxResponseSize, "3000")
		if got := a.header.Get("Content-Encoding") == "gzip"; got != tc.want || a.code() != "0" {
			t.Errorf("%+v: %+v", tc, a)
		}
		if tc.want {
			z, err := gzip.NewReader(strings.NewReader(a.body))
			if err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(z); err != nil || !strings.Contains(string(b), strings.Repeat("x", tc.size)) {
				t.Errorf("%+v: %v", tc, err)
			}
		}
	}
	s := serve(t, failWith(status.Error(codes.NotFound, strings.Repeat("x", 5000))), func(c *Config) { c.Compression = CompressAll })
	if a := post(t, s, getPath, nil, "Accept-Encoding", "gzip"); a.header.Get("Content-Encoding") != "" || len(a.body) != 5001 {
		t.Error("an error is compressed")
	}
}

func TestCrossOrigin(t *testing.T) {
	s := serve(t, echo, func(c *Config) {
		c.CrossOrigin = func(service, origin string) Access {
			return Access{
				Allow:       service == "logdog.Logs" && origin != "https://evil.example",
				Credentials: origin == "https://ui.example.com", Headers: []string{"X-One", "X-Two"},
			}
		}
	})
	for _, tc := range []struct {
		name, method, path, origin string
		want                       http.Header
	}{
		{"call", "POST", getPath, "https://ui.example.com", http.Header{
			"Access-Control-Allow-Origin": {"https://ui.example.com"}, "Vary": {"Origin"}, "Access-Control-Allow-Credentials": {"true"},
			"Access-Control-Expose-Headers": {"X-Prpc-Grpc-Code, X-Prpc-Status-Details-Bin"},
		}},
		{"preflight", "OPTIONS", getPath, "https://ui.example.com", http.Header{
			"Access-Control-Allow-Origin": {"https://ui.example.com"}, "Vary": {"Origin"}, "Access-Control-Allow-Credentials": {"true"},
			"Access-Control-Allow-Headers": {"X-One, X-Two, Origin, Content-Type, Accept, Authorization, X-Prpc-Grpc-Timeout, X-Prpc-Max-Response-Size"},
			"Access-Control-Allow-Methods": {"OPTIONS, POST"}, "Access-Control-Max-Age": {"600"},
		}},
		{"without credentials", "POST", getPath, "https://other.example.com", http.Header{
			"Access-Control-Allow-Origin": {"https://other.example.com"}, "Vary": {"Origin"},
			"Access-Control-Expose-Headers": {"X-Prpc-Grpc-Code, X-Prpc-Status-Details-Bin"},
		}},
		{"refused", "POST", getPath, "https://evil.example", http.Header{}},
		{"refused before", "OPTIONS", getPath, "https://evil.example", http.Header{}},
		{"another service", "OPTIONS", "/prpc/discovery.Discovery/Describe", "https://ui.example.com", http.Header{}},
		{"no origin", "POST", getPath, "", http.Header{}},
		{"no origin before", "OPTIONS", getPath, "", http.Header{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var headers []string
			if tc.origin != "" {
				headers = []string{"Origin", tc.origin}
			}
			a := request(t, s, tc.method, tc.path, nil, headers...)
			for key := range a.header {
				if !strings.HasPrefix(key, "Access-") && key != "Vary" {
					a.header.Del(key)
				}
			}
			if diff := cmp.Diff(tc.want, a.header); diff != "" || a.status != 200 || a.body != "" {
				t.Error(a.status, a.body, diff)
			}
		})
	}
	if a := request(t, serve(t, echo), "OPTIONS", getPath, nil, "Origin", "https://ui.example.com"); a.header.Get("Vary") != "" || a.status != 200 {
		t.Errorf("without a policy: %+v", a)
	}
}

// Who is refused before the call is looked at gets an answer of the protocol, and pages that may call can read it.
func TestRefuse(t *testing.T) {
	const page = "https://ui.example.com"
	s := NewServer(Config{
		CrossOrigin: func(service, origin string) Access { return Access{Allow: service == "logdog.Logs" && origin == page} },
		Logger:      slog.New(slog.DiscardHandler),
	})
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		code := codes.Unauthenticated
		if r.Header.Get("Authorization") == "" {
			code = codes.Unavailable
		}
		s.Refuse(w, r, status.Error(code, "the reason"))
	}))
	t.Cleanup(h.Close)
	for _, tc := range []struct {
		name    string
		a       answer
		status  int
		code    string
		said    string
		allowed string
	}{
		{"bad", post(t, h, getPath, nil, "Authorization", "x", "Origin", page), 401, "16", "the reason\n", page},
		{"another origin", post(t, h, getPath, nil, "Authorization", "x", "Origin", "https://evil.example"), 401, "16", "the reason\n", ""},
		{"another service", post(t, h, "/prpc/logdog.Services/Batch", nil, "Authorization", "x", "Origin", page), 401, "16", "the reason\n", ""},
		{"not found out", post(t, h, getPath, nil), 503, "14", "the server cannot answer now; try again\n", ""},
	} {
		if tc.a.status != tc.status || tc.a.code() != tc.code || tc.a.body != tc.said || tc.a.header.Get("Access-Control-Allow-Origin") != tc.allowed ||
			tc.a.header.Get("X-Content-Type-Options") != "nosniff" || tc.a.header.Get("Date") != "" {
			t.Errorf("%s: %+v", tc.name, tc.a)
		}
	}
}

func TestDiscovery(t *testing.T) {
	s := serve(t, echo)
	a := post(t, s, "/prpc/discovery.Discovery/Describe", nil)
	resp := &prpcpb.DescribeResponse{}
	if err := proto.Unmarshal([]byte(a.body), resp); err != nil || a.code() != "0" {
		t.Fatal(err, a.code())
	}
	if diff := cmp.Diff([]string{"discovery.Discovery", "logdog.Logs"}, resp.GetServices()); diff != "" {
		t.Error(diff)
	}
	seen := make(map[string]bool)
	for _, f := range resp.GetDescription().GetFile() {
		if seen[f.GetName()] {
			t.Error("twice:", f.GetName())
		}
		seen[f.GetName()] = true
		for _, d := range f.GetDependency() {
			if !seen[d] {
				t.Errorf("%s comes before %s", f.GetName(), d)
			}
		}
	}
	for _, f := range []string{"logdog/logs.proto", "logpb/log.proto", "google/protobuf/timestamp.proto", "prpc/discovery.proto"} {
		if !seen[f] {
			t.Error("no", f)
		}
	}
}

func TestInterceptors(t *testing.T) {
	var mu sync.Mutex
	var order []string
	named := func(name string) grpc.UnaryServerInterceptor {
		return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			mu.Lock()
			order = append(order, name+" "+info.FullMethod+" "+req.(*logdog.GetRequest).GetProject())
			mu.Unlock()
			return handler(ctx, req)
		}
	}
	s := serve(t, echo, func(c *Config) { c.Interceptors = []grpc.UnaryServerInterceptor{named("outer"), named("inner")} })
	for range 2 { // the chain is not used up
		if a := post(t, s, getPath, []byte("\x0a\x01p")); a.body != "\x0a\x01p" {
			t.Errorf("%+v", a)
		}
	}
	want := []string{"outer /logdog.Logs/Get p", "inner /logdog.Logs/Get p", "outer /logdog.Logs/Get p", "inner /logdog.Logs/Get p"}
	if diff := cmp.Diff(want, order); diff != "" {
		t.Error(diff)
	}
}

func TestRegisterMistakes(t *testing.T) {
	for name, mistake := range map[string]func(*Server){
		"twice":         func(s *Server) { logdog.RegisterLogsServer(s, logs{}); logdog.RegisterLogsServer(s, logs{}) },
		"without Tail":  func(s *Server) { s.RegisterService(&logdog.Logs_ServiceDesc, struct{}{}) },
		"discovery too": func(s *Server) { prpcpb.RegisterDiscoveryServer(s, &directory{}) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("was taken")
				}
			}()
			mistake(NewServer(Config{}))
		})
	}
}
