package prpc

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/api/prpc/prpcpb"
)

// network answers requests without one.
type network func(*http.Request) (*http.Response, error)

func (n network) RoundTrip(r *http.Request) (*http.Response, error) { return n(r) }

// reply returns an answer; headers are name, value, name, value.
func reply(httpStatus int, body string, headers ...string) *http.Response {
	resp := &http.Response{
		StatusCode: httpStatus, Status: fmt.Sprint(httpStatus, " ", http.StatusText(httpStatus)),
		Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)),
	}
	for i := 0; i < len(headers); i += 2 {
		resp.Header.Add(headers[i], headers[i+1])
	}
	return resp
}

func success(project string) *http.Response {
	b, _ := proto.Marshal(&logdog.GetResponse{Project: project})
	return reply(200, string(b), headerCode, "0", "Content-Type", binary.mediaType())
}

func clientOn(n network, change ...func(*ClientConfig)) logdog.LogsClient {
	c := ClientConfig{Host: "logs.example.com", HTTP: &http.Client{Transport: n}}
	for _, f := range change {
		f(&c)
	}
	return logdog.NewLogsClient(NewClient(c))
}

// The server and the client agree, over a real connection.
func TestClientAndServer(t *testing.T) {
	detailed, err := status.New(codes.NotFound, "gone").WithDetails(protoadapt.MessageV1Of(durationpb.New(time.Second)), protoadapt.MessageV1Of(&logdog.GetRequest{Project: "p"}))
	if err != nil {
		t.Fatal(err)
	}
	h := serve(t, func(ctx context.Context, r *logdog.GetRequest) (*logdog.GetResponse, error) {
		if r.GetProject() == "gone" {
			return nil, detailed.Err()
		}
		md, _ := metadata.FromIncomingContext(ctx)
		if diff := cmp.Diff([]string{"\x00", "b"}, md["own-bin"]); diff != "" {
			t.Error(diff)
		}
		_ = grpc.SetHeader(ctx, metadata.Pairs("back-bin", "\xff", "back", "1"))
		return echo(ctx, r)
	})
	c := logdog.NewLogsClient(NewClient(ClientConfig{Host: strings.TrimPrefix(h.URL, "http://"), Insecure: true, HTTP: h.Client()}))
	var header metadata.MD
	ctx := metadata.AppendToOutgoingContext(t.Context(), "own-bin", "\x00", "own-bin", "b")
	large := strings.Repeat("x", 1<<20)
	resp, err := c.Get(ctx, &logdog.GetRequest{Project: large}, grpc.Header(&header))
	if err != nil || resp.GetProject() != large {
		t.Fatal(err)
	}
	if diff := cmp.Diff(metadata.MD{"back-bin": {"\xff"}, "back": {"1"}}, header); diff != "" {
		t.Error(diff)
	}
	_, err = c.Get(ctx, &logdog.GetRequest{Project: "gone"})
	s := status.Convert(err)
	if s.Code() != codes.NotFound || s.Message() != "call /logdog.Logs/Get: gone" {
		t.Error(err)
	}
	if diff := cmp.Diff(detailed.Proto().GetDetails(), s.Proto().GetDetails(), protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	// More than the caller takes is refused by the server, and not asked for again.
	_, err = c.Get(ctx, &logdog.GetRequest{Project: large}, grpc.MaxCallRecvMsgSize(1000))
	if s := status.Convert(err); s.Code() != codes.Unavailable || len(s.Details()) != 1 {
		t.Error(err)
	}
}

func TestRequestOfClient(t *testing.T) {
	c := clientOn(func(r *http.Request) (*http.Response, error) {
		if r.URL.String() != "https://logs.example.com/prpc/logdog.Logs/Get" || r.Method != "POST" {
			t.Error(r.Method, r.URL)
		}
		want := http.Header{
			"Accept": {"application/prpc; encoding=binary"}, "Content-Type": {"application/prpc; encoding=binary"},
			"User-Agent": {"pRPC Client 1.5"}, "X-Prpc-Max-Response-Size": {"33521664"}, "Authorization": {"Bearer x"},
		}
		if diff := cmp.Diff(want, r.Header); diff != "" {
			t.Error(diff)
		}
		if b, err := io.ReadAll(r.Body); err != nil || string(b) != "\x0a\x01p" || r.ContentLength != 3 {
			t.Errorf("%q, %v, %d", b, err, r.ContentLength)
		}
		return success("p"), nil
	})
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer x")
	if _, err := c.Get(ctx, &logdog.GetRequest{Project: "p"}); err != nil {
		t.Fatal(err)
	}
	ctx = metadata.AppendToOutgoingContext(t.Context(), "x-prpc-grpc-timeout", "1H")
	if _, err := c.Get(ctx, &logdog.GetRequest{Project: "p"}); status.Code(err) != codes.Internal {
		t.Error(err)
	}
	_, err := NewClient(ClientConfig{Host: "x"}).NewStream(t.Context(), &grpc.StreamDesc{}, "/a/b")
	if status.Code(err) != codes.Unimplemented {
		t.Error(err)
	}
}

func TestRetries(t *testing.T) {
	for code := codes.Canceled; code <= codes.Unauthenticated+1; code++ {
		synctest.Test(t, func(t *testing.T) {
			var at []time.Duration
			began := time.Now()
			c := clientOn(func(r *http.Request) (*http.Response, error) {
				at = append(at, time.Since(began))
				if b, err := io.ReadAll(r.Body); err != nil || string(b) != "\x0a\x01p" {
					t.Errorf("%q, %v", b, err) // sent whole again
				}
				return reply(400, "said\n", headerCode, fmt.Sprint(uint32(code))), nil
			})
			_, err := c.Get(t.Context(), &logdog.GetRequest{Project: "p"})
			if status.Code(err) != code || status.Convert(err).Message() != "call /logdog.Logs/Get: said" {
				t.Error(err)
			}
			want := []time.Duration{0}
			switch code {
			case codes.Internal, codes.Unknown, codes.Unavailable, codes.DeadlineExceeded:
				want = []time.Duration{0, 1 * time.Second, 3 * time.Second, 7 * time.Second, 15 * time.Second, 31 * time.Second}
			}
			if diff := cmp.Diff(want, at); diff != "" {
				t.Error(code, diff)
			}
		})
	}
}

func TestRetrySucceeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers := []func() (*http.Response, error){
			func() (*http.Response, error) { return nil, &net.OpError{Op: "dial", Err: errors.New("refused")} },
			func() (*http.Response, error) { return reply(503, "busy"), nil },
			func() (*http.Response, error) {
				return reply(200, "", headerCode, "0", "Content-Type", "application/json"), nil
			},
			func() (*http.Response, error) {
				return reply(200, "\xff", headerCode, "0", "Content-Type", binary.mediaType()), nil
			},
			func() (*http.Response, error) { return success("p"), nil },
		}
		n := 0
		c := clientOn(func(*http.Request) (*http.Response, error) { n++; return answers[n-1]() })
		resp, err := c.Get(t.Context(), &logdog.GetRequest{})
		if err != nil || resp.GetProject() != "p" || n != len(answers) {
			t.Error(resp, err, n)
		}
	})
}

func TestFailures(t *testing.T) {
	tooBig, err := anypb.New(&prpcpb.ErrorDetails{Error: &prpcpb.ErrorDetails_ResponseTooBig{ResponseTooBig: &prpcpb.ResponseTooBig{}}})
	if err != nil {
		t.Fatal(err)
	}
	tooBigHeader := base64.StdEncoding.EncodeToString(encoded(t, tooBig))
	detail, err := anypb.New(durationpb.New(1))
	if err != nil {
		t.Fatal(err)
	}
	d := base64.StdEncoding.EncodeToString(encoded(t, detail))
	page := "<html><head><title>T</title></head><style>x{}</style><body><h1>Bad &amp; worse</h1>\n<!-- no --><script>1</script><p>Sorry</body></html>"
	for _, tc := range []struct {
		name     string
		resp     *http.Response
		err      error
		code     codes.Code
		message  string // without what was called
		attempts int
		details  int
	}{
		{name: "no code 401", resp: reply(401, "who?"), code: codes.Unauthenticated, message: "HTTP status 401 Unauthorized: who?"},
		{name: "no code 403", resp: reply(403, ""), code: codes.PermissionDenied, message: "HTTP status 403 Forbidden:"},
		{name: "no code 404", resp: reply(404, "x"), code: codes.Internal, message: "HTTP status 404 Not Found: x", attempts: 2},
		{name: "no code 500", resp: reply(500, "x"), code: codes.Internal, message: "HTTP status 500 Internal Server Error: x", attempts: 2},
		{name: "no code 503", resp: reply(503, "x"), code: codes.Unavailable, message: "HTTP status 503 Service Unavailable: x", attempts: 2},
		{name: "no code 200", resp: reply(200, "x"), code: codes.Internal, message: "HTTP status 200 OK: x", attempts: 2},
		{name: "odd code", resp: reply(403, "x", headerCode, "seven"), code: codes.PermissionDenied, message: "HTTP status 403 Forbidden: x"},
		{name: "code 0 and a failure", resp: reply(502, "x", headerCode, "0"), code: codes.Internal, message: "HTTP status 502 Bad Gateway of a call that succeeded: x", attempts: 2},
		{name: "page", resp: reply(403, page, "Content-Type", "text/html; charset=utf-8"), code: codes.PermissionDenied, message: "HTTP status 403 Forbidden: Bad & worse Sorry"},
		{name: "long", resp: reply(404, strings.Repeat("x", 5000), headerCode, "5"), code: codes.NotFound, message: strings.Repeat("x", 4096) + "..."},
		{name: "just fits", resp: reply(404, strings.Repeat("x", 4096)+"\n", headerCode, "5"), code: codes.NotFound, message: strings.Repeat("x", 4096)},
		{name: "no UTF-8", resp: reply(404, "\xff", headerCode, "5"), code: codes.NotFound, message: "\uFFFD"},
		{name: "details", resp: reply(404, "x", headerCode, "5", headerDetails, d+","+d, headerDetails, d), code: codes.NotFound, message: "x", details: 3},
		{name: "bad details", resp: reply(404, "x", headerCode, "5", headerDetails, "*"), code: codes.Internal, message: "header X-Prpc-Status-Details-Bin: not base64: illegal base64 data at input byte 0", attempts: 2},
		{name: "response too large for the server", resp: reply(503, "x", headerCode, "14", headerDetails, tooBigHeader), code: codes.Unavailable, message: "x", details: 1},
		{name: "response too large for us", resp: success(strings.Repeat("x", 100)), code: codes.Unavailable, message: "the response has more than the 50 bytes that are taken"},
		{name: "no content type", resp: reply(200, "", headerCode, "0"), code: codes.Internal, message: `the response is "" and not "application/prpc; encoding=binary"`, attempts: 2},
		{name: "no connection", err: &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("refused")}, code: codes.Internal, message: "logs.example.com: dial tcp: refused", attempts: 2},
		{name: "network timeout", err: context.DeadlineExceeded, code: codes.DeadlineExceeded, message: "logs.example.com: context deadline exceeded", attempts: 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				attempts := 0
				var body []byte
				c := clientOn(func(*http.Request) (*http.Response, error) {
					if tc.resp != nil {
						if body == nil {
							body, _ = io.ReadAll(tc.resp.Body)
						}
						tc.resp.Body = io.NopCloser(bytes.NewReader(body))
					}
					attempts++
					return tc.resp, tc.err
				}, func(c *ClientConfig) { c.MaxResponseSize = 50; c.Retries = 1 })
				_, err := c.Get(t.Context(), &logdog.GetRequest{})
				s := status.Convert(err)
				if s.Code() != tc.code || s.Message() != "call /logdog.Logs/Get: "+tc.message || len(s.Details()) != tc.details {
					t.Errorf("%v, %d details", err, len(s.Details()))
				}
				if attempts != max(tc.attempts, 1) {
					t.Errorf("%d attempts", attempts)
				}
			})
		})
	}
}

// hang answers when the attempt is cut off.
func hang(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

func TestDeadlines(t *testing.T) {
	run := func(name string, limit time.Duration, n network, attemptTimeout time.Duration, code codes.Code, takes time.Duration, budgets ...string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var got []string
				c := clientOn(func(r *http.Request) (*http.Response, error) {
					got = append(got, r.Header.Get(headerTimeout))
					return n(r)
				}, func(c *ClientConfig) { c.AttemptTimeout = attemptTimeout })
				ctx := t.Context()
				if limit != 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, limit)
					defer cancel()
				}
				began := time.Now()
				_, err := c.Get(ctx, &logdog.GetRequest{})
				if status.Code(err) != code || time.Since(began) != takes {
					t.Errorf("%v after %v", err, time.Since(began))
				}
				if diff := cmp.Diff(budgets, got); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
	busy := func(*http.Request) (*http.Response, error) { return reply(503, "busy", headerCode, "14"), nil }
	run("before", -time.Second, busy, 0, codes.DeadlineExceeded, 0)
	run("during", 10*time.Second, hang, 0, codes.DeadlineExceeded, 10*time.Second, "10000000u")
	// The last attempt's failure says more than that time is over.
	run("between", 2500*time.Millisecond, busy, 0, codes.Unavailable, time.Second, "2500000u", "1500000u")
	run("each attempt", 0, hang, 30*time.Second, codes.DeadlineExceeded, (6*30+31)*time.Second,
		"30000000u", "30000000u", "30000000u", "30000000u", "30000000u", "30000000u")
	run("attempts and call", 45*time.Second, hang, 30*time.Second, codes.DeadlineExceeded, 45*time.Second, "30000000u", "14000000u")
}

func TestCancelWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		c := clientOn(func(*http.Request) (*http.Response, error) {
			time.AfterFunc(time.Second/2, cancel)
			return reply(503, "busy", headerCode, "14"), nil
		})
		began := time.Now()
		_, err := c.Get(ctx, &logdog.GetRequest{})
		if status.Code(err) != codes.Canceled || time.Since(began) != time.Second/2 {
			t.Error(err, time.Since(began))
		}
	})
}

// An answer that never ends is cut off, compressed or not.
func TestHostileServer(t *testing.T) {
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(headerCode, "0")
		w.Header().Set("Content-Type", binary.mediaType())
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(zip(t, make([]byte, 1<<20)))
	}))
	t.Cleanup(h.Close)
	c := logdog.NewLogsClient(NewClient(ClientConfig{Host: strings.TrimPrefix(h.URL, "http://"), Insecure: true, HTTP: h.Client(), MaxResponseSize: 64 << 10}))
	if _, err := c.Get(t.Context(), &logdog.GetRequest{}); status.Code(err) != codes.Unavailable {
		t.Error(err)
	}
}
