package leases

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/coordinator/access"
	"github.com/daybook-dev/daybook/coordinator/state/sqlite"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
)

func TestLeases(t *testing.T) {
	store, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	s := New(store, access.Open())
	acquires := func(name, holder string, want bool) {
		t.Helper()
		r, err := s.AcquireLease(t.Context(), &daybookv1.AcquireLeaseRequest{Name: name, Holder: holder, Ttl: durationpb.New(time.Minute)})
		if err != nil || r.GetAcquired() != want {
			t.Errorf("%s acquires %s: %v, %v; want %v", holder, name, r, err, want)
		}
	}
	acquires("work/1", "a", true)
	acquires("work/1", "a", true)
	acquires("work/1", "b", false)
	acquires("work/2", "b", true)
	acquires("other", "b", true)
	r, err := s.ListLeases(t.Context(), &daybookv1.ListLeasesRequest{Prefix: "work/"})
	if err != nil || len(r.GetLeases()) != 2 || r.GetLeases()[0].GetHolder() != "a" || r.GetLeases()[1].GetHolder() != "b" ||
		!r.GetLeases()[0].GetUntil().AsTime().After(time.Now()) {
		t.Errorf("%v, %v", r, err)
	}
	for _, holder := range []string{"b", "a"} { // only the holder's own
		if _, err := s.ReleaseLease(t.Context(), &daybookv1.ReleaseLeaseRequest{Name: "work/1", Holder: holder}); err != nil {
			t.Error(err)
		}
		acquires("work/1", "c", holder == "a")
	}
	for _, bad := range []*daybookv1.AcquireLeaseRequest{nil, {Name: "x", Holder: "x"}, {Name: "x", Holder: "x", Ttl: &durationpb.Duration{Nanos: -1, Seconds: 1}}} {
		if _, err := s.AcquireLease(t.Context(), bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

// noServices refuses what processes of the installation may do.
type noServices struct{ access.Checker }

func (noServices) Check(_ context.Context, _ types.Project, _ string, p access.Permission) error {
	if p == access.Services {
		return fault.New(fault.Denied, "no")
	}
	return nil
}

func TestLeasesAreRefused(t *testing.T) {
	s := New(nil, noServices{})
	_, err1 := s.AcquireLease(t.Context(), &daybookv1.AcquireLeaseRequest{})
	_, err2 := s.ReleaseLease(t.Context(), &daybookv1.ReleaseLeaseRequest{})
	_, err3 := s.ListLeases(t.Context(), &daybookv1.ListLeasesRequest{})
	for _, err := range []error{err1, err2, err3} {
		if !fault.Is(err, fault.Denied) {
			t.Error(err)
		}
	}
}
