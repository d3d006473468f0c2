package main

import (
	"path/filepath"
	"time"

	"github.com/daybook-dev/daybook/coordinator/state/sqlite"
	"github.com/daybook-dev/daybook/coordinator/state/statetest"
	"github.com/daybook-dev/daybook/internal/testkit"
)

// measureRestart measures how long a server on a directory with many streams takes to be ready, from the start of its process on: after it
// was asked to stop, and after it was killed.
func measureRestart(r *run) {
	h := r.house()
	server := h.Serve()
	server.Stop(time.Minute)
	store, err := sqlite.Open(r.Context(), filepath.Join(h.Data, "state.db"))
	if err != nil {
		r.Fatalf("%v", err)
	}
	r.Logf("filling the state; this takes minutes")
	if err := statetest.Fill(r.Context(), store, stateStreams(r)); err != nil {
		r.Fatalf("%v", err)
	}
	if err := store.Close(); err != nil {
		r.Fatalf("%v", err)
	}
	restart := func(what string, end func(*testkit.Server)) {
		end(server)
		start := time.Now()
		server.Restart()
		r.report(what, seconds, time.Since(start).Seconds())
	}
	server.Restart()
	restart("ready after a stop", func(s *testkit.Server) { s.Stop(time.Minute) })
	restart("ready after a kill", func(s *testkit.Server) { s.Kill() })
	r.report("peak memory", mebibytes, float64(server.PeakMemory()))
}
