package web

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

func (h *handler) listProjects(w http.ResponseWriter, r *http.Request) error {
	return answer(w, r, &daybookv1.ListProjectsRequest{}, h.logs.ListProjects)
}

func (h *handler) listPrefixes(w http.ResponseWriter, r *http.Request) error {
	p := newParameters(r)
	req := &daybookv1.ListPrefixesRequest{
		Project: p.project(), Pattern: p.query.Get("pattern"), Since: p.instant("since"), Until: p.instant("until"),
		PageSize: p.pageSize(), PageToken: p.query.Get("page_token"),
	}
	if p.err != nil {
		return p.err
	}
	return answer(w, r, req, h.logs.ListPrefixes)
}

func (h *handler) listFolders(w http.ResponseWriter, r *http.Request) error {
	p := newParameters(r)
	req := &daybookv1.ListFoldersRequest{
		Project: p.project(), Parent: p.query.Get("parent"), PageSize: p.pageSize(), PageToken: p.query.Get("page_token"),
	}
	if p.err != nil {
		return p.err
	}
	return answer(w, r, req, h.logs.ListFolders)
}

func (h *handler) findStreams(w http.ResponseWriter, r *http.Request) error {
	p := newParameters(r)
	req := &daybookv1.FindStreamsRequest{
		Project: p.project(), Pattern: p.query.Get("pattern"), Tags: p.tags(), StreamType: p.streamType(), ContentType: p.query.Get("content_type"),
		States: p.states(), Since: p.instant("since"), Until: p.instant("until"), Purged: p.query.Get("purged") == "1",
		PageSize: p.pageSize(), PageToken: p.query.Get("page_token"),
	}
	if p.err != nil {
		return p.err
	}
	return answer(w, r, req, h.logs.FindStreams)
}

func (h *handler) getUsage(w http.ResponseWriter, r *http.Request) error {
	p := newParameters(r)
	req := &daybookv1.GetUsageRequest{Project: p.project()}
	if p.err != nil {
		return p.err
	}
	return answer(w, r, req, h.logs.GetUsage)
}

// answer makes a call that has one answer, and writes that.
func answer[Req, Resp proto.Message](w http.ResponseWriter, r *http.Request, req Req, call func(context.Context, Req, ...grpc.CallOption) (Resp, error)) error {
	ctx, cancel := context.WithTimeout(r.Context(), rpcTimeout)
	defer cancel()
	res, err := call(ctx, req)
	if err != nil {
		return fault.FromGRPC(err)
	}
	return writeMessage(w, res)
}

// parameters reads those of a request. err is the first mistake.
type parameters struct {
	query url.Values
	err   error
}

func newParameters(r *http.Request) *parameters { return &parameters{query: r.URL.Query()} }

func (p *parameters) fail(format string, args ...any) {
	if p.err == nil {
		p.err = fault.New(fault.Invalid, format, args...)
	}
}

func (p *parameters) project() string {
	name := p.query.Get("project")
	if name == "" {
		p.fail("parameter project is missing; /api/v1/projects lists the projects")
	} else if err := types.Project(name).Validate(); err != nil {
		p.fail("%w", err)
	}
	return name
}

func (p *parameters) pageSize() int32 {
	s := p.query.Get("page_size")
	if s == "" {
		return 0
	}
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil || n < 0 {
		p.fail("parameter page_size is %q; it must be a number, 0 for the default", clip(s))
	}
	return int32(n)
}

// tags reads the parameters tag, each key=value, or key for any value.
func (p *parameters) tags() map[string]string {
	tags := make(map[string]string)
	for _, t := range p.query["tag"] {
		key, value, _ := strings.Cut(t, "=")
		if old, ok := tags[key]; ok && old != value {
			p.fail("two values for tag %s; no stream has both", clip(key))
		}
		tags[key] = value
	}
	return tags
}

func (p *parameters) streamType() *logpb.StreamType {
	s := p.query.Get("type")
	if s == "" {
		return nil
	}
	t, ok := logpb.StreamType_value[strings.ToUpper(s)]
	if !ok {
		p.fail("parameter type is %q; it must be text, binary or datagram", clip(s))
	}
	return logpb.StreamType(t).Enum()
}

// states reads the parameters state.
func (p *parameters) states() []daybookv1.StreamState {
	var states []daybookv1.StreamState
	for _, s := range p.query["state"] {
		v, ok := daybookv1.StreamState_value[strings.ToUpper(s)]
		if !ok || v == 0 {
			p.fail("parameter state is %q; it must be open, terminated, complete or incomplete", clip(s))
		}
		states = append(states, daybookv1.StreamState(v))
	}
	return states
}

func (p *parameters) instant(name string) *timestamppb.Timestamp {
	s := p.query.Get(name)
	if s == "" {
		return nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		p.fail("parameter %s is %q; it must be a time like 2026-03-14T09:26:53Z", name, clip(s))
	}
	return timestamppb.New(t)
}
