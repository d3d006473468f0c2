package main

import (
	"context"
	"log/slog"
	"math"
	"time"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/logs/types"
)

// settleLimit is how long the end of a command waits for readers to be able to see all that it sent.
const settleLimit = 10 * time.Second

// endings are streams whose end was sent, and may not be visible to readers yet.
type endings struct {
	logs    daybookv1.LogsClient
	log     *slog.Logger
	streams []ending
}

type ending struct {
	project types.Project
	path    types.StreamPath
}

// add adds streams of a prefix.
func (e *endings) add(project types.Project, prefix types.StreamName, streams []types.StreamName) {
	for _, name := range streams {
		e.streams = append(e.streams, ending{project, prefix.Join(name)})
	}
}

// await waits until readers see the end of the streams, so that a cat that follows shows everything.
func (e *endings) await(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	for _, s := range e.streams {
		if err := awaitEnd(ctx, e.logs, s.project, s.path); err != nil {
			e.log.Info("the end of the stream is not visible yet", "stream", s.path, "error", err)
			return
		}
	}
}

// awaitEnd returns when the end of a stream is known, and so everything before it stored.
func awaitEnd(ctx context.Context, logs daybookv1.LogsClient, project types.Project, path types.StreamPath) error {
	f, err := logs.Follow(ctx, &daybookv1.FollowRequest{Project: string(project), Path: string(path), Index: math.MaxInt64, Wait: true})
	for err == nil {
		var r *daybookv1.FollowResponse
		if r, err = f.Recv(); err == nil && (r.GetEnd() != nil || r.GetStream().GetState() > daybookv1.StreamState_OPEN) {
			return nil
		}
	}
	return err
}
