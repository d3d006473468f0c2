package bootstrap

import (
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/daybook-dev/daybook/butler/output"
	"github.com/daybook-dev/daybook/internal/fault"
)

// outer is what a program finds that runs below a Butler with everything.
var outer = []string{
	"PATH=/bin",
	"LOGDOG_STREAM_SERVER_PATH=unix:/outer",
	"LOGDOG_STREAM_PROJECT=outer",
	"LOGDOG_STREAM_PREFIX=outer/prefix",
	"LOGDOG_COORDINATOR_HOST=outer.example.org",
	"LOGDOG_NAMESPACE=outer/ns",
	"LOGDOG_OTHER=stays",
	"EMPTY=",
}

func TestApply(t *testing.T) {
	rest := []string{"PATH=/bin", "LOGDOG_OTHER=stays", "EMPTY="}
	for name, c := range map[string]struct {
		e    Environment
		want []string
	}{
		"server and pages": {
			New("unix:/s", output.Environment{CoordinatorHost: "127.0.0.1:80", Project: "p", Prefix: "a/b"}),
			[]string{
				"LOGDOG_STREAM_SERVER_PATH=unix:/s", "LOGDOG_STREAM_PROJECT=p", "LOGDOG_STREAM_PREFIX=a/b",
				"LOGDOG_COORDINATOR_HOST=127.0.0.1:80",
			},
		},
		"no pages": {New("net.pipe:x", output.Environment{}), []string{"LOGDOG_STREAM_SERVER_PATH=net.pipe:x"}},
		"a directory": {
			New("unix:/s", output.Environment{CoordinatorHost: "file:///d"}),
			[]string{"LOGDOG_STREAM_SERVER_PATH=unix:/s", "LOGDOG_COORDINATOR_HOST=file:///d"},
		},
		"a namespace": {
			Environment{Address: "unix:/s", Namespace: "n/m"},
			[]string{"LOGDOG_STREAM_SERVER_PATH=unix:/s", "LOGDOG_NAMESPACE=n/m"},
		},
		"no Butler": {Environment{}, nil},
	} {
		// Below another Butler, and below none.
		for _, environ := range [][]string{outer, rest} {
			before := slices.Clone(environ)
			if diff := cmp.Diff(slices.Concat(rest, c.want), c.e.Apply(environ)); diff != "" {
				t.Errorf("%s: %s", name, diff)
			}
			if !slices.Equal(environ, before) {
				t.Errorf("%s: the caller's environment was changed", name)
			}
		}
		got, err := Read(c.e.Apply(outer))
		if c.e.Address == "" {
			if !errors.Is(err, ErrNoButler) {
				t.Errorf("%s: %v", name, err)
			}
		} else if diff := cmp.Diff(c.e, got); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", name, err, diff)
		}
	}
}

func TestRead(t *testing.T) {
	for _, environ := range [][]string{nil, {"LOGDOG_STREAM_PREFIX=a"}, {"LOGDOG_STREAM_SERVER_PATH="}, {"LOGDOG_STREAM_SERVER_PATH"}} {
		if e, err := Read(environ); !errors.Is(err, ErrNoButler) {
			t.Errorf("%v: %+v, %v", environ, e, err)
		}
	}
	for _, bad := range []string{"LOGDOG_STREAM_PREFIX=a//b", "LOGDOG_NAMESPACE=/x", "LOGDOG_STREAM_PROJECT=UPPER"} {
		if _, err := Read([]string{"LOGDOG_STREAM_SERVER_PATH=unix:/s", bad}); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	e, err := Read([]string{"LOGDOG_STREAM_SERVER_PATH=unix:/first", "LOGDOG_STREAM_SERVER_PATH=unix:/last", "LOGDOG_STREAM_PREFIX="})
	if diff := cmp.Diff(Environment{Address: "unix:/last"}, e); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}
