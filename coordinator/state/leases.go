package state

import (
	"context"
	"time"

	"github.com/daybook-dev/daybook/internal/fault"
)

// maxLeaseName is the longest name of a lease or holder.
const maxLeaseName = 512

// Lease is a claim to some work that several processes could do. It saves work and promises nothing: a process that was stopped for a
// while may believe that it still holds a lease which another one has taken over.
type Lease struct {
	Name, Holder string
	// Until is when the lease ends, by the clock of the store.
	Until time.Time
}

// Leases hands out leases. Times are those of the store: of the database, if several processes share one.
type Leases interface {
	// AcquireLease takes or prolongs the lease, from now for the given time, and reports whether the holder has it. It does not wait for
	// another holder.
	AcquireLease(ctx context.Context, name, holder string, ttl time.Duration) (bool, error)
	// ReleaseLease ends the lease, if the holder has it.
	ReleaseLease(ctx context.Context, name, holder string) error
	// LiveLeases returns the leases that have not ended and whose names begin with the prefix, by name.
	LiveLeases(ctx context.Context, prefix string) ([]Lease, error)
}

// CheckLease checks the arguments of AcquireLease, for stores.
func CheckLease(name, holder string, ttl time.Duration) error {
	switch {
	case name == "" || len(name) > maxLeaseName || holder == "" || len(holder) > maxLeaseName:
		return fault.New(fault.Invalid, "names of a lease and of its holder have 1 to %d bytes", maxLeaseName)
	case ttl <= 0:
		return fault.New(fault.Invalid, "lease %s: a time of %s is not positive", name, ttl)
	}
	return nil
}
