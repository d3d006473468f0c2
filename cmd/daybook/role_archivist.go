package main

import (
	"context"
	"fmt"

	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/archivist"
)

// startArchivist works on the archive tasks that the Coordinator gives out.
func (s *system) startArchivist(ctx context.Context) error {
	var err error
	s.archiver, err = archivist.New(archivist.Config{
		Services: logdog.NewServicesClient(s.toCoordinator), Storage: s.entries, Places: s.places, ProjectDensity: s.projectDensity, Logger: s.Log, Registerer: s.metrics,
	})
	if err != nil {
		return fmt.Errorf("start the archivist: %w", err)
	}
	s.check("archivist", func(ctx context.Context) error {
		if err := s.serves(ctx); err != nil {
			return err
		}
		return s.entriesAnswer(ctx)
	})
	s.work(ctx, "archive", s.archiver.Run)
	return nil
}
