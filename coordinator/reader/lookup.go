package reader

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"time"

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

// positionToken is the page token of a listing of streams or prefixes: where the page ended, so that pages stay the same while streams are added.
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
