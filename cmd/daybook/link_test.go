package main

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/daybook-dev/daybook/internal/datadir"
)

// A directory that cannot be served is told once, and is not tried again and again; who else serves it is found all the same.
func TestLinkToABrokenDirectory(t *testing.T) {
	dir, err := datadir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir.Join("entries"), []byte("no directory"), 0o600); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	l := &link{dir: dir, log: slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelError}))}
	for range 3 {
		if _, err := l.ourselves(t.Context()); err == nil || !strings.Contains(err.Error(), "recent entries") {
			t.Fatalf("a directory without room for entries: %v", err)
		}
	}
	if n := strings.Count(said.String(), "cannot serve the data directory"); n != 1 {
		t.Errorf("told %d times, want once:\n%s", n, said.String())
	}
	if n := strings.Count(said.String(), "level=ERROR"); n != 1 {
		t.Errorf("%d lines of errors, want one:\n%s", n, said.String())
	}

	other, err := dir.TryHold()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.ourselves(t.Context()); !errors.Is(err, datadir.ErrHeld) {
		t.Errorf("while another process serves it: %v, want ErrHeld", err)
	}
	if err := other.Release(); err != nil {
		t.Fatal(err)
	}

	if err := os.Remove(dir.Join("entries")); err != nil {
		t.Fatal(err)
	}
	l.failed.until = time.Now()
	if _, err := l.ourselves(t.Context()); err != nil {
		t.Errorf("when it is well again: %v", err)
	}
	if err := l.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
