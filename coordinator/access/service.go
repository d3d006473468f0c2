package access

import (
	"context"
	"log/slog"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
)

// Service implements daybook.v1.Access: who callers are, and administrators' door to tokens.
type Service struct {
	daybookv1.UnimplementedAccessServer
	tokens  *Tokens
	checker Checker
	log     *slog.Logger
}

// NewService returns a Service. The logger is told who created and revoked which tokens.
func NewService(tokens *Tokens, checker Checker, log *slog.Logger) *Service {
	return &Service{tokens: tokens, checker: checker, log: log}
}

// Identify tells who the caller is.
func (s *Service) Identify(ctx context.Context, _ *daybookv1.IdentifyRequest) (*daybookv1.IdentifyResponse, error) {
	p := PrincipalFrom(ctx)
	return &daybookv1.IdentifyResponse{
		Principal: p.String(), Permissions: texts(p.Permissions), Projects: texts(p.Projects),
	}, nil
}

// CreateToken issues a token.
func (s *Service) CreateToken(ctx context.Context, r *daybookv1.CreateTokenRequest) (*daybookv1.CreateTokenResponse, error) {
	resp, err := s.createToken(ctx, r)
	return resp, fault.GRPC(err)
}

func (s *Service) createToken(ctx context.Context, r *daybookv1.CreateTokenRequest) (*daybookv1.CreateTokenResponse, error) {
	if err := s.checker.Check(ctx, "", "", Admin); err != nil {
		return nil, err
	}
	if err := r.GetLife().CheckValid(); err != nil {
		return nil, fault.New(fault.Invalid, "a token must expire: life: %w", err)
	}
	t := &Token{Name: r.GetName()}
	for _, name := range r.GetPermissions() {
		ps, err := ParsePermissions(name)
		if err != nil {
			return nil, err
		}
		t.Permissions = append(t.Permissions, ps...)
	}
	for _, p := range r.GetProjects() {
		t.Projects = append(t.Projects, types.Project(p))
	}
	secret, err := s.tokens.Create(ctx, t, r.GetLife().AsDuration())
	if err != nil {
		return nil, err
	}
	s.log.Info("token created", "name", t.Name, "permissions", t.Permissions, "projects", t.Projects, "expires", t.Expires, "by", t.CreatedBy)
	return &daybookv1.CreateTokenResponse{Secret: secret, Token: t.proto()}, nil
}

// ListTokens returns all tokens.
func (s *Service) ListTokens(ctx context.Context, _ *daybookv1.ListTokensRequest) (*daybookv1.ListTokensResponse, error) {
	if err := s.checker.Check(ctx, "", "", Admin); err != nil {
		return nil, fault.GRPC(err)
	}
	all, err := s.tokens.List(ctx)
	if err != nil {
		return nil, fault.GRPC(err)
	}
	resp := &daybookv1.ListTokensResponse{Tokens: make([]*daybookv1.Token, len(all))}
	for i, t := range all {
		resp.Tokens[i] = t.proto()
	}
	return resp, nil
}

// RevokeToken ends a token.
func (s *Service) RevokeToken(ctx context.Context, r *daybookv1.RevokeTokenRequest) (*daybookv1.RevokeTokenResponse, error) {
	if err := s.checker.Check(ctx, "", "", Admin); err != nil {
		return nil, fault.GRPC(err)
	}
	if err := s.tokens.Revoke(ctx, r.GetName()); err != nil {
		return nil, fault.GRPC(err)
	}
	s.log.Info("token revoked", "name", r.GetName(), "by", PrincipalFrom(ctx).String())
	return &daybookv1.RevokeTokenResponse{}, nil
}

func (t *Token) proto() *daybookv1.Token {
	return &daybookv1.Token{
		Name: t.Name, Permissions: texts(t.Permissions), Projects: texts(t.Projects), CreatedBy: t.CreatedBy,
		Created: timestamppb.New(t.Created), Expires: timestamppb.New(t.Expires),
	}
}

func texts[T ~string](values []T) []string {
	s := make([]string, len(values))
	for i, v := range values {
		s[i] = string(v)
	}
	return s
}
