// Package registration is how a Butler claims a prefix: the service logdog.Registration (spec coordinator 6.1).
//
// A registration is idempotent by its nonce, at any time: a repeat is answered with the stored secret. The service is safe for
// concurrent use; of several first calls for one prefix one wins, and the others are answered by what it stored.
package registration

import (
	"bytes"
	"cmp"
	"context"
	"crypto/subtle"
	"time"

	"github.com/daybook-dev/daybook/api/ingest"
	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/coordinator/access"
	"github.com/daybook-dev/daybook/coordinator/config"
	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
)

const (
	nonceLength   = 32
	maxSourceInfo = 64 << 10
)

// Config configures a Service.
type Config struct {
	// BaseURL is the address of the pages, without a trailing slash; empty if there are none.
	BaseURL string
	// Access decides who may register. Required.
	Access access.Checker
	// Settings say which projects there are, and for how long streams may be registered below a prefix. Required.
	Settings *config.Authority
	// IngestJournals are the journals that Butlers are told to append to, each for a part of the prefixes; nil or none is the default
	// one.
	IngestJournals func() []string
}

// Service implements logdog.Registration.
type Service struct {
	logdog.UnimplementedRegistrationServer
	store   state.Store
	conf    Config
	volumes volumes
}

// New returns a Service.
func New(store state.Store, conf Config) *Service {
	return &Service{store: store, conf: conf, volumes: volumes{of: make(map[types.Project]volume)}}
}

// RegisterPrefix claims a prefix.
func (s *Service) RegisterPrefix(ctx context.Context, r *logdog.RegisterPrefixRequest) (*logdog.RegisterPrefixResponse, error) {
	p, err := s.register(ctx, r)
	if err != nil {
		return nil, fault.GRPC(err)
	}
	resp := &logdog.RegisterPrefixResponse{
		Secret:         p.Secret,
		LogBundleTopic: ingest.Topic(p.Project),
		IngestJournal:  ingest.DefaultJournal,
		AcceptsZstd:    true,
	}
	if s.conf.IngestJournals != nil {
		resp.IngestJournal = ingest.Choose(s.conf.IngestJournals(), p.Project, p.Prefix)
	}
	if s.conf.BaseURL != "" {
		resp.ViewerUrl = s.conf.BaseURL + "/logs/" + string(p.Project) + "/" + string(p.Prefix)
	}
	return resp, nil
}

func (s *Service) register(ctx context.Context, r *logdog.RegisterPrefixRequest) (*state.Prefix, error) {
	wish, project, err := s.prefix(ctx, r)
	if err != nil {
		return nil, err
	}
	volume, err := s.volume(ctx, project)
	if err != nil {
		return nil, err
	}
	var p *state.Prefix
	err = s.store.Update(ctx, func(tx state.Tx) error {
		p, err = tx.Prefix(wish.Project, wish.Prefix)
		switch {
		case fault.Is(err, fault.NotFound):
			p = wish
			// Of a prefix that is there, a nonce that is none is another one (spec coordinator 6.1).
			if n := len(p.OpNonce); n != 0 && n != nonceLength {
				return fault.New(fault.Invalid, "op_nonce has %d bytes; none or %d are required", n, nonceLength)
			}
			if err := checkQuotas(tx, project, volume, p.Created); err != nil {
				return err
			}
			return tx.AddPrefix(p)
		case err != nil:
			return err
		case !isRetry(p.OpNonce, wish.OpNonce) && !p.Deleted.IsZero():
			return fault.New(fault.Exists, "prefix %s of project %s was deleted and is still being removed; choose another one, or try again in half an hour",
				p.Prefix, p.Project)
		case !isRetry(p.OpNonce, wish.OpNonce):
			return fault.New(fault.Exists, "prefix %s is already registered in project %s", p.Prefix, p.Project)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return p, nil
}

// prefix checks a request and returns the prefix that it asks for, and its project.
func (s *Service) prefix(ctx context.Context, r *logdog.RegisterPrefixRequest) (*state.Prefix, *config.Project, error) {
	p := &state.Prefix{
		Project: types.Project(r.GetProject()),
		Prefix:  types.StreamName(r.GetPrefix()),
		Realm:   cmp.Or(r.GetRealm(), access.DefaultRealm),
		OpNonce: bytes.Clone(r.GetOpNonce()),
		Source:  r.GetSourceInfo(),
		Created: time.Now().UTC().Round(time.Microsecond),
	}
	if err := p.Project.Validate(); err != nil {
		return nil, nil, fault.Wrap(fault.Invalid, err)
	}
	settings := s.conf.Settings.Current()
	project := settings.Projects[p.Project]
	if project == nil {
		return nil, nil, s.conf.Access.Hidden(ctx)
	}
	if !types.ValidRealm(p.Realm) {
		return nil, nil, fault.New(fault.Invalid, "realm is not a realm name of the project")
	}
	if err := p.Prefix.Validate(); err != nil {
		return nil, nil, fault.New(fault.Invalid, "prefix: %w", err)
	}
	if err := s.conf.Access.Check(ctx, p.Project, p.Realm, access.Create); err != nil {
		return nil, nil, err
	}
	size := 0
	for _, line := range p.Source {
		size += len(line)
	}
	if size > maxSourceInfo {
		return nil, nil, fault.New(fault.Invalid, "source_info has %d bytes; at most %d are allowed", size, maxSourceInfo)
	}
	if r.GetExpiration() != nil {
		if err := r.GetExpiration().CheckValid(); err != nil {
			return nil, nil, fault.New(fault.Invalid, "expiration: %w", err)
		}
	}
	window := settings.PrefixWindow(project, r.GetExpiration().AsDuration())
	if window <= 0 {
		return nil, nil, fault.New(fault.Invalid, "expiration: neither the request nor the configuration says how long streams may be registered; give one")
	}
	p.Expires = p.Created.Add(window)
	p.Secret = types.NewPrefixSecret()
	if wished := types.PrefixSecret(r.GetWishedSecret()); len(wished) > 0 && len(p.OpNonce) > 0 {
		if err := wished.Validate(); err != nil {
			return nil, nil, fault.New(fault.Invalid, "wished_secret: %w", err)
		}
		p.Secret = bytes.Clone(wished)
	}
	return p, project, nil
}

// isRetry tells whether two registrations are the same one.
func isRetry(stored, nonce []byte) bool {
	return len(nonce) == nonceLength && subtle.ConstantTimeCompare(stored, nonce) == 1
}
