package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/daybook-dev/daybook/api/client"
	"github.com/daybook-dev/daybook/api/ingest"
	"github.com/daybook-dev/daybook/coordinator/access"
	"github.com/daybook-dev/daybook/internal/datadir"
	"github.com/daybook-dev/daybook/internal/testkit"
	"github.com/daybook-dev/daybook/logs/types"
)

// openGuarded returns a system whose callers need tokens.
func openGuarded(t testing.TB) *system {
	t.Helper()
	dir, err := datadir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	hold, err := dir.TryHold()
	if err != nil {
		t.Fatal(err)
	}
	s, err := openAndAnnounce(t.Context(), systemConfig{
		layout: embedded, Dir: dir, Kind: datadir.Server, DemandTokens: true, Log: slog.New(slog.DiscardHandler),
	}, hold, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := errors.Join(s.Close(ctx), hold.Release()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// tokenOf creates a token.
func tokenOf(t testing.TB, s *system, name string, ps ...access.Permission) string {
	t.Helper()
	token := &access.Token{Name: name, Permissions: ps}
	if slices.ContainsFunc(ps, func(p access.Permission) bool { return !p.Global() }) {
		token.Projects = []types.Project{"local"}
	}
	secret, err := s.callers.tokens.Create(t.Context(), token, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

func dialAs(t *testing.T, address, token string) *grpc.ClientConn {
	t.Helper()
	conn, err := client.Dial(address, client.Bearer(func(context.Context) string { return token }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// plausible fills a request so that nothing is wrong with it but who makes it.
func plausible(t *testing.T, d protoreflect.MessageDescriptor) proto.Message {
	t.Helper()
	m := dynamicpb.NewMessage(d)
	for name, value := range map[string]string{
		"project": "local", "prefix": "a", "path": "a/+/b", "journal": ingest.DefaultJournal, "topic": ingest.Topic("local"),
		"proto_version": "1", "id": strings.Repeat("ab", 32), "realm": "@legacy", "pattern": "**",
	} {
		if name == "prefix" && d.Fields().ByName("path") != nil {
			continue // one of them is wanted
		}
		if f := d.Fields().ByName(protoreflect.Name(name)); f != nil && f.Kind() == protoreflect.StringKind && !f.IsList() {
			m.Set(f, protoreflect.ValueOfString(value))
		}
	}
	return m
}

// call makes a call and returns how it ends, or codes.OK after a first answer.
func call(t *testing.T, conn *grpc.ClientConn, name string, d protoreflect.MethodDescriptor) codes.Code {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, name)
	if err == nil {
		err = stream.SendMsg(plausible(t, d.Input()))
	}
	if err == nil || errors.Is(err, io.EOF) {
		_ = stream.CloseSend()
		err = stream.RecvMsg(dynamicpb.NewMessage(d.Output()))
	}
	if errors.Is(err, io.EOF) {
		return codes.OK
	}
	return status.Code(err)
}

func methods(t *testing.T, s *system) map[string]protoreflect.MethodDescriptor {
	t.Helper()
	all := make(map[string]protoreflect.MethodDescriptor)
	for service, info := range s.grpcServer.GetServiceInfo() {
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range info.Methods {
			all["/"+service+"/"+m.Name] = d.(protoreflect.ServiceDescriptor).Methods().ByName(protoreflect.Name(m.Name))
		}
	}
	return all
}

// No method of any service does anything for callers who show nothing, or what does not suffice.
func TestEveryMethodRefuses(t *testing.T) {
	s := openGuarded(t)
	open := []string{"/daybook.v1.Access/Identify"}
	callers := map[string]*grpc.ClientConn{
		"nobody":  dialAs(t, s.Address(), ""),
		"nothing": dialAs(t, s.Address(), tokenOf(t, s, "nothing")),
		"bad":     dialAs(t, s.Address(), access.TokenPrefix+"bad"),
		"foreign": dialAs(t, s.Address(), "eyJ.foreign.token"),
	}
	all := methods(t, s)
	if len(all) < 30 {
		t.Fatalf("only %d methods were found", len(all))
	}
	for name, d := range all {
		for who, conn := range callers {
			got := call(t, conn, name, d)
			want := []codes.Code{codes.Unauthenticated}
			if got == codes.Unimplemented && strings.HasPrefix(name, "/google.pubsub.v1.") {
				continue // most of it is
			}
			switch {
			case slices.Contains(open, name) && (who == "nobody" || who == "nothing"):
				want = []codes.Code{codes.OK}
			case who == "nothing":
				want = []codes.Code{codes.PermissionDenied}
			case who == "nobody" && demands[strings.Split(name, "/")[1]] == access.Services:
				want = []codes.Code{codes.PermissionDenied} // spec coordinator 3.4
			}
			if !slices.Contains(want, got) {
				t.Errorf("%s by %s: %v, want %v", name, who, got, want)
			}
		}
	}
}

// Callers who may not make a call are told so before the server has taken what they send, which may be much.
func TestRefusalsComeFirst(t *testing.T) {
	s := openGuarded(t)
	callers := map[string]*grpc.ClientConn{
		"bad":    dialAs(t, s.Address(), access.TokenPrefix+"bad"),
		"nobody": dialAs(t, s.Address(), ""),
		"writer": dialAs(t, s.Address(), tokenOf(t, s, "writer", access.Create)),
	}
	for name := range methods(t, s) {
		for who, conn := range callers {
			switch {
			case who == "bad":
			case name == "/protocol.Journal/List" && who == "writer", name == "/protocol.Journal/Append" && who == "writer":
				continue // who may
			case !strings.HasPrefix(name, "/protocol.Journal/"):
				continue // what it is about decides
			}
			ctx, cancel := context.WithTimeout(t.Context(), testkit.Patience)
			stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, name)
			if err == nil {
				err = stream.RecvMsg(new(emptypb.Empty))
			}
			cancel()
			if c := status.Code(err); c != codes.Unauthenticated && c != codes.PermissionDenied {
				t.Errorf("%s by %s, who has sent nothing: %v", name, who, err)
			}
		}
	}
}

// A permission opens what it is for, and nothing else.
func TestPermissionsOpenTheirMethods(t *testing.T) {
	s := openGuarded(t)
	all := methods(t, s)
	opened := map[access.Permission][]string{
		access.Create: {
			"/logdog.Registration/RegisterPrefix", "/google.pubsub.v1.Publisher/GetTopic", "/google.pubsub.v1.Publisher/Publish",
			"/protocol.Journal/Append", "/protocol.Journal/List", "/daybook.journal.v1.Pipeline/",
		},
		access.Get: nil, access.List: nil, access.DeletePrefix: nil,
		access.Services: {
			"/logdog.Services/", "/daybook.v1.Leases/", "/daybook.journal.v1.Pipeline/", "/daybook.journal.v1.Trim/", "/protocol.Journal/Append", "/protocol.Journal/List",
			"/protocol.Journal/ListFragments", "/protocol.Journal/Read",
			"/protocol.Journal/FragmentStoreHealth",
		},
	}
	for p, prefixes := range opened {
		conn := dialAs(t, s.Address(), tokenOf(t, s, string(p), p))
		for name, d := range all {
			if strings.HasPrefix(name, "/daybook.v1.Logs/") || name == "/daybook.v1.Access/Identify" || strings.HasPrefix(name, "/logdog.Logs/") {
				continue // what each needs is tested where they are
			}
			got := call(t, conn, name, d)
			if got == codes.Unimplemented && strings.HasPrefix(name, "/google.pubsub.v1.") {
				continue // most of it is
			}
			may := slices.ContainsFunc(prefixes, func(prefix string) bool {
				return name == prefix || strings.HasSuffix(prefix, "/") && strings.HasPrefix(name, prefix)
			})
			if refused := got == codes.PermissionDenied || got == codes.Unauthenticated; refused == may {
				t.Errorf("%s with %s: %v", name, p, got)
			}
		}
	}
	admin := dialAs(t, s.Address(), tokenOf(t, s, "admin", access.Admin))
	for name, d := range all {
		if strings.HasPrefix(name, "/logdog.Logs/") || strings.HasPrefix(name, "/daybook.v1.Logs/") {
			continue // prefix a does not exist, which looks the same
		}
		if got := call(t, admin, name, d); got == codes.PermissionDenied || got == codes.Unauthenticated {
			t.Errorf("%s by an administrator: %v", name, got)
		}
	}
}

// No route does anything for those who show nothing, but those that must.
func TestEveryRouteRefuses(t *testing.T) {
	s := openGuarded(t)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	c := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	status := func(method, path, token, accept string) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.Address()+path, strings.NewReader(`{"project":"local","path":"a/+/b"}`))
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		r.Header.Set("Accept", accept)
		r.Header.Set("Content-Type", "application/json")
		resp, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode, resp.Header.Get("Location")
	}
	open := []string{"/login", "/logout", "/static/", "/healthz", "/readyz"}
	paths := []string{
		"/journals/" + ingest.DefaultJournal, "/" + ingest.DefaultJournal, "/no/such/path",
		"/logs/local/a/+/b", "/logs/local/a/+/b?format=raw", "/logs/nope/a/+/b", "/v/?s=local/a/+/b", "/v1/journals/list", "/v1/journals/read",
		"/api/v1/version", "/api/v1/projects", "/api/v1/streams?project=local", "/api/v1/prefixes?project=local", "/api/v1/stream/local/a/+/b",
		"/api/v1/entries/local/a/+/b", "/api/v1/follow/local/a/+/b", "/debug/ready", "/debug/pprof/heap", "/prpc/logdog.Logs/Get",
	}
	for _, pattern := range s.patterns {
		_, path, ok := strings.Cut(pattern, " ")
		if !ok {
			path = pattern
		}
		paths = append(paths, strings.TrimSuffix(path, "{$}"))
	}
	if len(paths) < 35 {
		t.Fatalf("only %d paths were found", len(paths))
	}
	nothing := tokenOf(t, s, "nothing")
	for _, path := range paths {
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodHead} {
			if slices.Contains(open, path) && (method == http.MethodGet || method == http.MethodHead) {
				if got, _ := status(method, path, "", "*/*"); got == http.StatusUnauthorized || got == http.StatusForbidden {
					t.Errorf("%s %s: %d, but it is for everybody", method, path, got)
				}
				continue
			}
			if got, _ := status(method, path, "", "*/*"); !refused(path, method, got, http.StatusUnauthorized) {
				t.Errorf("%s %s by nobody: %d", method, path, got)
			}
			if got, _ := status(method, path, nothing, "*/*"); !refused(path, method, got, http.StatusForbidden) {
				t.Errorf("%s %s with a token of no use: %d", method, path, got)
			}
			if slices.Contains(open, path) || path == "/handover" {
				continue // who has no good token comes there for a better one, or shows one of another kind
			}
			if got, _ := status(method, path, access.TokenPrefix+"bad", "*/*"); got != http.StatusUnauthorized {
				t.Errorf("%s %s with a bad token: %d", method, path, got)
			}
		}
	}
	// People are led to the login, and back.
	if code, to := status(http.MethodGet, "/logs/local/a/+/b", "", "text/html"); code != http.StatusFound || to != "/login?next=%2Flogs%2Flocal%2Fa%2F%2B%2Fb" {
		t.Errorf("a visit: %d to %q", code, to)
	}
}

// refused reports whether a status is a refusal, or would be the same for everybody.
func refused(path, method string, got, want int) bool {
	switch {
	case got == want, got == http.StatusMethodNotAllowed:
		return true
	case path == "/handover":
		return got == http.StatusUnauthorized
	case path == "/login", path == "/logout": // nobody needs a token to give theirs away, and the form was not sent
		return method == http.MethodPost && (got == http.StatusUnauthorized || got == http.StatusSeeOther)
	}
	return false
}

// What comes by a door is what the door's listener is for.
func TestLocalDoorIsOnLoopback(t *testing.T) {
	s := openGuarded(t)
	host, _, err := net.SplitHostPort(s.LocalAddress())
	if err != nil || !isLoopback(host) {
		t.Errorf("%s, %v", s.LocalAddress(), err)
	}
}
