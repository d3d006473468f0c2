package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/daybook-dev/daybook/api/daybookv1"
)

type tasksCmd struct {
	Ls    tasksLsCmd    `cmd:"" help:"List what waits to be done, and what was given up."`
	Retry tasksRetryCmd `cmd:"" help:"Have tasks tried again at once."`
	Drop  tasksDropCmd  `cmd:"" help:"Forget tasks; the streams and their data stay as they are."`
}

func (c *tasksCmd) Help() string {
	return "Every stream has a task for what its life needs next: archive it, remove its entries from recent storage when the archive is safe, or " +
		"remove it for good. A task that fails is tried again, later and later. One that failed too often is dead: it waits for you, and nothing is lost " +
		"meanwhile. Tasks are for administrators."
}

// with calls fn with a client of the server's tasks.
func (c *tasksFlags) with(e *env, fn func(daybookv1.TasksClient) error) (err error) {
	l, err := c.openLink(e.ctx, e.log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close(context.WithoutCancel(e.ctx))) }()
	return fn(daybookv1.NewTasksClient(l.conn))
}

type tasksFlags struct{ serverFlags }

type tasksLsCmd struct {
	tasksFlags
	Dead  bool `help:"Only those that were given up."`
	Limit int  `help:"Show at most so many; 0 shows all." short:"n" default:"100"`
}

func (c *tasksLsCmd) Run(e *env) error {
	return c.with(e, func(tasks daybookv1.TasksClient) error {
		out := bufio.NewWriter(e.stdout)
		table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "ID\tTASK\tSTATE\tTRIES\tSTREAM\tLAST ERROR")
		shown, token := 0, ""
		for c.Limit <= 0 || shown < c.Limit {
			size := 1000
			if c.Limit > 0 {
				size = min(size, c.Limit-shown)
			}
			r, err := tasks.ListTasks(e.ctx, &daybookv1.ListTasksRequest{Dead: c.Dead, PageSize: int32(size), PageToken: token})
			if err != nil && shown == 0 {
				return err // a table without rows would say that there is nothing
			}
			if err != nil {
				return errors.Join(err, table.Flush(), out.Flush())
			}
			for _, t := range r.GetTasks() {
				shown++
				fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%s/%s\t%s\n", t.GetId(), strings.ToLower(t.GetKind().String()), taskState(t, time.Now()),
					t.GetAttempts(), t.GetProject(), t.GetPath(), oneLine(t.GetLastError()))
			}
			if token = r.GetNextPageToken(); token == "" {
				break
			}
		}
		if token != "" {
			defer fmt.Fprintf(e.stderr, "daybook: the oldest %d are shown; --limit 0 shows all\n", shown)
		}
		return errors.Join(table.Flush(), out.Flush())
	})
}

// taskState says where a task is.
func taskState(t *daybookv1.Task, now time.Time) string {
	switch {
	case t.GetDead() != nil:
		return "dead for " + age(now.Sub(t.GetDead().AsTime()))
	case t.GetLeasedUntil() != nil && t.GetLeasedUntil().AsTime().After(now):
		return "running"
	case t.GetAvailable().AsTime().After(now):
		return "in " + age(t.GetAvailable().AsTime().Sub(now))
	}
	return "due"
}

// oneLine makes a message fit into a table, and harmless for a terminal.
func oneLine(s string) string {
	const most = 200
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

type tasksRetryCmd struct {
	tasksFlags
	IDs []string `arg:"" name:"id" help:"IDs of tasks, as ls shows them."`
}

func (c *tasksRetryCmd) Run(e *env) error {
	return c.with(e, func(tasks daybookv1.TasksClient) error {
		var errs []error
		for _, id := range c.IDs {
			if _, err := tasks.RetryTask(e.ctx, &daybookv1.RetryTaskRequest{Id: id}); err != nil {
				errs = append(errs, fmt.Errorf("task %s: %w", id, err))
			}
		}
		return errors.Join(errs...)
	})
}

type tasksDropCmd struct {
	tasksFlags
	IDs []string `arg:"" name:"id" help:"IDs of tasks, as ls shows them."`
}

func (c *tasksDropCmd) Run(e *env) error {
	return c.with(e, func(tasks daybookv1.TasksClient) error {
		var errs []error
		for _, id := range c.IDs {
			if _, err := tasks.DropTask(e.ctx, &daybookv1.DropTaskRequest{Id: id}); err != nil {
				errs = append(errs, fmt.Errorf("task %s: %w", id, err))
			}
		}
		return errors.Join(errs...)
	})
}
