package main

import (
	"context"
	"fmt"

	"github.com/daybook-dev/daybook/archive"
	"github.com/daybook-dev/daybook/coordinator"
	"github.com/daybook-dev/daybook/coordinator/reader"
	"github.com/daybook-dev/daybook/internal/fault"
)

// archiveIndexes is how many indexes of archived streams are kept in memory.
const archiveIndexes = 64

// openCoordinator makes the Coordinator, which works when it is asked.
func (s *system) openCoordinator(context.Context) error {
	archived, err := archive.NewReader(s.places, archiveIndexes)
	if err != nil {
		return fmt.Errorf("open the archive: %w", err)
	}
	s.ingestJournals = s.watchIngestJournals()
	c := coordinator.Config{
		Store: s.state, Storage: s.entries, Archives: reader.FromArchive(archived), Access: s.callers.rules, Tokens: s.callers.tokens,
		Settings: s.settings, IngestJournals: s.ingestJournals, Logger: s.Log, Registerer: s.metrics,
	}
	if s.Roles.has(roleWeb) {
		c.BaseURL = s.URL()
	}
	if s.coord, err = coordinator.New(c); err != nil {
		return fmt.Errorf("start the coordinator: %w", err)
	}
	s.check("coordinator", func(ctx context.Context) error {
		// Any answer is one.
		if _, err := s.state.Prefix(ctx, "daybook", "ready"); err != nil && !fault.Is(err, fault.NotFound) {
			return fmt.Errorf("the streams' state does not answer: %w", err)
		}
		return s.entriesAnswer(ctx)
	})
	return nil
}

func (s *system) entriesAnswer(ctx context.Context) error {
	if _, err := s.entries.Checkpoint(ctx, "ready"); err != nil {
		return fmt.Errorf("the recent entries do not answer: %w", err)
	}
	return nil
}

// startSweeping has removed what time alone ends: streams beyond their retention, and what is left of deleted prefixes.
func (s *system) startSweeping(ctx context.Context) error {
	s.work(ctx, "sweep", func(ctx context.Context) error {
		s.coord.Run(ctx)
		return nil
	})
	return nil
}
