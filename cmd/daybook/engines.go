package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/daybook-dev/daybook/archive"
	"github.com/daybook-dev/daybook/coordinator/state"
	pgstate "github.com/daybook-dev/daybook/coordinator/state/postgres"
	"github.com/daybook-dev/daybook/coordinator/state/sqlite"
	"github.com/daybook-dev/daybook/internal/bucket"
	"github.com/daybook-dev/daybook/internal/bucket/cloud"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/storage"
	"github.com/daybook-dev/daybook/storage/bigtable"
	"github.com/daybook-dev/daybook/storage/pebble"
	pgentries "github.com/daybook-dev/daybook/storage/postgres"
)

// engines are what roles keep things in. One that no role of the process uses is nil.
type engines struct {
	state   state.Store
	entries storage.Storage
	places  *archive.Places
}

// openEngines opens what the roles of the process use. The system closes it.
func (s *system) openEngines(ctx context.Context) error {
	var err error
	if s.Roles.has(roleCoordinator | roleCollector | roleArchivist) {
		if s.entries, err = s.openEntries(ctx); err != nil {
			return fmt.Errorf("open the recent entries: %w", err)
		}
		s.onClose(func(context.Context) error { return s.entries.Close() })
	}
	if s.Roles.has(roleCoordinator | roleArchivist) {
		own, err := s.openArchive(ctx)
		if err != nil {
			return fmt.Errorf("open the archive: %w", err)
		}
		s.places = archive.NewPlaces(own, s.projectBuckets)
		s.onClose(func(context.Context) error { return errors.Join(s.places.Close(), own.Close()) })
	}
	if s.Roles.has(roleCoordinator) {
		if s.state, err = s.openState(ctx); err != nil {
			return fmt.Errorf("open the streams' state: %w", err)
		}
		s.onClose(func(context.Context) error { return s.state.Close() })
	}
	return nil
}

func (s *system) openState(ctx context.Context) (state.Store, error) {
	if s.State == "" {
		store, err := sqlite.Open(ctx, s.Dir.Join("state.db"))
		if err != nil {
			return nil, err
		}
		// We hold the directory, so whoever had leased tasks is gone.
		if err := store.ReleaseLeases(ctx, time.Now()); err != nil {
			_ = store.Close() // the cause is reported
			return nil, err
		}
		return store, nil
	}
	at, err := parsePlace("--state", s.State)
	if err != nil {
		return nil, err
	}
	if !isPostgres(at) {
		return nil, fault.New(fault.Invalid, "--state: %s:// is not known; give postgres://USER@HOST/DATABASE", at.Scheme)
	}
	store, err := pgstate.Open(ctx, at.raw, s.Log)
	if err != nil {
		return nil, at.tell(fmt.Errorf("%w; is the address that --state gives right, and the database there?", err))
	}
	return store, nil
}

func (s *system) openEntries(ctx context.Context) (storage.Storage, error) {
	if s.Entries == "" {
		path, err := s.Dir.Make("entries")
		if err != nil {
			return nil, err
		}
		entries, err := pebble.Open(path, pebble.Options{Logger: s.Log, Registerer: s.metrics})
		if err != nil {
			return nil, fmt.Errorf("%w; if files are damaged, docs/running.md tells what can be done", err)
		}
		return entries, nil
	}
	at, err := parsePlace("--entries", s.Entries)
	if err != nil {
		return nil, err
	}
	switch {
	case isPostgres(at):
		entries, err := pgentries.Open(ctx, at.raw, pgentries.Options{Logger: s.Log, Registerer: s.metrics})
		if err != nil {
			return nil, at.tell(fmt.Errorf("%w; is the address that --entries gives right, and the database there?", err))
		}
		return entries, nil
	case at.Scheme == "bigtable":
		return bigtable.Open(ctx, at.raw, bigtable.Options{Logger: s.Log, Registerer: s.metrics})
	default:
		return nil, fault.New(fault.Invalid, "--entries: %s:// is not known; give postgres://USER@HOST/DATABASE or bigtable://PROJECT/INSTANCE/TABLE", at.Scheme)
	}
}

// openArchive opens a directory, or a bucket in which the archives are below a prefix.
func (s *system) openArchive(ctx context.Context) (bucket.Bucket, error) {
	if s.Archive == "" {
		path, err := s.Dir.Make("archive")
		if err != nil {
			return nil, err
		}
		return bucket.CreateDir(path, "archive")
	}
	if !isURL(s.Archive) {
		return bucket.CreateDir(s.Archive, "archive")
	}
	at, err := parsePlace("--archive", s.Archive)
	if err != nil {
		return nil, err
	}
	b, err := cloud.Open(ctx, at.URL)
	if err != nil {
		return nil, at.tell(fmt.Errorf("--archive: %w", err))
	}
	return b, nil
}
