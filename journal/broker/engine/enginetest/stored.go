package enginetest

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/broker/engine"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// testStored moves fragments to a store in any order, and trims them.
func testStored(t *testing.T, open Opener) {
	e := open(t)
	Create(t, e, "test/a")
	for range 5 {
		a := Append("0123456789")
		a.Roll.Force = true
		Must(t, e, "test/a", a)
	}
	storedAs := func(f engine.Fragment) engine.StoredFragment {
		f.Postfix = "b=c" // as a listing may have told
		return engine.StoredFragment{Fragment: f, Store: "file:///a/", Modified: 5}
	}
	all := State(t, e, "test/a").Finished
	for _, i := range []int{1, 0, 3} {
		if err := e.Stored(t.Context(), "test/a", storedAs(all[i])); err != nil {
			t.Fatalf("stored: %v", err)
		}
	}
	if err := e.Stored(t.Context(), "test/a", storedAs(all[0])); !fault.Is(err, fault.NotFound) {
		t.Errorf("stored twice: %v; want NotFound", err)
	}
	other := all[2]
	other.Sum[0]++
	if err := e.Stored(t.Context(), "test/a", storedAs(other)); !fault.Is(err, fault.NotFound) {
		t.Errorf("another fragment stored: %v; want NotFound", err)
	}
	if _, err := e.Open(t.Context(), "test/a", all[0]); !fault.Is(err, fault.NotFound) {
		t.Errorf("open what is stored: %v; want NotFound", err)
	}
	check := func(begin protocol.Offset, finished []engine.Fragment, stored ...engine.StoredFragment) {
		t.Helper()
		s := State(t, e, "test/a")
		if s.Begin() != begin || s.Head != 50 || s.Open.Len() != 10 {
			t.Errorf("from %d to %d", s.Begin(), s.Head)
		}
		if diff := cmp.Diff(finished, append([]engine.Fragment(nil), s.Finished...)); diff != "" {
			t.Errorf("finished (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(stored, append([]engine.StoredFragment(nil), s.Stored...)); diff != "" {
			t.Errorf("stored (-want +got):\n%s", diff)
		}
		for _, f := range s.Finished {
			if got := read(t, e, "test/a", f); string(got) != "0123456789" {
				t.Errorf("[%d, %d) is %q", f.Begin, f.End, got)
			}
		}
	}
	reopen := func() {
		t.Helper()
		Close(t, e)
		e = open(t)
	}
	x, y, z := storedAs(all[0]), storedAs(all[1]), storedAs(all[3])
	for range 2 {
		check(0, all[2:3], x, y, z)
		reopen()
	}
	if err := e.Trim(t.Context(), "test/a", 19); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		check(10, all[2:3], y, z)
		if s := State(t, e, "test/a"); s.Trimmed != 10 {
			t.Errorf("trimmed below %d, want 10", s.Trimmed)
		}
		reopen()
	}
	if err := e.Trim(t.Context(), "test/a", 40); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		check(40, nil)
		reopen()
	}
	Close(t, e)
}
