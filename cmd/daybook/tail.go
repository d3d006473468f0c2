package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/internal/fault"
)

type tailCmd struct {
	serverFlags
	Follow bool   `help:"Go on until the stream ends." short:"f"`
	Lines  int    `help:"Begin with the last N lines. By default the last 10; with -f, everything there is." short:"n" placeholder:"N" default:"-1"`
	JSON   bool   `help:"With -f and without -n: print an object a line, as daybook cat --json does." name:"json"`
	Path   string `arg:"" help:"PROJECT/PREFIX/+/NAME" placeholder:"PATH"`
}

func (c *tailCmd) Help() string {
	return "With -f: what there is, then what comes, without gap or repeat, until the stream ends; a stream that does not exist yet is waited for.\n\n" +
		"Exit code 3 says that the stream ended incomplete."
}

func (c *tailCmd) Run(e *env) (err error) {
	if c.JSON && (!c.Follow || c.Lines >= 0) {
		return fault.New(fault.Invalid, "--json follows a stream from its begin: give -f, and no -n")
	}
	project, path, err := splitPath(c.Path)
	if err != nil {
		return err
	}
	l, err := c.openLink(e.ctx, e.log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close(context.WithoutCancel(e.ctx))) }()
	r := &daybookv1.FollowRequest{Project: string(project), Path: string(path), Wait: c.Follow, BacklogOnly: !c.Follow}
	if c.Lines < 0 && !c.Follow {
		c.Lines = 10
	}
	if c.Lines >= 0 {
		text, next, err := lastLines(e.ctx, daybookv1.NewLogsClient(l.conn), r, c.Lines)
		if fault.Is(err, fault.NotFound) && c.Follow {
			return copyStream(e, l, r, c.JSON) // which waits for it
		}
		if err != nil {
			return err
		}
		if _, err := e.stdout.Write(text); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		r.Index = next
	}
	return copyStream(e, l, r, c.JSON)
}

// lastLines returns the last n lines of what there is now, and the index of the entry behind them.
func lastLines(ctx context.Context, logs daybookv1.LogsClient, r *daybookv1.FollowRequest, n int) (text []byte, next int64, err error) {
	s, err := logs.GetStream(ctx, &daybookv1.GetStreamRequest{Project: r.GetProject(), Path: r.GetPath()})
	if err != nil {
		return nil, 0, err
	}
	next = s.GetNextIndex()
	// Entries hold any number of lines, so go back further and further until there are enough.
	for back := int64(1); n > 0 && next > 0; back *= 4 {
		first := max(0, next-back)
		var buf bytes.Buffer
		c := &copier{out: bufio.NewWriter(&buf), next: first}
		if _, err := c.follow(ctx, logs, &daybookv1.FollowRequest{Project: r.GetProject(), Path: r.GetPath(), Index: first, BacklogOnly: true}); err != nil {
			return nil, 0, err
		}
		if err := c.out.Flush(); err != nil {
			return nil, 0, err
		}
		if tail, enough := cutLines(buf.Bytes(), n); enough || first == 0 {
			return tail, max(next, c.next), nil
		}
	}
	return nil, next, nil
}

// cutLines returns the last n lines of text, and whether there were that many with something before them.
func cutLines(text []byte, n int) ([]byte, bool) {
	at := len(text)
	if at > 0 && text[at-1] == '\n' {
		at--
	}
	for ; n > 0; n-- {
		at = bytes.LastIndexByte(text[:at], '\n')
		if at < 0 {
			return text, false
		}
	}
	return text[at+1:], true
}

// pause waits before another attempt, longer each time up to a second.
func pause(ctx context.Context, attempt int) error {
	t := time.NewTimer(min(50*time.Millisecond<<min(attempt, 5), time.Second))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
