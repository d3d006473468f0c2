package main

import (
	"context"

	"github.com/daybook-dev/daybook/api/ingest"
	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/collector"
	collectorcoordinator "github.com/daybook-dev/daybook/collector/coordinator"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// startCollector collects what the ingest journals hold.
func (s *system) startCollector(ctx context.Context) error {
	s.consumer = collector.NewConsumer(collector.ConsumerConfig{
		Collector: &collector.Collector{
			Coordinator: collectorcoordinator.NewCache(collectorcoordinator.NewCoordinator(logdog.NewServicesClient(s.toCoordinator)), 0, 0),
			Storage:     s.entries,
			Logger:      s.Log,
			Metrics:     collector.NewMetrics(s.metrics),
		},
		Journals: journalClient(s.toJournals),
		Journal:  ingest.DefaultJournal,
		Durable: func(offset int64) {
			if err := s.trim(ctx, ingest.DefaultJournal, protocol.Offset(offset)); err != nil && ctx.Err() == nil {
				s.Log.Warn("trim the ingest journal", "below", offset, "error", err)
			}
		},
	})
	s.check("collector", func(ctx context.Context) error {
		if err := s.reach(ctx, s.toCoordinator, "coordinator"); err != nil {
			return err
		}
		if err := s.reach(ctx, s.toJournals, "brokers"); err != nil {
			return err
		}
		return s.entriesAnswer(ctx)
	})
	s.work(ctx, "collect", s.consumer.Run)
	return nil
}
