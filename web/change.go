package web

import (
	"io"
	"mime"
	"net/http"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/internal/fault"
)

// maxChange bounds the body of a request that changes something: it names a stream, or a prefix.
const maxChange = 64 << 10

func (h *handler) purge(w http.ResponseWriter, r *http.Request) error {
	req := new(daybookv1.PurgeRequest)
	if err := readMessage(r, req); err != nil {
		return err
	}
	return answer(w, r, req, h.logs.Purge)
}

func (h *handler) undelete(w http.ResponseWriter, r *http.Request) error {
	req := new(daybookv1.UndeleteRequest)
	if err := readMessage(r, req); err != nil {
		return err
	}
	return answer(w, r, req, h.logs.Undelete)
}

// readMessage reads a request's body. A browser must not send it for a page of another origin, nor can it one of this type without asking.
func readMessage(r *http.Request, m proto.Message) error {
	if err := http.NewCrossOriginProtection().Check(r); err != nil {
		return fault.New(fault.Denied, "pages of other origins may not change anything: %w", err)
	}
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		return fault.New(fault.Invalid, "Content-Type is %q; it must be application/json", clip(r.Header.Get("Content-Type")))
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxChange+1))
	if err != nil {
		return fault.New(fault.Invalid, "the body could not be read: %w", err)
	}
	if len(body) > maxChange {
		return fault.New(fault.Invalid, "the body has more than %d bytes", maxChange)
	}
	if err := protojson.Unmarshal(body, m); err != nil {
		return fault.New(fault.Invalid, "the body is no %s in JSON: %w", m.ProtoReflect().Descriptor().Name(), err)
	}
	return nil
}
