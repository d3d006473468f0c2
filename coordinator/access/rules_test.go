package access

import (
	"testing"

	"github.com/daybook-dev/daybook/coordinator/config"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
)

const (
	allowed = fault.Kind(-1)
	unknown = fault.Unauthenticated
	denied  = fault.Denied
)

func expect(t *testing.T, want fault.Kind, err error, format string, args ...any) {
	t.Helper()
	if want == allowed && err != nil || want != allowed && !fault.Is(err, want) {
		t.Errorf(format+": %v, want %v", append(args, err, want)...)
	}
}

func configured(projects ...*config.Project) *config.Config {
	c := &config.Config{Projects: make(map[types.Project]*config.Project)}
	for _, p := range projects {
		c.Projects[p.Name] = p
	}
	return c
}

func TestRules(t *testing.T) {
	conf := configured(
		&config.Project{Name: "public", Access: []config.Grant{{Principals: []string{Anonymous}, Permissions: []string{string(Get)}}}},
		&config.Project{Name: "team", Access: []config.Grant{
			{Principals: []string{"user:ada"}, Permissions: []string{string(Get), string(List)}},
			{Principals: []string{Everyone}, Realm: "shared", Permissions: []string{string(Get)}},
			{Principals: []string{"token:root"}, Realm: "@root", Permissions: []string{string(Create)}},
			{Principals: []string{"token:legacy"}, Realm: "@legacy", Permissions: []string{string(Create)}},
		}},
		&config.Project{Name: "shut"},
	)
	conf.Service.Administrators = []string{"user:boss"}
	conf.Service.Services = []string{"token:collector"}
	rules := NewRules(config.Fixed(conf), false)

	var (
		anonymous = Principal{}
		ada       = Principal{Name: "user:ada"}
		boss      = Principal{Name: "user:boss"}
		reader    = Principal{Name: "token:r", Permissions: []Permission{Get, List}, Projects: []types.Project{"shut"}}
		wide      = Principal{Name: "token:w", Permissions: []Permission{Get}, Projects: []types.Project{AllProjects}}
		admin     = Principal{Name: "token:a", Permissions: []Permission{Admin}}
		service   = Principal{Name: "token:s", Permissions: []Permission{Services}}
		collector = Principal{Name: "token:collector"}
		root      = Principal{Name: "token:root"}
		legacy    = Principal{Name: "token:legacy"}
	)
	for _, test := range []struct {
		who     Principal
		project types.Project
		realm   string
		p       Permission
		want    fault.Kind
	}{
		{anonymous, "public", "", Get, allowed},
		{anonymous, "public", "", List, unknown},
		{anonymous, "team", "", Get, unknown},
		{anonymous, "team", "shared", Get, unknown},
		{anonymous, "gone", "", Get, unknown},
		{anonymous, "", "", Get, fault.Invalid},
		{anonymous, "Bad", "", Get, fault.Invalid},
		{anonymous, "", "", Services, denied}, // spec 3.4
		{anonymous, "", "", Admin, unknown},

		{ada, "public", "", Get, allowed}, // as everybody may
		{ada, "team", "", Get, allowed},
		{ada, "team", "any", List, allowed},
		{ada, "team", "", Create, denied},
		{ada, "shut", "", Get, denied},
		{ada, "gone", "", Get, denied},
		{ada, "", "", Get, fault.Invalid},
		{ada, "", "", Admin, denied},
		{ada, "", "", Services, denied},
		{ada, "team", "shut:shared", Get, fault.Internal},
		{ada, "team", "team:shared", Get, allowed},

		{boss, "shut", "", DeletePrefix, allowed},
		{boss, "gone", "", Get, denied},
		{boss, "", "", Admin, allowed},
		{boss, "", "", Services, allowed},

		{reader, "shut", "", Get, allowed},
		{reader, "shut", "secret", List, allowed},
		{reader, "shut", "", Create, denied},
		{reader, "team", "", Get, denied},
		{reader, "team", "shared", Get, allowed},

		{wide, "shut", "", Get, allowed},
		{wide, "team", "", Get, allowed},
		{wide, "gone", "", Get, denied},
		{wide, "team", "", List, denied},

		{admin, "shut", "", Create, allowed},
		{admin, "gone", "", Create, denied},
		{admin, "", "", Services, allowed},

		{service, "", "", Services, allowed},
		{service, "", "", Admin, denied},
		{service, "shut", "", Get, denied},
		{collector, "", "", Services, allowed},

		{root, "team", "any", Create, allowed},
		{root, "team", "", Create, allowed},
		{legacy, "team", "", Create, allowed},
		{legacy, "team", "@legacy", Create, allowed},
		{legacy, "team", "any", Create, denied},
	} {
		err := rules.Check(WithPrincipal(t.Context(), test.who), test.project, test.realm, test.p)
		expect(t, test.want, err, "%s, %s in %q:%q", test.who, test.p, test.project, test.realm)
	}

	for _, test := range []struct {
		who  Principal
		p    Permission
		want fault.Kind
	}{
		{anonymous, Get, allowed},
		{anonymous, Create, unknown},
		{anonymous, Services, denied},
		{legacy, Create, allowed},
		{reader, List, allowed},
		{reader, Create, denied},
		{boss, Create, allowed},
		{admin, Create, allowed},
		{service, Create, denied},
	} {
		expect(t, test.want, rules.Anywhere(WithPrincipal(t.Context(), test.who), test.p), "%s, %s anywhere", test.who, test.p)
	}
}

// What does not exist must look as what may not be seen.
func TestRefusalsDoNotTellWhatExists(t *testing.T) {
	rules := NewRules(config.Fixed(configured(&config.Project{Name: "shut"})), true)
	for _, who := range []Principal{{}, {Name: "user:ada"}} {
		ctx := WithPrincipal(t.Context(), who)
		want := rules.Hidden(ctx).Error()
		for _, project := range []types.Project{"shut", "gone"} {
			if err := rules.Check(ctx, project, "", Get); err == nil || err.Error() != want || fault.KindOf(err) != fault.KindOf(rules.Hidden(ctx)) {
				t.Errorf("%s in %s: %v", who, project, err)
			}
		}
	}
}

func TestRulesAreNotDemandedUnlessThereAreSome(t *testing.T) {
	granting := &config.Project{Name: "a", Access: []config.Grant{{Principals: []string{"user:ada"}, Permissions: []string{string(Get)}}}}
	administered := configured()
	administered.Service.Administrators = []string{"user:ada"}
	for name, test := range map[string]struct {
		conf     *config.Config
		demanded bool
		apply    bool
	}{
		"nothing":        {configured(&config.Project{Name: "a"}), false, false},
		"demanded":       {configured(&config.Project{Name: "a"}), true, true},
		"grants":         {configured(granting), false, true},
		"administrators": {administered, false, true},
	} {
		rules := NewRules(config.Fixed(test.conf), test.demanded)
		if got := rules.Apply(); got != test.apply {
			t.Errorf("%s: they apply: %v", name, got)
		}
		want := allowed
		if test.apply {
			want = unknown
		}
		expect(t, want, rules.Check(t.Context(), "a", "", Get), "%s: anonymous", name)
		expect(t, want, rules.Anywhere(t.Context(), Create), "%s: anonymous anywhere", name)
		expect(t, want, rules.Check(t.Context(), "", "", Admin), "%s: anonymous as an administrator", name)
	}
}

// A project that is not configured does not exist, also where everybody may do everything.
func TestRulesOfAbsentProject(t *testing.T) {
	t.Parallel()
	r := NewRules(config.Default(), false)
	if err := r.Check(t.Context(), "local", "", Get); err != nil {
		t.Errorf("the project that exists: %v", err)
	}
	if err := r.Check(t.Context(), "absent", "", Get); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("anonymous: %v", err)
	}
	ctx := WithPrincipal(t.Context(), Principal{Name: "user:ada"})
	if err := r.Check(ctx, "absent", "", Get); !fault.Is(err, fault.Denied) {
		t.Errorf("identified: %v", err)
	}
}
