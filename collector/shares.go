package collector

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/daybook-dev/daybook/api/daybookv1"
)

const (
	// shareInterval is how often the journals are shared out anew, and shareLimit how long a process that says nothing keeps its share.
	shareInterval = 2 * time.Second
	shareLimit    = 4 * shareInterval

	memberLeases  = "collect/members/"
	journalLeases = "collect/journals/"
)

// shares shares partitions out among processes. Each holds a lease that says that it is there, and one for each partition that
// it has. Processes in the order of their names get as many partitions as the others, or one more.
type shares struct {
	leases daybookv1.LeasesClient
	name   string
}

func newShares(leases daybookv1.LeasesClient, name string) *shares {
	if name == "" {
		name = rand.Text()
	}
	return &shares{leases: leases, name: name}
}

// leaseOf names the lease of a partition.
func leaseOf(p partition) string {
	name := fmt.Sprintf("%s%s@%d", journalLeases, p.journal, p.created)
	if len(name) > 256 { // leases have shorter names than journals
		sum := sha256.Sum256([]byte(name))
		name = journalLeases + hex.EncodeToString(sum[:])
	}
	return name
}

// of returns the share of this process, of what is listed. Those of have that it must not have any more are stopped before they are
// given away. When the leases cannot be had, the share is what it was: somebody has to do the work.
func (s *shares) of(ctx context.Context, listed, have []partition, stop func(partition)) ([]partition, error) {
	have = slices.DeleteFunc(slices.Clone(have), func(p partition) bool { return !slices.Contains(listed, p) })
	if _, err := s.acquire(ctx, memberLeases+s.name); err != nil {
		return have, err
	}
	live, err := s.leases.ListLeases(ctx, &daybookv1.ListLeasesRequest{Prefix: "collect/"})
	if err != nil {
		return have, err
	}
	quota, holders := s.quota(live.GetLeases(), len(listed))

	var mine []partition
	var errs []error
	for _, p := range have {
		if len(mine) >= quota {
			stop(p)
			errs = append(errs, s.release(ctx, leaseOf(p)))
			continue
		}
		acquired, err := s.acquire(ctx, leaseOf(p))
		errs = append(errs, err)
		if acquired || err != nil {
			mine = append(mine, p)
		}
	}
	for _, p := range listed {
		if len(mine) >= quota {
			break
		}
		if holder := holders[leaseOf(p)]; slices.Contains(have, p) || holder != "" && holder != s.name {
			continue
		}
		acquired, err := s.acquire(ctx, leaseOf(p))
		errs = append(errs, err)
		if acquired {
			mine = append(mine, p)
		}
	}
	return mine, errors.Join(errs...)
}

// quota returns how many of n partitions this process is to have, and who holds which lease.
func (s *shares) quota(live []*daybookv1.Lease, n int) (quota int, holders map[string]string) {
	holders = make(map[string]string)
	members := []string{s.name}
	for _, l := range live {
		holders[l.GetName()] = l.GetHolder()
		if name, ok := strings.CutPrefix(l.GetName(), memberLeases); ok && name != s.name {
			members = append(members, name)
		}
	}
	slices.Sort(members)
	quota = n / len(members)
	if slices.Index(members, s.name) < n%len(members) {
		quota++
	}
	return quota, holders
}

func (s *shares) acquire(ctx context.Context, name string) (bool, error) {
	r, err := s.leases.AcquireLease(ctx, &daybookv1.AcquireLeaseRequest{Name: name, Holder: s.name, Ttl: durationpb.New(shareLimit)})
	return r.GetAcquired(), err
}

func (s *shares) release(ctx context.Context, name string) error {
	_, err := s.leases.ReleaseLease(ctx, &daybookv1.ReleaseLeaseRequest{Name: name, Holder: s.name})
	return err
}

// leave gives everything away, so that others need not wait for the leases to end. Nothing depends on it.
func (s *shares) leave(ctx context.Context, have []partition) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	for _, p := range have {
		_ = s.release(ctx, leaseOf(p))
	}
	_ = s.release(ctx, memberLeases+s.name)
}
