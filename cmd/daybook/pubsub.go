package main

import (
	"context"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc"

	"github.com/daybook-dev/daybook/collector/door"
	"github.com/daybook-dev/daybook/coordinator/access"
	journalclient "github.com/daybook-dev/daybook/journal/client"
	"github.com/daybook-dev/daybook/logs/types"
)

// servePubSub opens the way into the journals for Butlers that know none. The function that it returns ends the calls that wait for a
// journal; they are let go when the brokers have finished.
func (s *system) servePubSub(r grpc.ServiceRegistrar) (stop func()) {
	journals := journalclient.NewClient(s.toJournals, journalclient.DialConfig{})
	s.onClose(func(context.Context) error { return journals.Close() })
	d := door.New(door.Config{
		Journals: journals, Writable: s.ingestJournals, Registerer: s.metrics,
		Authorize: func(ctx context.Context, p types.Project) error {
			return s.callers.rules.Check(ctx, p, "", access.Create)
		},
	})
	pubsubpb.RegisterPublisherServer(r, d)
	return d.Close
}
