package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

type lsCmd struct {
	serverFlags
	Pattern     string   `arg:"" optional:"" help:"PROJECT, PROJECT/PREFIX-GLOB or PROJECT/PREFIX-GLOB/+/NAME-GLOB; * stands for anything within a segment, ** for any segments." placeholder:"PATTERN"`
	Project     string   `help:"The project; the pattern then begins with the prefix." placeholder:"PROJECT"`
	Tag         []string `help:"Only streams with this tag; without =VALUE, with any value. May be repeated; all must be there." placeholder:"KEY[=VALUE]" sep:"none"`
	Type        string   `help:"Only streams of this type: text, binary or datagram." placeholder:"TYPE"`
	ContentType string   `help:"Only streams with exactly this content type." placeholder:"TYPE"`
	State       []string `help:"Only streams in these states: open, terminated, complete, incomplete." placeholder:"STATE"`
	Since       string   `help:"Only streams that began at this time or later: 2026-03-14, 2026-03-14T09:26:53Z, or so long ago, as 90m or 7d." placeholder:"TIME"`
	Until       string   `help:"Only streams that began before this time." placeholder:"TIME"`
	Purged      bool     `help:"Streams that were purged and can be taken back, instead of those that are there."`
	Folders     bool     `help:"Browse: the folders of prefixes in PROJECT/FOLDER, instead of streams." short:"d"`
	Limit       int      `help:"Show at most so many; 0 shows all." short:"n" default:"100"`
	Paths       bool     `help:"Print paths only, one a line."`
	JSON        bool     `help:"Print an object a line: messages of daybook.v1 in their JSON form." name:"json"`
}

func (c *lsCmd) Run(e *env) (err error) {
	project, pattern := c.Project, c.Pattern
	if project == "" {
		project, pattern, _ = strings.Cut(c.Pattern, "/")
	}
	request, err := c.request(time.Now())
	if err != nil {
		return err
	}
	request.Pattern = pattern
	l, err := c.openLink(e.ctx, e.log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close(context.WithoutCancel(e.ctx))) }()
	logs := daybookv1.NewLogsClient(l.conn)
	projects, err := projectsOf(e.ctx, logs, project)
	if err != nil {
		return err
	}
	out := &listing{lsCmd: c, out: bufio.NewWriter(e.stdout)}
	out.table = tabwriter.NewWriter(out.out, 0, 0, 2, ' ', 0)
	if c.Folders {
		err = out.folders(e.ctx, logs, projects, strings.Trim(pattern, "/"))
	} else {
		err = out.streams(e.ctx, logs, projects, request)
	}
	if err != nil && out.shown == 0 {
		return err // a table without rows would say that there is nothing
	}
	if err := errors.Join(err, out.table.Flush(), out.out.Flush()); err != nil {
		return err
	}
	if out.more && !c.Paths && !c.JSON {
		fmt.Fprintf(e.stderr, "daybook: the first %d are shown; --limit 0 shows all\n", out.shown)
	}
	return nil
}

// projectsOf returns the named project, or all if none is named.
func projectsOf(ctx context.Context, logs daybookv1.LogsClient, project string) ([]string, error) {
	if project != "" {
		return []string{project}, fault.Wrap(fault.Invalid, types.Project(project).Validate())
	}
	r, err := logs.ListProjects(ctx, &daybookv1.ListProjectsRequest{})
	return r.GetProjects(), err
}

// request returns what the flags ask for.
func (c *lsCmd) request(now time.Time) (*daybookv1.FindStreamsRequest, error) {
	r := &daybookv1.FindStreamsRequest{ContentType: c.ContentType, Purged: c.Purged, Tags: make(map[string]string)}
	for _, t := range c.Tag {
		key, value, _ := strings.Cut(t, "=")
		if err := types.ValidateTag(key, value); err != nil {
			return nil, fault.New(fault.Invalid, "--tag %q: %w", t, err)
		}
		r.Tags[key] = value
	}
	if c.Type != "" {
		t, ok := logpb.StreamType_value[strings.ToUpper(c.Type)]
		if !ok {
			return nil, fault.New(fault.Invalid, "--type %q: it is text, binary or datagram", c.Type)
		}
		r.StreamType = logpb.StreamType(t).Enum()
	}
	for _, s := range c.State {
		v := daybookv1.StreamState_value[strings.ToUpper(s)]
		if v == 0 {
			return nil, fault.New(fault.Invalid, "--state %q: it is open, terminated, complete or incomplete", s)
		}
		r.States = append(r.States, daybookv1.StreamState(v))
	}
	var err error
	if r.Since, err = parseWhen("--since", c.Since, now); err != nil {
		return nil, err
	}
	r.Until, err = parseWhen("--until", c.Until, now)
	return r, err
}

// parseWhen reads a time, or how long ago one was.
func parseWhen(flag, s string, now time.Time) (*timestamppb.Timestamp, error) {
	if s == "" {
		return nil, nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04:05", "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return timestamppb.New(t), nil
		}
	}
	ago, err := time.ParseDuration(s)
	if days, ok := strings.CutSuffix(s, "d"); ok && err != nil {
		var n int64
		if n, err = strconv.ParseInt(days, 10, 64); err == nil && (n < 0 || n > math.MaxInt64/int64(24*time.Hour)) {
			err = strconv.ErrRange
		}
		ago = time.Duration(n) * 24 * time.Hour
	}
	if err != nil || ago < 0 {
		return nil, fault.New(fault.Invalid, "%s %q: give a time as 2026-03-14 or 2026-03-14T09:26:53Z, or how long ago it was, as 90m or 7d", flag, s)
	}
	return timestamppb.New(now.Add(-ago)), nil
}

// listing prints what was found.
type listing struct {
	*lsCmd
	out   *bufio.Writer
	table *tabwriter.Writer
	shown int
	// more says that the limit was reached and there is more.
	more bool
}

// pageSize is how many are asked for next; zero says that the limit is reached.
func (l *listing) pageSize() int32 {
	if l.Limit <= 0 {
		return 1000
	}
	return int32(min(1000, l.Limit-l.shown))
}

func (l *listing) streams(ctx context.Context, logs daybookv1.LogsClient, projects []string, r *daybookv1.FindStreamsRequest) error {
	l.title("PATH\tSTATE\tAGE\tSIZE\tLINES")
	for _, r.Project = range projects {
		for r.PageToken = ""; ; {
			if r.PageSize = l.pageSize(); r.PageSize == 0 {
				l.more = true
				return nil
			}
			resp, err := logs.FindStreams(ctx, r)
			if err != nil {
				return err
			}
			for _, s := range resp.GetStreams() {
				if err := l.print(s, s.GetProject()+"/"+s.GetPath(), fmt.Sprintf("%s\t%s\t%s\t%d",
					strings.ToLower(s.GetState().String()), age(time.Since(s.GetCreated().AsTime())), bytesText(s.GetSize()), s.GetLines())); err != nil {
					return err
				}
			}
			if r.PageToken = resp.GetNextPageToken(); r.PageToken == "" {
				break
			}
		}
	}
	return nil
}

func (l *listing) folders(ctx context.Context, logs daybookv1.LogsClient, projects []string, parent string) error {
	l.title("FOLDER\tSTREAMS\tNEWEST")
	for _, project := range projects {
		r := &daybookv1.ListFoldersRequest{Project: project, Parent: parent}
		for {
			if r.PageSize = l.pageSize(); r.PageSize == 0 {
				l.more = true
				return nil
			}
			resp, err := logs.ListFolders(ctx, r)
			if err != nil {
				return err
			}
			for _, f := range resp.GetFolders() {
				path, newest := project+"/"+f.GetPath(), ""
				if f.GetFolders() {
					path += "/"
				}
				if f.GetNewest() != nil {
					newest = age(time.Since(f.GetNewest().AsTime()))
				}
				if err := l.print(f, path, fmt.Sprintf("%d\t%s", f.GetStreams(), newest)); err != nil {
					return err
				}
			}
			if r.PageToken = resp.GetNextPageToken(); r.PageToken == "" {
				break
			}
		}
	}
	return nil
}

func (l *listing) title(columns string) {
	if !l.Paths && !l.JSON {
		fmt.Fprintln(l.table, columns)
	}
}

// print prints something that was found, with its path and the columns beside it.
func (l *listing) print(m proto.Message, path, columns string) error {
	l.shown++
	switch {
	case l.JSON:
		return writeJSON(l.out, m)
	case l.Paths:
		fmt.Fprintln(l.out, path)
	default:
		fmt.Fprintf(l.table, "%s\t%s\n", path, columns)
	}
	return nil
}

// writeJSON prints a message in its JSON form, on a line.
func writeJSON(w io.Writer, m proto.Message) error {
	b, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m)
	if err != nil {
		return err
	}
	var line bytes.Buffer
	if err := json.Compact(&line, b); err != nil {
		return err
	}
	line.WriteByte('\n')
	_, err = w.Write(line.Bytes())
	return err
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
