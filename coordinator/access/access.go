// Package access says who a caller is and what they may do (spec coordinator 3).
//
// Every door authenticates its callers before any method runs and puts the Principal into the context. A method asks its Checker
// before it does anything, about the project first; the refusals of a Checker do not tell what exists from what does not.
//
// All functions and methods are safe for concurrent use.
package access

import (
	"context"
	"strings"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
)

// Permission is something that a caller may be allowed to do.
type Permission string

// The permissions. Those of logs are granted in a project, or in a realm of it; the others for the whole installation, and are
// checked with an empty project.
const (
	// Create is needed to register prefixes and to send what is logged below them.
	Create Permission = "logdog.logs.create"
	// Get is needed to read a stream.
	Get Permission = "logdog.logs.get"
	// List is needed to find streams.
	List Permission = "logdog.logs.list"
	// DeletePrefix is needed to delete or purge prefixes and streams.
	DeletePrefix Permission = "logdog.logs.deletePrefix"
	// Services is what Collectors and Archivists need: the service logdog.Services, and to read and write all journals.
	Services Permission = "daybook.services"
	// Admin holds every other permission everywhere. Operators need it: they see purged streams, tasks, quarantine, metrics, and
	// change journals and tokens.
	Admin Permission = "daybook.admin"
)

// Permissions are all there are.
var Permissions = []Permission{Create, Get, List, DeletePrefix, Services, Admin}

// roles are names for sets of permissions.
var roles = map[string][]Permission{
	"reader":  {Get, List},
	"writer":  {Create},
	"service": {Services},
	"admin":   {Admin},
}

// Roles are the names that ParsePermissions takes besides those of permissions.
var Roles = []string{"reader", "writer", "service", "admin"}

// ParsePermissions returns what a name stands for: a permission, or a role ("reader", also written "role/logdog.reader"). Its
// errors are of kind Invalid.
func ParsePermissions(name string) ([]Permission, error) {
	for _, p := range Permissions {
		if name == string(p) {
			return []Permission{p}, nil
		}
	}
	if ps, ok := roles[strings.TrimPrefix(strings.TrimPrefix(name, "role/"), "logdog.")]; ok {
		return ps, nil
	}
	return nil, fault.New(fault.Invalid, "%q is neither a permission nor a role; the roles are %s", name, strings.Join(Roles, ", "))
}

// Global reports whether a permission is one for the whole installation rather than for a project.
func (p Permission) Global() bool { return p == Services || p == Admin }

// Anonymous is the name of callers without credentials.
const Anonymous = "anonymous"

// Principal is who makes a call.
type Principal struct {
	// Name is "anonymous", "user:NAME", "token:NAME", or "service:NAME" for processes of the installation itself. The zero
	// Principal is anonymous.
	Name string
	// Permissions are what the principal's credential grants, whatever is configured.
	Permissions []Permission
	// Projects are those in which the permissions of logs hold. Nil is none, and AllProjects among them is all.
	Projects []types.Project
}

// AllProjects stands for every project in the scope of a credential.
const AllProjects types.Project = "*"

// Anonymous reports whether nothing is known of the caller.
func (p Principal) Anonymous() bool { return p.Name == "" || p.Name == Anonymous }

// String returns the name.
func (p Principal) String() string {
	if p.Anonymous() {
		return Anonymous
	}
	return p.Name
}

// Holds reports whether the principal's own credential grants a permission. The empty project asks about any.
func (p Principal) Holds(project types.Project, wanted Permission) bool {
	for _, has := range p.Permissions {
		if has == Admin {
			return true
		}
		if has != wanted {
			continue
		}
		if wanted.Global() {
			return true
		}
		for _, in := range p.Projects {
			if project == "" || in == AllProjects || in == project {
				return true
			}
		}
	}
	return false
}

// caller is what a context knows of who makes its call.
type caller struct {
	principal  Principal
	credential string
}

type callerKey struct{}

// WithCaller returns a context of a call by p, who has shown a credential; none if it is empty.
func WithCaller(ctx context.Context, p Principal, credential string) context.Context {
	return context.WithValue(ctx, callerKey{}, caller{p, credential})
}

// WithPrincipal is WithCaller without a credential.
func WithPrincipal(ctx context.Context, p Principal) context.Context { return WithCaller(ctx, p, "") }

// PrincipalFrom returns who makes the call of a context; the anonymous one if nobody said.
func PrincipalFrom(ctx context.Context) Principal {
	c, ok := ctx.Value(callerKey{}).(caller)
	if !ok {
		return Principal{Name: Anonymous}
	}
	return c.principal
}

// CredentialFrom returns the credential of the caller whose call a context is of; empty for anonymous ones. Calls that are made on their
// behalf carry it. ok is false if the context is of no caller: then the process acts for itself.
func CredentialFrom(ctx context.Context) (credential string, ok bool) {
	c, ok := ctx.Value(callerKey{}).(caller)
	return c.credential, ok
}
