package access

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/coordinator/config"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
)

func TestServiceIsForAdministrators(t *testing.T) {
	var log bytes.Buffer
	tokens := NewTokens(&fakeTokens{})
	s := NewService(tokens, NewRules(config.Default(), true), slog.New(slog.NewTextHandler(&log, nil)))
	create := &daybookv1.CreateTokenRequest{Name: "ci", Permissions: []string{"reader"}, Projects: []string{"local"}, Life: durationpb.New(time.Hour)}
	for name, call := range map[string]func(context.Context) error{
		"create": func(ctx context.Context) error { _, err := s.CreateToken(ctx, create); return err },
		"list":   func(ctx context.Context) error { _, err := s.ListTokens(ctx, nil); return err },
		"revoke": func(ctx context.Context) error {
			_, err := s.RevokeToken(ctx, &daybookv1.RevokeTokenRequest{Name: "ci"})
			return err
		},
	} {
		if err := call(t.Context()); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("%s by anonymous: %v", name, err)
		}
		if err := call(WithPrincipal(t.Context(), Principal{Name: "token:x", Permissions: []Permission{Services}})); !fault.Is(err, fault.Denied) {
			t.Errorf("%s by a service: %v", name, err)
		}
	}

	admin := WithPrincipal(t.Context(), Principal{Name: "user:ada", Permissions: []Permission{Admin}})
	created, err := s.CreateToken(admin, create)
	if err != nil {
		t.Fatal(err)
	}
	if got := created.GetToken(); got.GetCreatedBy() != "user:ada" || strings.Join(got.GetPermissions(), " ") != "logdog.logs.get logdog.logs.list" {
		t.Errorf("%v", got)
	}
	if _, err := s.CreateToken(admin, create); !fault.Is(err, fault.Exists) {
		t.Errorf("again: %v", err)
	}
	listed, err := s.ListTokens(admin, nil)
	if err != nil || len(listed.GetTokens()) != 1 {
		t.Errorf("%v, %v", listed, err)
	}
	p, err := Chain{tokens}.Authenticate(t.Context(), created.GetSecret())
	if err != nil || p.Name != "token:ci" {
		t.Errorf("%v, %v", p, err)
	}
	if _, err := s.RevokeToken(admin, &daybookv1.RevokeTokenRequest{Name: "ci"}); err != nil {
		t.Error(err)
	}
	if _, err := (Chain{tokens}).Authenticate(t.Context(), created.GetSecret()); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("revoked: %v", err)
	}
	if !strings.Contains(log.String(), "by=user:ada") || strings.Contains(log.String(), created.GetSecret()) {
		t.Errorf("the log says:\n%s", log.String())
	}
	for name, bad := range map[string]*daybookv1.CreateTokenRequest{
		"life":       {Name: "x"},
		"permission": {Name: "x", Permissions: []string{"everything"}, Life: durationpb.New(time.Hour)},
		"no life":    {Name: "x", Life: durationpb.New(0)},
	} {
		if _, err := s.CreateToken(admin, bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A process without tokens finds out who its callers are from one that has them.
func TestRemote(t *testing.T) {
	tokens := NewTokens(&fakeTokens{})
	chain := Chain{tokens}
	server := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		credential, err := Bearer(metadata.ValueFromIncomingContext(ctx, "authorization"))
		if err != nil {
			return nil, fault.GRPC(err)
		}
		p, err := chain.Authenticate(ctx, credential)
		if err != nil {
			return nil, fault.GRPC(err)
		}
		return next(WithCaller(ctx, p, credential), req)
	}))
	daybookv1.RegisterAccessServer(server, NewService(tokens, Open(), slog.New(slog.DiscardHandler)))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) })
	defer serving.Wait()
	defer server.Stop()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithPerRPCCredentials(onBehalf{}))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()

	remote := Chain{NewRemote(conn)}
	secret := create(t, tokens, Token{Name: "ci", Permissions: []Permission{Get}, Projects: []types.Project{"a"}}, time.Hour)
	for range 2 { // asked, and remembered
		p, err := remote.Authenticate(t.Context(), secret)
		if err != nil || p.Name != "token:ci" || !p.Holds("a", Get) || p.Holds("b", Get) {
			t.Fatalf("%+v, %v", p, err)
		}
	}
	if _, err := remote.Authenticate(t.Context(), "dbk_other"); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("%v", err)
	}
	server.Stop()
	if _, err := remote.Authenticate(t.Context(), "dbk_third"); !fault.Is(err, fault.Transient) {
		t.Errorf("nobody to ask: %v", err)
	}
}

type onBehalf struct{}

func (onBehalf) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	credential, _ := CredentialFrom(ctx)
	return map[string]string{"authorization": "Bearer " + credential}, nil
}
func (onBehalf) RequireTransportSecurity() bool { return false }
