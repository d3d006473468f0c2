package web

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/internal/fault"
)

// firstHeartbeat lets a client know soon that a stream it waits for is being waited for.
const firstHeartbeat = time.Second

var (
	eventLimits = limits{bytes: 256 << 10, lines: 5000}
	pageLimits  = limits{bytes: 1 << 20, lines: 5000}
)

// read calls f for each response to req, ending with the one that has End set. A call that ends without it was cut off, which is an
// error. An error of f ends the call and is returned as it is.
func (h *handler) read(ctx context.Context, req *daybookv1.FollowRequest, f func(*daybookv1.FollowResponse) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := h.logs.Follow(ctx, req)
	if err != nil {
		return fault.FromGRPC(err)
	}
	for {
		res, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return fault.New(fault.Transient, "reading the stream was cut off; try again")
		case err != nil:
			return fault.FromGRPC(err)
		}
		if err := f(res); err != nil {
			return err
		}
		if res.GetEnd() != nil {
			return nil
		}
	}
}

// begin turns the stream and the start that a request names into a request for the Coordinator and the position to begin at.
func (h *handler) begin(r *http.Request, wait bool) (*daybookv1.FollowRequest, position, error) {
	want, err := parseStart(r)
	if err != nil {
		return nil, position{}, err
	}
	req := &daybookv1.FollowRequest{Project: r.PathValue("project"), Path: r.PathValue("path"), Index: want.at.index, Wait: wait}
	ctx, cancel := context.WithTimeout(r.Context(), rpcTimeout)
	defer cancel()
	s, err := h.findStream(ctx, req.Project, req.Path)
	if err != nil {
		if wait && fault.Is(err, fault.NotFound) {
			return req, want.at, nil
		}
		return nil, position{}, err
	}
	at, err := h.resolve(ctx, s, want)
	req.Index = at.index
	return req, at, err
}

// entries serves one page of what there is.
func (h *handler) entries(w http.ResponseWriter, r *http.Request) error {
	until, err := parseNumber(r.URL.Query(), "until")
	if err != nil {
		return err
	}
	req, at, err := h.begin(r, false)
	if err != nil {
		return err
	}
	req.BacklogOnly = true
	b := newBatch(at)
	var end *daybookv1.FollowResponse_End
	err = h.read(r.Context(), req, func(res *daybookv1.FollowResponse) error {
		if logs := res.GetLogs(); len(logs) > 0 && until > 0 && int64(logs[0].GetSequence())+1 >= until {
			return errEnough // what is missing before these belongs to the next page
		}
		b.addMissing(res.GetMissing())
		for _, e := range res.GetLogs() {
			if b.full(pageLimits) {
				return errEnough
			}
			if all, err := b.add(e, pageLimits, until); err != nil {
				return err
			} else if !all {
				return errEnough
			}
		}
		end = res.GetEnd()
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	var body bytes.Buffer
	fmt.Fprintf(&body, `{"first":"%s","next":"%s",`, at, b.next)
	if end != nil {
		j, err := messageJSON(end)
		if err != nil {
			return err
		}
		fmt.Fprintf(&body, `"end":%s,`, j)
	}
	if err := b.appendTo(&body); err != nil {
		return err
	}
	body.WriteByte('}')
	return writeBody(w, http.StatusOK, body.Bytes())
}

// follow serves a stream as server-sent events, or as lines of JSON: what there is, and then what comes, until the stream ends.
func (h *handler) follow(w http.ResponseWriter, r *http.Request) error {
	form, err := formOf(r)
	if err != nil {
		return err
	}
	req, at, err := h.begin(r, r.URL.Query().Get("wait") == "1")
	if err != nil {
		return err
	}
	out := &eventWriter{w: w, batch: newBatch(at), form: form}
	if r.Method == http.MethodHead {
		out.headers()
		return nil
	}
	h.metrics.followers.Inc()
	defer h.metrics.followers.Dec()

	// One goroutine reads, so that this one can send heartbeats meanwhile. The channel holds nothing: the reader is never ahead of
	// the client by more than one response.
	ctx, cancel := context.WithCancel(r.Context())
	responses := make(chan *daybookv1.FollowResponse)
	var readErr error
	var reader sync.WaitGroup
	reader.Go(func() {
		defer close(responses)
		readErr = h.read(ctx, req, func(res *daybookv1.FollowResponse) error {
			select {
			case responses <- res:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	defer reader.Wait()
	defer cancel()

	heartbeat := time.NewTimer(min(firstHeartbeat, h.heartbeat))
	defer heartbeat.Stop()
	for {
		select {
		case res, ok := <-responses:
			if !ok {
				return out.finish(readErr)
			}
			if err := out.response(res); err != nil {
				return err
			}
		case <-heartbeat.C:
			if err := out.heartbeat(); err != nil {
				return err
			}
		}
		heartbeat.Reset(h.heartbeat)
	}
}
