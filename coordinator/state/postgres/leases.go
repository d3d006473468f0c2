package postgres

import (
	"context"
	"time"

	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/coordinator/state/row"
)

// dbNow is the time of the database, which all processes share, in microseconds.
const dbNow = `(extract(epoch FROM clock_timestamp()) * 1000000)::bigint`

const (
	acquireLease = `INSERT INTO leases AS l (name, holder, until) VALUES ($1, $2, ` + dbNow + ` + $3)
		ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until
		WHERE l.holder = excluded.holder OR l.until <= ` + dbNow
	releaseLease = `DELETE FROM leases WHERE name = $1 AND holder = $2`
	liveLeases   = `SELECT name, holder, until FROM leases WHERE name >= $1 AND starts_with(name, $1) AND until > ` + dbNow + ` ORDER BY name`
)

// AcquireLease implements state.Leases.
func (s *Store) AcquireLease(ctx context.Context, name, holder string, ttl time.Duration) (bool, error) {
	if err := state.CheckLease(name, holder, ttl); err != nil {
		return false, err
	}
	n, err := s.exec(ctx, acquireLease, name, holder, ttl.Microseconds())
	return n > 0, wrap(err, "acquire lease %s", name)
}

// ReleaseLease implements state.Leases.
func (s *Store) ReleaseLease(ctx context.Context, name, holder string) error {
	_, err := s.exec(ctx, releaseLease, name, holder)
	return wrap(err, "release lease %s", name)
}

// LiveLeases implements state.Leases.
func (s *Store) LiveLeases(ctx context.Context, prefix string) (live []state.Lease, err error) {
	found, err := listed(ctx, s, row.Lease, liveLeases, prefix)
	for _, l := range found {
		live = append(live, *l)
	}
	return live, wrap(err, "list leases")
}

// exec executes one statement in a transaction of its own, and returns how many rows it changed. The statement has the same effect when it is
// executed again.
func (s *Store) exec(ctx context.Context, text string, args ...any) (n int64, err error) {
	err = s.retry(ctx, func() error {
		tag, err := s.pool.Exec(ctx, text, args...)
		n = tag.RowsAffected()
		return err
	})
	return n, err
}
