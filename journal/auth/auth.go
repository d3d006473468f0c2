// Package auth says who may do what with which journals.
//
// A caller presents a token, a JWT signed with a key that brokers know. Its Claims have capabilities, a selector of journals
// and an end. Three parties use this package:
//
//   - Whoever issues tokens signs them with Keys.
//   - A client wraps its connection with NewClient, which gives each call a token of an Authorizer: one that Keys sign on the
//     spot for just that call, or a Token that was handed out.
//   - A broker verifies calls with Keys.VerifyCall, or Keys.VerifyHeader where a call came by HTTP, and asks the Claims about
//     each journal.
//
// No error of this package repeats a key or a token. Everything is safe for concurrent use.
package auth

import (
	"context"
	"strings"
	"time"

	"github.com/daybook-dev/daybook/internal/fault"
	pb "github.com/daybook-dev/daybook/journal/protocol"
)

// Capability is a set of things that a caller may do. The bits from 1<<16 up are free for applications.
type Capability uint32

// The capabilities of the Journal service.
const (
	List      Capability = 1 << 1
	Apply     Capability = 1 << 2
	Read      Capability = 1 << 3
	Append    Capability = 1 << 4
	Replicate Capability = 1 << 5
	All       Capability = 1<<32 - 1
)

// Has reports whether all of the others are among the capabilities.
func (c Capability) Has(others Capability) bool { return c&others == others }

// String names the capabilities.
func (c Capability) String() string {
	if c == All {
		return "ALL"
	}
	var names []string
	for _, k := range []struct {
		c    Capability
		name string
	}{{List, "LIST"}, {Apply, "APPLY"}, {Read, "READ"}, {Append, "APPEND"}, {Replicate, "REPLICATE"}} {
		if c.Has(k.c) {
			names = append(names, k.name)
		}
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, "+")
}

// Claims are what a token grants.
type Claims struct {
	Capability Capability
	// Selector selects the journals; nil selects all.
	Selector *pb.LabelSelector
	// Issued and Expires bound the token's life.
	Issued, Expires time.Time
}

// Allows reports whether the claims select a journal, given its labels for matching: those of its spec, and "name".
func (c Claims) Allows(labels *pb.LabelSet) bool { return c.Selector.Matches(labels) }

// ForJournal returns claims to one journal.
func ForJournal(c Capability, journal pb.Journal) Claims {
	return Claims{Capability: c, Selector: &pb.LabelSelector{
		Include: &pb.LabelSet{Labels: []*pb.Label{{Name: pb.LabelName, Value: string(journal.StripMeta())}}},
	}}
}

type claimsKey struct{}

// WithClaims returns a context whose calls request these claims, instead of those that NewClient finds by itself. Expires may
// be zero, which leaves the time to NewClient.
func WithClaims(ctx context.Context, c Claims) context.Context {
	return context.WithValue(ctx, claimsKey{}, c)
}

// ClaimsOf returns the claims that calls of the context request.
func ClaimsOf(ctx context.Context) (Claims, bool) {
	c, ok := ctx.Value(claimsKey{}).(Claims)
	return c, ok
}

func unauthenticated(format string, args ...any) error {
	return fault.New(fault.Unauthenticated, format, args...)
}
