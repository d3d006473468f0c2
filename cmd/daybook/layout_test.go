package main

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"github.com/daybook-dev/daybook/internal/fault"
)

func TestRoles(t *testing.T) {
	var r roles
	if err := r.UnmarshalText([]byte("web,broker")); err != nil || r != roleWeb|roleBroker || r.String() != "broker,web" {
		t.Errorf("web,broker: %v, %v", r, err)
	}
	if got := allRoles.String(); got != strings.Join(roleNames[:], ",") {
		t.Errorf("all roles are %s", got)
	}
	for _, bad := range []string{"", "coordinatr", "web,", "web, broker", "Web"} {
		if err := r.UnmarshalText([]byte(bad)); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "archivist") {
			t.Errorf("%q: %v; want a list of the roles", bad, err)
		}
	}
}

// What cannot work is refused, and the next step is named.
func TestLayout(t *testing.T) {
	const pg = "--entries=postgres://db/daybook"
	for _, tc := range []struct {
		flags string
		want  string // in the error; empty is none
	}{
		{"", ""},
		{"--archive /srv/archive", ""},
		{"--state postgres://db/daybook " + pg + " --archive s3://bucket/logs", ""},
		{"--roles broker", ""},
		{"--roles web --coordinator c:4660", ""},
		{"--roles coordinator,collector,archivist,web --journals http://b:4660", ""},
		{"--roles coordinator,web --journals b:4660 --archive s3://bucket " + pg, ""},
		{"--roles collector --coordinator c:4660 " + pg, ""},
		{"--roles collector --coordinator c:4660 --journals b:4660 " + pg, ""},
		{"--roles archivist --coordinator c:4660 --archive s3://bucket " + pg, ""},
		{"--roles broker,collector,web --coordinator c:4660 " + pg, ""},
		{"--roles web --coordinator c:4660 --advertise https://logs.example", ""},

		{"--roles frontend", "the roles are broker, coordinator"},
		{"--journals b:4660", "leave --journals out"},
		{"--coordinator c:4660", "leave --coordinator out"},
		{"--roles coordinator,collector,archivist", "say with --journals"},
		{"--roles collector " + pg, "say with --coordinator"},
		{"--roles archivist " + pg, "say with --coordinator"},
		{"--roles web", "say with --coordinator"},
		{"--roles coordinator,archivist,web,broker", "without collector"},
		{"--roles collector --coordinator c:4660", "say with --entries"},
		{"--roles broker,coordinator,collector " + pg, "say with --archive"},
		{"--roles archivist --coordinator c:4660 " + pg, "say with --archive"},
		{"--advertise logs.example:4660", "give a URL"},
		{"--advertise https://logs.example/path", "give a URL"},
	} {
		var c struct{ layout }
		parser, err := kong.New(&c, kong.Name("serve"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err = parser.Parse(strings.Fields(tc.flags)); err == nil {
			err = c.check()
		}
		switch {
		case tc.want == "" && err != nil:
			t.Errorf("%s: %v", tc.flags, err)
		case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
			t.Errorf("%s: %v; want something with %q", tc.flags, err, tc.want)
		}
	}
}

// Nothing that is secret gets into an error, however it was written.
func TestPlaceIsDiscreet(t *testing.T) {
	const secret = "p@ss w/rd%"
	for _, raw := range []string{
		"postgres://user:" + url.PathEscape(secret) + "@db/daybook",
		(&url.URL{Scheme: "postgres", User: url.UserPassword("user", secret), Host: "db", Path: "/daybook"}).String(),
		"postgres://db/daybook?user=u&password=" + url.QueryEscape(secret),
		"postgres://user:" + secret + "@db/daybook", // no URL
		"postgres://user:first@second" + secret + "@db/daybook",
		secret,
	} {
		p, err := parsePlace("--state", raw)
		if err == nil {
			err = p.tell(fault.New(fault.Transient, "connect to %s as %q: %w", raw, secret, errors.New(raw)))
			if !fault.Is(err, fault.Transient) || !fault.IsTransient(fmt.Errorf("open: %w", err)) {
				t.Errorf("%s: the error has lost its kind", raw)
			}
			if !strings.Contains(err.Error(), "connect to postgres://") {
				t.Errorf("%s: the error has lost its text: %v", raw, err)
			}
			err = fmt.Errorf("%w in %s", err, p)
		}
		for _, part := range []string{secret, url.QueryEscape(secret), url.PathEscape(secret), "w/rd", "w%2Frd"} {
			if strings.Contains(err.Error(), part) {
				t.Errorf("%s: the error has the secret: %v", raw, err)
			}
		}
	}
}
