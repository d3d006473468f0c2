package main

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/daybook-dev/daybook/api/ingest"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/broker"
	"github.com/daybook-dev/daybook/journal/broker/engine/disklog"
	journalclient "github.com/daybook-dev/daybook/journal/client"
	"github.com/daybook-dev/daybook/journal/protocol"
	"github.com/daybook-dev/daybook/journal/store"
)

// openBroker opens the journals of the data directory.
func (s *system) openBroker(ctx context.Context) error {
	log, err := disklog.Open(ctx, s.Dir.Join("journal"), disklog.Options{Logger: s.Log, Registerer: s.metrics})
	if err != nil {
		return fmt.Errorf("open the journals: %w", err)
	}
	s.onClose(log.Close)
	for _, name := range []string{"fragments", "scratch"} {
		if _, err := s.Dir.Make(name); err != nil {
			return fmt.Errorf("open the fragment stores: %w", err)
		}
	}
	stores := store.NewRegistry(store.Options{Root: s.Dir.Join("fragments"), Logger: s.Log, Registerer: s.metrics})
	s.onClose(func(context.Context) error { return stores.Close() })
	s.journals, err = broker.New(ctx, broker.Config{
		Engine: log, ID: &protocol.ProcessSpec_ID{Zone: "local", Suffix: "daybook"}, Endpoint: protocol.Endpoint(s.URL()), Callers: s.callers,
		Stores: stores, Scratch: s.Dir.Join("scratch"), Logger: s.Log, Registerer: s.metrics,
	})
	if err != nil {
		return fmt.Errorf("start the broker: %w", err)
	}
	s.check("broker", func(context.Context) error { return log.Ready() })
	return nil
}

// createIngestJournal creates the journal that Butlers append to, on the first start.
func (s *system) createIngestJournal(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	journals := journalClient(s.conn)
	_, err := journalclient.GetJournal(ctx, journals, ingest.DefaultJournal)
	if err == nil {
		return nil
	}
	_, err = journalclient.ApplyJournals(ctx, journals, &protocol.ApplyRequest{Changes: []*protocol.ApplyRequest_Change{{
		ExpectModRevision: 0,
		Upsert: &protocol.JournalSpec{
			Name:        ingest.DefaultJournal,
			Replication: 1,
			Labels:      protocol.MustLabelSet(ingest.Label, "default"),
			Fragment: &protocol.JournalSpec_Fragment{
				Length:           64 << 20,
				CompressionCodec: protocol.CompressionCodec_NONE,
				RefreshInterval:  durationpb.New(time.Hour),
			},
		},
	}}})
	if err != nil {
		return fmt.Errorf("create the journal %s: %w", ingest.DefaultJournal, err)
	}
	return nil
}

// trim tells the brokers that nobody needs what lies below an offset of a journal.
func (s *system) trim(ctx context.Context, journal protocol.Journal, below protocol.Offset) error {
	if s.journals != nil {
		return s.journals.Trim(ctx, journal, below)
	}
	_, err := protocol.NewTrimClient(s.toJournals).Trim(ctx, &protocol.TrimRequest{Journal: string(journal), Below: int64(below)})
	if fault.Is(err, fault.Unimplemented) {
		return nil // brokers of others keep what the journal's retention says
	}
	return err
}
