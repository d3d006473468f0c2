package reader

import (
	"context"
	"encoding/base64"
	"strconv"

	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

// name checks the names of a stream in a request. In place of the path the stream's id may be given.
func name(project, path string) (types.Project, types.StreamID, error) {
	p := types.Project(project)
	if err := p.Validate(); err != nil {
		return "", "", fault.Wrap(fault.Invalid, err)
	}
	full := types.StreamPath(path)
	err := full.Validate()
	if err == nil {
		return p, full.ID(), nil
	}
	if id, iderr := types.ParseStreamID(path); iderr == nil {
		return p, id, nil
	}
	return "", "", fault.New(fault.Invalid, "path: %w", err)
}

// load returns a stream that may be shown.
func (r *Reader) load(ctx context.Context, project types.Project, id types.StreamID) (*state.Stream, error) {
	s, err := r.store.Stream(ctx, project, id)
	if err == nil && !s.Purged.IsZero() {
		return nil, fault.New(fault.NotFound, "no such stream in project %s", project)
	}
	return s, err
}

// descriptor parses the stored descriptor.
func descriptor(s *state.Stream) (*logpb.LogStreamDescriptor, error) {
	d := new(logpb.LogStreamDescriptor)
	if err := proto.Unmarshal(s.Descriptor, d); err != nil {
		return nil, fault.New(fault.Internal, "descriptor of %s is damaged: %w", s.Path(), err)
	}
	return d, nil
}

// A page token is the number of the last row of the page, so that pages stay the same while rows are added.
func pageToken(seq int64) string {
	return base64.RawURLEncoding.EncodeToString(strconv.AppendInt(nil, seq, 10))
}

func parsePageToken(token string) (int64, error) {
	if token == "" {
		return 0, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err == nil {
		var seq int64
		if seq, err = strconv.ParseInt(string(b), 10, 64); err == nil && seq > 0 {
			return seq, nil
		}
	}
	return 0, fault.New(fault.Invalid, "page token is not one that this service gave out")
}
