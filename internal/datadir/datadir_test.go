package datadir

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/daybook-dev/daybook/internal/fault"
)

func open(t *testing.T) *Dir {
	t.Helper()
	d, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestFormat(t *testing.T) {
	d := open(t)
	if _, err := Open(d.Path()); err != nil {
		t.Fatalf("reopen: %v", err)
	}
	for content, kind := range map[string]fault.Kind{"2\n": fault.Precondition, "x": fault.Invalid, "": fault.Invalid} {
		if err := os.WriteFile(d.Join("FORMAT"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(d.Path()); !fault.Is(err, kind) {
			t.Errorf("FORMAT %q: %v, want kind %v", content, err, kind)
		}
	}
}

func TestHold(t *testing.T) {
	d := open(t)
	h, err := d.TryHold()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.TryHold(); !errors.Is(err, ErrHeld) {
		t.Fatalf("second holder: %v", err)
	}
	if who, ok := d.Holder(); ok {
		t.Fatalf("holder before announcement: %+v", who)
	}
	want := Holder{PID: 7, Kind: Command, Address: "127.0.0.1:1", Started: time.Unix(1, 0).UTC(), Token: "t"}
	if err := h.Announce(want); err != nil {
		t.Fatal(err)
	}
	got, ok := d.Holder()
	if diff := cmp.Diff(want, got); !ok || diff != "" {
		t.Fatal(diff)
	}
	if err := h.Release(); err != nil {
		t.Fatal(err)
	}
	if _, ok := d.Holder(); ok {
		t.Fatal("holder after release")
	}
}

func TestSucceedRefusedByServer(t *testing.T) {
	d := open(t)
	h, err := d.TryHold()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = h.Release() }()
	if err := h.Announce(Holder{PID: 7, Kind: Server, Address: "127.0.0.1:1"}); err != nil {
		t.Fatal(err)
	}
	_, err = d.Succeed(t.Context(), nil)
	if !errors.Is(err, ErrHeld) || !strings.Contains(err.Error(), "process 7 on http://127.0.0.1:1") {
		t.Fatalf("got %v", err)
	}
}

func TestCommandGivesWay(t *testing.T) {
	d := open(t)
	h, err := d.TryHold()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Announce(Holder{PID: 7, Kind: Command, Address: "127.0.0.1:1", Token: "t"}); err != nil {
		t.Fatal(err)
	}
	asked := 0
	s, err := d.Succeed(t.Context(), func(_ context.Context, who Holder) error {
		asked++
		// While a server waits, no other command gets the directory.
		if err := h.Release(); err != nil {
			t.Error(err)
		}
		if _, err := d.TryHold(); !errors.Is(err, ErrHeld) {
			t.Errorf("a command got between: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if asked != 1 {
		t.Fatalf("asked %d times", asked)
	}
	if err := s.Release(); err != nil {
		t.Fatal(err)
	}
}

func TestSucceedGivesUp(t *testing.T) {
	d := open(t)
	h, err := d.TryHold()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = h.Release() }()
	if err := h.Announce(Holder{PID: 7, Kind: Command, Address: "127.0.0.1:1", Token: "t"}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*poll)
	defer cancel()
	if _, err := d.Succeed(ctx, func(context.Context, Holder) error { return nil }); !errors.Is(err, ErrHeld) || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	if err := h.Release(); err != nil {
		t.Fatal(err)
	}
	h, err = d.TryHold() // NEXT was given up
	if err != nil {
		t.Fatal(err)
	}
}
