package config

import (
	"errors"
	"fmt"
	"math"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/daybook-dev/daybook/logs/types"
)

// config reads the whole file.
func (r reader) config(n *yaml.Node) *Config {
	c := defaults()
	clear(c.Projects)
	found := false
	r.fields("the configuration", n,
		field{"service", func(name string, n *yaml.Node) { r.service(name, n, &c.Service) }},
		field{"projects", func(name string, n *yaml.Node) {
			found = true
			r.pairs(name, n, func(key, value *yaml.Node) { r.project(c, key, value) })
			if isNull(n) || n.Kind == yaml.MappingNode && len(n.Content) == 0 {
				r.wrong(n, "there is no project; give at least one, as \"local: {}\"")
			}
		}},
	)
	if n.Kind == yaml.MappingNode && !found || isNull(n) {
		r.wrong(n, "there are no projects; give at least one, as \"projects: {local: {}}\"")
	}
	return c
}

func (r reader) service(name string, n *yaml.Node, s *Service) {
	r.fields(name, n,
		field{"prefix_expiration", value(r, &s.PrefixExpiration, parseDuration)},
		field{"allowed_origins", r.texts(&s.AllowedOrigins, checkOrigin)},
		field{"administrators", r.texts(&s.Administrators, checkPrincipal)},
		field{"services", r.texts(&s.Services, checkPrincipal)},
	)
}

func (r reader) project(c *Config, key, n *yaml.Node) {
	p := &Project{Name: types.Project(key.Value), PurgeGrace: defaultPurgeGrace}
	if err := p.Name.Validate(); err != nil {
		r.wrong(key, "%v", err)
	}
	c.Projects[p.Name] = p
	r.fields("project "+quote(key.Value), n,
		field{"retention", value(r, &p.Retention, parseRetention)},
		field{"purge_grace", value(r, &p.PurgeGrace, parsePositive)},
		field{"prefix_expiration", value(r, &p.PrefixExpiration, parseDuration)},
		field{"archive", func(name string, n *yaml.Node) { r.archive(name, n, &p.Archive) }},
		field{"quotas", func(name string, n *yaml.Node) { r.quotas(name, n, &p.Quotas) }},
		field{"access", func(name string, n *yaml.Node) {
			r.list(name, n, func(item *yaml.Node) { p.Access = append(p.Access, r.grant(item)) })
		}},
	)
}

func (r reader) archive(name string, n *yaml.Node, a *Archive) {
	r.fields(name, n,
		field{"bucket", r.text(&a.Bucket, checkBucket)},
		field{"stream_range", value(r, &a.StreamRange, parseRange)},
		field{"prefix_range", value(r, &a.PrefixRange, parseRange)},
		field{"byte_range", value(r, &a.ByteRange, parseByteRange)},
	)
}

func (r reader) quotas(name string, n *yaml.Node, q *Quotas) {
	r.fields(name, n,
		field{"open_streams", value(r, &q.OpenStreams, quota(parseCount))},
		field{"bytes_per_day", value(r, &q.BytesPerDay, quota(parseSize))},
		field{"prefixes_per_hour", value(r, &q.PrefixesPerHour, quota(parseCount))},
	)
}

func (r reader) grant(n *yaml.Node) Grant {
	var g Grant
	var roles []string
	before := len(r.Found) + r.More
	r.fields("a grant", n,
		field{"principals", r.texts(&g.Principals, checkPrincipal)},
		field{"realm", r.text(&g.Realm, checkRealm)},
		field{"roles", r.texts(&roles, checkRole)},
		field{"permissions", r.texts(&g.Permissions, checkPermission)},
	)
	if before == len(r.Found)+r.More {
		if len(g.Principals) == 0 {
			r.wrong(n, "a grant needs principals")
		}
		if len(roles)+len(g.Permissions) == 0 {
			r.wrong(n, "a grant needs roles or permissions")
		}
	}
	for _, role := range roles {
		g.Permissions = append(g.Permissions, roleNames[role]...)
	}
	slices.Sort(g.Permissions)
	g.Permissions = slices.Compact(g.Permissions)
	return g
}

// The permissions that a project can give, and the roles that stand for some of them. Package access has their meaning.
var (
	permissionNames = []string{"logdog.logs.create", "logdog.logs.get", "logdog.logs.list", "logdog.logs.deletePrefix"}
	roleNames       = map[string][]string{
		"reader": {"logdog.logs.get", "logdog.logs.list"},
		"writer": {"logdog.logs.create"},
	}
)

func checkPermission(s string) error {
	if !slices.Contains(permissionNames, s) {
		return fmt.Errorf("is no permission in a project; there are %s", strings.Join(permissionNames, ", "))
	}
	return nil
}

func checkRole(s string) error {
	if roleNames[s] == nil {
		return errors.New("is no role in a project; there are reader and writer")
	}
	return nil
}

// maxPrincipal is the longest name of a principal, in characters.
const maxPrincipal = 256

var principal = regexp.MustCompile(`^(?:\*|anonymous|(?:user|token|service):([^\s[:cntrl:]]+))$`)

func checkPrincipal(s string) error {
	if m := principal.FindStringSubmatch(s); m == nil || utf8.RuneCountInString(m[1]) > maxPrincipal {
		return errors.New(`is no principal; give one like "user:ada@example.com", "token:ci", "service:collector", "anonymous", or "*" for all who are not`)
	}
	return nil
}

func checkRealm(s string) error {
	if !types.ValidRealm(s) {
		return errors.New("is no realm; use a-z, 0-9, '_', '.', '/' and '-', at most 400 of them, or @root, @legacy, @project")
	}
	return nil
}

func checkOrigin(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || s != u.Scheme+"://"+strings.ToLower(u.Host) {
		return errors.New(`is no origin; give scheme and host as browsers send them, like "https://ui.example.com"`)
	}
	return nil
}

func checkBucket(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Fragment != "" || u.User != nil:
	case u.Scheme == "file":
		if u.Host == "" && strings.HasPrefix(u.Path, "/") && len(u.Path) > 1 {
			return nil
		}
	case u.Host != "" && slices.Contains([]string{"s3", "gs", "azure", "azure-ad"}, u.Scheme):
		return nil
	}
	return errors.New(`is no URL of a bucket; give one like "s3://bucket", "gs://bucket", "azure://container" or "file:///a/directory"`)
}

// parseRetention reads a duration that must be asked for: nothing is deleted for a zero.
func parseRetention(s string) (time.Duration, error) {
	if s == "forever" {
		return 0, nil
	}
	d, err := parseDuration(s)
	if err == nil && d == 0 {
		return 0, errors.New(`keeps nothing; write "forever", or leave it out, to keep everything`)
	}
	return d, err
}

func parsePositive(s string) (time.Duration, error) {
	d, err := parseDuration(s)
	if err == nil && d == 0 {
		return 0, errors.New("must be more than nothing")
	}
	return d, err
}

func parseCount(s string) (int64, error) {
	n, err := strconv.ParseInt(strings.ReplaceAll(s, "_", ""), 10, 64) // as YAML writes numbers
	switch {
	case errors.Is(err, strconv.ErrRange) && !strings.HasPrefix(s, "-"):
		return 0, errTooLarge
	case err != nil && !errors.Is(err, strconv.ErrRange):
		return 0, errors.New("is no whole number")
	case n < 0:
		return 0, errNegative
	}
	return n, nil
}

// quota reads the number of a quota. One of nothing would look like none at all.
func quota(parse func(string) (int64, error)) func(string) (int64, error) {
	return func(s string) (int64, error) {
		n, err := parse(s)
		if err == nil && n == 0 {
			return 0, errors.New("lets nothing through; leave it out for no limit")
		}
		return n, err
	}
}

func parseRange(s string) (int, error) {
	n, err := parseCount(s)
	return within32(n, err)
}

func parseByteRange(s string) (int, error) {
	n, err := parseSize(s)
	return within32(n, err)
}

// within32 keeps to the 32 bits that ranges have on the wire.
func within32(n int64, err error) (int, error) {
	if err == nil && n > math.MaxInt32 {
		return 0, errTooLarge
	}
	return int(n), err
}
