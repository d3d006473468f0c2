package sqlite

import (
	"context"

	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/coordinator/state/row"
	"github.com/daybook-dev/daybook/internal/fault"
)

// PutToken implements state.Tokens.
func (s *Store) PutToken(ctx context.Context, k *state.Token) error {
	return s.Update(ctx, func(t state.Tx) error {
		n, err := t.(*tx).affect(`INSERT INTO tokens (`+row.TokenColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (id) DO UPDATE SET hash = excluded.hash, name = excluded.name, scopes = excluded.scopes, created = excluded.created,
				expires = excluded.expires, last_used = excluded.last_used
			WHERE tokens.expires <= excluded.created OR tokens.hash = excluded.hash`, row.TokenValues(k)...)
		if err == nil && n == 0 {
			return fault.New(fault.Exists, "there is a token %s already", k.ID)
		}
		if fault.Is(wrap(err, "store"), fault.Exists) {
			err = fault.New(fault.Exists, "another token has the hash of token %s", k.ID)
		}
		return wrap(err, "store token %s", k.ID)
	})
}

// TokenByHash implements state.Tokens.
func (s *Store) TokenByHash(ctx context.Context, hash []byte) (*state.Token, error) {
	rows, err := s.queries.query(ctx, `SELECT `+row.TokenColumns+` FROM tokens WHERE hash = ?`, hash)
	if err != nil {
		return nil, s.after(wrap(err, "read token"))
	}
	k, err := first(rows, row.Token)
	if k == nil && err == nil {
		err = fault.New(fault.NotFound, "no such token")
	}
	return k, s.after(wrap(err, "read token"))
}

// ListTokens implements state.Tokens.
func (s *Store) ListTokens(ctx context.Context) ([]*state.Token, error) {
	rows, err := s.queries.query(ctx, `SELECT `+row.TokenColumns+` FROM tokens ORDER BY created, id`)
	if err != nil {
		return nil, s.after(wrap(err, "list tokens"))
	}
	var all []*state.Token
	err = each(rows, row.Token, func(k *state.Token) bool { all = append(all, k); return true })
	return all, s.after(wrap(err, "list tokens"))
}

// DeleteToken implements state.Tokens.
func (s *Store) DeleteToken(ctx context.Context, id string) error {
	return s.Update(ctx, func(t state.Tx) error {
		n, err := t.(*tx).affect(`DELETE FROM tokens WHERE id = ?`, id)
		if err == nil && n == 0 {
			err = fault.New(fault.NotFound, "no token %s", id)
		}
		return wrap(err, "delete token %s", id)
	})
}
