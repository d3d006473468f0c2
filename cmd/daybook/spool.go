package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"

	"github.com/daybook-dev/daybook/butler/output/daybook"
	"github.com/daybook-dev/daybook/internal/datadir"
	"github.com/daybook-dev/daybook/internal/fault"
)

type spoolCmd struct {
	Ls   spoolLsCmd   `cmd:"" help:"List the spools: output that no server has taken yet."`
	Drop spoolDropCmd `cmd:"" help:"Remove spools that were left behind, with the output in them."`
}

type spoolLsCmd struct {
	dataFlags
}

func (c *spoolLsCmd) Help() string {
	return "Each command keeps its output in a spool on disk until the server has taken it. A spool whose owner lives is on its way. " +
		"One that was left behind is sent by the next daybook run or serve, or by daybook flush. One that is unreadable has the name of its directory, and cannot be sent."
}

func (c *spoolLsCmd) Run(e *env) error {
	dir, err := c.open()
	if err != nil {
		return err
	}
	servers, err := spoolRoots(dir)
	if err != nil {
		return err
	}
	t := tabwriter.NewWriter(e.stdout, 0, 8, 2, ' ', 0)
	var errs []error
	var unreadable []daybook.Spool
	var total int64
	n := 0
	for _, s := range servers {
		spools, err := daybook.Spools(s)
		errs = append(errs, err)
		for _, spool := range spools {
			state := "left behind"
			switch {
			case spool.Alive:
				state = "in use"
			case spool.Err != nil:
				state = "unreadable"
				unreadable = append(unreadable, spool)
			}
			if n == 0 {
				fmt.Fprintln(t, "SIZE\tAGE\tSTATE\tSERVER\tSTREAMS")
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", bytesText(spool.Bytes), age(spool.Age()), state, filepath.Base(s), spool.Name())
			n++
			total += spool.Bytes
		}
	}
	errs = append(errs, t.Flush())
	_, err = fmt.Fprintf(e.stdout, "%d spools, %s\n", n, bytesText(total))
	for _, s := range unreadable {
		fmt.Fprintf(e.stderr, "daybook: what is in %s cannot be sent: %v; daybook spool drop %s gives it up\n", s.Dir, s.Err, s.Name())
	}
	return errors.Join(append(errs, err)...)
}

type spoolDropCmd struct {
	dataFlags
	Prefixes []string `arg:"" name:"project/prefix" help:"Whose output is given up, as spool ls shows it."`
}

func (c *spoolDropCmd) Help() string {
	return "For spools that no server will ever take, because it refuses them for good. What is in them is lost. A spool whose owner lives stays."
}

func (c *spoolDropCmd) Run(e *env) error {
	dir, err := c.open()
	if err != nil {
		return err
	}
	roots, err := spoolRoots(dir)
	if err != nil {
		return err
	}
	found := make(map[string]bool)
	var errs []error
	for _, root := range roots {
		spools, err := daybook.Spools(root)
		errs = append(errs, err)
		for _, s := range spools {
			name := s.Name()
			if !slices.Contains(c.Prefixes, name) {
				continue
			}
			found[name] = true
			if err := daybook.Drop(s.Dir); err != nil {
				errs = append(errs, err)
				continue
			}
			_, err := fmt.Fprintf(e.stdout, "daybook: dropped %s of %s\n", bytesText(s.Bytes), name)
			errs = append(errs, err)
		}
	}
	for _, name := range c.Prefixes {
		if !found[name] {
			errs = append(errs, fault.New(fault.NotFound, "there is no spool of %s; daybook spool ls shows what there is", name))
		}
	}
	return errors.Join(errs...)
}

// spoolRoots returns the directories that spools are in, one for each server.
func spoolRoots(dir *datadir.Dir) ([]string, error) {
	entries, err := os.ReadDir(dir.Join("spool"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var roots []string
	for _, e := range entries {
		if e.IsDir() {
			roots = append(roots, filepath.Join(dir.Join("spool"), e.Name()))
		}
	}
	return roots, err
}
