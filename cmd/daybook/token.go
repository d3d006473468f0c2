package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/coordinator/config"
	"github.com/daybook-dev/daybook/internal/fault"
)

type tokenCmd struct {
	Create tokenCreateCmd `cmd:"" help:"Create a token, and print it this once."`
	Ls     tokenLsCmd     `cmd:"" help:"List tokens."`
	Revoke tokenRevokeCmd `cmd:"" help:"End tokens."`
}

func (c *tokenCmd) Help() string {
	return "Servers that others can reach demand a token. Whoever may read the data directory of a server is its administrator, and so are those with a token of the role admin. " +
		"docs/access.md tells who may do what."
}

// days is a duration, as 30d or 12h.
type days time.Duration

// UnmarshalText implements encoding.TextUnmarshaler, for flags.
func (d *days) UnmarshalText(text []byte) error {
	parsed, err := config.ParseDuration(string(text))
	if err != nil {
		return fault.New(fault.Invalid, "%q %w", text, err)
	}
	*d = days(parsed)
	return nil
}

type tokenCreateCmd struct {
	serverFlags
	Name       string   `help:"Name of the token, of which there may be one. Its holder is the principal token:NAME." required:"" placeholder:"NAME"`
	Project    []string `help:"Projects in which the token is good; '*' is all." short:"p" placeholder:"PROJECT"`
	Permission []string `help:"What the holder may do: logdog.logs.create, logdog.logs.get, logdog.logs.list, logdog.logs.deletePrefix; daybook.services, daybook.admin." placeholder:"PERMISSION"`
	Role       []string `help:"What the holder may do: reader (get, list), writer (create), service (for processes of the system), admin (everything)." placeholder:"ROLE"`
	Expires    days     `help:"How long the token is good, as 30d or 12h; ${default} unless said." default:"90d" placeholder:"DURATION"`
}

func (c *tokenCreateCmd) Help() string {
	return "The token is on stdout; it cannot be shown again, since only its SHA-256 is kept. Without --permission and --role, it only proves its name, " +
		"to which the access rules of the configuration may grant something."
}

func (c *tokenCreateCmd) Run(e *env) error {
	return c.ask(e, func(access daybookv1.AccessClient) error {
		resp, err := access.CreateToken(e.ctx, &daybookv1.CreateTokenRequest{
			Name: c.Name, Projects: c.Project, Permissions: append(c.Permission, c.Role...), Life: durationpb.New(time.Duration(c.Expires)),
		})
		if err != nil {
			return err
		}
		t := resp.GetToken()
		fmt.Fprintf(e.stderr, "daybook: %s, until %s. Keep it; it is not shown again.\n", describe(t), t.GetExpires().AsTime().Format(time.RFC3339))
		_, err = fmt.Fprintln(e.stdout, resp.GetSecret())
		return err
	})
}

// describe says what a token is good for.
func describe(t *daybookv1.Token) string {
	if len(t.GetPermissions()) == 0 {
		return "token:" + t.GetName() + " has no permission but what the configuration grants to it"
	}
	what := "token:" + t.GetName() + " may " + strings.Join(t.GetPermissions(), ", ")
	if len(t.GetProjects()) > 0 {
		what += " in " + strings.Join(t.GetProjects(), ", ")
	}
	return what
}

type tokenLsCmd struct {
	serverFlags
}

func (c *tokenLsCmd) Run(e *env) error {
	return c.ask(e, func(access daybookv1.AccessClient) error {
		resp, err := access.ListTokens(e.ctx, &daybookv1.ListTokensRequest{})
		if err != nil {
			return err
		}
		table := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "NAME\tPERMISSIONS\tPROJECTS\tEXPIRES\tCREATED BY")
		for _, t := range resp.GetTokens() {
			expires := t.GetExpires().AsTime().Local().Format("2006-01-02 15:04")
			if !time.Now().Before(t.GetExpires().AsTime()) {
				expires = "expired"
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", t.GetName(), orDash(t.GetPermissions()), orDash(t.GetProjects()), expires, t.GetCreatedBy())
		}
		return table.Flush()
	})
}

func orDash(s []string) string {
	if len(s) == 0 {
		return "-"
	}
	return strings.Join(s, ",")
}

type tokenRevokeCmd struct {
	serverFlags
	Name []string `arg:"" help:"Names of the tokens."`
}

func (c *tokenRevokeCmd) Help() string {
	return "Calls with the tokens are refused from now on; what is under way with them ends within seconds."
}

func (c *tokenRevokeCmd) Run(e *env) error {
	return c.ask(e, func(access daybookv1.AccessClient) error {
		var errs []error
		for _, name := range c.Name {
			_, err := access.RevokeToken(e.ctx, &daybookv1.RevokeTokenRequest{Name: name})
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
}

// ask asks the server about access.
func (f *serverFlags) ask(e *env, call func(daybookv1.AccessClient) error) (err error) {
	l, err := f.openLink(e.ctx, e.log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close(context.WithoutCancel(e.ctx))) }()
	return call(daybookv1.NewAccessClient(l.conn))
}
