package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/render"
	"github.com/daybook-dev/daybook/logs/types"
)

type catCmd struct {
	serverFlags
	Path   string `arg:"" help:"PROJECT/PREFIX/+/NAME" placeholder:"PATH"`
	Purged bool   `help:"Also if it was purged, for those who may take it back."`
	JSON   bool   `help:"Print an object a line: FollowResponse of daybook.v1, the last with the end." name:"json"`
}

func (c *catCmd) Help() string {
	return "Prints what there is. Of a stream that is still open that is what has arrived; tail -f follows it.\n\n" +
		"Exit code 3 says that something is missing for good."
}

func (c *catCmd) Run(e *env) (err error) {
	project, path, err := splitPath(c.Path)
	if err != nil {
		return err
	}
	l, err := c.openLink(e.ctx, e.log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close(context.WithoutCancel(e.ctx))) }()
	return copyStream(e, l, &daybookv1.FollowRequest{Project: string(project), Path: string(path), BacklogOnly: true, Purged: c.Purged}, c.JSON)
}

// splitPath takes PROJECT/PREFIX/+/NAME apart.
func splitPath(s string) (types.Project, types.StreamPath, error) {
	project, rest, _ := strings.Cut(s, "/")
	if err := types.Project(project).Validate(); err != nil {
		return "", "", fault.New(fault.Invalid, "%q: %w; give PROJECT/PREFIX/+/NAME", s, err)
	}
	if err := types.StreamPath(rest).Validate(); err != nil {
		return "", "", fault.New(fault.Invalid, "%q: %w; give PROJECT/PREFIX/+/NAME (daybook ls shows what there is)", s, err)
	}
	return types.Project(project), types.StreamPath(rest), nil
}

// tellAttempt is how often a call fails, in about two seconds, before the user is told what is waited for.
const tellAttempt = 6

// copyStream prints the bytes of a stream as r asks for them, or the responses as JSON. After a lost connection it goes on where it was.
func copyStream(e *env, l *link, r *daybookv1.FollowRequest, json bool) error {
	out := bufio.NewWriterSize(e.stdout, 1<<20)
	logs := daybookv1.NewLogsClient(l.conn)
	c := &copier{out: out, next: r.GetIndex(), json: json}
	for attempt := 0; ; attempt++ {
		r.Index = c.next
		before := c.next
		end, err := c.follow(e.ctx, logs, r)
		if ferr := out.Flush(); ferr != nil {
			return fmt.Errorf("write: %w", ferr)
		}
		switch {
		case err == nil:
			return c.finish(e, r, end)
		case e.ctx.Err() != nil:
			return &exitError{exitFailure, nil}
		case fault.Is(err, fault.NotFound):
			return fault.New(fault.NotFound, "%s/%s does not exist; daybook ls shows what there is", r.GetProject(), r.GetPath())
		case fault.Is(err, fault.Unauthenticated), fault.Is(err, fault.Denied), !fault.IsTransient(err), attempt > 20 && c.next == before:
			return err
		}
		if c.next > before {
			attempt = 0
		}
		if attempt == tellAttempt {
			fmt.Fprintf(e.stderr, "daybook: %v; trying again\n", err)
		}
		if err := pause(e.ctx, attempt); err != nil {
			return err
		}
	}
}

// copier writes entries in order and knows which comes next.
type copier struct {
	out     *bufio.Writer
	json    bool
	next    int64
	missing []*daybookv1.IndexRange
	buf     []byte
}

// follow copies until the end of the stream, of the backlog, or of the connection.
func (c *copier) follow(ctx context.Context, logs daybookv1.LogsClient, r *daybookv1.FollowRequest) (*daybookv1.FollowResponse_End, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f, err := logs.Follow(ctx, r)
	if err != nil {
		return nil, err
	}
	for {
		m, err := f.Recv()
		if errors.Is(err, io.EOF) {
			return nil, fault.New(fault.Transient, "the server ended the call without an end of the stream")
		}
		if err != nil {
			return nil, err
		}
		c.missing = append(c.missing, m.GetMissing()...)
		if err := c.print(m); err != nil {
			return nil, fmt.Errorf("write: %w", err)
		}
		if !r.GetBacklogOnly() {
			if err := c.out.Flush(); err != nil {
				return nil, fmt.Errorf("write: %w", err)
			}
		}
		if m.GetEnd() != nil {
			return m.GetEnd(), nil
		}
	}
}

// print prints what a response holds.
func (c *copier) print(m *daybookv1.FollowResponse) error {
	if c.json {
		if n := len(m.GetLogs()); n > 0 {
			c.next = int64(m.GetLogs()[n-1].GetStreamIndex()) + 1
		}
		return writeJSON(c.out, m)
	}
	for _, entry := range m.GetLogs() {
		c.buf = render.Raw{}.Append(c.buf[:0], entry)
		if _, err := c.out.Write(c.buf); err != nil {
			return err
		}
		c.next = int64(entry.GetStreamIndex()) + 1
	}
	return nil
}

// finish tells how the stream ended.
func (c *copier) finish(e *env, r *daybookv1.FollowRequest, end *daybookv1.FollowResponse_End) error {
	missing := append(c.missing, end.GetMissing()...)
	switch {
	case len(missing) > 0 || end.GetState() == daybookv1.StreamState_INCOMPLETE:
		var ranges []string
		for _, m := range missing {
			ranges = append(ranges, fmt.Sprintf("%d-%d", m.GetFirst(), m.GetLast()))
		}
		why := end.GetReason()
		if why == "" {
			why = "its producer did not deliver everything"
		}
		return &exitError{exitIncomplete, fmt.Errorf("the stream is incomplete: %s; missing entries: %s", why, strings.Join(ranges, ", "))}
	case end.GetReason() != "":
		fmt.Fprintf(e.stderr, "daybook: the stream ended early: %s\n", end.GetReason())
	case end.GetState() == daybookv1.StreamState_OPEN:
		fmt.Fprintf(e.stderr, "daybook: the stream is still open; this is what has arrived (daybook tail -f %s/%s follows it)\n", r.GetProject(), r.GetPath())
	}
	return nil
}
