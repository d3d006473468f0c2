//go:build unix

package foreign

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// What a server does that is asked to stop while foreign clients are in the middle of everything: reads and watches end
// cleanly, appends under way may finish, nobody who says nothing or takes nothing holds it up, and what was acknowledged is
// there afterwards.
func TestShutdown(t *testing.T) {
	t.Parallel()
	server, c := serve(t)
	c.create(spec("acme/journal"), spec("acme/large"), spec("acme/byhttp"))
	c.mustAppend("acme/journal", "acknowledged")
	for range 4 {
		c.mustAppend("acme/large", strings.Repeat("x", 3<<20))
	}

	tail := c.start("Read", object{"journal": "acme/journal", "offset": 12, "block": true})
	watch := c.start("List", object{"watch": true})
	if _, _ = snapshot(t, watch, true); t.Failed() {
		return
	}
	// One who reads, and takes nothing of it; by gRPC, and by HTTP.
	stuck := dial(t, server.URL)
	stuckRead := stuck.start("Read", object{"journal": "acme/large"})
	if _, err := stuckRead.recv(); err != nil {
		t.Fatal(err)
	}
	stuckHTTP := connect(t, server.Addr, "GET /journals/acme/large?block=true HTTP/1.1\r\nHost: "+server.Addr+"\r\n\r\n")
	if line, err := bufio.NewReader(io.LimitReader(stuckHTTP, 64)).ReadString('\n'); err != nil || !strings.Contains(line, "206") {
		t.Fatalf("%q, %v", line, err)
	}
	// Ones who have opened what they never use.
	silent := dial(t, server.URL).open("Append")
	silent.send(object{"journal": "acme/none"}) // so that the stream is known to be there
	if _, err := silent.recv(); err != nil {
		t.Fatal(err)
	}
	halfOpen := dial(t, server.URL).open("Append")
	_ = connect(t, server.Addr, "PUT /journals/acme/journal HTTP/1.1\r\nHost: "+server.Addr+"\r\nContent-Le")
	_ = connect(t, server.Addr, "")
	_ = connect(t, server.Addr, "PRI * HTTP/2.0\r\n")
	_ = connect(t, server.Addr, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	// Ones who are in the middle of an append.
	appending := c.open("Append")
	appending.send(object{"journal": "acme/journal"})
	appending.send(object{"content": []byte("under")})
	puts := connect(t, server.Addr, "PUT /journals/acme/byhttp HTTP/1.1\r\nHost: "+server.Addr+"\r\nContent-Length: 10\r\n\r\nunder")
	await(t, "two appends under way", func() bool { return scrape(t, server.URL)["daybook_journal_appends_receiving"] == 2 })
	c.blocked(1)

	began := time.Now()
	server.Signal(syscall.SIGTERM)
	if _, err := tail.recv(); !errors.Is(err, io.EOF) {
		t.Errorf("a tail ends with %v", err)
	}
	if _, err := watch.recv(); !errors.Is(err, io.EOF) {
		t.Errorf("a watch ends with %v", err)
	}
	// The broker does not take appends any more, but those that it has.
	appending.send(object{"content": []byte(" way")})
	appending.send(object{})
	_ = appending.CloseSend()
	if resp, err := appending.recv(); err != nil || resp.num("status") != ok {
		t.Errorf("an append under way: %v, %v", resp, err)
	}
	if _, err := io.WriteString(puts, " way\n"); err != nil {
		t.Error(err)
	}
	if resp, err := http.ReadResponse(bufio.NewReader(puts), nil); err != nil || resp.StatusCode != http.StatusNoContent {
		t.Errorf("a PUT under way: %v, %v", resp, err)
	}
	if code := server.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if took := time.Since(began); took > 30*time.Second { // of which it grants ten to those who are slow
		t.Errorf("it took %v", took)
	}
	if _, err := halfOpen.recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("an append that was not begun ends with %v", err)
	}

	server.Restart()
	c = dial(t, server.URL)
	for journal, want := range map[string]string{"acme/journal": "acknowledgedunder way", "acme/byhttp": "under way\n"} {
		if got, _ := c.readAll(object{"journal": journal}); got != want {
			t.Errorf("%s has %q, want %q", journal, got, want)
		}
	}
	if strings.Contains(server.Stderr.String(), "panic") {
		t.Error(fmt.Sprint(server.Stderr))
	}
}

// connect opens a connection and says something.
func connect(t testing.TB, addr, what string) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	_, _ = io.WriteString(conn, what) // which the server may refuse half-way
	return conn.(*net.TCPConn)
}
