package access

import (
	"cmp"
	"context"
	"strings"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
)

// DefaultRealm is the realm of prefixes that were registered without one.
const DefaultRealm = "@legacy"

// Checker decides what callers may do. Methods ask it before they look at anything else.
type Checker interface {
	// Check returns nil if the context's principal has the permission in a realm of a project, and the refusal otherwise.
	//
	// Permissions that are Global are checked with an empty project and realm. For the others a project is demanded: an empty or
	// malformed one is refused as Invalid, before anything else. An empty realm is DefaultRealm. A project that is not
	// configured is refused as one that the caller may do nothing in. A check that itself fails is of kind Internal.
	Check(ctx context.Context, project types.Project, realm string, p Permission) error
	// Anywhere is Check for a permission in any project: for what does not name one.
	Anywhere(ctx context.Context, p Permission) error
	// Hidden is the refusal for what the caller must not tell from what they may not see: projects and prefixes that do not
	// exist. It is the same, to the letter, as that of a permission which is lacking; only who lacks none is told more.
	Hidden(ctx context.Context) error
}

// absent is the refusal of a caller who lacks no permission, for what is not there. Its kinds are those of refuse, since clients of
// readers wait for what is merely not found.
func absent(ctx context.Context) error {
	kind := fault.Denied
	if PrincipalFrom(ctx).Anonymous() {
		kind = fault.Unauthenticated
	}
	return fault.New(kind, "there is no such project or prefix; the projects are those of the server's configuration")
}

// refuse returns the refusal of a caller who lacks a permission.
func refuse(ctx context.Context) error {
	p := PrincipalFrom(ctx)
	if p.Anonymous() {
		return fault.New(fault.Unauthenticated, "callers without a token may not do this, or there is no such project or prefix; give a token, with --token, DAYBOOK_TOKEN or a login")
	}
	return fault.New(fault.Denied, "%s may not do this, or there is no such project or prefix; an administrator can give a token that may, with daybook token create", p)
}

// refuseGlobal is the refusal of a caller who lacks a permission for the whole installation.
func refuseGlobal(ctx context.Context, wanted Permission) error {
	p := PrincipalFrom(ctx)
	switch {
	case wanted == Services: // also of anonymous callers (spec 3.4)
		return fault.New(fault.Denied, "%s is not one of the services; give a token of the role service", p)
	case p.Anonymous():
		return fault.New(fault.Unauthenticated, "this is for administrators; give a token of the role admin, with --token or DAYBOOK_TOKEN")
	}
	return fault.New(fault.Denied, "%s is no administrator; this needs a token of the role admin", p)
}

// local returns the name of a realm within its project.
func local(realm string) string {
	if _, name, ok := strings.Cut(realm, ":"); ok {
		realm = name
	}
	return cmp.Or(realm, DefaultRealm)
}

// wellFormed checks what Check was asked, before who asks.
func wellFormed(project types.Project, realm string, p Permission) error {
	if p.Global() {
		return nil
	}
	if err := project.Validate(); err != nil {
		return fault.Wrap(fault.Invalid, err)
	}
	if of, name, ok := strings.Cut(realm, ":"); ok {
		if of != string(project) {
			return fault.New(fault.Internal, "realm %q is not one of project %q", realm, project)
		}
		realm = name
	}
	if realm != "" && !types.ValidRealm(realm) {
		return fault.New(fault.Internal, "%q is not the name of a realm", realm)
	}
	return nil
}

// Open returns the checker of an installation that is open to whoever reaches it: it refuses only what is malformed.
func Open() Checker { return open{} }

type open struct{}

func (open) Check(_ context.Context, project types.Project, realm string, p Permission) error {
	return wellFormed(project, realm, p)
}
func (open) Anywhere(context.Context, Permission) error { return nil }
func (open) Hidden(ctx context.Context) error           { return absent(ctx) }
