package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	"github.com/daybook-dev/daybook/internal/fault"
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

// serveReady answers with a line for each role that is not ready.
func (s *system) serveReady(w http.ResponseWriter, r *http.Request) {
	if !s.ready.Load() {
		http.Error(w, "starting, or shutting down", http.StatusServiceUnavailable)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), readyLimit)
	defer cancel()
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
