package main

import (
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

// removalFlags name what is purged or taken back.
type removalFlags struct {
	serverFlags
	Path   string `arg:"" help:"PROJECT/PREFIX/+/NAME; with --prefix PROJECT/PREFIX" placeholder:"PATH"`
	Prefix bool   `help:"All streams of a prefix, instead of one."`
}

// split takes the path apart: either path or prefix is not empty.
func (f *removalFlags) split() (project, path, prefix string, err error) {
	if !f.Prefix {
		project, path, err := splitPath(f.Path)
		return string(project), string(path), "", err
	}
	project, prefix, _ = strings.Cut(f.Path, "/")
	if err := errors.Join(types.Project(project).Validate(), types.StreamName(prefix).Validate()); err != nil {
		return "", "", "", fault.New(fault.Invalid, "%q: %w; give PROJECT/PREFIX", f.Path, err)
	}
	return project, "", prefix, nil
}

type purgeCmd struct{ removalFlags }

func (c *purgeCmd) Help() string {
	return "Nobody sees what was purged, from now on. Its data is removed when the grace period of the project is over (7 days, unless the " +
		"configuration says otherwise); until then, daybook undelete takes it back."
}

func (c *purgeCmd) Run(e *env) (err error) {
	project, path, prefix, err := c.split()
	if err != nil {
		return err
	}
	l, err := c.openLink(e.ctx, e.log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close(context.WithoutCancel(e.ctx))) }()
	r, err := daybookv1.NewLogsClient(l.conn).Purge(e.ctx, &daybookv1.PurgeRequest{Project: project, Path: path, Prefix: prefix})
	if err != nil {
		return err
	}
	if r.GetStreams() == 0 {
		fmt.Fprintln(e.stdout, "0 streams purged: there are none that were not purged before")
		return nil
	}
	fmt.Fprintf(e.stdout, "%s purged; until %s, daybook undelete takes it back\n", streamsText(r.GetStreams()), r.GetUntil().AsTime().Local().Format("2006-01-02 15:04:05"))
	return nil
}

type undeleteCmd struct{ removalFlags }

func (c *undeleteCmd) Help() string {
	return "daybook ls --purged lists what can be taken back."
}

func (c *undeleteCmd) Run(e *env) (err error) {
	project, path, prefix, err := c.split()
	if err != nil {
		return err
	}
	l, err := c.openLink(e.ctx, e.log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close(context.WithoutCancel(e.ctx))) }()
	r, err := daybookv1.NewLogsClient(l.conn).Undelete(e.ctx, &daybookv1.UndeleteRequest{Project: project, Path: path, Prefix: prefix})
	if fault.Is(err, fault.NotFound) {
		return fault.New(fault.NotFound, "there is no %s; daybook ls --purged shows what can be taken back", c.Path)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(e.stdout, "%s taken back\n", streamsText(r.GetStreams()))
	return nil
}

func streamsText(n int64) string {
	if n == 1 {
		return "1 stream"
	}
	return fmt.Sprintf("%d streams", n)
}

type usageCmd struct {
	serverFlags
	Project string `arg:"" optional:"" help:"The project; all by default." placeholder:"PROJECT"`
	JSON    bool   `help:"Print an object a line." name:"json"`
}

func (c *usageCmd) Help() string {
	return "Entries, content and what is stored are those of the archive. Purged streams count until they are removed."
}

func (c *usageCmd) Run(e *env) (err error) {
	l, err := c.openLink(e.ctx, e.log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close(context.WithoutCancel(e.ctx))) }()
	ctx, cancel := context.WithTimeout(e.ctx, time.Minute)
	defer cancel()
	logs := daybookv1.NewLogsClient(l.conn)
	projects, err := projectsOf(ctx, logs, c.Project)
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	if !c.JSON {
		fmt.Fprintln(table, "PROJECT\tPREFIXES\tSTREAMS\tENTRIES\tCONTENT\tSTORED")
	}
	for _, p := range projects {
		u, err := logs.GetUsage(ctx, &daybookv1.GetUsageRequest{Project: p})
		switch {
		case c.Project == "" && (fault.Is(err, fault.Denied) || fault.Is(err, fault.Unauthenticated)):
			continue // we see a part of it only
		case err != nil:
			return err
		case c.JSON:
			if err := writeJSON(e.stdout, u); err != nil {
				return err
			}
		default:
			fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%s\t%s\n", p, u.GetPrefixes(), u.GetStreams(), u.GetArchivedEntries(),
				bytesText(u.GetArchivedContentBytes()), bytesText(u.GetArchivedStoredBytes()))
		}
	}
	return table.Flush()
}
