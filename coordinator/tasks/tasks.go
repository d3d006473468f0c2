// Package tasks is the operator's view of what streams still have to go through: the service daybook.v1.Tasks, for administrators.
//
// The service is safe for concurrent use.
package tasks

import (
	"context"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/coordinator/access"
	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/internal/fault"
)

// Service implements daybook.v1.Tasks.
type Service struct {
	daybookv1.UnimplementedTasksServer
	store  state.Store
	access access.Checker
}

// New returns a Service.
func New(store state.Store, checker access.Checker) *Service {
	return &Service{store: store, access: checker}
}

const (
	defaultPage = 100
	maxPage     = 1000
)

// ListTasks lists tasks in the order in which they were made.
func (s *Service) ListTasks(ctx context.Context, r *daybookv1.ListTasksRequest) (*daybookv1.ListTasksResponse, error) {
	resp, err := s.list(ctx, r)
	return resp, fault.GRPC(err)
}

func (s *Service) list(ctx context.Context, r *daybookv1.ListTasksRequest) (*daybookv1.ListTasksResponse, error) {
	if err := s.access.Check(ctx, "", "", access.Admin); err != nil {
		return nil, err
	}
	q := state.TaskQuery{Dead: r.GetDead(), Limit: defaultPage}
	if n := r.GetPageSize(); n > 0 {
		q.Limit = int(min(n, maxPage))
	}
	if token := r.GetPageToken(); token != "" {
		var err error
		if q.After, err = strconv.ParseInt(token, 10, 64); err != nil {
			return nil, fault.New(fault.Invalid, "page token is not one that this service gave out")
		}
	}
	found, err := s.store.Tasks(ctx, q)
	if err != nil {
		return nil, err
	}
	resp := new(daybookv1.ListTasksResponse)
	for _, t := range found {
		resp.Tasks = append(resp.Tasks, message(t))
	}
	if len(found) == q.Limit {
		resp.NextPageToken = strconv.FormatInt(found[len(found)-1].Seq, 10)
	}
	return resp, nil
}

// RetryTask gives a task out again at once.
func (s *Service) RetryTask(ctx context.Context, r *daybookv1.RetryTaskRequest) (*daybookv1.Task, error) {
	var again *daybookv1.Task
	err := s.change(ctx, r.GetId(), func(tx state.Tx, t *state.Task) error {
		if err := t.Retry(now()); err != nil {
			return err
		}
		again = message(t)
		return tx.PutTask(t)
	})
	return again, fault.GRPC(err)
}

// DropTask forgets a task.
func (s *Service) DropTask(ctx context.Context, r *daybookv1.DropTaskRequest) (*emptypb.Empty, error) {
	err := s.change(ctx, r.GetId(), func(tx state.Tx, t *state.Task) error { return tx.DeleteTask(t) })
	return &emptypb.Empty{}, fault.GRPC(err)
}

// change runs fn with the task in a transaction.
func (s *Service) change(ctx context.Context, id string, fn func(state.Tx, *state.Task) error) error {
	if err := s.access.Check(ctx, "", "", access.Admin); err != nil {
		return err
	}
	seq, err := strconv.ParseInt(id, 10, 64)
	if err != nil {
		return fault.New(fault.Invalid, "%q is not the id of a task; daybook tasks ls shows them", id)
	}
	return s.store.Update(ctx, func(tx state.Tx) error {
		t, err := tx.TaskBySeq(seq)
		if err != nil {
			return err
		}
		if t == nil {
			return fault.New(fault.NotFound, "there is no such task; it may be done")
		}
		return fn(tx, t)
	})
}

// message returns a task as it is told.
func message(t *state.Task) *daybookv1.Task {
	kinds := map[state.TaskKind]daybookv1.TaskKind{
		state.ArchiveTask: daybookv1.TaskKind_ARCHIVE, state.ExpungeTask: daybookv1.TaskKind_EXPUNGE, state.RemoveTask: daybookv1.TaskKind_REMOVE,
	}
	return &daybookv1.Task{
		Id:          strconv.FormatInt(t.Seq, 10),
		Kind:        kinds[t.Kind],
		Project:     string(t.Stream.Prefix.Project),
		Path:        string(t.Stream.Path()),
		Available:   timestamp(t.Available),
		LeasedUntil: timestamp(t.LeaseEnd),
		Attempts:    int64(t.Attempts),
		Failures:    int64(t.Failures),
		LastError:   t.LastError,
		Dead:        timestamp(t.Dead),
	}
}

// timestamp returns nil for the zero time.
func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func now() time.Time { return time.Now().UTC().Round(time.Microsecond) }
