//go:build unix

package foreign

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/daybook-dev/daybook/internal/mux"
	"github.com/daybook-dev/daybook/journal/auth"
	"github.com/daybook-dev/daybook/journal/broker"
	"github.com/daybook-dev/daybook/journal/broker/engine/disklog"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// serveHere serves a broker in this process, by gRPC and HTTP on one listener, and returns the endpoint.
func serveHere(t *testing.T, network, address string, keys string) string {
	t.Helper()
	log, err := disklog.Open(t.Context(), filepath.Join(t.TempDir(), "journal"), disklog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	endpoint := "http://" + l.Addr().String()
	if network == "unix" {
		endpoint = "unix://localhost" + address
	}
	config := broker.Config{Engine: log, ID: &protocol.ProcessSpec_ID{Zone: "here", Suffix: "broker"}, Endpoint: protocol.Endpoint(endpoint)}
	if keys != "" {
		if config.Callers, err = auth.ParseKeys(keys); err != nil {
			t.Fatal(err)
		}
	}
	b, err := broker.New(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	doors := mux.New(l)
	rpc := grpc.NewServer(grpc.WaitForHandlers(true))
	protocol.RegisterJournalServer(rpc, b)
	pages := &http.Server{Handler: b.Gateway(broker.GatewayConfig{Prefix: "/"}), ReadHeaderTimeout: time.Second}
	var running sync.WaitGroup
	running.Go(func() { _ = doors.Serve() })
	running.Go(func() { _ = rpc.Serve(doors.GRPC()) })
	running.Go(func() { _ = pages.Serve(doors.HTTP()) })
	t.Cleanup(func() {
		end, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		err := b.Close(end)
		rpc.Stop()
		err = errors.Join(err, pages.Close(), b.Close(end), log.Close(end))
		doors.Close()
		running.Wait()
		if err != nil {
			t.Error(err)
		}
	})
	return endpoint
}

// With keys, every call needs a token, by gRPC and by HTTP alike, for what it does and for the journal that it does it to.
func TestTokens(t *testing.T) {
	t.Parallel()
	endpoint := serveHere(t, "tcp", "127.0.0.1:0", "b2xk, c2VjcmV0")
	anonymous := dial(t, endpoint)
	sign := func(key, claims string) string { return "Bearer " + token8(t, []byte(key), claims) }
	as := func(value string) *client {
		return anonymous.with(metadata.AppendToOutgoingContext(anonymous.ctx, "authorization", value))
	}
	const all, list, apply, read, appends = 4294967295, 2, 4, 8, 16
	const never = 4102444800
	plain := func(capability int) string {
		return fmt.Sprintf(`{"cap":%d,"exp":%d,"iat":1700000000}`, capability, never)
	}
	admin := as(sign("secret", plain(all)))
	admin.create(spec("mine/journal"), spec("theirs/journal"))

	// As stock clients sign them: the journal alone, labels in full.
	mine := as(sign("old", fmt.Sprintf(`{"cap":%d,"sel":{"include":{"labels":[{"name":"name","value":"mine/journal"}]},"exclude":{"labels":null}},"exp":%d,"iat":1700000000}`, read|appends|list, never)))
	mine.mustAppend("mine/journal;meta", "content")
	if got, _ := mine.readAll(object{"journal": "mine/journal"}); got != "content" {
		t.Errorf("mine has %q", got)
	}
	if names, _ := snapshot(t, mine.start("List", object{}), false); fmt.Sprint(names) != "[mine/journal]" {
		t.Errorf("who may see one sees %v", names)
	}
	// What is not for the caller is not there, and tells nothing of where it is.
	theirs, err := mine.append(object{"journal": "theirs/journal"}, "x")
	if err != nil || theirs.num("status") != journalNotFound || len(theirs.sub("header").sub("route").list("members")) != 0 {
		t.Errorf("theirs: %v, %v", theirs, err)
	}
	if _, metas := mine.readAll(object{"journal": "theirs/journal"}); metas[0].num("status") != journalNotFound {
		t.Errorf("theirs: %v", metas)
	}
	mine.must(journalNotFound, "ListFragments", object{"journal": "theirs/journal"})

	for what, value := range map[string]string{
		"no token": "", "an empty one": "Bearer ", "an opaque one": "Bearer opaque", "another scheme": "Basic c2VjcmV0", "a lower case": strings.ToLower(sign("secret", plain(all))),
		"another key": sign("guessed", plain(all)), "the empty key": sign("", plain(all)), "a zero key": sign("\x00", plain(all)),
		"one that is over": sign("secret", `{"cap":4294967295,"exp":1700000000}`), "one without an end": sign("secret", `{"cap":4294967295}`),
		"one of the future": sign("secret", `{"cap":4294967295,"exp":4102444800,"iat":4102444000}`), "one that may nothing": sign("secret", plain(0)),
		"one that may replicate": sign("secret", plain(32)), "a huge one": "Bearer " + strings.Repeat("x", 30_000),
		"an unsigned one": "Bearer eyJhbGciOiJub25lIn0.eyJjYXAiOjQyOTQ5NjcyOTUsImV4cCI6NDEwMjQ0NDgwMH0.",
	} {
		c := anonymous
		if what != "no token" {
			c = as(value)
		}
		for _, method := range methods {
			if method == "Replicate" && what == "one that may replicate" {
				continue
			}
			c.refused(what+" to "+method, c.call(method, encode(requestOf(method), object{})), codes.Unauthenticated)
		}
		for _, req := range [][2]string{{"GET", "/mine/journal"}, {"HEAD", "/mine/journal"}, {"PUT", "/mine/journal"}, {"POST", "/v1/journals/list"}, {"POST", "/v1/journals/read"}} {
			var headers []string
			if what != "no token" {
				headers = []string{"Authorization", value}
			}
			if got := do(t, req[0], endpoint+req[1], strings.NewReader("{}"), headers...); got.StatusCode != http.StatusUnauthorized || got.Header.Get("WWW-Authenticate") == "" {
				t.Errorf("%s to %s %s: %s %s", what, req[0], req[1], got.Status, got.body)
			}
		}
	}
	reader := sign("secret", plain(read))
	if got := do(t, http.MethodGet, endpoint+"/mine/journal", nil, "Authorization", reader); got.body != "content" {
		t.Errorf("a reader by HTTP: %s %s", got.Status, got.body)
	}
	if got := do(t, http.MethodPut, endpoint+"/mine/journal", strings.NewReader("x"), "Authorization", reader); got.StatusCode != http.StatusUnauthorized {
		t.Errorf("a reader appends by HTTP: %s", got.Status)
	}
	if got := do(t, http.MethodPost, endpoint+"/v1/journals/read", strings.NewReader(`{"journal":"mine/journal"}`), "Authorization", reader); !strings.Contains(got.body, "Y29udGVudA==") {
		t.Errorf("a reader by JSON: %s %s", got.Status, got.body)
	}
}

// The pseudo-key lets those in who show nothing, and not those who show something wrong.
func TestRollout(t *testing.T) {
	t.Parallel()
	c := dial(t, serveHere(t, "tcp", "127.0.0.1:0", "c2VjcmV0 AA=="))
	c.create(spec("acme/journal"))
	c.mustAppend("acme/journal", "x")
	wrong := c.with(metadata.AppendToOutgoingContext(c.ctx, "authorization", "Bearer "+token8(t, []byte{0}, `{"cap":4294967295,"exp":4102444800}`)))
	wrong.refused("a token of the pseudo-key", wrong.call("List", nil), codes.Unauthenticated)
}

// A socket in the file system serves the same, and its endpoint can be dialed as routes give it.
func TestUnixSocket(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "fs") // the names of sockets are short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	c := dial(t, serveHere(t, "unix", dir+"/s", ""))
	c.create(spec("acme/journal"))
	endpoint := c.mustAppend("acme/journal", "content").sub("header").sub("route").texts("endpoints")[0]
	if got, _ := dial(t, endpoint).readAll(object{"journal": "acme/journal"}); got != "content" {
		t.Errorf("at %s there is %q", endpoint, got)
	}
	byHTTP := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", dir+"/s")
		},
	}}
	resp, err := byHTTP.Get("http://localhost/acme/journal")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "content" {
		t.Errorf("by HTTP: %q, %v", b, err)
	}
}
