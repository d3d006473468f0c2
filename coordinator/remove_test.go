package coordinator_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
)

// names returns the names of streams.
func names(streams []*daybookv1.Stream) (got []string) {
	for _, s := range streams {
		_, name := types.StreamPath(s.GetPath()).Split()
		got = append(got, string(name))
	}
	return got
}

func find(t *testing.T, ctx context.Context, v1 daybookv1.LogsClient, purged bool) []string {
	t.Helper()
	resp, err := v1.FindStreams(ctx, &daybookv1.FindStreamsRequest{Project: project, Purged: purged})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range resp.GetStreams() {
		if (s.GetPurged() != nil) != purged {
			t.Errorf("%s: purged at %v", s.GetPath(), s.GetPurged())
		}
	}
	return names(resp.GetStreams())
}

// What is purged is gone for users and there for administrators, ends those who follow it, and can be taken back.
func TestPurge(t *testing.T) {
	h := newHouse(t)
	for _, name := range []string{"a", "b", "c"} {
		h.register(name)
		h.put(types.StreamName(name), 0)
	}
	h.terminate(h.register("archived"), 0)
	h.archive("archived", 0)
	logs, v1 := serveTo(t, guarded(t, h), everybody)
	user, remover, admin := as(t.Context(), "reader"), as(t.Context(), "remover"), as(t.Context(), "admin")

	follower, err := v1.Follow(user, follow("a"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := follower.Recv(); err != nil {
		t.Fatal(err)
	}
	path := prefix + "/+/a"
	resp, err := v1.Purge(remover, &daybookv1.PurgeRequest{Project: project, Path: path})
	if err != nil || resp.GetStreams() != 1 || !resp.GetUntil().IsValid() || !resp.GetUntil().AsTime().After(timestamppb.Now().AsTime()) {
		t.Fatal(resp, err)
	}
	for err == nil {
		_, err = follower.Recv()
	}
	if !fault.Is(err, fault.NotFound) {
		t.Errorf("the follower of a purged stream ended with %v", err)
	}
	if resp, err := v1.Purge(remover, &daybookv1.PurgeRequest{Project: project, Path: path}); err != nil || resp.GetStreams() != 0 || resp.GetUntil() != nil {
		t.Errorf("purged again: %v, %v", resp, err)
	}
	if resp, err := v1.Purge(remover, &daybookv1.PurgeRequest{Project: project, Path: prefix + "/+/archived"}); err != nil || resp.GetStreams() != 1 {
		t.Errorf("purge of an archived stream: %v, %v", resp, err)
	}

	for _, name := range []string{"a", "archived"} {
		path := prefix + "/+/" + name
		reads := map[string]func(context.Context) (int, error){
			"Get": func(ctx context.Context) (int, error) {
				resp, err := logs.Get(ctx, &logdog.GetRequest{Project: project, Path: path, State: true})
				if err == nil && !resp.GetState().GetPurged() {
					t.Errorf("%s: the state does not say purged", name)
				}
				return len(resp.GetLogs()), err
			},
			"Get by id": func(ctx context.Context) (int, error) {
				resp, err := logs.Get(ctx, &logdog.GetRequest{Project: project, Path: string(types.StreamPath(path).ID())})
				return len(resp.GetLogs()), err
			},
			"Tail": func(ctx context.Context) (int, error) {
				resp, err := logs.Tail(ctx, &logdog.TailRequest{Project: project, Path: path})
				return len(resp.GetLogs()), err
			},
		}
		// In daybook.v1 who may take it back sees it when they ask for it, and nobody does otherwise.
		asked := map[string]func(context.Context, bool) (int, error){
			"GetStream": func(ctx context.Context, purged bool) (int, error) {
				resp, err := v1.GetStream(ctx, &daybookv1.GetStreamRequest{Project: project, Path: path, Purged: purged})
				return int(resp.GetNextIndex()), err
			},
			"Follow": func(ctx context.Context, purged bool) (n int, err error) {
				r := follow(name)
				r.BacklogOnly, r.Purged = true, purged
				f, err := v1.Follow(ctx, r)
				for err == nil {
					var resp *daybookv1.FollowResponse
					resp, err = f.Recv()
					n += len(resp.GetLogs())
				}
				if errors.Is(err, io.EOF) {
					err = nil
				}
				return n, err
			},
		}
		for what, read := range asked {
			for _, ctx := range []context.Context{user, remover, admin} {
				if _, err := read(ctx, false); !fault.Is(err, fault.NotFound) {
					t.Errorf("%s of %s by %s: %v", what, name, caller(ctx), err)
				}
			}
			if _, err := read(user, true); !fault.Is(err, fault.Denied) {
				t.Errorf("%s of %s, asked for by a user: %v", what, name, err)
			}
			for _, ctx := range []context.Context{remover, admin} {
				if n, err := read(ctx, true); n != 1 || err != nil {
					t.Errorf("%s of %s, asked for by %s: %d, %v", what, name, caller(ctx), n, err)
				}
			}
		}
		for what, read := range reads {
			for who, ctx := range map[string]context.Context{"user": user, "remover": remover} {
				if _, err := read(ctx); !fault.Is(err, fault.NotFound) {
					t.Errorf("%s of %s by %s: %v", what, name, who, err)
				}
			}
			if n, err := read(admin); n != 1 || err != nil {
				t.Errorf("%s of %s by admin: %d, %v", what, name, n, err)
			}
		}
	}

	for what, test := range map[string]struct {
		ctx    context.Context
		purged logdog.QueryRequest_Trinary
		want   int
	}{
		"user, both":  {user, logdog.QueryRequest_BOTH, 2},
		"user, no":    {user, logdog.QueryRequest_NO, 2},
		"admin, both": {admin, logdog.QueryRequest_BOTH, 4},
		"admin, yes":  {admin, logdog.QueryRequest_YES, 2},
		"admin, no":   {admin, logdog.QueryRequest_NO, 2},
	} {
		got := 0
		for r := (&logdog.QueryRequest{Project: project, Path: prefix, Purged: test.purged, State: true, MaxResults: 1}); ; {
			resp, err := logs.Query(test.ctx, r)
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			got += len(resp.GetStreams())
			for _, s := range resp.GetStreams() {
				if test.purged == logdog.QueryRequest_YES && !s.GetState().GetPurged() {
					t.Errorf("%s: %v", what, s)
				}
			}
			if r.Next = resp.GetNext(); r.Next == "" {
				break
			}
		}
		equal(t, what, got, test.want)
	}
	if _, err := logs.Query(user, &logdog.QueryRequest{Project: project, Path: prefix, Purged: logdog.QueryRequest_YES}); !fault.Is(err, fault.Invalid) {
		t.Errorf("a user asks for purged streams: %v", err)
	}
	equal(t, "found by a user", find(t, user, v1, false), []string{"c", "b"})
	equal(t, "found by an administrator who does not ask", find(t, admin, v1, false), []string{"c", "b"})
	equal(t, "purged, found by who may remove", find(t, remover, v1, true), []string{"archived", "a"})

	if resp, err := v1.Undelete(remover, &daybookv1.UndeleteRequest{Project: project, Path: path}); err != nil || resp.GetStreams() != 1 {
		t.Fatal(resp, err)
	}
	if resp, err := logs.Get(user, &logdog.GetRequest{Project: project, Path: path}); err != nil || len(resp.GetLogs()) != 1 {
		t.Errorf("taken back: %v, %v", resp, err)
	}
	if resp, err := v1.Purge(remover, &daybookv1.PurgeRequest{Project: project, Prefix: prefix}); err != nil || resp.GetStreams() != 3 {
		t.Errorf("purge of a prefix: %v, %v", resp, err)
	}
	equal(t, "found in a purged prefix", find(t, user, v1, false), []string(nil))
	if resp, err := v1.Undelete(remover, &daybookv1.UndeleteRequest{Project: project, Prefix: prefix}); err != nil || resp.GetStreams() != 4 {
		t.Errorf("prefix taken back: %v, %v", resp, err)
	}
	equal(t, "found in a prefix that was taken back", find(t, user, v1, false), []string{"archived", "c", "b", "a"})

	for _, r := range []*daybookv1.PurgeRequest{
		{Project: project},
		{Project: project, Path: path, Prefix: prefix},
		{Path: path},
		{Project: project, Path: "x"},
		{Project: project, Prefix: "*"},
		{Prefix: prefix},
	} {
		if _, err := v1.Purge(admin, r); !fault.Is(err, fault.Invalid) {
			t.Errorf("purge of %v: %v", r, err)
		}
		if _, err := v1.Undelete(admin, &daybookv1.UndeleteRequest{Project: r.GetProject(), Path: r.GetPath(), Prefix: r.GetPrefix()}); !fault.Is(err, fault.Invalid) {
			t.Errorf("undelete of %v: %v", r, err)
		}
	}
}

// A deleted prefix is as one that was never there, whatever state its streams were in, and takes nothing any more.
func TestDeletePrefix(t *testing.T) {
	for what, name := range map[string]string{"by name": prefix, "by id": string(types.StreamName(prefix).PrefixID())} {
		h := newHouse(t)
		h.register("open")
		h.put("open", 0)
		h.terminate(h.register("archived"), 0)
		h.archive("archived", 0)
		h.register("purged")
		logs, v1 := serveTo(t, guarded(t, h), everybody)
		user, remover := as(t.Context(), "reader"), as(t.Context(), "remover")
		if _, err := v1.Purge(remover, &daybookv1.PurgeRequest{Project: project, Path: prefix + "/+/purged"}); err != nil {
			t.Fatal(err)
		}
		h.registerPrefix("user/build/sibling")
		if _, err := logs.DeletePrefix(remover, &logdog.DeletePrefixRequest{Project: project, Prefix: name}); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		for _, stream := range []string{"open", "archived", "purged"} {
			if _, err := logs.Get(user, &logdog.GetRequest{Project: project, Path: prefix + "/+/" + stream}); !fault.Is(err, fault.Denied) {
				t.Errorf("%s: get of %s: %v", what, stream, err)
			}
			if _, err := v1.GetStream(user, &daybookv1.GetStreamRequest{Project: project, Path: prefix + "/+/" + stream}); !fault.Is(err, fault.NotFound) {
				t.Errorf("%s: %s: %v", what, stream, err)
			}
			if _, err := v1.Undelete(remover, &daybookv1.UndeleteRequest{Project: project, Path: prefix + "/+/" + stream}); err == nil {
				t.Errorf("%s: %s was taken back", what, stream)
			}
		}
		if _, err := logs.Query(user, &logdog.QueryRequest{Project: project, Path: prefix}); !fault.Is(err, fault.Denied) {
			t.Errorf("%s: query: %v", what, err)
		}
		equal(t, what+": found", find(t, user, v1, false), []string(nil))
		equal(t, what+": purged", find(t, remover, v1, true), []string(nil))
		prefixes, err := v1.ListPrefixes(user, &daybookv1.ListPrefixesRequest{Project: project})
		if err != nil || len(prefixes.GetPrefixes()) != 1 || prefixes.GetPrefixes()[0].GetPrefix() != "user/build/sibling" {
			t.Errorf("%s: prefixes %v, %v", what, prefixes, err)
		}
		if _, err := h.Services().RegisterStream(t.Context(), h.registration("late")); err == nil {
			t.Errorf("%s: a stream was registered", what)
		}
		if _, err := logs.DeletePrefix(remover, &logdog.DeletePrefixRequest{Project: project, Prefix: name}); !fault.Is(err, fault.NotFound) {
			t.Errorf("%s: deleted again: %v", what, err)
		}
		for _, bad := range []string{"", "a//b", "a/*", "+"} {
			if _, err := logs.DeletePrefix(remover, &logdog.DeletePrefixRequest{Project: project, Prefix: bad}); !fault.Is(err, fault.Invalid) {
				t.Errorf("delete %q: %v", bad, err)
			}
		}
		if _, err := logs.DeletePrefix(remover, &logdog.DeletePrefixRequest{Prefix: prefix}); !fault.Is(err, fault.Invalid) {
			t.Errorf("no project: %v", err)
		}
	}
}

// What comes to a purged stream is kept as long as it may be taken back: Collectors are told of a purge only when it may not.
func TestPurgedStreamsGrow(t *testing.T) {
	h := newHouse(t)
	h.register("stdout")
	_, v1 := h.serve()
	purged := func(what string, want bool) {
		t.Helper()
		resp, err := h.Services().RegisterStream(t.Context(), h.registration("stdout"))
		if err != nil || resp.GetState().GetPurged() != want {
			t.Errorf("%s: %v, %v", what, resp, err)
		}
	}
	path := prefix + "/+/stdout"
	purged("before", false)
	if _, err := v1.Purge(t.Context(), &daybookv1.PurgeRequest{Project: project, Path: path}); err != nil {
		t.Fatal(err)
	}
	purged("purged", false)
	err := h.store.Update(t.Context(), func(tx state.Tx) error {
		s, err := tx.Stream(project, types.StreamPath(path).ID())
		if err != nil {
			return err
		}
		removal, err := tx.Task(s, state.RemoveTask)
		if err != nil {
			return err
		}
		removal.Available = time.Now().Add(5 * time.Minute)
		return tx.PutTask(removal)
	})
	if err != nil {
		t.Fatal(err)
	}
	purged("soon to be removed", true)
	if _, err := v1.Undelete(t.Context(), &daybookv1.UndeleteRequest{Project: project, Path: path}); err != nil {
		t.Fatal(err)
	}
	purged("taken back", false)
}
