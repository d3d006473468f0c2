package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
)

type lsCmd struct {
	serverFlags
	Pattern string `arg:"" optional:"" help:"PROJECT, PROJECT/PREFIX-GLOB or PROJECT/PREFIX-GLOB/+/NAME-GLOB; * stands for anything within a segment, ** for any segments." placeholder:"PATTERN"`
	Limit   int    `help:"Show at most so many; 0 shows all." short:"n" default:"100"`
	Paths   bool   `help:"Print paths only, one a line."`
}

func (c *lsCmd) Run(e *env) (err error) {
	l, err := c.openLink(e.ctx, e.log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close(context.WithoutCancel(e.ctx))) }()
	logs := daybookv1.NewLogsClient(l.conn)
	project, pattern, _ := strings.Cut(c.Pattern, "/")
	projects := []string{project}
	if project == "" {
		r, err := logs.ListProjects(e.ctx, &daybookv1.ListProjectsRequest{})
		if err != nil {
			return err
		}
		projects = r.GetProjects()
	} else if err := types.Project(project).Validate(); err != nil {
		return fault.New(fault.Invalid, "%w", err)
	}
	out := bufio.NewWriter(e.stdout)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if !c.Paths {
		fmt.Fprintln(table, "PATH\tSTATE\tAGE\tSIZE\tLINES")
	}
	shown := 0
	for _, p := range projects {
		for token := ""; c.Limit <= 0 || shown < c.Limit; {
			size := int32(1000)
			if c.Limit > 0 {
				size = int32(min(1000, c.Limit-shown))
			}
			r, err := logs.FindStreams(e.ctx, &daybookv1.FindStreamsRequest{Project: p, Pattern: pattern, PageSize: size, PageToken: token})
			if err != nil {
				return err
			}
			for _, s := range r.GetStreams() {
				shown++
				if c.Paths {
					fmt.Fprintf(out, "%s/%s\n", s.GetProject(), s.GetPath())
					continue
				}
				fmt.Fprintf(table, "%s/%s\t%s\t%s\t%s\t%d\n", s.GetProject(), s.GetPath(), strings.ToLower(s.GetState().String()),
					age(time.Since(s.GetCreated().AsTime())), bytesText(s.GetSize()), s.GetLines())
			}
			if token = r.GetNextPageToken(); token == "" {
				break
			}
		}
	}
	if c.Limit > 0 && shown >= c.Limit && !c.Paths {
		defer fmt.Fprintf(e.stderr, "daybook: the newest %d are shown; --limit 0 shows all\n", shown)
	}
	return errors.Join(table.Flush(), out.Flush())
}

// age is a duration as people say it.
func age(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(0, int(d.Seconds())))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// bytesText is a size as people say it.
func bytesText(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	f := float64(n)
	for _, unit := range []string{"kB", "MB", "GB"} {
		if f /= 1000; f < 999.5 {
			return fmt.Sprintf("%.3g %s", f, unit)
		}
	}
	return fmt.Sprintf("%.3g TB", f/1000)
}
