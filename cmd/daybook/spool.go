package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"text/tabwriter"

	"github.com/daybook-dev/daybook/butler/output/daybook"
)

type spoolCmd struct {
	Ls spoolLsCmd `cmd:"" help:"List the spools: output that no server has taken yet."`
}

type spoolLsCmd struct {
	dataFlags
}

func (c *spoolLsCmd) Help() string {
	return "Each command keeps its output in a spool on disk until the server has taken it. A spool whose owner lives is on its way. " +
		"One that was left behind is sent by the next daybook run or serve, or by daybook flush."
}

func (c *spoolLsCmd) Run(e *env) error {
	dir, err := c.open()
	if err != nil {
		return err
	}
	servers, err := filepath.Glob(filepath.Join(dir.Join("spool"), "*"))
	if err != nil {
		return err
	}
	t := tabwriter.NewWriter(e.stdout, 0, 8, 2, ' ', 0)
	var errs []error
	var total int64
	n := 0
	for _, s := range servers {
		spools, err := daybook.Spools(s)
		errs = append(errs, err)
		for _, spool := range spools {
			state := "left behind"
			if spool.Alive {
				state = "in use"
			}
			if n == 0 {
				fmt.Fprintln(t, "SIZE\tAGE\tSTATE\tSERVER\tSTREAMS")
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s/%s\n", bytesText(spool.Bytes), age(spool.Age()), state, filepath.Base(s), spool.Project, spool.Prefix)
			n++
			total += spool.Bytes
		}
	}
	errs = append(errs, t.Flush())
	_, err = fmt.Fprintf(e.stdout, "%d spools, %s\n", n, bytesText(total))
	return errors.Join(append(errs, err)...)
}
