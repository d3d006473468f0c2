// Package services is what Collectors and Archivists ask of the Coordinator: the service logdog.Services (spec coordinator 6.2 to
// 6.7). It checks requests and translates; what happens to streams and tasks is package backend's.
//
// The service is safe for concurrent use.
package services

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/coordinator/backend"
	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

const (
	// protoVersion is the one version of the protocol (spec coordinator 2.5).
	protoVersion = "1"
	// maxDescriptor is the most bytes that a descriptor may have, which is kept in memory for each stream that is worked on. Butlers
	// take headers of half of it.
	maxDescriptor = 2 << 20
)

// Service implements logdog.Services.
type Service struct {
	logdog.UnimplementedServicesServer
	store   state.Store
	backend *backend.Backend
	// closing ends when Close is called.
	closing context.Context
	close   context.CancelFunc
}

// New returns a Service.
func New(store state.Store, b *backend.Backend) *Service {
	s := &Service{store: store, backend: b}
	s.closing, s.close = context.WithCancel(context.Background())
	return s
}

// Close ends the calls that wait for tasks.
func (s *Service) Close() { s.close() }

// RegisterStream registers a stream, or returns the state of the one that is registered.
func (s *Service) RegisterStream(ctx context.Context, r *logdog.RegisterStreamRequest) (*logdog.RegisterStreamResponse, error) {
	resp, err := s.registerStream(ctx, r)
	return resp, fault.GRPC(err)
}

func (s *Service) registerStream(ctx context.Context, r *logdog.RegisterStreamRequest) (*logdog.RegisterStreamResponse, error) {
	project, err := checkProject(r.GetProject())
	if err != nil {
		return nil, err
	}
	if r.GetProtoVersion() != protoVersion {
		return nil, fault.New(fault.Invalid, "proto_version is not %q", protoVersion)
	}
	if n := len(r.GetDesc()); n > maxDescriptor {
		return nil, fault.New(fault.Invalid, "descriptor has %d bytes; at most %d are allowed", n, maxDescriptor)
	}
	var desc logpb.LogStreamDescriptor
	if err := proto.Unmarshal(r.GetDesc(), &desc); err != nil {
		return nil, fault.New(fault.Invalid, "descriptor: %w", err)
	}
	if err := logpb.ValidateDescriptor(&desc, true); err != nil {
		return nil, fault.Wrap(fault.Invalid, err)
	}
	reg := backend.Registration{
		Project:      project,
		Prefix:       types.StreamName(desc.GetPrefix()),
		Name:         types.StreamName(desc.GetName()),
		Secret:       r.GetSecret(),
		ProtoVersion: r.GetProtoVersion(),
		Descriptor:   r.GetDesc(),
	}
	switch {
	case r.GetTerminalEmpty():
		reg.End = state.End{Known: true, Index: -1}
	case r.GetTerminalIndex() >= 0:
		reg.End = state.End{Known: true, Index: types.MessageIndex(r.GetTerminalIndex())}
	}
	reg.Note = note(r.GetEnded())
	stream, err := s.backend.Register(ctx, reg)
	if err != nil {
		return nil, err
	}
	resp := &logdog.RegisterStreamResponse{Id: string(stream.ID), State: internalState(stream)}
	resp.State.Purged, err = s.backend.Removing(ctx, stream)
	return resp, err
}

// TerminateStream records the end of a stream.
func (s *Service) TerminateStream(ctx context.Context, r *logdog.TerminateStreamRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, fault.GRPC(s.terminateStream(ctx, r))
}

func (s *Service) terminateStream(ctx context.Context, r *logdog.TerminateStreamRequest) error {
	project, err := checkProject(r.GetProject())
	if err != nil {
		return err
	}
	end := state.End{Known: true, Index: types.MessageIndex(r.GetTerminalIndex())}
	if r.GetTerminalEmpty() {
		end.Index = -1
	} else if end.Index < 0 {
		return fault.New(fault.Invalid, "terminal_index is negative")
	}
	id, err := checkID(r.GetId())
	if err != nil {
		return err
	}
	return s.backend.Terminate(ctx, project, id, r.GetSecret(), end, note(r.GetEnded()))
}

func note(e *logpb.StreamEnd) state.Note { return state.Note{Reason: e.GetReason(), Tags: e.GetTags()} }

// LoadStream returns the state of a stream.
func (s *Service) LoadStream(ctx context.Context, r *logdog.LoadStreamRequest) (*logdog.LoadStreamResponse, error) {
	resp, err := s.loadStream(ctx, r)
	return resp, fault.GRPC(err)
}

func (s *Service) loadStream(ctx context.Context, r *logdog.LoadStreamRequest) (*logdog.LoadStreamResponse, error) {
	project, err := checkProject(r.GetProject())
	if err != nil {
		return nil, err
	}
	id, err := checkID(r.GetId())
	if err != nil {
		return nil, err
	}
	stream, err := s.store.Stream(ctx, project, id)
	if err != nil {
		return nil, err
	}
	resp := &logdog.LoadStreamResponse{
		State:     internalState(stream),
		Age:       age(stream.Updated),
		StreamUrl: stream.Archive.StreamURL,
		IndexUrl:  stream.Archive.IndexURL,

		EndUnknown: stream.Archived() && !stream.End.Known,
	}
	for _, o := range stream.Replaced {
		resp.Replaced = append(resp.Replaced, &logdog.ArchiveObjects{StreamUrl: o.StreamURL, IndexUrl: o.IndexURL})
	}
	if r.GetDesc() {
		resp.Desc = stream.Descriptor
	}
	if !stream.Archived() {
		// An archive task lives exactly as long as its stream is not archived.
		resp.ArchivalKey = []byte{'1'}
	}
	if !stream.Ended.IsZero() {
		resp.TerminatedAge = age(stream.Ended)
	}
	return resp, nil
}

// ArchiveStream records that a stream was archived.
func (s *Service) ArchiveStream(ctx context.Context, r *logdog.ArchiveStreamRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, fault.GRPC(s.archiveStream(ctx, r))
}

func (s *Service) archiveStream(ctx context.Context, r *logdog.ArchiveStreamRequest) error {
	project, err := checkProject(r.GetProject())
	if err != nil {
		return err
	}
	id, err := checkID(r.GetId())
	if err != nil {
		return err
	}
	if r.GetError() != "" {
		return s.backend.ArchiveFailed(ctx, project, id, r.GetError())
	}
	if r.GetIndexUrl() == "" || r.GetStreamUrl() == "" {
		return fault.New(fault.Invalid, "stream_url and index_url are required")
	}
	missing := make([]state.Range, len(r.GetMissing()))
	for i, m := range r.GetMissing() {
		missing[i] = state.Range{First: types.MessageIndex(m.GetFirst()), Last: types.MessageIndex(m.GetLast()), Reason: clip(m.GetReason())}
	}
	return s.backend.Archive(ctx, project, id, state.Archive{
		StreamURL:   r.GetStreamUrl(),
		StreamSize:  r.GetStreamSize(),
		IndexURL:    r.GetIndexUrl(),
		IndexSize:   r.GetIndexSize(),
		LastIndex:   types.MessageIndex(r.GetTerminalIndex()),
		EntryCount:  r.GetLogEntryCount(),
		ContentSize: r.GetContentSize(),
		Lines:       r.GetLines(),
	}, missing, r.GetReplacesUrl())
}

func internalState(s *state.Stream) *logdog.InternalLogStreamState {
	return &logdog.InternalLogStreamState{
		ProtoVersion:  s.ProtoVersion,
		Secret:        s.Prefix.Secret,
		TerminalIndex: int64(s.LastIndex()),
		Archived:      s.Archived(),
		Purged:        s.Hidden(),
		TerminalEmpty: s.Phase != state.Open && s.LastIndex() < 0,
	}
}

// checkProject checks the name of a project. Whether it is configured is not asked: what was written to one that no longer is, is collected and
// archived all the same, and Collectors would take a refusal for the lack of a permission that they get again, and wait.
func checkProject(name string) (types.Project, error) {
	p := types.Project(name)
	return p, fault.Wrap(fault.Invalid, p.Validate())
}

func checkID(s string) (types.StreamID, error) {
	id, err := types.ParseStreamID(s)
	return id, fault.Wrap(fault.Invalid, err)
}

func age(t time.Time) *durationpb.Duration { return durationpb.New(max(time.Since(t), 0)) }
