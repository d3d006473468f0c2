package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/collector"
	collectorcoordinator "github.com/daybook-dev/daybook/collector/coordinator"
	"github.com/daybook-dev/daybook/collector/quarantine"
	"github.com/daybook-dev/daybook/coordinator/access"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// openCollector makes the Collector, and the door to what it could not use.
func (s *system) openCollector(context.Context) error {
	kept, err := quarantine.Open(s.Dir.Join("quarantine"), quarantine.Options{Logger: s.Log, Registerer: s.metrics})
	if err != nil {
		return fmt.Errorf("open the quarantine: %w", err)
	}
	cache := collectorcoordinator.NewCache(collectorcoordinator.NewCoordinator(logdog.NewServicesClient(s.toCoordinator)), 0, 0)
	if hits, ok := cache.(prometheus.Collector); ok {
		s.metrics.MustRegister(hits)
	}
	s.collector = &collector.Collector{
		Coordinator: cache,
		Storage:     s.entries,
		Quarantine:  kept,
		Logger:      s.Log,
		Metrics:     collector.NewMetrics(s.metrics),
	}
	s.quarantine = &quarantine.Service{
		Store:     kept,
		Replay:    s.collector.Replay,
		Authorize: func(ctx context.Context) error { return s.callers.rules.Check(ctx, "", "", access.Admin) },
	}
	s.onClose(func(context.Context) error {
		s.collector.Close()
		return kept.Close()
	})
	return nil
}

// startCollector collects what the ingest journals hold.
func (s *system) startCollector(ctx context.Context) error {
	cfg := collector.GroupConfig{
		Collector: s.collector,
		Journals:  journalClient(s.toJournals),
		Durable: func(journal protocol.Journal, offset int64) {
			if err := s.trim(ctx, journal, protocol.Offset(offset)); err != nil && ctx.Err() == nil {
				s.Log.Warn("trim an ingest journal", "journal", journal, "below", offset, "error", err)
			}
		},
	}
	if s.Entries != "" { // others may have the same storage
		cfg.Leases = daybookv1.NewLeasesClient(s.toCoordinator)
		cfg.Name = collectorName()
	}
	s.collecting = collector.NewGroup(cfg)
	s.check("collector", func(ctx context.Context) error {
		if err := s.serves(ctx); err != nil {
			return err
		}
		if err := s.collects(ctx); err != nil {
			return err
		}
		if err := s.collecting.Err(); err != nil {
			return err
		}
		if store, ok := s.entries.(interface{ Ready() error }); ok { // on a full disk entries can be read and not written
			if err := store.Ready(); err != nil {
				return err
			}
		}
		return s.entriesAnswer(ctx)
	})
	s.work(ctx, "collect", s.collecting.Run)
	return nil
}

// collectorName tells this process from others in lists of leases.
func collectorName() string {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "host"
	}
	return fmt.Sprintf("%s-%d-%s", host, os.Getpid(), rand.Text()[:6])
}
