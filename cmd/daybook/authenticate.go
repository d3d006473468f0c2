package main

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/daybook-dev/daybook/api/ingest"
	"github.com/daybook-dev/daybook/api/prpc"
	"github.com/daybook-dev/daybook/coordinator/access"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/auth"
	"github.com/daybook-dev/daybook/journal/protocol"
	"github.com/daybook-dev/daybook/web"
)

// callers knows who comes to the doors of a process, and what they may do. It is complete when openAccess returns, before any door opens.
type callers struct {
	// self is the credential of this process, which is made up when it starts and kept in its memory.
	self string

	tokens *access.Tokens // nil without the role coordinator
	chain  access.Chain
	guard  *access.Guard
	rules  *access.Rules
	broker bool // calls that work with journals are not passed on
}

func newCallers() *callers { return &callers{self: rand.Text()} }

// Principals of a process, which are not by tokens. Each may do everything.
const (
	thisProcess = "service:daybook"
	localUser   = "user:local" // whoever may read the data directory
)

// openAccess decides who is known, and by what.
func (s *system) openAccess(context.Context) error {
	c := s.callers
	all := []access.Permission{access.Admin}
	c.rules = access.NewRules(s.settings, s.DemandTokens)
	c.chain = access.Chain{
		access.Secret(c.self, access.Principal{Name: thisProcess, Permissions: all}),
		access.Secret(s.Token, access.Principal{Name: localUser, Permissions: all}),
	}
	if s.state != nil {
		c.tokens = access.NewTokens(s.state)
		c.chain = append(c.chain, c.tokens)
	} else if s.toCoordinator != s.conn {
		c.chain = append(c.chain, access.NewRemote(s.toCoordinator))
	}
	c.guard = access.NewGuard(c.chain)
	return nil
}

// authenticate returns who has a credential, and the credential if it proves that. Where nobody needs one, those of others do not
// matter: existing tools have them from elsewhere.
func (c *callers) authenticate(ctx context.Context, credential string) (access.Principal, string, error) {
	p, err := c.chain.Authenticate(ctx, credential)
	if errors.Is(err, access.ErrForeign) && !c.rules.Apply() {
		return access.Principal{}, "", nil
	}
	return p, credential, err
}

// holder returns the name of who has a token.
func (c *callers) holder(ctx context.Context, token string) (string, error) {
	p, err := c.chain.Authenticate(ctx, token)
	return p.String(), err
}

// elsewhere returns what a call to another process of the system shows. That does not know the credentials that only we know.
func (c *callers) elsewhere(ctx context.Context, ours string) string {
	credential, ok := access.CredentialFrom(ctx)
	if name := access.PrincipalFrom(ctx).Name; !ok || name == thisProcess || name == localUser {
		return ours
	}
	return credential
}

// credential returns what a call that this process makes shows: the credential of the caller on whose behalf it is made, which may be
// none, or the process's own.
func (c *callers) credential(ctx context.Context) string {
	if credential, ok := access.CredentialFrom(ctx); ok {
		return credential
	}
	return c.self
}

// identify returns a context that knows who makes a gRPC call.
func (c *callers) identify(ctx context.Context) (context.Context, error) {
	if _, ok := access.CredentialFrom(ctx); ok {
		return ctx, nil // the call came by HTTP
	}
	credential, err := access.Bearer(metadata.ValueFromIncomingContext(ctx, "authorization"))
	if err != nil {
		return nil, err
	}
	p, credential, err := c.authenticate(ctx, credential)
	if err != nil {
		return nil, err
	}
	return access.WithCaller(ctx, p, credential), nil
}

// demands are what services demand of all who call them. Those that are not here are for administrators.
var demands = map[string]access.Permission{
	"logdog.Services":         access.Services,
	"daybook.v1.Leases":       access.Services,
	"daybook.journal.v1.Trim": access.Services,
	// Their methods ask, for each call is about a project or a journal.
	"logdog.Registration":         "",
	"logdog.Logs":                 "",
	"daybook.v1.Logs":             "",
	"daybook.v1.Access":           "",
	"google.pubsub.v1.Publisher":  "",
	"protocol.Journal":            "",
	"daybook.journal.v1.Pipeline": "",
	// Everybody may know what there is.
	"discovery.Discovery": "",
}

// journalCalls are what calls need that work with journals. The broker asks again, when it has their requests.
var journalCalls = map[string]auth.Capability{
	protocol.Journal_List_FullMethodName:                auth.List,
	protocol.Journal_Apply_FullMethodName:               auth.Apply,
	protocol.Journal_Read_FullMethodName:                auth.Read,
	protocol.Journal_Append_FullMethodName:              auth.Append,
	protocol.Journal_Replicate_FullMethodName:           auth.Replicate,
	protocol.Journal_ListFragments_FullMethodName:       auth.Read,
	protocol.Journal_FragmentStoreHealth_FullMethodName: auth.Read,
	protocol.Pipeline_Append_FullMethodName:             auth.Append,
}

// admit refuses calls that the caller may not make, whatever they are about.
func (c *callers) admit(ctx context.Context, method string) error {
	if capability, ok := journalCalls[method]; ok && c.broker {
		_, _, _, err := c.VerifyCall(ctx, capability)
		return err
	}
	service, _, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	need, ok := demands[service]
	if !ok {
		need = access.Admin
	}
	if need == "" {
		return nil
	}
	return c.rules.Check(ctx, "", "", need)
}

func (c *callers) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	ctx, err := c.identify(ctx)
	if err == nil {
		err = c.admit(ctx, info.FullMethod)
	}
	if err != nil {
		return nil, fault.GRPC(err)
	}
	return handler(ctx, req)
}

func (c *callers) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx, err := c.identify(ss.Context())
	if err == nil {
		err = c.admit(ctx, info.FullMethod)
	}
	if err != nil {
		return fault.GRPC(err)
	}
	credential, _ := access.CredentialFrom(ctx)
	ctx, release := c.guard.Watch(ctx, credential)
	defer release()
	err = handler(srv, &identified{ss, ctx})
	if refusal := context.Cause(ctx); fault.Is(refusal, fault.Unauthenticated) {
		return fault.GRPC(refusal)
	}
	return err
}

// identified is a stream of a known caller, which ends when their credential does.
type identified struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *identified) Context() context.Context { return s.ctx }

func (s *identified) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	return s.ended()
}

func (s *identified) SendMsg(m any) error {
	if err := s.ended(); err != nil {
		return err
	}
	return s.ServerStream.SendMsg(m)
}

func (s *identified) ended() error {
	if s.ctx.Err() == nil {
		return nil
	}
	return fault.GRPC(context.Cause(s.ctx))
}

// http lets requests in whose callers are known or anonymous. Programs have a header, people the cookie of the login. Those that are calls
// are refused as calls are.
func (c *callers) http(next http.Handler, calls *prpc.Server) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		credential, err := access.Bearer(r.Header.Values("Authorization"))
		if err == nil && credential == "" {
			credential = web.Token(r)
		}
		var p access.Principal
		if err == nil {
			p, credential, err = c.authenticate(r.Context(), credential)
		}
		if err != nil && isLogin(r) {
			credential, err = "", nil // whose cookie is not good any more, comes here for a better one
		}
		switch {
		case err == nil:
		case strings.HasPrefix(r.URL.Path, prpc.Prefix):
			if fault.Is(err, fault.Unauthenticated) {
				w.Header().Set("WWW-Authenticate", "Bearer")
			}
			calls.Refuse(w, r, fault.GRPC(err))
			return
		default:
			web.Refuse(w, r, err)
			return
		}
		ctx, release := c.guard.Watch(access.WithCaller(r.Context(), p, credential), credential)
		defer release()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

func isLogin(r *http.Request) bool {
	return r.URL.Path == "/login" || r.URL.Path == "/logout" || strings.HasPrefix(r.URL.Path, "/static/") ||
		r.URL.Path == "/handover" || r.URL.Path == "/healthz" || r.URL.Path == "/readyz"
}

// only lets those in who have a permission for the whole installation.
func (c *callers) only(p access.Permission, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := c.rules.Check(r.Context(), "", "", p)
		if err != nil && access.PrincipalFrom(r.Context()).Anonymous() {
			err = fault.New(fault.Unauthenticated, "%w", err) // so that they come back with a token
		}
		if err != nil {
			web.Refuse(w, r, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// anyOf lets those in who have one of some permissions, anywhere. What they may do, whoever answers knows.
func (c *callers) anyOf(next http.Handler, permissions ...access.Permission) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, p := range permissions {
			if c.rules.Anywhere(r.Context(), p) == nil {
				next.ServeHTTP(w, r)
				return
			}
		}
		web.Refuse(w, r, c.rules.Hidden(r.Context()))
	})
}

// VerifyCall implements auth.Verifier: what callers may do with journals. Administrators may do everything. Services work with the
// journals that take in what is logged. Who may log may append to these; each bundle there proves that it belongs where it says.
func (c *callers) VerifyCall(ctx context.Context, required auth.Capability) (context.Context, context.CancelFunc, auth.Claims, error) {
	done := func() {}
	if c.rules.Check(ctx, "", "", access.Admin) == nil {
		return ctx, done, auth.Claims{Capability: auth.All}, nil
	}
	services, loggers := auth.List|auth.Read|auth.Append, auth.List|auth.Append
	if method, _ := grpc.Method(ctx); method == protocol.Trim_Trim_FullMethodName {
		services |= auth.Apply // which it asks for, and is no more than that
	}
	var may auth.Capability
	switch {
	case services.Has(required) && c.rules.Check(ctx, "", "", access.Services) == nil:
		may = services
	case loggers.Has(required) && c.rules.Anywhere(ctx, access.Create) == nil:
		may = loggers
	default:
		return ctx, done, auth.Claims{}, refuseJournals(ctx)
	}
	ours := &protocol.LabelSelector{Include: protocol.MustLabelSet(ingest.Label, "")}
	return ctx, done, auth.Claims{Capability: may, Selector: ours}, nil
}

func refuseJournals(ctx context.Context) error {
	who := access.PrincipalFrom(ctx)
	if who.Anonymous() {
		return fault.New(fault.Unauthenticated, "callers without a token may not do this with journals; give one, with --token or DAYBOOK_TOKEN")
	}
	return fault.New(fault.Denied, "%s may not do this with journals; a token of the role admin may do everything with them, one of the role service may read and append to those "+
		"of logs, and one of the role writer append", who)
}
