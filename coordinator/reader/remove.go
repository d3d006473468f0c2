package reader

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/coordinator/access"
	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
)

// DeletePrefix removes a prefix and everything below it. When it returns nothing of it is shown any more and nothing can be added; the data
// goes soon after. Unlike a Purge it cannot be taken back.
func (l *logdogLogs) DeletePrefix(ctx context.Context, r *logdog.DeletePrefixRequest) (*logdog.DeletePrefixResponse, error) {
	// That it is not there is told to those who could delete it, wherever it is.
	return new(logdog.DeletePrefixResponse), l.reader.tell(ctx, r.GetProject(), access.DeletePrefix, l.deletePrefix(ctx, r))
}

func (l *logdogLogs) deletePrefix(ctx context.Context, r *logdog.DeletePrefixRequest) error {
	project, name := types.Project(r.GetProject()), types.StreamName(r.GetPrefix())
	if err := project.Validate(); err != nil {
		return fault.Wrap(fault.Invalid, err)
	}
	if err := name.Validate(); err != nil {
		return fault.New(fault.Invalid, "prefix: %w", err)
	}
	p, err := l.reader.prefixByIDOrName(ctx, project, name)
	if err != nil {
		return err
	}
	if err := l.reader.access.Check(ctx, project, p.Realm, access.DeletePrefix); err != nil {
		return err
	}
	return l.reader.backend.DeletePrefix(ctx, p)
}

// prefixByIDOrName returns a prefix that is named by its id or, if there is none, by itself: some ids are names.
func (r *Reader) prefixByIDOrName(ctx context.Context, project types.Project, name types.StreamName) (*state.Prefix, error) {
	id, err := types.ParsePrefixID(string(name))
	if err != nil {
		return r.prefix(ctx, project, name)
	}
	// Nobody may learn from a search that takes its time what they may not know.
	if _, err := r.sight(ctx, project, access.DeletePrefix); err != nil {
		return nil, err
	}
	q := state.PrefixQuery{Project: project, Limit: maxPageSize}
	for {
		found, err := r.store.FindPrefixes(ctx, q)
		if err != nil {
			return nil, err
		}
		for _, p := range found {
			if p.Prefix.PrefixID() == id {
				return p, nil
			}
			q.After = p.Position()
		}
		if len(found) < q.Limit {
			return r.prefix(ctx, project, name)
		}
	}
}

// Purge hides a stream or the streams of a prefix.
func (l *daybookLogs) Purge(ctx context.Context, r *daybookv1.PurgeRequest) (*daybookv1.PurgeResponse, error) {
	resp, err := l.purge(ctx, r)
	return resp, l.reader.tell(ctx, r.GetProject(), access.DeletePrefix, err)
}

func (l *daybookLogs) purge(ctx context.Context, r *daybookv1.PurgeRequest) (*daybookv1.PurgeResponse, error) {
	s, p, err := l.removable(ctx, r)
	if err != nil {
		return nil, err
	}
	var n int
	var until time.Time
	if s == nil {
		n, until, err = l.reader.backend.PurgePrefix(ctx, p)
	} else {
		var changed bool
		if changed, until, err = l.reader.backend.Purge(ctx, s); changed {
			n = 1
		}
	}
	if err != nil {
		return nil, err
	}
	resp := &daybookv1.PurgeResponse{Streams: int64(n)}
	if n > 0 {
		resp.Until = timestamppb.New(until)
	}
	return resp, nil
}

// Undelete shows purged streams again.
func (l *daybookLogs) Undelete(ctx context.Context, r *daybookv1.UndeleteRequest) (*daybookv1.UndeleteResponse, error) {
	resp, err := l.undelete(ctx, r)
	return resp, l.reader.tell(ctx, r.GetProject(), access.DeletePrefix, err)
}

func (l *daybookLogs) undelete(ctx context.Context, r *daybookv1.UndeleteRequest) (*daybookv1.UndeleteResponse, error) {
	s, p, err := l.removable(ctx, r)
	if err != nil {
		return nil, err
	}
	var n int
	if s == nil {
		n, err = l.reader.backend.UndeletePrefix(ctx, p)
	} else {
		var changed bool
		if changed, err = l.reader.backend.Undelete(ctx, s); changed {
			n = 1
		}
	}
	if err != nil {
		return nil, err
	}
	return &daybookv1.UndeleteResponse{Streams: int64(n)}, nil
}

// removable returns the stream or, without a path, the prefix of a request, for a caller who may delete it.
func (l *daybookLogs) removable(ctx context.Context, r interface {
	GetProject() string
	GetPath() string
	GetPrefix() string
},
) (*state.Stream, *state.Prefix, error) {
	if (r.GetPath() == "") == (r.GetPrefix() == "") {
		return nil, nil, fault.New(fault.Invalid, "give either the path of a stream or a prefix")
	}
	if r.GetPath() != "" {
		s, err := l.removableStream(ctx, r.GetProject(), r.GetPath())
		return s, nil, err
	}
	project, name := types.Project(r.GetProject()), types.StreamName(r.GetPrefix())
	if err := errors.Join(project.Validate(), name.Validate()); err != nil {
		return nil, nil, fault.Wrap(fault.Invalid, err)
	}
	p, err := l.reader.prefix(ctx, project, name)
	if err != nil {
		return nil, nil, err
	}
	return nil, p, l.reader.access.Check(ctx, project, p.Realm, access.DeletePrefix)
}

func (l *daybookLogs) removableStream(ctx context.Context, project, path string) (*state.Stream, error) {
	a, err := parseAddress(project, path)
	if err != nil {
		return nil, err
	}
	s, err := l.reader.store.Stream(ctx, a.project, a.id)
	if fault.Is(err, fault.NotFound) || err == nil && !s.Prefix.Deleted.IsZero() {
		return nil, errNoPrefix
	}
	if err != nil {
		return nil, err
	}
	return s, l.reader.access.Check(ctx, a.project, s.Prefix.Realm, access.DeletePrefix)
}
