package coordinator_test

import (
	"context"
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/coordinator/access"
	"github.com/daybook-dev/daybook/coordinator/tasks"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
)

// An operator sees what waits and what was given up, has it tried again, or drops it.
func TestOperatorsTasks(t *testing.T) {
	h := newHouse(t)
	s := tasks.New(h.store, access.Open())
	for i := range 3 {
		id := h.register(fmt.Sprint("s", i))
		h.terminate(id, 0)
	}
	leased := h.lease()
	_, err := h.Services().ArchiveStream(t.Context(), &logdog.ArchiveStreamRequest{Project: project, Id: leased[1].GetId(), Error: "no bucket"})
	if err != nil {
		t.Fatal(err)
	}
	list := func(r *daybookv1.ListTasksRequest) (all []*daybookv1.Task) {
		t.Helper()
		for {
			page, err := s.ListTasks(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, page.GetTasks()...)
			if r.PageToken = page.GetNextPageToken(); r.PageToken == "" {
				return all
			}
		}
	}
	if n := len(list(&daybookv1.ListTasksRequest{PageSize: 1})); n != 3 {
		t.Errorf("%d tasks", n)
	}
	dead := list(&daybookv1.ListTasksRequest{Dead: true})
	if len(dead) != 1 || dead[0].GetLastError() != "no bucket" || dead[0].GetPath() != prefix+"/+/s1" || dead[0].GetKind() != daybookv1.TaskKind_ARCHIVE ||
		dead[0].GetDead() == nil {
		t.Fatalf("dead tasks: %v", dead)
	}
	busy := list(&daybookv1.ListTasksRequest{})[0]
	_, err = s.RetryTask(t.Context(), &daybookv1.RetryTaskRequest{Id: busy.GetId()})
	wantCode(t, "retry of a task that is worked on", err, codes.FailedPrecondition)

	again, err := s.RetryTask(t.Context(), &daybookv1.RetryTaskRequest{Id: dead[0].GetId()})
	if err != nil || again.GetDead() != nil || again.GetFailures() != 0 {
		t.Errorf("retry: %v, %v", again, err)
	}
	if now := h.lease(); len(now) != 1 || now[0].GetId() != leased[1].GetId() {
		t.Errorf("leased after the retry: %v", now)
	}
	if _, err := s.DropTask(t.Context(), &daybookv1.DropTaskRequest{Id: dead[0].GetId()}); err != nil {
		t.Fatal(err)
	}
	if n := len(list(&daybookv1.ListTasksRequest{})); n != 2 {
		t.Errorf("%d tasks after one was dropped", n)
	}
	if _, err := h.store.Stream(t.Context(), project, types.StreamID(leased[1].GetId())); err != nil {
		t.Errorf("the stream of a dropped task: %v", err)
	}

	for id, want := range map[string]codes.Code{"": codes.InvalidArgument, "x": codes.InvalidArgument, dead[0].GetId(): codes.NotFound} {
		_, err := s.RetryTask(t.Context(), &daybookv1.RetryTaskRequest{Id: id})
		wantCode(t, "retry of "+id, err, want)
		_, err = s.DropTask(t.Context(), &daybookv1.DropTaskRequest{Id: id})
		wantCode(t, "drop of "+id, err, want)
	}
	_, err = s.ListTasks(t.Context(), &daybookv1.ListTasksRequest{PageToken: "?"})
	wantCode(t, "bad token", err, codes.InvalidArgument)

	// Nobody else does.
	s = tasks.New(h.store, noAdmin{access.Open()})
	_, err = s.ListTasks(t.Context(), &daybookv1.ListTasksRequest{})
	wantCode(t, "list", err, codes.PermissionDenied)
	_, err = s.RetryTask(t.Context(), &daybookv1.RetryTaskRequest{Id: "x"})
	wantCode(t, "retry", err, codes.PermissionDenied)
	_, err = s.DropTask(t.Context(), &daybookv1.DropTaskRequest{Id: busy.GetId()})
	wantCode(t, "drop", err, codes.PermissionDenied)
}

// noAdmin refuses what is for administrators.
type noAdmin struct{ access.Checker }

func (noAdmin) Check(_ context.Context, _ types.Project, _ string, p access.Permission) error {
	if p == access.Admin {
		return fault.New(fault.Denied, "no")
	}
	return nil
}
