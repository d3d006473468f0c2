package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/daybook-dev/daybook/internal/datadir"
)

// The data directory may have been made by somebody else, so that everybody can enter it. What it holds stays its owner's.
func TestLogsAreTheirOwners(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("files have no modes there")
	}
	s := openGuarded(t)
	if err := os.Chmod(s.Dir.Path(), 0o755); err != nil {
		t.Fatal(err)
	}
	all, err := os.ReadDir(s.Dir.Path())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v", e.Name(), info.Mode())
		}
	}
}

// A server that cannot open damaged files says where there is help.
func TestDamagedEntriesAreRefused(t *testing.T) {
	dir, err := datadir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	open := func() error {
		s := &system{systemConfig: systemConfig{layout: embedded, Dir: dir, Log: slog.New(slog.DiscardHandler)}, metrics: prometheus.NewRegistry()}
		entries, err := s.openEntries(t.Context())
		if err != nil {
			return err
		}
		return entries.Close()
	}
	if err := open(); err != nil {
		t.Fatal(err)
	}
	manifests, err := filepath.Glob(dir.Join("entries", "MANIFEST-*"))
	if err != nil || len(manifests) == 0 {
		t.Fatal(manifests, err)
	}
	for _, m := range manifests {
		if err := os.WriteFile(m, []byte("damaged"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := open(); err == nil || !strings.Contains(err.Error(), "docs/running.md") {
		t.Errorf("opened with %v", err)
	}
}
