package access

import (
	"context"
	"testing"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
)

func TestHolds(t *testing.T) {
	scoped := Principal{Name: "token:a", Permissions: []Permission{Get}, Projects: []types.Project{"a", "b"}}
	everywhere := Principal{Name: "token:b", Permissions: []Permission{Get}, Projects: []types.Project{AllProjects}}
	service := Principal{Name: "token:c", Permissions: []Permission{Services}}
	admin := Principal{Name: "token:d", Permissions: []Permission{Admin}}
	for _, test := range []struct {
		who     Principal
		project types.Project
		p       Permission
		want    bool
	}{
		{scoped, "a", Get, true},
		{scoped, "b", Get, true},
		{scoped, "c", Get, false},
		{scoped, "", Get, true},
		{scoped, "", Create, false},
		{scoped, "a", List, false},
		{scoped, "", Admin, false},
		{everywhere, "c", Get, true},
		{everywhere, "c", List, false},
		{service, "", Services, true},
		{service, "a", Get, false},
		{service, "", Admin, false},
		{admin, "a", DeletePrefix, true},
		{admin, "", Services, true},
		{Principal{}, "a", Get, false},
		{Principal{Permissions: []Permission{Get}}, "", Get, false},
	} {
		if got := test.who.Holds(test.project, test.p); got != test.want {
			t.Errorf("%s holds %s in %q: %v, want %v", test.who, test.p, test.project, got, test.want)
		}
	}
}

func TestOpenRefusesWhatIsMalformed(t *testing.T) {
	for _, test := range []struct {
		project types.Project
		realm   string
		p       Permission
		kind    fault.Kind
		refused bool
	}{
		{"", "", Get, fault.Invalid, true},
		{"Nope", "", Create, fault.Invalid, true},
		{"a", "b:c", Get, fault.Internal, true},
		{"a", "A", Get, fault.Internal, true},
		{"a", "a:c", Get, 0, false},
		{"a", "@legacy", Get, 0, false},
		{"a", "", Get, 0, false},
		{"", "", Admin, 0, false},
	} {
		err := Open().Check(t.Context(), test.project, test.realm, test.p)
		if (err != nil) != test.refused || err != nil && !fault.Is(err, test.kind) {
			t.Errorf("%s in %q, realm %q: %v", test.p, test.project, test.realm, err)
		}
	}
}

func TestHiddenIsTheRefusalOfTheCaller(t *testing.T) {
	if err := Open().Hidden(t.Context()); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("anonymous: %v", err)
	}
	known := WithPrincipal(context.Background(), Principal{Name: "token:x"})
	if err := Open().Hidden(known); !fault.Is(err, fault.Denied) {
		t.Errorf("token:x: %v", err)
	}
}

func TestParsePermissions(t *testing.T) {
	for name, want := range map[string]int{"reader": 2, "role/logdog.reader": 2, "logdog.logs.get": 1, "admin": 1, "writer": 1, "": 0, "role/": 0, "get": 0} {
		ps, err := ParsePermissions(name)
		if len(ps) != want || (err != nil) != (want == 0) || err != nil && !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v, %v", name, ps, err)
		}
	}
}
