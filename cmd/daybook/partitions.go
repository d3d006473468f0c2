package main

import (
	"context"

	"github.com/daybook-dev/daybook/api/ingest"
	journalclient "github.com/daybook-dev/daybook/journal/client"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// watchIngestJournals returns a function that names the journals which Butlers may be told to append to, as they are at the time, until the
// system is closed.
func (s *system) watchIngestJournals() func() []string {
	ctx, cancel := context.WithCancel(context.Background())
	request := &protocol.ListRequest{Selector: &protocol.LabelSelector{Include: protocol.MustLabelSet(ingest.Label, "")}}
	list := journalclient.NewWatchedList(ctx, journalClient(s.toJournals), request, nil)
	s.onClose(func(context.Context) error {
		cancel()
		<-list.Done()
		return nil
	})
	return func() []string {
		var names []string
		for _, j := range list.List().GetJournals() {
			if protocol.JournalSpec_Flag(j.GetSpec().GetFlags()).MayWrite() {
				names = append(names, j.GetSpec().GetName())
			}
		}
		return names
	}
}
