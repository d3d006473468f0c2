package sqlite

import (
	"context"
	"time"

	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/coordinator/state/row"
)

// AcquireLease implements state.Leases.
func (s *Store) AcquireLease(ctx context.Context, name, holder string, ttl time.Duration) (ok bool, err error) {
	if err := state.CheckLease(name, holder, ttl); err != nil {
		return false, err
	}
	err = s.Update(ctx, func(t state.Tx) error {
		now := time.Now()
		n, err := t.(*tx).affect(`INSERT INTO leases (name, holder, until) VALUES (?, ?, ?)
			ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until
			WHERE leases.holder = excluded.holder OR leases.until <= ?`, name, holder, row.Micros(now.Add(ttl)), row.Micros(now))
		ok = n > 0
		return wrap(err, "acquire lease %s", name)
	})
	return ok && err == nil, err
}

// ReleaseLease implements state.Leases.
func (s *Store) ReleaseLease(ctx context.Context, name, holder string) error {
	return s.Update(ctx, func(t state.Tx) error {
		_, err := t.(*tx).change(`DELETE FROM leases WHERE name = ? AND holder = ?`, name, holder)
		return wrap(err, "release lease %s", name)
	})
}

// LiveLeases implements state.Leases.
func (s *Store) LiveLeases(ctx context.Context, prefix string) ([]state.Lease, error) {
	rows, err := s.queries.query(ctx, `SELECT name, holder, until FROM leases WHERE name >= ?1 AND substr(name, 1, length(?1)) = ?1 AND until > ?2
		ORDER BY name`, prefix, time.Now().UnixMicro())
	if err != nil {
		return nil, s.after(wrap(err, "list leases"))
	}
	var live []state.Lease
	err = each(rows, row.Lease, func(l *state.Lease) bool { live = append(live, *l); return true })
	return live, s.after(wrap(err, "list leases"))
}
