package state

import (
	"context"
	"time"
)

// Token is what is remembered of a token that proves who somebody is. The token itself is not.
type Token struct {
	// ID names the token to its administrators.
	ID string
	// Hash is that of the token. There are no two tokens with one.
	Hash []byte
	Name string
	// Scopes is a JSON document that says what the token is good for. Stores do not look at it.
	Scopes []byte
	// Expires is zero for a token that does not; LastUsed for one that was not used.
	Created, Expires, LastUsed time.Time
}

// Tokens keeps tokens.
type Tokens interface {
	// PutToken stores a token, in place of one with its ID that had expired when it was created, or has its hash. The ID of one that is good,
	// and a hash that another token has, are refused with an error of kind Exists.
	PutToken(ctx context.Context, t *Token) error
	// TokenByHash returns a token, or an error of kind NotFound.
	TokenByHash(ctx context.Context, hash []byte) (*Token, error)
	// ListTokens returns all tokens, the oldest first.
	ListTokens(ctx context.Context) ([]*Token, error)
	// DeleteToken removes a token, or returns an error of kind NotFound.
	DeleteToken(ctx context.Context, id string) error
}
