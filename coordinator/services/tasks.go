package services

import (
	"context"
	"math"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/coordinator/backend"
	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/internal/fault"
)

const (
	// maxLease is the most tasks that a call hands out.
	maxLease = 500
	// maxWait is the longest that a call is held.
	maxWait = 5 * time.Minute
	// queue is the number of the one queue, in the names of tasks.
	queue = "0:"
)

// LeaseArchiveTasks hands out tasks that are due. A task for an archived stream asks to verify its archive and to remove its entries
// from storage.
func (s *Service) LeaseArchiveTasks(ctx context.Context, r *logdog.LeaseRequest) (*logdog.LeaseResponse, error) {
	resp, err := s.lease(ctx, r)
	return resp, fault.GRPC(err)
}

func (s *Service) lease(ctx context.Context, r *logdog.LeaseRequest) (*logdog.LeaseResponse, error) {
	if r.GetMaxTasks() <= 0 {
		return nil, fault.New(fault.Invalid, "max_tasks is not positive")
	}
	lease, err := duration("lease_time", r.GetLeaseTime())
	if err != nil {
		return nil, err
	}
	if lease <= 0 {
		return nil, fault.New(fault.Invalid, "lease_time is required and must be positive")
	}
	wait, err := duration("wait", r.GetWait())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.closing, func() { cancel(fault.New(fault.Transient, "coordinator is closing")) })()
	tasks, err := s.backend.Lease(ctx, int(min(r.GetMaxTasks(), maxLease)), lease, min(wait, maxWait))
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	resp := &logdog.LeaseResponse{Tasks: make([]*logdog.ArchiveTask, len(tasks))}
	for i, t := range tasks {
		resp.Tasks[i] = archiveTask(t)
	}
	return resp, nil
}

// DeleteArchiveTasks takes back leased tasks: finished, or to be leased again later. Unknown tasks are ignored.
func (s *Service) DeleteArchiveTasks(ctx context.Context, r *logdog.DeleteRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, fault.GRPC(s.finish(ctx, r))
}

func (s *Service) finish(ctx context.Context, r *logdog.DeleteRequest) error {
	done := make([]backend.Done, len(r.GetTasks()))
	for i, t := range r.GetTasks() {
		seq, err := strconv.ParseInt(strings.TrimPrefix(t.GetTaskName(), queue), 10, 64)
		if err != nil {
			return fault.New(fault.Invalid, "task_name is not the name of a leased task")
		}
		after, err := duration("retry_after", t.GetRetryAfter())
		if err != nil {
			return err
		}
		done[i] = backend.Done{Seq: seq, RetryAfter: after, Reason: clip(t.GetRetryReason()), Failed: t.GetRetryFailed(), Removed: t.GetRemoved()}
	}
	if len(done) == 0 {
		return nil
	}
	return s.backend.Finish(ctx, done)
}

func archiveTask(t *state.Task) *logdog.ArchiveTask {
	p := t.Stream.Prefix
	return &logdog.ArchiveTask{
		Project:    string(p.Project),
		Id:         string(t.Stream.ID),
		TaskName:   queue + strconv.FormatInt(t.Seq, 10),
		Realm:      string(p.Project) + ":" + p.Realm,
		RetryCount: int64(t.Attempts - 1),
		Remove:     t.Kind == state.RemoveTask,
	}
}

// duration returns a valid duration of at most a hundred years; absent is zero.
func duration(name string, d *durationpb.Duration) (time.Duration, error) {
	if d == nil {
		return 0, nil
	}
	if err := d.CheckValid(); err != nil {
		return 0, fault.New(fault.Invalid, "%s: %w", name, err)
	}
	return min(d.AsDuration(), time.Duration(math.MaxInt64/3)), nil
}

// clip bounds what is kept of a reason.
func clip(s string) string {
	const most = 2000
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
