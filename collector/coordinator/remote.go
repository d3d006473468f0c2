package coordinator

import (
	"context"
	"fmt"

	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
)

// NewCoordinator returns a Coordinator that calls s. A request that cannot succeed is refused before it is sent.
func NewCoordinator(s logdog.ServicesClient) Coordinator { return &remote{s} }

type remote struct{ services logdog.ServicesClient }

func (r *remote) RegisterStream(ctx context.Context, s *LogStreamState, desc []byte) (*LogStreamState, error) {
	if err := validate(s.Project, s.Path, s.Secret); err != nil {
		return nil, err
	}
	req := &logdog.RegisterStreamRequest{
		Project:       string(s.Project),
		Secret:        s.Secret,
		ProtoVersion:  s.ProtoVersion,
		Desc:          desc,
		TerminalIndex: max(-1, int64(s.TerminalIndex)),
		TerminalEmpty: s.TerminalEmpty,
		Ended:         s.Ended,
	}
	resp, err := r.services.RegisterStream(ctx, req)
	if err != nil {
		return nil, failure(err)
	}
	state := resp.GetState()
	if resp.GetId() == "" || state == nil {
		return nil, fmt.Errorf("the coordinator's answer for stream %s of project %s has no id or no state", s.Path, s.Project)
	}
	return &LogStreamState{
		Project:       s.Project,
		Path:          s.Path,
		ID:            resp.GetId(),
		ProtoVersion:  state.GetProtoVersion(),
		Secret:        state.GetSecret(),
		TerminalIndex: types.MessageIndex(state.GetTerminalIndex()),
		TerminalEmpty: state.GetTerminalEmpty(),
		Archived:      state.GetArchived(),
		Purged:        state.GetPurged(),
	}, nil
}

func (r *remote) TerminateStream(ctx context.Context, t *TerminateRequest) error {
	if err := validate(t.Project, t.Path, t.Secret); err != nil {
		return err
	}
	switch {
	case t.ID == "":
		return fault.New(fault.Invalid, "end of stream %s: the id is missing", t.Path)
	case t.TerminalIndex < 0 && !t.TerminalEmpty:
		return fault.New(fault.Invalid, "end of stream %s: the index is less than zero", t.Path)
	}
	req := &logdog.TerminateStreamRequest{
		Project:       string(t.Project),
		Id:            t.ID,
		Secret:        t.Secret,
		TerminalIndex: int64(t.TerminalIndex),
		TerminalEmpty: t.TerminalEmpty,
		Ended:         t.Ended,
	}
	_, err := r.services.TerminateStream(ctx, req)
	return failure(err)
}

func validate(project types.Project, path types.StreamPath, secret types.PrefixSecret) error {
	if err := project.Validate(); err != nil {
		return fault.Wrap(fault.Invalid, err)
	}
	if err := path.Validate(); err != nil {
		return fault.Wrap(fault.Invalid, err)
	}
	return fault.Wrap(fault.Invalid, secret.Validate())
}

// failure gives the error of a call its kind. Only a few of them say something about the request, and make its data be refused.
// All others, also those that nobody foresaw, are about the Coordinator or the way to it.
func failure(err error) error {
	err = fault.FromGRPC(err)
	switch fault.KindOf(err) {
	case fault.Invalid, fault.NotFound, fault.Exists, fault.Precondition, fault.OutOfRange:
		return err
	}
	if err == nil || fault.IsTransient(err) {
		return err
	}
	return fault.Wrap(fault.Transient, err)
}
