package web

import (
	"bufio"
	"context"
	"fmt"
	"mime"
	"net/http"
	"strings"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

const (
	// stateHeader tells the stream's state when the response began, missingHeader which entries its bytes lack, as first-last,….
	stateHeader   = "Daybook-Stream-State"
	missingHeader = "Daybook-Stream-Missing"
	// Trailers tell how it was when the response ended, and why the stream did if it did not end by itself.
	endHeader        = "Daybook-Stream-End-State"
	endReasonHeader  = "Daybook-Stream-End-Reason"
	endMissingHeader = "Daybook-Stream-End-Missing"
	// maxMissingListed bounds the missing that are listed; a list that was cut ends in an ellipsis.
	maxMissingListed = 100
)

// raw serves the exact bytes of a stream: what there is or, with follow=1, everything up to the end of the stream. A response that could
// not be finished is aborted.
func (h *handler) raw(w http.ResponseWriter, r *http.Request, project, path string) error {
	ctx, cancel := context.WithTimeout(r.Context(), rpcTimeout)
	s, err := h.findStream(ctx, project, path)
	cancel()
	if err != nil {
		return err
	}
	follow := r.URL.Query().Get("follow") == "1"
	header := w.Header()
	if r.Method == http.MethodHead {
		rawHeaders(header, s)
		return nil
	}
	if follow {
		h.metrics.followers.Inc()
		defer h.metrics.followers.Dec()
	}
	begun := false
	out := bufio.NewWriterSize(w, 64<<10)
	return h.read(r.Context(), &daybookv1.FollowRequest{Project: project, Path: path, BacklogOnly: !follow}, func(res *daybookv1.FollowResponse) error {
		// The first response decides between an error's status and success.
		if !begun {
			begun = true
			rawHeaders(header, s)
			header.Set("Trailer", strings.Join([]string{endHeader, endReasonHeader, endMissingHeader}, ", "))
			w.WriteHeader(http.StatusOK)
		}
		for _, e := range res.GetLogs() {
			if err := extendWrite(w); err != nil {
				return err
			}
			if err := writeContent(out, e); err != nil {
				return clientGone(err)
			}
		}
		if end := res.GetEnd(); end != nil {
			header.Set(endHeader, end.GetState().String())
			setUnlessEmpty(header, endReasonHeader, end.GetReason())
			setUnlessEmpty(header, endMissingHeader, listMissing(end.GetMissing()))
		}
		if !follow && res.GetEnd() == nil {
			return nil
		}
		if err := out.Flush(); err != nil {
			return clientGone(err)
		}
		return flush(w)
	})
}

// rawHeaders describes the bytes by the stream's type. What content type the producer declared does not matter: it must not make a
// reader's browser run anything.
func rawHeaders(header http.Header, s *daybookv1.Stream) {
	if s.GetDesc().GetStreamType() == logpb.StreamType_TEXT {
		header.Set("Content-Type", "text/plain; charset=utf-8")
	} else {
		_, name := types.StreamPath(s.GetPath()).Split()
		header.Set("Content-Type", "application/octet-stream")
		header.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{
			"filename": strings.ReplaceAll(string(name), "/", "_"),
		}))
	}
	header.Set("Cache-Control", "no-store")
	header.Set("X-Accel-Buffering", "no")
	header.Set(stateHeader, s.GetState().String())
	setUnlessEmpty(header, missingHeader, listMissing(s.GetMissing()))
}

func setUnlessEmpty(header http.Header, name, value string) {
	if value != "" {
		header.Set(name, value)
	}
}

// listMissing returns ranges as the headers have them.
func listMissing(missing []*daybookv1.IndexRange) string {
	var list []string
	for _, m := range missing[:min(len(missing), maxMissingListed)] {
		list = append(list, fmt.Sprintf("%d-%d", m.GetFirst(), m.GetLast()))
	}
	if len(missing) > maxMissingListed {
		list = append(list, "...")
	}
	return strings.Join(list, ",")
}

// writeContent writes the bytes that the producer wrote.
func writeContent(out *bufio.Writer, e *logpb.LogEntry) error {
	var err error
	switch content := e.Content.(type) {
	case *logpb.LogEntry_Text:
		for _, l := range content.Text.GetLines() {
			if _, err = out.Write(l.GetValue()); err != nil {
				return err
			}
			if _, err = out.WriteString(l.GetDelimiter()); err != nil {
				return err
			}
		}
	case *logpb.LogEntry_Binary:
		_, err = out.Write(content.Binary.GetData())
	case *logpb.LogEntry_Datagram:
		_, err = out.Write(content.Datagram.GetData())
	}
	return err
}
