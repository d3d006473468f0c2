package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/api/ingest"
	"github.com/daybook-dev/daybook/internal/fault"
	journalclient "github.com/daybook-dev/daybook/journal/client"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// readyLimit is how long a check may take. Who asks is a load balancer, and does not wait for long.
const readyLimit = 2 * time.Second

// check tells why a role cannot do its work now, or nil.
type check struct {
	role  string
	ready func(context.Context) error
}

// check adds a check. All of them are added before the system is ready.
func (s *system) check(role string, ready func(context.Context) error) {
	s.checks = append(s.checks, check{role, ready})
}

// reach returns why a role in another process cannot be reached, or nil.
func (s *system) reach(ctx context.Context, conn *grpc.ClientConn, what string) error {
	if conn == s.conn {
		return nil
	}
	for {
		conn.Connect()
		state := conn.GetState()
		if state == connectivity.Ready {
			return nil
		}
		if state == connectivity.TransientFailure || !conn.WaitForStateChange(ctx, state) {
			return fault.New(fault.Transient, "cannot reach the %s at %s", what, conn.Target())
		}
	}
}

// serves returns why the Coordinator does not let this process work for it, or nil.
func (s *system) serves(ctx context.Context) error {
	if err := s.reach(ctx, s.toCoordinator, "coordinator"); err != nil {
		return err
	}
	if _, err := daybookv1.NewLeasesClient(s.toCoordinator).ListLeases(ctx, &daybookv1.ListLeasesRequest{Prefix: "ready"}); err != nil {
		return fmt.Errorf("the coordinator at %s refuses: %w", s.toCoordinator.Target(), err)
	}
	return nil
}

// collects returns why there is nothing to collect from, or nil.
func (s *system) collects(ctx context.Context) error {
	if err := s.reach(ctx, s.toJournals, "brokers"); err != nil {
		return err
	}
	list, err := journalclient.ListAllJournals(ctx, journalClient(s.toJournals), &protocol.ListRequest{
		Selector: &protocol.LabelSelector{Include: protocol.MustLabelSet(ingest.Label, "")},
	})
	switch {
	case err != nil:
		return fmt.Errorf("the brokers at %s refuse: %w", s.toJournals.Target(), err)
	case len(list.GetJournals()) == 0:
		return fault.New(fault.Precondition, "the brokers at %s have no journal with the label %s; create one with daybook journals apply", s.toJournals.Target(), ingest.Label)
	}
	return nil
}

// serveReady answers with a line for each role that is not ready.
func (s *system) serveReady(w http.ResponseWriter, r *http.Request) {
	if !s.ready.Load() {
		http.Error(w, "starting, or shutting down", http.StatusServiceUnavailable)
		return
	}
	// The checks are on our own behalf, and not on that of whoever asks.
	ctx, cancel := context.WithTimeout(context.Background(), readyLimit)
	defer cancel()
	defer context.AfterFunc(r.Context(), cancel)()
	var reasons []string
	for _, c := range s.checks {
		if err := c.ready(ctx); err != nil {
			reasons = append(reasons, fmt.Sprintf("%s: %v", c.role, err))
		}
	}
	if len(reasons) > 0 {
		http.Error(w, strings.Join(reasons, "\n"), http.StatusServiceUnavailable)
		return
	}
	_, _ = w.Write([]byte("ready\n")) // nobody is left to be told
}
