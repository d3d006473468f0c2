package reader

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/coordinator/access"
	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

// address names a stream.
type address struct {
	project types.Project
	// prefix is empty if the stream was named by its id.
	prefix types.StreamName
	id     types.StreamID
}

// parseAddress checks the names of a stream in a request. In place of the path the stream's id may be given.
func parseAddress(project, path string) (address, error) {
	a := address{project: types.Project(project)}
	if err := a.project.Validate(); err != nil {
		return address{}, fault.Wrap(fault.Invalid, err)
	}
	full := types.StreamPath(path)
	err := full.Validate()
	if err == nil {
		a.prefix, _ = full.Split()
		a.id = full.ID()
		return a, nil
	}
	if id, iderr := types.ParseStreamID(path); iderr == nil {
		a.id = id
		return a, nil
	}
	return address{}, fault.New(fault.Invalid, "path: %w", err)
}

// load returns a stream that the caller may read. One that was purged is returned only if purged says so. What is not there is told only to
// who may know it; see errNoPrefix.
func (r *Reader) load(ctx context.Context, a address, purged bool) (*state.Stream, error) {
	s, err := r.store.Stream(ctx, a.project, a.id)
	if fault.Is(err, fault.NotFound) {
		return nil, r.noStream(ctx, a)
	}
	if err != nil {
		return nil, err
	}
	if err := r.access.Check(ctx, a.project, s.Prefix.Realm, access.Get); err != nil {
		return nil, err
	}
	switch {
	case !s.Prefix.Deleted.IsZero():
		return nil, errNoPrefix
	case !s.Purged.IsZero() && !purged:
		return nil, fault.New(fault.NotFound, "no such stream in project %s", a.project)
	}
	return s, nil
}

// loadFor is load for a request of daybook.v1: what was purged is returned to those who ask for it, and may take it back.
func (r *Reader) loadFor(ctx context.Context, a address, purged bool) (*state.Stream, error) {
	s, err := r.load(ctx, a, purged)
	if err == nil && purged {
		err = r.access.Check(ctx, a.project, s.Prefix.Realm, access.DeletePrefix)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// noStream returns the error for a stream that is not there.
func (r *Reader) noStream(ctx context.Context, a address) error {
	if a.prefix == "" {
		return errNoPrefix
	}
	p, err := r.prefix(ctx, a.project, a.prefix)
	if err != nil {
		return err
	}
	if err := r.access.Check(ctx, p.Project, p.Realm, access.Get); err != nil {
		return err
	}
	return fault.New(fault.NotFound, "no such stream in project %s", p.Project)
}

// prefix returns a prefix, or errNoPrefix.
func (r *Reader) prefix(ctx context.Context, project types.Project, name types.StreamName) (*state.Prefix, error) {
	p, err := r.store.Prefix(ctx, project, name)
	if fault.Is(err, fault.NotFound) || err == nil && !p.Deleted.IsZero() {
		return nil, errNoPrefix
	}
	return p, err
}

// descriptor parses the stored descriptor.
func descriptor(s *state.Stream) (*logpb.LogStreamDescriptor, error) {
	d := new(logpb.LogStreamDescriptor)
	if err := proto.Unmarshal(s.Descriptor, d); err != nil {
		return nil, fault.New(fault.Internal, "descriptor of %s is damaged: %w", s.Path(), err)
	}
	logpb.FitTimestamp(d.GetTimestamp())
	return d, nil
}

// positionToken is the page token of a listing, newest first: where the page ended, so that pages stay the same while more is added.
func positionToken(p state.Position) string {
	if p.IsZero() {
		return ""
	}
	b := binary.BigEndian.AppendUint64(nil, uint64(p.Created.UnixMicro())) // times before 1970 come back as they were
	b = binary.AppendVarint(b, p.Seq)
	return base64.RawURLEncoding.EncodeToString(b)
}

func parsePositionToken(token string) (state.Position, error) {
	if token == "" {
		return state.Position{}, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err == nil && len(b) > 8 {
		created := int64(binary.BigEndian.Uint64(b))
		if seq, n := binary.Varint(b[8:]); n == len(b)-8 && seq >= 0 {
			return state.Position{Created: time.UnixMicro(created).UTC(), Seq: seq}, nil
		}
	}
	return state.Position{}, errPageToken
}

var errPageToken = fault.New(fault.Invalid, "page token is not one that this service gave out")
