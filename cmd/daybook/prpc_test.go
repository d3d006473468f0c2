//go:build unix

package main

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/daybook-dev/daybook/api/client"
	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/api/prpc"
	"github.com/daybook-dev/daybook/internal/testkit"
)

// followToEnd waits until the Collector has all of these streams.
func followToEnd(t *testing.T, server string, paths ...string) {
	t.Helper()
	conn, err := client.Dial(server)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, path := range paths {
		follow, err := daybookv1.NewLogsClient(conn).Follow(t.Context(), &daybookv1.FollowRequest{Project: "local", Path: path, Wait: true})
		for err == nil {
			_, err = follow.Recv()
		}
		if !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
	}
}

// What existing tools ask of a Coordinator is answered on the one port, about what a command wrote.
func TestPRPC(t *testing.T) {
	s := newShop(t)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	c := &http.Client{Transport: transport}
	p := testkit.Start(t, s.Command("run", "--prefix", "by/prpc", "--", "echo", "hello"))
	if code := p.Wait(); code != 0 {
		t.Fatalf("exit code %d: %s", code, p.Stderr)
	}

	followToEnd(t, s.server.Addr, "by/prpc/+/stdout", "by/prpc/+/stderr")

	conn := prpc.NewClient(prpc.ClientConfig{Host: s.server.Addr, Insecure: true, HTTP: c, UserAgent: "logdog CLI"})
	logs := logdog.NewLogsClient(conn)
	found, err := logs.Query(t.Context(), &logdog.QueryRequest{Project: "local", Path: "by/prpc/+/**"})
	if err != nil || len(found.GetStreams()) != 2 {
		t.Fatal(found, err)
	}
	prefixes, err := daybookv1.NewLogsClient(conn).ListPrefixes(t.Context(), &daybookv1.ListPrefixesRequest{Project: "local"})
	if err != nil || len(prefixes.GetPrefixes()) != 1 {
		t.Error(prefixes, err)
	}
	_, err = logdog.NewRegistrationClient(conn).RegisterPrefix(t.Context(), &logdog.RegisterPrefixRequest{Project: "local", Prefix: "by/prpc"})
	if status.Code(err) != codes.AlreadyExists {
		t.Error(err)
	}
	if _, err := logdog.NewServicesClient(conn).Batch(t.Context(), &logdog.BatchRequest{}); err != nil {
		t.Error(err)
	}

	post := func(body string, headers ...string) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.server.URL+"/prpc/logdog.Logs/Get", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		if host := r.Header.Get("Host"); host != "" {
			r.Host = host
		}
		resp, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, resp.Header.Get("X-Prpc-Grpc-Code") + " " + string(b)
	}
	if code, body := post(`{"project":"local","path":"by/prpc/+/stdout"}`, "Content-Type", "application/json", "Accept", "application/json"); code != 200 ||
		!strings.HasPrefix(body, "0 )]}'\n{") || !strings.Contains(body, "aGVsbG8=") {
		t.Error(code, body)
	}
	// A browser on this machine can reach us, so that we have to ask for whom it does.
	if code, body := post("", "Origin", "https://evil.example"); code != 403 || !strings.HasPrefix(body, "7 ") {
		t.Error(code, body)
	}
	if code, body := post("", "Sec-Fetch-Site", "cross-site"); code != 403 || !strings.HasPrefix(body, "7 ") {
		t.Error(code, body)
	}
	if code, body := post("", "Host", "evil.example"); code != 421 {
		t.Error(code, body)
	}
	if code, body := post(`{"project":"local","path":"by/prpc/+/stdout"}`, "Content-Type", "application/json", "Origin", s.server.URL); code != 200 {
		t.Error(code, body)
	}
	s.server.Stop(testkit.Patience)
}
