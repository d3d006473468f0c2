package web

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
)

func (h *handler) getVersion(version string) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, _ *http.Request) error {
		return writeJSON(w, http.StatusOK, map[string]string{"version": version})
	}
}

func (h *handler) getStream(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := context.WithTimeout(r.Context(), rpcTimeout)
	defer cancel()
	s, err := h.findStream(ctx, r.PathValue("project"), r.PathValue("path"))
	if err != nil {
		return err
	}
	return writeMessage(w, s)
}

// findStream checks a stream's address, which comes from outside, and asks for the stream.
func (h *handler) findStream(ctx context.Context, project, path string) (*daybookv1.Stream, error) {
	if err := validate(project, path); err != nil {
		return nil, err
	}
	s, err := h.logs.GetStream(ctx, &daybookv1.GetStreamRequest{Project: project, Path: path})
	if err = fault.FromGRPC(err); fault.Is(err, fault.NotFound) && h.awaitStream(ctx, project, path) {
		s, err = h.logs.GetStream(ctx, &daybookv1.GetStreamRequest{Project: project, Path: path})
		err = fault.FromGRPC(err)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// awaitStream holds a request for a stream that is not there for a moment: a command prints the address of its page before its first
// byte gets here. It reports whether the stream has come.
func (h *handler) awaitStream(ctx context.Context, project, path string) bool {
	ctx, cancel := context.WithTimeout(ctx, h.hold)
	defer cancel()
	f, err := h.logs.Follow(ctx, &daybookv1.FollowRequest{Project: project, Path: path, Index: math.MaxInt64, Wait: true})
	if err != nil {
		return false
	}
	_, err = f.Recv()
	return err == nil
}

func validate(project, path string) error {
	if err := types.Project(project).Validate(); err != nil {
		return fault.Wrap(fault.Invalid, err)
	}
	if err := types.StreamPath(path).Validate(); err != nil {
		return fault.New(fault.Invalid, "%w; a stream is addressed as <project>/<prefix>/+/<name>", err)
	}
	return nil
}

func unknownRoute(_ http.ResponseWriter, r *http.Request) error {
	return fault.New(fault.NotFound, "there is no %s in the data API; docs/api.md lists what there is", r.URL.Path)
}

// apiError answers with the error's kind and message.
func (h *handler) apiError(w http.ResponseWriter, _ *http.Request, err error) {
	_ = writeJSON(w, fault.HTTP(err), errorBody(err))
}

type apiErrorBody struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

func errorBody(err error) apiErrorBody {
	return apiErrorBody{
		Code:    strings.ReplaceAll(fault.KindOf(err).String(), " ", "_"),
		Message: publicMessage(err),
	}
}

// messageJSON is the JSON form of protocol buffers, with the fields that are zero and without the spaces that protojson varies.
func messageJSON(m proto.Message) ([]byte, error) {
	b, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", m.ProtoReflect().Descriptor().Name(), err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, b); err != nil {
		return nil, fmt.Errorf("compact %s: %w", m.ProtoReflect().Descriptor().Name(), err)
	}
	return compact.Bytes(), nil
}

func writeMessage(w http.ResponseWriter, m proto.Message) error {
	b, err := messageJSON(m)
	if err != nil {
		return err
	}
	return writeBody(w, http.StatusOK, b)
}

func writeJSON(w http.ResponseWriter, status int, v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("encode response: %w", err)
	}
	return writeBody(w, status, b.Bytes())
}

func writeBody(w http.ResponseWriter, status int, body []byte) error {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, err := w.Write(body)
	return clientGone(err)
}
