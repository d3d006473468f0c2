package config_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/daybook-dev/daybook/coordinator/access"
	"github.com/daybook-dev/daybook/coordinator/config"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
)

const day = 24 * time.Hour

const whole = `service:
  prefix_expiration: 24h
  allowed_origins: ["https://ui.example.com", "http://localhost:3000"]
  administrators: ["user:ada@example.com"]
  services: ["service:collector", "token:archivist"]
projects:
  local:
  ci:
    retention: 540d
    purge_grace: 1w2d
    prefix_expiration: 1h30m
    archive:
      bucket: s3://example-archive?region=eu-1
      stream_range: 1000
      prefix_range: 0
      byte_range: 512KiB
    quotas:
      open_streams: 10_000
      bytes_per_day: 1 TB
      prefixes_per_hour: 500
    access:
    - principals: ["user:bob@example.com", anonymous]
      realm: builds/public
      roles: [reader, writer]
      permissions: [logdog.logs.get]
    - principals: ["token:ci"]
      permissions: [logdog.logs.deletePrefix]
  forever: {retention: forever, purge_grace: 45s}
`

func TestParse(t *testing.T) {
	t.Parallel()
	got, err := config.Parse("f", []byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	want := &config.Config{
		Version: got.Version,
		Service: config.Service{
			PrefixExpiration: day,
			AllowedOrigins:   []string{"https://ui.example.com", "http://localhost:3000"},
			Administrators:   []string{"user:ada@example.com"},
			Services:         []string{"service:collector", "token:archivist"},
		},
		Projects: map[types.Project]*config.Project{
			"local": {Name: "local", PurgeGrace: 7 * day},
			"ci": {
				Name: "ci", Retention: 540 * day, PurgeGrace: 9 * day, PrefixExpiration: 90 * time.Minute,
				Archive: config.Archive{Bucket: "s3://example-archive?region=eu-1", StreamRange: 1000, ByteRange: 512 << 10},
				Quotas:  config.Quotas{OpenStreams: 10_000, BytesPerDay: 1e12, PrefixesPerHour: 500},
				Access: []config.Grant{
					{
						Principals: []string{"user:bob@example.com", "anonymous"}, Realm: "builds/public",
						Permissions: []string{"logdog.logs.create", "logdog.logs.get", "logdog.logs.list"},
					},
					{Principals: []string{"token:ci"}, Permissions: []string{"logdog.logs.deletePrefix"}},
				},
			},
			"forever": {Name: "forever", PurgeGrace: 45 * time.Second},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if len(got.Version) != 12 {
		t.Errorf("version %q", got.Version)
	}
	other, err := config.Parse("f", []byte(whole+"# more\n"))
	if err != nil || other.Version == got.Version {
		t.Errorf("another content has the version %v, %v", other, err)
	}
}

func TestDefault(t *testing.T) {
	t.Parallel()
	a := config.Default()
	p, err := a.Project("local")
	if err != nil || p.Retention != 0 || p.PurgeGrace != 7*day || p.Quotas != (config.Quotas{}) {
		t.Errorf("local: %+v, %v", p, err)
	}
	if _, err := a.Project("ci"); !fault.Is(err, fault.NotFound) {
		t.Errorf("a project that is not configured: %v", err)
	}
	if err := a.Reload(); err != nil {
		t.Errorf("reload: %v", err)
	}
	bare, err := config.Parse("f", []byte("projects: {local: }"))
	if err != nil {
		t.Fatal(err)
	}
	bare.Version = a.Current().Version
	if diff := cmp.Diff(a.Current(), bare); diff != "" {
		t.Errorf("a file that says nothing is not the default: %s", diff)
	}
}

func TestProblems(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ text, want string }{
		"empty":              {"", `1:1: the file is empty; it needs projects`},
		"comment":            {"# nothing\n", `1:1: the file is empty; it needs projects`},
		"null":               {"~", `1:1: there are no projects; give at least one, as "projects: {local: {}}"`},
		"list":               {"- a\n", `1:1: the configuration must be fields, not a list`},
		"no projects":        {"service: {}\n", `1:1: there are no projects; give at least one, as "projects: {local: {}}"`},
		"projects null":      {"projects:\n", `1:10: there is no project; give at least one, as "local: {}"`},
		"projects list":      {"projects: [a]\n", `1:11: projects must be fields, not a list`},
		"two documents":      {"projects: {a: }\n---\nprojects: {b: }\n", `2:1: a second document begins here; put all into one`},
		"syntax":             {"projects:\n  local: [\n", `2:3: no YAML: did not find expected node content`},
		"tab":                {"projects:\n  local:\n\tretention: 1d\n", `3:1: no YAML: found character that cannot start any token`},
		"unknown field":      {"projects: {a: }\nservce: {}\n", `2:1: the configuration has no field "servce"; it has service, projects`},
		"unknown inner":      {project("retension: 1d"), `3:5: project "a" has no field "retension"; it has retention, purge_grace, prefix_expiration, archive, quotas, access`},
		"twice":              {project("retention: 1d\n    retention: 2d"), `4:5: "retention" is there a second time; the first is in line 3`},
		"project twice":      {"projects:\n  a:\n  b:\n  a:\n", `4:3: "a" is there a second time; the first is in line 2`},
		"bad project name":   {"projects:\n  Build: {}\n", `2:3: project "Build" does not begin with a lower-case letter`},
		"project not fields": {"projects:\n  a: 7\n", `2:6: project "a" must be fields, not a single value`},
		"complex key":        {"projects:\n  ? [a]\n  : {}\n", `2:5: a key of projects must be a text`},
		"alias":              {"projects:\n  a: &x {retention: 1d}\n  b: *x\n", `3:6: project "b": aliases are not followed; write out what *x stands for`},
		"merge":              {"projects:\n  a: &x {retention: 1d}\n  b: {<<: *x}\n", `3:7: project "b" has no field "<<"; it has retention, purge_grace, prefix_expiration, archive, quotas, access`},
		"tag":                {"projects: !!set {a: }\n", `1:11: projects: the tag !!set has no meaning here`},
		"scalar tag":         {project("retention: !own 1d"), `3:16: retention must be a text, not "1d"; put it in quotes`},
		"duration unit":      {project("retention: 30"), `3:16: retention: "30" is no duration; give one like 30d, 12h or 1h30m, in w, d, h, m and s`},
		"duration word":      {project("retention: 30 days"), `3:16: retention: "30 days" is no duration; give one like 30d, 12h or 1h30m, in w, d, h, m and s`},
		"duration fraction":  {project("retention: 1.5d"), `3:16: retention: "1.5d" is no duration; give one like 30d, 12h or 1h30m, in w, d, h, m and s`},
		"duration negative":  {project("retention: -30d"), `3:16: retention: "-30d" is negative`},
		"duration huge":      {project("retention: 99999999999999999999w"), `3:16: retention: "99999999999999999999w" is too large`},
		"duration sum":       {project("retention: 290000d150000w"), `3:16: retention: "290000d150000w" is too large`},
		"duration list":      {project("retention: [1d]"), `3:16: retention must be a single value, not a list`},
		"duration null":      {project("retention:"), `3:15: retention has no value`},
		"duration bool":      {project("retention: true"), `3:16: retention must be a text, not "true"; put it in quotes`},
		"retention zero":     {project("retention: 0"), `3:16: retention: "0" keeps nothing; write "forever", or leave it out, to keep everything`},
		"no grace":           {project("purge_grace: 0s"), `3:18: purge_grace: "0s" must be more than nothing`},
		"size":               {project("quotas: {bytes_per_day: 10Gigs}"), `3:29: bytes_per_day: "10Gigs" is no size; give one like 10GiB or 500MB, or a number of bytes`},
		"size negative":      {project("quotas: {bytes_per_day: -1}"), `3:29: bytes_per_day: "-1" is negative`},
		"size huge":          {project("quotas: {bytes_per_day: 9999999PiB}"), `3:29: bytes_per_day: "9999999PiB" is too large`},
		"bytes huge":         {project("quotas: {bytes_per_day: 99999999999999999999}"), `3:29: bytes_per_day: "99999999999999999999" is too large`},
		"range huge":         {project("archive: {byte_range: 2GiB}"), `3:27: byte_range: "2GiB" is too large`},
		"count":              {project("quotas: {open_streams: many}"), `3:28: open_streams: "many" is no whole number`},
		"count fraction":     {project("quotas: {open_streams: 1.5}"), `3:28: open_streams: "1.5" is no whole number`},
		"count negative":     {project("quotas: {open_streams: -3}"), `3:28: open_streams: "-3" is negative`},
		"count zero":         {project("quotas: {open_streams: 0}"), `3:28: open_streams: "0" lets nothing through; leave it out for no limit`},
		"count huge":         {project("quotas: {open_streams: 99999999999999999999}"), `3:28: open_streams: "99999999999999999999" is too large`},
		"count very low":     {project("quotas: {open_streams: -99999999999999999999}"), `3:28: open_streams: "-99999999999999999999" is negative`},
		"bucket":             {project("archive: {bucket: ftp://x}"), `3:23: bucket: "ftp://x" is no URL of a bucket; give one like "s3://bucket", "gs://bucket", "azure://container" or "file:///a/directory"`},
		"bucket number":      {project("archive: {bucket: 12}"), `3:23: bucket must be a text, not "12"; put it in quotes`},
		"origin":             {"projects: {a: }\nservice:\n  allowed_origins:\n  - https://ui.example.com/\n  - '*'\n", `4:5: allowed_origins: "https://ui.example.com/" is no origin; give scheme and host as browsers send them, like "https://ui.example.com"` + "\n" + `5:5: allowed_origins: "*" is no origin; give scheme and host as browsers send them, like "https://ui.example.com"`},
		"principal":          {"projects: {a: }\nservice: {services: [ada]}\n", `2:22: services: "ada" is no principal; give one like "user:ada@example.com", "token:ci", "service:collector", "anonymous", or "*" for all who are not`},
		"permission":         {grant("principals: [anonymous], permissions: [logdog.logs.own]"), `3:54: permissions: "logdog.logs.own" is no permission in a project; there are logdog.logs.create, logdog.logs.get, logdog.logs.list, logdog.logs.deletePrefix`},
		"global permission":  {grant("principals: [anonymous], permissions: [daybook.admin]"), `3:54: permissions: "daybook.admin" is no permission in a project; there are logdog.logs.create, logdog.logs.get, logdog.logs.list, logdog.logs.deletePrefix`},
		"role":               {grant("principals: [anonymous], roles: [owner]"), `3:48: roles: "owner" is no role in a project; there are reader and writer`},
		"realm":              {grant("principals: [anonymous], realm: UP, roles: [reader]"), `3:47: realm: "UP" is no realm; use a-z, 0-9, '_', '.', '/' and '-', at most 400 of them, or @root, @legacy, @project`},
		"nobody":             {grant("roles: [reader]"), `3:14: a grant needs principals`},
		"nothing":            {grant("principals: [anonymous]"), `3:14: a grant needs roles or permissions`},
		"grant null":         {grant(""), `3:14: a grant needs principals` + "\n" + `3:14: a grant needs roles or permissions`},
		"all at once": {
			"service:\n  prefix_expiration: soon\nprojects:\n  A: {retention: -1d}\n  b:\n    quotas:\n      streams: 1\n",
			`2:22: prefix_expiration: "soon" is no duration; give one like 30d, 12h or 1h30m, in w, d, h, m and s` + "\n" +
				`4:3: project "A" does not begin with a lower-case letter` + "\n" +
				`4:18: retention: "-1d" is negative` + "\n" +
				`7:7: quotas has no field "streams"; it has open_streams, bytes_per_day, prefixes_per_hour`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := config.Parse("f.yaml", []byte(tc.text))
			if err == nil {
				t.Fatalf("accepted as %+v", c)
			}
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("kind %v", fault.KindOf(err))
			}
			want := "f.yaml:" + strings.ReplaceAll(tc.want, "\n", "\nf.yaml:")
			if diff := cmp.Diff(want, err.Error()); diff != "" {
				t.Errorf("%s\nof:\n%s", diff, tc.text)
			}
		})
	}
}

func project(field string) string { return "projects:\n  a:\n    " + field + "\n" }

func grant(fields string) string { return project("access: [{" + fields + "}]") }

func TestProblemsAreBounded(t *testing.T) {
	t.Parallel()
	_, err := config.Parse("f", []byte("projects: {a: }\n"+many(500)))
	p, ok := errors.AsType[*config.Problems](err)
	if !ok {
		t.Fatalf("%v is no Problems", err)
	}
	if len(p.Found) != 100 || p.More != 400 || !strings.HasSuffix(err.Error(), "\nf: and 400 more") {
		t.Errorf("%d problems, %d more", len(p.Found), p.More)
	}
	if _, err := config.Parse("f", append([]byte("projects: {local: }\n"), make([]byte, config.MaxFile)...)); err == nil || !strings.HasPrefix(err.Error(), "f:1:1: the file has more than") {
		t.Errorf("a large file: %v", err)
	}
}

func many(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "unknown%d: x\n", i)
	}
	return b.String()
}

func TestPrefixWindow(t *testing.T) {
	t.Parallel()
	const h, m = time.Hour, time.Minute
	for _, tc := range []struct{ service, project, asked, want time.Duration }{
		{24 * h, h, m, m},
		{24 * h, h, 0, h},
		{24 * h, 0, 0, 24 * h},
		{0, 0, m, m},
		{0, h, 2 * h, h},
		{24 * h, h, -m, h},
		{24 * h, 48 * h, 72 * h, 24 * h},
		{0, 0, -m, 0},
		{0, 0, 0, 0},
	} {
		c := &config.Config{Service: config.Service{PrefixExpiration: tc.service}}
		if got := c.PrefixWindow(&config.Project{PrefixExpiration: tc.project}, tc.asked); got != tc.want {
			t.Errorf("service %v, project %v, asked for %v: %v, not %v", tc.service, tc.project, tc.asked, got, tc.want)
		}
	}
}

// The names that a file may use are those that access knows.
func TestPermissionsAreThoseOfAccess(t *testing.T) {
	t.Parallel()
	for _, p := range access.Permissions {
		_, err := config.Parse("f", []byte(grant("principals: [anonymous], permissions: ["+string(p)+"]")))
		if (err == nil) == p.Global() {
			t.Errorf("permission %s: %v", p, err)
		}
	}
	for _, role := range access.Roles {
		want, err := access.ParsePermissions(role)
		if err != nil {
			t.Fatal(err)
		}
		c, err := config.Parse("f", []byte(grant("principals: [anonymous], roles: ["+role+"]")))
		if want[0].Global() {
			if err == nil {
				t.Errorf("role %s is given in a project", role)
			}
			continue
		}
		if err != nil {
			t.Errorf("role %s: %v", role, err)
			continue
		}
		var got []access.Permission
		for _, p := range c.Projects["a"].Access[0].Permissions {
			got = append(got, access.Permission(p))
		}
		slices.Sort(want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("role %s: %s", role, diff)
		}
	}
}

// A configuration that is shown says, when it is read, the same again.
func TestTextIsTheSameConfiguration(t *testing.T) {
	t.Parallel()
	again := func(t *rapid.T, c *config.Config) {
		text, err := c.Text()
		if err != nil {
			t.Fatal(err)
		}
		got, err := config.Parse("f", text)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		got.Version = c.Version
		if diff := cmp.Diff(c, got); diff != "" {
			t.Fatalf("%s\n%s", diff, text)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		c := &config.Config{Version: "v", Projects: make(map[types.Project]*config.Project)}
		seconds := func(least int64) time.Duration {
			return time.Duration(rapid.Int64Range(least, 9e9).Draw(t, "seconds")) * time.Second
		}
		principals := rapid.SliceOfN(rapid.SampledFrom([]string{"anonymous", "*", "user:a@b.c", "token:x", "service:'y'"}), 1, 3)
		c.Service.PrefixExpiration = seconds(0)
		c.Service.AllowedOrigins = rapid.SampledFrom([][]string{nil, {"https://a.b"}, {"http://a:1", "https://c"}}).Draw(t, "origins")
		c.Service.Services = rapid.SampledFrom([][]string{nil, {"token:x"}}).Draw(t, "services")
		for name := range maps.Keys(rapid.MapOfN(rapid.StringMatching(`[a-z][a-z0-9_-]{0,5}`), rapid.Bool(), 1, 4).Draw(t, "projects")) {
			p := &config.Project{Name: types.Project(name), Retention: seconds(0), PurgeGrace: seconds(1), PrefixExpiration: seconds(0)}
			p.Archive = config.Archive{
				Bucket:      rapid.SampledFrom([]string{"", "gs://b", "s3://b?region=x&endpoint=http://y", "file:///d/e"}).Draw(t, "bucket"),
				StreamRange: rapid.IntRange(0, 1<<31-1).Draw(t, "range"), ByteRange: rapid.IntRange(0, 1<<31-1).Draw(t, "bytes"),
			}
			p.Quotas = config.Quotas{OpenStreams: rapid.Int64Range(0, 1<<62).Draw(t, "open"), BytesPerDay: rapid.Int64Range(0, 1<<62).Draw(t, "day")}
			if rapid.Bool().Draw(t, "access") {
				p.Access = []config.Grant{{
					Principals:  principals.Draw(t, "principals"),
					Realm:       rapid.SampledFrom([]string{"", "@root", "1", "a/b", "null"}).Draw(t, "realm"),
					Permissions: []string{"logdog.logs.get", "logdog.logs.list"},
				}}
			}
			c.Projects[p.Name] = p
		}
		again(t, c)
	})
}

// The example of the manual is one that works, and shows every field.
func TestManual(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/config.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(page, -1)
	if len(examples) == 0 {
		t.Fatal("there is no example")
	}
	for _, e := range examples {
		if _, err := config.Parse("docs/config.md", e[1]); err != nil {
			t.Error(err)
		}
	}
	for _, field := range []string{
		"prefix_expiration", "allowed_origins", "administrators", "services", "retention", "purge_grace", "bucket", "stream_range",
		"prefix_range", "byte_range", "open_streams", "bytes_per_day", "prefixes_per_hour", "principals", "realm", "roles", "permissions",
	} {
		if !strings.Contains(string(examples[0][1]), field+":") {
			t.Errorf("the example lacks %s", field)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(whole))
	f.Add([]byte("a: &a [*a]\n<<: *a\n"))
	f.Add([]byte("projects: {a: {access: [{principals: [\"user:\\u0000\"]}]}}"))
	f.Add([]byte("\xff\xfep\x00"))
	f.Add([]byte("? - ? - {[}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := config.Parse("f", text)
		if err != nil {
			p, ok := errors.AsType[*config.Problems](err)
			if !ok || len(p.Found) == 0 {
				t.Fatalf("%v is no Problems", err)
			}
			for _, found := range p.Found {
				if found.Line < 1 || found.Column < 1 || found.Text == "" {
					t.Fatalf("%+v of %q", found, text)
				}
			}
			return
		}
		shown, err := c.Text()
		if err != nil {
			t.Fatal(err)
		}
		again, err := config.Parse("f", shown)
		if err != nil {
			t.Fatalf("%v\n%s", err, shown)
		}
		again.Version = c.Version
		if diff := cmp.Diff(c, again); diff != "" {
			t.Fatal(diff)
		}
	})
}
