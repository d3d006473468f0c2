package postgres

import (
	"context"

	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/coordinator/state/row"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/pgdb"
)

const (
	putToken = `INSERT INTO tokens (` + row.TokenColumns + `) VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (id) DO UPDATE SET hash = excluded.hash, name = excluded.name, scopes = excluded.scopes, created = excluded.created,
			expires = excluded.expires, last_used = excluded.last_used
		WHERE tokens.expires <= excluded.created OR tokens.hash = excluded.hash`
	tokenByHash = `SELECT ` + row.TokenColumns + ` FROM tokens WHERE hash = $1`
	listTokens  = `SELECT ` + row.TokenColumns + ` FROM tokens ORDER BY created, id`
	deleteToken = `DELETE FROM tokens WHERE id = $1`
)

// PutToken implements state.Tokens.
func (s *Store) PutToken(ctx context.Context, k *state.Token) error {
	n, err := s.exec(ctx, putToken, row.TokenValues(k)...)
	if err == nil && n == 0 {
		return fault.New(fault.Exists, "there is a token %s already", k.ID)
	}
	if pgdb.Code(err) == pgdb.UniqueViolation {
		return fault.New(fault.Exists, "another token has the hash of token %s", k.ID)
	}
	return wrap(err, "store token %s", k.ID)
}

// TokenByHash implements state.Tokens.
func (s *Store) TokenByHash(ctx context.Context, hash []byte) (*state.Token, error) {
	found, err := listed(ctx, s, row.Token, tokenByHash, hash)
	if err == nil && len(found) == 0 {
		err = fault.New(fault.NotFound, "no such token")
	}
	if err != nil {
		return nil, wrap(err, "read token")
	}
	return found[0], nil
}

// ListTokens implements state.Tokens.
func (s *Store) ListTokens(ctx context.Context) ([]*state.Token, error) {
	found, err := listed(ctx, s, row.Token, listTokens)
	return found, wrap(err, "list tokens")
}

// DeleteToken implements state.Tokens.
func (s *Store) DeleteToken(ctx context.Context, id string) error {
	n, err := s.exec(ctx, deleteToken, id)
	if err == nil && n == 0 {
		err = fault.New(fault.NotFound, "no token %s", id)
	}
	return wrap(err, "delete token %s", id)
}
