package access

import (
	"context"
	"slices"

	"github.com/daybook-dev/daybook/coordinator/config"
	"github.com/daybook-dev/daybook/logs/types"
)

// Everyone stands for all callers with a credential among the principals of a grant. What is granted to Anonymous, everybody may do.
const Everyone = "*"

// Rules is the Checker that goes by credentials and by the configuration.
//
// A caller has a permission if their credential grants it, if the configuration grants it to their principal in the realm, or if they
// are among its administrators; they are a service if they are among its services, too. While the configuration has no rules at
// all, and they are not demanded, everybody may do everything.
type Rules struct {
	conf     *config.Authority
	demanded bool
}

var _ Checker = (*Rules)(nil)

// NewRules returns the checker of a configuration. demanded says that callers need permission even if there are no rules: then only
// credentials grant any.
func NewRules(conf *config.Authority, demanded bool) *Rules {
	return &Rules{conf: conf, demanded: demanded}
}

// Apply reports whether callers need permission: whether there are rules, or they are demanded. It may change with the configuration.
func (r *Rules) Apply() bool { return r.demanded || hasRules(r.conf.Current()) }

func hasRules(c *config.Config) bool {
	if len(c.Service.Administrators)+len(c.Service.Services) > 0 {
		return true
	}
	for _, p := range c.Projects {
		if len(p.Access) > 0 {
			return true
		}
	}
	return false
}

// Check implements Checker.
func (r *Rules) Check(ctx context.Context, project types.Project, realm string, p Permission) error {
	if err := wellFormed(project, realm, p); err != nil {
		return err
	}
	conf := r.conf.Current()
	of := conf.Projects[project]
	if !p.Global() && of == nil {
		return r.Hidden(ctx)
	}
	if !r.demanded && !hasRules(conf) {
		return nil
	}
	who := PrincipalFrom(ctx)
	if p.Global() {
		switch {
		case who.Holds("", p), among(conf.Service.Administrators, who):
			return nil
		case p == Services && among(conf.Service.Services, who):
			return nil
		}
		return refuseGlobal(ctx, p)
	}
	switch {
	case who.Holds(project, p), among(conf.Service.Administrators, who), granted(of, who, local(realm), p):
		return nil
	}
	return refuse(ctx)
}

// Anywhere implements Checker.
func (r *Rules) Anywhere(ctx context.Context, p Permission) error {
	if p.Global() {
		return r.Check(ctx, "", "", p)
	}
	conf := r.conf.Current()
	if !r.demanded && !hasRules(conf) {
		return nil
	}
	who := PrincipalFrom(ctx)
	if who.Holds("", p) || among(conf.Service.Administrators, who) {
		return nil
	}
	for _, of := range conf.Projects {
		if granted(of, who, "", p) {
			return nil
		}
	}
	return refuse(ctx)
}

// Hidden implements Checker.
func (r *Rules) Hidden(ctx context.Context) error {
	if r.Check(ctx, "", "", Admin) == nil {
		return absent(ctx)
	}
	return refuse(ctx)
}

// granted reports whether a project grants a permission in a realm; in any if realm is empty. What is granted in @root is granted in
// all of them.
func granted(project *config.Project, who Principal, realm string, p Permission) bool {
	for _, g := range project.Access {
		if (realm == "" || g.Realm == "" || g.Realm == "@root" || g.Realm == realm) &&
			slices.Contains(g.Permissions, string(p)) && among(g.Principals, who) {
			return true
		}
	}
	return false
}

func among(principals []string, who Principal) bool {
	for _, p := range principals {
		if p == who.String() || p == Anonymous || p == Everyone && !who.Anonymous() {
			return true
		}
	}
	return false
}
