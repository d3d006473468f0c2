package main

import (
	"net/url"
	"slices"
	"strings"

	"github.com/daybook-dev/daybook/internal/fault"
)

// place is the URL of something that is kept elsewhere. It may hold passwords, which neither its text nor an error about it has.
type place struct {
	*url.URL
	raw     string
	secrets []string
}

// parsePlace parses the URL that a flag gave.
func parsePlace(flag, raw string) (*place, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme == "" {
		// The error would quote the URL.
		return nil, fault.New(fault.Invalid, "%s: this is no URL; see daybook serve --help for its form, and escape what is special in a password", flag)
	}
	p := &place{URL: u, raw: raw}
	if password, ok := u.User.Password(); ok {
		_, written, _ := strings.Cut(u.User.String(), ":")
		p.hide(password, written)
	}
	// As it is written, too, since somebody may quote the URL.
	for pair := range strings.SplitSeq(u.RawQuery, "&") {
		name, written, _ := strings.Cut(pair, "=")
		if value, err := url.QueryUnescape(written); err == nil && mayBeSecret(name) {
			p.hide(value, written)
		}
	}
	return p, nil
}

func mayBeSecret(name string) bool {
	name = strings.ToLower(name)
	return strings.Contains(name, "password") || strings.Contains(name, "secret") || strings.Contains(name, "key")
}

// hide has values kept out of errors, however they are written.
func (p *place) hide(values ...string) {
	for _, v := range values {
		p.secrets = append(p.secrets, v, url.QueryEscape(v), url.PathEscape(v), url.UserPassword("", v).String()[1:])
	}
	p.secrets = slices.DeleteFunc(p.secrets, func(s string) bool { return s == "" })
	slices.SortFunc(p.secrets, func(a, b string) int { return len(b) - len(a) }) // the whole before its parts
}

// String returns the URL without anything that could be secret.
func (p *place) String() string {
	return (&url.URL{Scheme: p.Scheme, Host: p.Host, Path: p.Path}).String()
}

// tell returns an error about the place. Its kind stays.
func (p *place) tell(err error) error {
	if err == nil {
		return nil
	}
	return &discreet{err: err, secrets: p.secrets}
}

// discreet is an error whose text has no secrets. What it wraps has, so it does not unwrap.
type discreet struct {
	err     error
	secrets []string
}

func (e *discreet) Error() string {
	text := e.err.Error()
	for _, s := range e.secrets {
		text = strings.ReplaceAll(text, s, "…")
	}
	return text
}

// As lets package fault find the kind.
func (e *discreet) As(target any) bool {
	kind, ok := target.(**fault.Error)
	if !ok {
		return false
	}
	*kind = &fault.Error{Kind: fault.KindOf(e.err), Err: e}
	return true
}

// isURL tells a URL from a path.
func isURL(s string) bool { return strings.Contains(s, "://") }

func isPostgres(p *place) bool { return p.Scheme == "postgres" || p.Scheme == "postgresql" }
