package coordinator_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/coordinator"
	"github.com/daybook-dev/daybook/coordinator/access"
	"github.com/daybook-dev/daybook/logs/types"
)

// guarded returns the house's streams behind a Coordinator that asks its callers who they are.
func guarded(t *testing.T, h *house) *coordinator.Coordinator {
	t.Helper()
	rules := settings(t, `
projects:
  local:
    access:
      - principals: ["user:reader"]
        roles: [reader]
      - principals: ["user:remover"]
        roles: [reader]
        permissions: [logdog.logs.deletePrefix]
      - principals: ["user:inside"]
        realm: builds
        roles: [reader]
        permissions: [logdog.logs.deletePrefix]
  other: {}
`)
	c, err := coordinator.New(coordinator.Config{
		Store: h.store, Storage: h.storage, Archives: h.archives, Access: access.NewRules(rules, true), Settings: rules,
		Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

var everybody = callers{
	"reader":  {Name: "user:reader"},
	"remover": {Name: "user:remover"},
	"inside":  {Name: "user:inside"},
	"nobody":  {Name: "user:nobody"},
	"admin":   {Name: "token:admin", Permissions: []access.Permission{access.Admin}},
}

// Each method, for each kind of caller: what they may do, and the refusals of the others, which do not tell what is there.
func TestAccess(t *testing.T) {
	h := newHouse(t)
	h.register("stdout")
	h.put("stdout", 0)
	_, err := h.Registration().RegisterPrefix(t.Context(), &logdog.RegisterPrefixRequest{Project: project, Prefix: "inner", Realm: "builds"})
	if err != nil {
		t.Fatal(err)
	}
	logs, v1 := serveTo(t, guarded(t, h), everybody)
	type callOf func(ctx context.Context, in, prefix, name string) error
	get := func(ctx context.Context, in, p, name string) error {
		_, err := logs.Get(ctx, &logdog.GetRequest{Project: in, Path: p + "/+/" + name})
		return err
	}
	follow := func(ctx context.Context, in, p, name string) error {
		f, err := v1.Follow(ctx, &daybookv1.FollowRequest{Project: in, Path: p + "/+/" + name, BacklogOnly: true})
		for err == nil {
			_, err = f.Recv()
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
	tail := func(ctx context.Context, in, p, name string) error {
		_, err := logs.Tail(ctx, &logdog.TailRequest{Project: in, Path: p + "/+/" + name})
		return err
	}
	byID := func(ctx context.Context, in, p, name string) error {
		_, err := logs.Get(ctx, &logdog.GetRequest{Project: in, Path: string(types.StreamName(p).Join(types.StreamName(name)).ID())})
		return err
	}
	query := func(ctx context.Context, in, p, _ string) error {
		_, err := logs.Query(ctx, &logdog.QueryRequest{Project: in, Path: p})
		return err
	}
	stream := func(ctx context.Context, in, p, name string) error {
		_, err := v1.GetStream(ctx, &daybookv1.GetStreamRequest{Project: in, Path: p + "/+/" + name})
		return err
	}
	const (
		ok       = codes.OK
		absent   = codes.NotFound
		refused  = codes.PermissionDenied
		stranger = codes.Unauthenticated
	)
	for what, test := range map[string]struct {
		call callOf
		// in, p and name say of what.
		in, p, name                              string
		anonymous, nobody, reader, inside, admin codes.Code
	}{
		"Get":                   {get, project, prefix, "stdout", stranger, refused, ok, refused, ok},
		"Get, no stream":        {get, project, prefix, "none", stranger, refused, absent, refused, absent},
		"Get, no prefix":        {get, project, "none", "stdout", stranger, refused, refused, refused, refused},
		"Get, no project":       {get, "none", prefix, "stdout", stranger, refused, refused, refused, refused},
		"Get, other project":    {get, "other", prefix, "stdout", stranger, refused, refused, refused, refused},
		"Get, other realm":      {get, project, "inner", "none", stranger, refused, absent, absent, absent},
		"Get by id":             {byID, project, prefix, "stdout", stranger, refused, ok, refused, ok},
		"Get by id, none":       {byID, project, prefix, "none", stranger, refused, refused, refused, refused},
		"Tail":                  {tail, project, prefix, "stdout", stranger, refused, ok, refused, ok},
		"Tail, no stream":       {tail, project, prefix, "none", stranger, refused, absent, refused, absent},
		"Tail, no prefix":       {tail, project, "none", "stdout", stranger, refused, refused, refused, refused},
		"Query":                 {query, project, prefix, "", stranger, refused, ok, refused, ok},
		"Query, no prefix":      {query, project, "none", "", stranger, refused, refused, refused, refused},
		"Query, no project":     {query, "none", prefix, "", stranger, refused, refused, refused, refused},
		"Query, other realm":    {query, project, "inner", "", stranger, refused, ok, ok, ok},
		"GetStream":             {stream, project, prefix, "stdout", stranger, refused, ok, refused, ok},
		"GetStream, no stream":  {stream, project, prefix, "none", stranger, refused, absent, refused, absent},
		"GetStream, no prefix":  {stream, project, "none", "stdout", stranger, refused, absent, refused, absent},
		"GetStream, no project": {stream, "none", prefix, "stdout", stranger, refused, refused, refused, refused},
		"Follow":                {follow, project, prefix, "stdout", stranger, refused, ok, refused, ok},
		"Follow, no prefix":     {follow, project, "none", "stdout", stranger, refused, absent, refused, absent},
		"FindStreams": {func(ctx context.Context, in, _, _ string) error {
			_, err := v1.FindStreams(ctx, &daybookv1.FindStreamsRequest{Project: in})
			return err
		}, project, "", "", stranger, refused, ok, ok, ok},
		"FindStreams, no project": {func(ctx context.Context, in, _, _ string) error {
			_, err := v1.FindStreams(ctx, &daybookv1.FindStreamsRequest{Project: in})
			return err
		}, "none", "", "", stranger, refused, refused, refused, refused},
		"FindStreams, purged": {func(ctx context.Context, in, _, _ string) error {
			_, err := v1.FindStreams(ctx, &daybookv1.FindStreamsRequest{Project: in, Purged: true})
			return err
		}, project, "", "", stranger, refused, refused, ok, ok},
		"ListPrefixes": {func(ctx context.Context, in, _, _ string) error {
			_, err := v1.ListPrefixes(ctx, &daybookv1.ListPrefixesRequest{Project: in})
			return err
		}, project, "", "", stranger, refused, ok, ok, ok},
		"ListFolders": {func(ctx context.Context, in, _, _ string) error {
			_, err := v1.ListFolders(ctx, &daybookv1.ListFoldersRequest{Project: in})
			return err
		}, project, "", "", stranger, refused, ok, refused, ok},
		"GetUsage": {func(ctx context.Context, in, _, _ string) error {
			_, err := v1.GetUsage(ctx, &daybookv1.GetUsageRequest{Project: in})
			return err
		}, project, "", "", stranger, refused, ok, refused, ok},
		"ListProjects": {func(ctx context.Context, _, _, _ string) error {
			_, err := v1.ListProjects(ctx, &daybookv1.ListProjectsRequest{})
			return err
		}, "", "", "", stranger, refused, ok, ok, ok},
		"DeletePrefix, not allowed": {func(ctx context.Context, in, p, _ string) error {
			if caller(ctx) == "admin" {
				return nil
			}
			_, err := logs.DeletePrefix(ctx, &logdog.DeletePrefixRequest{Project: in, Prefix: p})
			return err
		}, project, prefix, "", stranger, refused, refused, refused, ok},
		"DeletePrefix, by id": {func(ctx context.Context, in, p, _ string) error {
			if caller(ctx) == "admin" {
				return nil
			}
			_, err := logs.DeletePrefix(ctx, &logdog.DeletePrefixRequest{Project: in, Prefix: string(types.StreamName(p).PrefixID())})
			return err
		}, project, prefix, "", stranger, refused, refused, refused, ok},
		"DeletePrefix, none": {func(ctx context.Context, in, _, _ string) error {
			_, err := logs.DeletePrefix(ctx, &logdog.DeletePrefixRequest{Project: in, Prefix: "none"})
			return err
		}, project, "", "", stranger, refused, refused, refused, absent},
		"Purge, none": {func(ctx context.Context, in, p, _ string) error {
			_, err := v1.Purge(ctx, &daybookv1.PurgeRequest{Project: in, Path: p + "/+/none"})
			return err
		}, project, prefix, "", stranger, refused, refused, refused, absent},
		"Purge, not allowed": {func(ctx context.Context, in, p, _ string) error {
			if caller(ctx) == "admin" {
				return nil
			}
			_, err := v1.Purge(ctx, &daybookv1.PurgeRequest{Project: in, Prefix: p})
			return err
		}, project, prefix, "", stranger, refused, refused, refused, ok},
		"Undelete, not allowed": {func(ctx context.Context, in, p, _ string) error {
			_, err := v1.Undelete(ctx, &daybookv1.UndeleteRequest{Project: in, Path: p + "/+/stdout"})
			return err
		}, project, prefix, "", stranger, refused, refused, refused, ok},
	} {
		for name, want := range map[string]codes.Code{
			"anonymous": test.anonymous, "nobody": test.nobody, "reader": test.reader, "inside": test.inside, "admin": test.admin,
		} {
			wantCode(t, what+" by "+name, test.call(as(t.Context(), name), test.in, test.p, test.name), want)
		}
	}

	// Who sees a part of a project finds that part.
	for name, want := range map[string][]string{"reader": {"inner", prefix}, "inside": {"inner"}} {
		resp, err := v1.ListPrefixes(as(t.Context(), name), &daybookv1.ListPrefixesRequest{Project: project})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, p := range resp.GetPrefixes() {
			got = append(got, p.GetPrefix())
		}
		equal(t, "prefixes of "+name, got, want)
	}
	for name, want := range map[string]int{"reader": 1, "inside": 0} {
		resp, err := v1.FindStreams(as(t.Context(), name), &daybookv1.FindStreamsRequest{Project: project})
		if err != nil || len(resp.GetStreams()) != want {
			t.Errorf("streams of %s: %v, %v", name, resp, err)
		}
	}
}

// The refusal of what is not there is that of what may not be seen, to the letter.
func TestHiddenIsAsRefused(t *testing.T) {
	h := newHouse(t)
	h.register("stdout")
	logs, v1 := serveTo(t, guarded(t, h), everybody)
	for _, name := range []string{"anonymous", "nobody", "inside"} {
		ctx := as(t.Context(), name)
		refusal := func(p string) string {
			_, err := logs.Get(ctx, &logdog.GetRequest{Project: project, Path: p + "/+/stdout"})
			return err.Error()
		}
		if there, not := refusal(prefix), refusal("none"); there != not {
			t.Errorf("%s is told\n%s of what is there, and\n%s of what is not", name, there, not)
		}
		removal := func(p string) string {
			_, err := v1.Purge(ctx, &daybookv1.PurgeRequest{Project: project, Prefix: p})
			return err.Error()
		}
		if there, not := removal(prefix), removal("none"); there != not {
			t.Errorf("%s is told\n%s of what is there, and\n%s of what is not", name, there, not)
		}
	}
}
