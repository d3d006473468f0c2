package broker_test

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/daybook-dev/daybook/journal/auth"
	"github.com/daybook-dev/daybook/journal/broker"
	"github.com/daybook-dev/daybook/journal/broker/engine/disklog"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// guarded is a cluster that demands tokens, with the journals mine/a, mine/b and theirs/a.
type guarded struct {
	*cluster
	keys *auth.Keys
}

func startGuarded(t *testing.T) *guarded {
	keys, err := auth.ParseKeys(base64.StdEncoding.EncodeToString([]byte("a key")))
	if err != nil {
		t.Fatal(err)
	}
	g := &guarded{startWith(t, t.TempDir(), disklog.Options{}, broker.Config{Callers: keys}), keys}
	t.Cleanup(g.stop)
	var changes []*protocol.ApplyRequest_Change
	for _, name := range []string{"mine/a", "mine/b", "theirs/a"} {
		s := spec(name)
		s.Labels = protocol.MustLabelSet("owner", strings.SplitN(name, "/", 2)[0])
		changes = append(changes, &protocol.ApplyRequest_Change{Upsert: s})
	}
	if _, err := g.client.Apply(g.as(auth.Apply, ""), &protocol.ApplyRequest{Changes: changes}); err != nil {
		t.Fatal(err)
	}
	return g
}

func (g *guarded) token(c auth.Capability, selector string, life time.Duration) string {
	g.t.Helper()
	sel, err := protocol.ParseLabelSelector(selector)
	if err != nil {
		g.t.Fatal(err)
	}
	token, err := g.keys.Sign(auth.Claims{Capability: c, Selector: sel, Expires: time.Now().Add(life)})
	if err != nil {
		g.t.Fatal(err)
	}
	return "Bearer " + token
}

// as returns a context with a token.
func (g *guarded) as(c auth.Capability, selector string) context.Context {
	return metadata.AppendToOutgoingContext(g.t.Context(), "authorization", g.token(c, selector, time.Hour))
}

// every makes one call of each method.
func (g *guarded) every(ctx context.Context, journal string) map[string]error {
	out := make(map[string]error)
	first := func(name string, open error, recv func() error) {
		if open == nil {
			open = recv()
		}
		if errors.Is(open, io.EOF) {
			open = nil
		}
		out[name] = open
	}
	list, err := g.client.List(ctx, &protocol.ListRequest{})
	first("List", err, func() error { _, err := list.Recv(); return err })
	_, out["Apply"] = g.client.Apply(ctx, &protocol.ApplyRequest{Changes: []*protocol.ApplyRequest_Change{{Delete: journal + "/none", ExpectModRevision: -1}}})
	read, err := g.client.Read(ctx, &protocol.ReadRequest{Journal: journal})
	first("Read", err, func() error { _, err := read.Recv(); return err })
	appended, err := g.client.Append(ctx)
	first("Append", err, func() error {
		_ = appended.Send(&protocol.AppendRequest{Journal: journal})
		_ = appended.Send(&protocol.AppendRequest{})
		_, err := appended.CloseAndRecv()
		return err
	})
	_, out["ListFragments"] = g.client.ListFragments(ctx, &protocol.FragmentsRequest{Journal: journal})
	_, out["FragmentStoreHealth"] = g.client.FragmentStoreHealth(ctx, &protocol.FragmentStoreHealthRequest{FragmentStore: "file:///x/"})
	replicate, err := g.client.Replicate(ctx)
	first("Replicate", err, func() error { _, err := replicate.Recv(); return err })
	return out
}

func TestEveryMethodNeedsItsCapability(t *testing.T) {
	g := startGuarded(t)
	needs := map[string]auth.Capability{
		"List": auth.List, "Apply": auth.Apply, "Read": auth.Read, "Append": auth.Append,
		"ListFragments": auth.Read, "FragmentStoreHealth": auth.Read, "Replicate": auth.Replicate,
	}
	callers := map[string]context.Context{
		"nobody":    t.Context(),
		"nonsense":  metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer nonsense"),
		"no scheme": metadata.AppendToOutgoingContext(t.Context(), "authorization", strings.TrimPrefix(g.token(auth.All, "", time.Hour), "Bearer ")),
		"the past":  metadata.AppendToOutgoingContext(t.Context(), "authorization", g.token(auth.All, "", -time.Minute)),
	}
	for who, ctx := range callers {
		for method, err := range g.every(ctx, "mine/a") {
			if status.Code(err) != codes.Unauthenticated {
				t.Errorf("%s may %s: %v", who, method, err)
			}
		}
	}
	for _, c := range []auth.Capability{auth.List, auth.Apply, auth.Read, auth.Append, auth.Replicate, auth.All} {
		for method, err := range g.every(g.as(c, ""), "mine/a") {
			if refused := status.Code(err) == codes.Unauthenticated; refused == c.Has(needs[method]) {
				t.Errorf("%s with %s: %v", method, c, err)
			}
		}
	}
}

// A journal that the token does not select is one that does not exist.
func TestSelectors(t *testing.T) {
	g := startGuarded(t)
	const notFound = protocol.Status_JOURNAL_NOT_FOUND
	for _, selector := range []string{"owner=mine", "name:prefix=mine/", "name in (mine/a,mine/b)", "owner!=theirs"} {
		ctx := g.as(auth.All, selector)
		for journal, found := range map[string]bool{"mine/a": true, "mine/b;meta": true, "theirs/a": false, "none/a": false} {
			read, err := g.client.Read(ctx, &protocol.ReadRequest{Journal: journal})
			if err != nil {
				t.Fatal(err)
			}
			resp, err := read.Recv()
			if err != nil || (resp.GetStatus() == notFound) == found || !found && len(resp.GetHeader().GetRoute().GetMembers()) != 0 {
				t.Errorf("%s reads %s: %v, %v", selector, journal, resp, err)
			}
			stream, err := g.client.Append(ctx)
			if err != nil {
				t.Fatal(err)
			}
			_ = stream.Send(&protocol.AppendRequest{Journal: journal})
			_ = stream.Send(&protocol.AppendRequest{})
			if resp, err := stream.CloseAndRecv(); err != nil || (resp.GetStatus() == notFound) == found {
				t.Errorf("%s appends to %s: %v, %v", selector, journal, resp, err)
			}
			if resp, err := g.client.ListFragments(ctx, &protocol.FragmentsRequest{Journal: journal}); err != nil || (resp.GetStatus() == notFound) == found {
				t.Errorf("%s lists fragments of %s: %v, %v", selector, journal, resp, err)
			}
		}
		stream, err := g.client.List(ctx, &protocol.ListRequest{})
		if err != nil {
			t.Fatal(err)
		}
		resp, err := stream.Recv()
		if err != nil || len(resp.GetJournals()) != 2 || resp.GetJournals()[0].GetSpec().GetName() != "mine/a" {
			t.Errorf("%s lists %v, %v", selector, resp, err)
		}
	}
}

// An upsert is judged by the labels it sets, a deletion by the name only, and one bad change refuses all.
func TestSelectorsOfApply(t *testing.T) {
	g := startGuarded(t)
	labeled := func(name, owner string) *protocol.ApplyRequest_Change {
		s := spec(name)
		s.Labels = protocol.MustLabelSet("owner", owner)
		return &protocol.ApplyRequest_Change{Upsert: s, ExpectModRevision: -1}
	}
	remove := func(name string) *protocol.ApplyRequest_Change {
		return &protocol.ApplyRequest_Change{Delete: name, ExpectModRevision: -1}
	}
	for _, test := range []struct {
		selector string
		changes  []*protocol.ApplyRequest_Change
		want     codes.Code
	}{
		{"owner=mine", []*protocol.ApplyRequest_Change{labeled("mine/c", "mine")}, codes.OK},
		{"owner=mine", []*protocol.ApplyRequest_Change{labeled("mine/c", "theirs")}, codes.Unauthenticated},
		{"owner=mine", []*protocol.ApplyRequest_Change{labeled("mine/d", "mine"), labeled("mine/e", "theirs")}, codes.Unauthenticated},
		{"owner=mine", []*protocol.ApplyRequest_Change{remove("mine/c")}, codes.Unauthenticated},
		{"name:prefix=mine/", []*protocol.ApplyRequest_Change{remove("theirs/a")}, codes.Unauthenticated},
		{"name:prefix=mine/", []*protocol.ApplyRequest_Change{remove("mine/c")}, codes.OK},
	} {
		if _, err := g.client.Apply(g.as(auth.Apply, test.selector), &protocol.ApplyRequest{Changes: test.changes}); status.Code(err) != test.want {
			t.Errorf("%s applies %v: %v", test.selector, test.changes, err)
		}
	}
	var names []string
	for _, s := range g.log.Specs().All {
		names = append(names, s.GetName())
	}
	if !slices.Equal(names, []string{"mine/a", "mine/b", "theirs/a"}) {
		t.Errorf("journals %v", names)
	}
}

// Calls end with their token. Those that wait end cleanly, so that the client comes back with another.
func TestTokensBoundCalls(t *testing.T) {
	g := startGuarded(t)
	// Tokens are good for a leeway of five seconds after their end.
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", g.token(auth.All, "", -4*time.Second))
	read, err := g.client.Read(ctx, &protocol.ReadRequest{Journal: "mine/a", Block: true})
	if err != nil {
		t.Fatal(err)
	}
	watch, err := g.client.List(ctx, &protocol.ListRequest{Watch: true})
	if err != nil {
		t.Fatal(err)
	}
	stalled, err := g.client.Append(ctx)
	if err != nil {
		t.Fatal(err)
	}
	_ = stalled.Send(&protocol.AppendRequest{Journal: "mine/a"})
	_ = stalled.Send(&protocol.AppendRequest{Content: []byte("x")})
	if _, err := read.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the read ends with %v", err)
	}
	for err = nil; err == nil; _, err = watch.Recv() {
	}
	if !errors.Is(err, io.EOF) {
		t.Errorf("the watch ends with %v", err)
	}
	if err := stalled.RecvMsg(new(protocol.AppendResponse)); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("the append ends with %v", err)
	}
}

func TestGatewaysNeedTokens(t *testing.T) {
	g := startGuarded(t)
	base := g.gateway(broker.GatewayConfig{}).URL
	mine := g.token(auth.All, "owner=mine", time.Hour)
	reader := g.token(auth.Read, "", time.Hour)
	put := func(journal string, headers ...string) exchange {
		return do(t, http.MethodPut, base+"/journals/"+journal, strings.NewReader("x"), headers...)
	}
	put("mine/a", "Authorization", mine).expect(t, http.StatusNoContent, "")
	put("theirs/a", "Authorization", mine).expect(t, http.StatusInternalServerError, "JOURNAL_NOT_FOUND")
	for what, headers := range map[string][]string{
		"nobody": nil, "no scheme": {"Authorization", "x"}, "nonsense": {"Authorization", "Bearer x"}, "a reader": {"Authorization", reader},
		"another header": {"Grpc-Metadata-Authorization", mine},
	} {
		if e := put("mine/a", headers...); e.StatusCode != http.StatusUnauthorized || e.Header.Get("WWW-Authenticate") != "Bearer" {
			t.Errorf("%s may append: %d %s", what, e.StatusCode, e.body)
		}
	}
	get := func(path string, headers ...string) exchange {
		return do(t, http.MethodGet, base+path, nil, headers...)
	}
	get("/journals/mine/a", "Authorization", mine).expect(t, http.StatusPartialContent, "x")
	get("/journals/mine/a", "Authorization", mine, "Range", "bytes=-1").expect(t, http.StatusPartialContent, "x")
	get("/journals/theirs/a", "Authorization", mine).expect(t, http.StatusNotFound, "JOURNAL_NOT_FOUND")
	for _, requested := range []string{"bytes=0-", "bytes=-1"} {
		if e := get("/journals/mine/a", "Range", requested); e.StatusCode != http.StatusUnauthorized {
			t.Errorf("nobody may read: %d %s", e.StatusCode, e.body)
		}
	}
	for _, path := range []string{"/v1/journals/list", "/v1/journals/read"} {
		e, lines := post(t, base+path, `{"journal":"mine/a"}`)
		if e.StatusCode != http.StatusUnauthorized || lines[0]["error"].(map[string]any)["grpcCode"] != 16.0 {
			t.Errorf("nobody may use %s: %d %s", path, e.StatusCode, e.body)
		}
		if e, _ := post(t, base+path, `{"journal":"theirs/a"}`, "Authorization", mine); e.StatusCode != http.StatusOK || strings.Contains(e.body, `"name":"theirs/a"`) {
			t.Errorf("%s shows what is theirs: %s", path, e.body)
		}
	}
}
