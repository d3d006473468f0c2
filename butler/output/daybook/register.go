package daybook

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
)

// registerTimeout bounds one attempt.
const registerTimeout = 30 * time.Second

// register claims the prefix, and tries again until that succeeds or cannot.
func (o *Output) register(ctx context.Context) error {
	var last error
	ended := func() error {
		if last == nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("%w; its answer was: %w", context.Cause(ctx), last)
	}
	for wait := backoff(0); ; {
		resp, err := o.tryRegister(ctx)
		switch {
		case err == nil:
			if journal := resp.GetIngestJournal(); journal != "" {
				o.journal.Store(&journal)
			}
			o.registered.Resolve(nil)
			if o.c.OnRegistered != nil {
				o.c.OnRegistered(resp.GetViewerUrl())
			}
			return nil
		case ctx.Err() != nil:
			return ended()
		case !fault.IsTransient(err):
			return err
		}
		o.log.Info("the registration failed, trying again", "error", err)
		last = err
		if sleep(ctx, wait.next()) != nil {
			return ended()
		}
	}
}

func (o *Output) tryRegister(ctx context.Context) (*logdog.RegisterPrefixResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, registerTimeout)
	defer cancel()
	req := &logdog.RegisterPrefixRequest{
		Project: string(o.claim.Project), Prefix: string(o.claim.Prefix),
		SourceInfo: o.claim.SourceInfo, Realm: o.claim.Realm,
		OpNonce: o.claim.Nonce, WishedSecret: o.claim.Secret,
	}
	if o.claim.Expiration > 0 {
		req.Expiration = durationpb.New(o.claim.Expiration)
	}
	resp, err := o.c.Registration.RegisterPrefix(ctx, req)
	if err != nil {
		return nil, fault.FromGRPC(err)
	}
	if !types.PrefixSecret(resp.GetSecret()).Equal(o.claim.Secret) {
		return nil, fault.New(fault.Precondition, "the server does not take the secret that the bundles have; it is no Daybook server")
	}
	return resp, nil
}
