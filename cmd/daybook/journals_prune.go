package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/daybook-dev/daybook/journal/client"
	"github.com/daybook-dev/daybook/journal/protocol"
	"github.com/daybook-dev/daybook/journal/store"
)

type journalsPruneCmd struct {
	journalsFlags
	selectFlags
	DryRun   bool   `help:"Show what would be deleted, and delete nothing."`
	FileRoot string `help:"Directory of file:// stores; by default that of the data directory's server." placeholder:"DIR" type:"existingdir"`
}

func (c *journalsPruneCmd) Help() string {
	return "Deletes from the stores with your own credentials. A journal without retention keeps everything, and so do journals that are fully suspended. " +
		"Daybook's own broker does this by itself. What is deleted cannot be brought back: look with --dry-run first.\n\n" +
		"  daybook journals prune -l name:prefix=acme/ --dry-run"
}

func (c *journalsPruneCmd) Run(e *env) (err error) {
	root, err := c.fileRoot(c.FileRoot)
	if err != nil {
		return err
	}
	jc, closeClient, err := c.open(e)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeClient()) }()
	journals, err := c.selected(e.ctx, jc)
	if err != nil {
		return err
	}
	stores := store.NewRegistry(store.Options{Root: root, Logger: e.log})
	defer func() { err = errors.Join(err, stores.Close()) }()
	var mu sync.Mutex
	var fragments, bytes, forEver int64
	err = eachActive(journals, func(_ int, s *protocol.JournalSpec) error {
		if s.GetFragment().GetRetention().AsDuration() <= 0 {
			mu.Lock()
			forEver++
			mu.Unlock()
			return nil
		}
		page, err := client.ListAllFragments(e.ctx, jc, &protocol.FragmentsRequest{Journal: s.GetName()})
		if err != nil {
			return err
		}
		for _, f := range expiredFragments(s, page, time.Now()) {
			if !c.DryRun {
				if err := removeFragment(e.ctx, stores, f); err != nil {
					return err
				}
			}
			mu.Lock()
			fragments++
			bytes += f.ContentLength()
			_, err := fmt.Fprintf(e.stdout, "%s%s\n", f.GetBackingStore(), f.ContentPath())
			mu.Unlock()
			if err != nil {
				return err
			}
		}
		return nil
	})
	what := "deleted"
	if c.DryRun {
		what = "to be deleted"
	}
	fmt.Fprintf(e.stderr, "daybook: %s with %s of content %s", plural(fragments, "fragment"), bytesText(bytes), what)
	if forEver != 0 {
		fmt.Fprintf(e.stderr, "; %s without retention kept", plural(forEver, "journal"))
	}
	fmt.Fprintln(e.stderr)
	return err
}

// expiredFragments returns the stored fragments whose retention is over.
func expiredFragments(s *protocol.JournalSpec, page *protocol.FragmentsResponse, now time.Time) (out []*protocol.Fragment) {
	retention := s.GetFragment().GetRetention().AsDuration()
	for _, x := range page.GetFragments() {
		f := x.GetSpec()
		if retention > 0 && f.GetBackingStore() != "" && f.GetModTime() != 0 && now.Sub(time.Unix(f.GetModTime(), 0)) >= retention {
			out = append(out, f)
		}
	}
	return out
}

func removeFragment(ctx context.Context, stores *store.Registry, f *protocol.Fragment) error {
	s, err := stores.Acquire(ctx, protocol.FragmentStore(f.GetBackingStore()))
	if err != nil {
		return err
	}
	defer s.Release()
	return s.Remove(ctx, f)
}
