package archivist

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/archive"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/storage"
)

// outcome is what becomes of a task. The zero value ends it.
type outcome struct {
	retryAfter time.Duration
	reason     string
	failed     bool // the attempt counts as one that failed
	removed    bool // what the task asked to remove is gone
	// reopen is a stream to be taken back when the task was handed back.
	reopen *stream
}

// protoVersion is the version of streams that can be archived.
const protoVersion = "1"

// handle works on a task and tells the Coordinator what becomes of it.
func (a *Archivist) handle(ctx context.Context, task *logdog.ArchiveTask) {
	id := streamID{task.GetProject(), task.GetId()}
	log := a.Logger.With("project", id.project, "stream", id.id)
	if !a.begin(id) {
		// A second task for the stream, or the lease of the first ran out.
		a.settle(ctx, task, outcome{retryAfter: time.Second, reason: "the stream is being archived"})
		return
	}
	defer a.end(id)
	start := time.Now()
	out, err := a.process(ctx, task)
	label := "done"
	switch {
	case err != nil && ctx.Err() != nil:
		label = "interrupted"
		out = outcome{retryAfter: time.Millisecond, reason: "the archivist stopped"}
	case err != nil:
		label = "failed"
		n := a.failed(id, err)
		// What may pass by itself, as an outage of the bucket does, must not use up the task's attempts.
		out = outcome{retryAfter: backOff(n), reason: err.Error(), failed: !fault.IsTransient(err)}
		log.Error("archivist: task failed", "error", err, "failures", n, "retry_after", out.retryAfter)
		if out.failed && n >= a.MaxFailures && !task.GetRemove() && a.giveUp(ctx, task, err) {
			label, out = "given up", outcome{}
		}
	case out.retryAfter > 0:
		label = "waiting"
		log.Debug("archivist: task waits", "reason", out.reason, "retry_after", out.retryAfter)
	}
	if err == nil || label == "given up" {
		a.failed(id, nil)
	}
	a.metrics.tasks.WithLabelValues(label).Inc()
	a.metrics.taskSeconds.Observe(time.Since(start).Seconds())
	a.settle(ctx, task, out)
	if out.reopen != nil {
		if err := a.reopen(ctx, out.reopen); err != nil && ctx.Err() == nil {
			log.Warn("archivist: late entries are archived later", "error", err) // the task comes back
		}
	}
}

// backOff is the time before the next attempt after n failures.
func backOff(n int) time.Duration {
	const most = 10 * time.Minute
	if n > 10 {
		return most
	}
	return min(500*time.Millisecond<<n, most)
}

// giveUp reports a stream that cannot be archived, if it is not archived. Its entries stay in storage.
func (a *Archivist) giveUp(ctx context.Context, task *logdog.ArchiveTask, cause error) bool {
	state, err := a.load(ctx, task, false)
	if err == nil && state.GetState().GetArchived() {
		return false // what failed is the removal of its entries
	}
	if err == nil {
		err = a.report(ctx, &logdog.ArchiveStreamRequest{Project: task.GetProject(), Id: task.GetId(), TerminalIndex: -1, Error: cause.Error()})
	}
	if err != nil {
		a.Logger.Error("archivist: failure not reported", "project", task.GetProject(), "stream", task.GetId(), "error", err)
		return false
	}
	a.metrics.archives.WithLabelValues(task.GetProject(), "false").Inc()
	return true
}

// settle ends a task or hands it back. If even that fails, the task comes back when its lease ends.
func (a *Archivist) settle(ctx context.Context, task *logdog.ArchiveTask, out outcome) {
	t := &logdog.ArchiveTask{Project: task.GetProject(), Id: task.GetId(), TaskName: task.GetTaskName(), Removed: out.removed}
	if out.retryAfter > 0 {
		t.RetryAfter, t.RetryReason, t.RetryFailed = durationpb.New(out.retryAfter), out.reason, out.failed
	}
	// Tasks are settled after the end was asked for, too.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	pause := pauses{first: 100 * time.Millisecond, most: time.Second}
	for {
		_, err := a.Services.DeleteArchiveTasks(ctx, &logdog.DeleteRequest{Tasks: []*logdog.ArchiveTask{t}})
		if err = fault.FromGRPC(err); err == nil {
			return
		}
		if fault.IsTransient(err) && pause.wait(ctx) == nil {
			continue
		}
		a.Logger.Warn("archivist: task not settled; it comes back", "project", task.GetProject(), "stream", task.GetId(), "error", err)
		return
	}
}

// load asks for the stream's state.
func (a *Archivist) load(ctx context.Context, task *logdog.ArchiveTask, desc bool) (*logdog.LoadStreamResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := a.Services.LoadStream(ctx, &logdog.LoadStreamRequest{Project: task.GetProject(), Id: task.GetId(), Desc: desc})
	if err != nil {
		return nil, fmt.Errorf("load the stream: %w", fault.FromGRPC(err))
	}
	return resp, nil
}

func (a *Archivist) report(ctx context.Context, r *logdog.ArchiveStreamRequest) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if _, err := a.Services.ArchiveStream(ctx, r); err != nil {
		return fmt.Errorf("report the archive: %w", fault.FromGRPC(err))
	}
	return nil
}

// stream is a stream under work.
type stream struct {
	task     *logdog.ArchiveTask
	name     storage.Stream
	desc     *logpb.LogStreamDescriptor
	state    *logdog.LoadStreamResponse
	terminal types.MessageIndex // -1 if the end is not known, or there are no entries
	begun    time.Time          // the work, when the task had just been leased
}

// process does what the stream's state asks for.
func (a *Archivist) process(ctx context.Context, task *logdog.ArchiveTask) (outcome, error) {
	begun := time.Now()
	resp, err := a.load(ctx, task, true)
	if fault.Is(err, fault.NotFound) {
		a.Logger.Warn("archivist: task dropped: no such stream", "project", task.GetProject(), "stream", task.GetId())
		return outcome{}, nil
	}
	if err != nil {
		return outcome{}, err
	}
	s := &stream{
		task: task, state: resp, desc: new(logpb.LogStreamDescriptor), begun: begun,
		terminal: types.MessageIndex(resp.GetState().GetTerminalIndex()),
	}
	if resp.GetState() == nil {
		return outcome{}, fault.New(fault.Internal, "the coordinator gave no state")
	}
	if err := proto.Unmarshal(resp.GetDesc(), s.desc); err != nil {
		return outcome{}, fault.New(fault.Invalid, "parse the descriptor: %w", err)
	}
	s.name = storage.Stream{
		Project: types.Project(task.GetProject()),
		Path:    types.StreamPath(s.desc.GetPrefix() + "/+/" + s.desc.GetName()),
	}
	if err := errors.Join(s.name.Project.Validate(), s.name.Path.Validate()); err != nil {
		return outcome{}, fault.New(fault.Invalid, "stream %s: %w", s.name, err)
	}
	// A purged stream may be shown again, so it goes on as the others do until its removal is asked for.
	switch state := resp.GetState(); {
	case task.GetRemove():
		return outcome{removed: true}, a.remove(ctx, s)
	case state.GetArchived():
		return a.release(ctx, s)
	case state.GetProtoVersion() != protoVersion:
		return outcome{}, fault.New(fault.Precondition, "stream %s has protocol version %q; this program archives %q", s.name, state.GetProtoVersion(), protoVersion)
	}
	old, err := a.reopened(ctx, s)
	if err != nil {
		return outcome{}, err
	}
	switch {
	case s.state.GetState().GetTerminalEmpty():
		s.terminal = -1
	case s.terminal >= 0:
		if out, err := a.await(ctx, s, old); err != nil || out.retryAfter > 0 {
			return out, err
		}
	}
	return outcome{}, a.archive(ctx, s, old)
}

// stragglerWait is how long a worker stays with a stream whose last entries are under way.
const stragglerWait = 200 * time.Millisecond

// await decides whether the stream waits for missing entries. They usually come within milliseconds of the end, so it first
// waits a moment itself; after that the task goes back, for about a quarter of the time that the stream has been waiting: since its end,
// or since it was reopened.
func (a *Archivist) await(ctx context.Context, s *stream, old *archive.Stream) (outcome, error) {
	since := s.state.GetTerminatedAge()
	if since == nil || old != nil {
		since = s.state.GetAge()
	}
	age := since.AsDuration()
	if age >= a.WaitForMissing {
		return outcome{}, nil
	}
	changed, stop := a.Storage.Watch(s.name)
	defer stop()
	timer := time.NewTimer(stragglerWait)
	defer timer.Stop()
	for {
		whole, missing, err := a.whole(ctx, s, old)
		if err != nil || whole {
			return outcome{}, err
		}
		select {
		case <-changed:
		case <-timer.C:
			after := min(max(age/4, 100*time.Millisecond), 30*time.Second, a.WaitForMissing-age)
			return outcome{
				retryAfter: max(after, time.Millisecond),
				reason:     fmt.Sprintf("entry %d of 0 to %d is missing", missing, s.terminal),
			}, nil
		case <-ctx.Done():
			return outcome{}, ctx.Err()
		}
	}
}

// whole reports whether every entry up to the end is there, and the first that is not.
func (a *Archivist) whole(ctx context.Context, s *stream, old *archive.Stream) (bool, types.MessageIndex, error) {
	if old != nil {
		return a.filled(ctx, s, old)
	}
	have := types.MessageIndex(-1)
	tail, err := a.Storage.Tail(ctx, s.name)
	switch {
	case err == nil:
		have = tail.Index
	case !errors.Is(err, storage.ErrDoesNotExist):
		return false, 0, err
	}
	return have >= s.terminal, have + 1, nil
}
