package prpc

import (
	"fmt"
	"html"
	"io"
	"mime"
	"net/http"
	"regexp"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/daybook-dev/daybook/api/prpc/prpcpb"
)

// failure returns the status of an answer that is none of success. Without a code, the answer is not a pRPC server's, but that of
// something on the way to it. The error is one of reading.
func failure(resp *http.Response, code codes.Code, coded bool) (*status.Status, error) {
	// Pages of errors have more markup than text.
	limit := int64(maxErrorText + 1)
	page := isHTML(resp.Header)
	if page {
		limit = 64 << 10
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit))
	if err != nil {
		return nil, fmt.Errorf("read the text of the error: %w", err)
	}
	said := strings.ToValidUTF8(strings.TrimSuffix(string(body), "\n"), "\uFFFD")
	if page {
		said = textOf(said)
	}
	if len(said) > maxErrorText {
		said = strings.ToValidUTF8(said[:maxErrorText], "") + "..."
	}
	switch {
	case !coded:
		return status.New(codeOf(resp.StatusCode), strings.TrimSpace("HTTP status "+resp.Status+": "+said)), nil
	case code == codes.OK:
		return status.Newf(codes.Internal, "HTTP status %s of a call that succeeded: %s", resp.Status, said), nil
	}
	p := status.New(code, said).Proto()
	for _, v := range resp.Header[headerDetails] {
		values, err := decodeBin(v)
		if err != nil {
			return status.Newf(codes.Internal, "header %s: %v", headerDetails, err), nil
		}
		for _, b := range values {
			detail := &anypb.Any{}
			if err := proto.Unmarshal([]byte(b), detail); err != nil {
				return status.Newf(codes.Internal, "header %s: %v", headerDetails, err), nil
			}
			p.Details = append(p.Details, detail)
		}
	}
	return status.FromProto(p), nil
}

// codeOf returns what an HTTP status means that came without a code.
func codeOf(httpStatus int) codes.Code {
	switch httpStatus {
	case http.StatusServiceUnavailable:
		return codes.Unavailable
	case http.StatusUnauthorized:
		return codes.Unauthenticated
	case http.StatusForbidden:
		return codes.PermissionDenied
	}
	return codes.Internal
}

// tooBig tells whether a server refused to send a response that is larger than we said we take. It would do so again.
func tooBig(s *status.Status) bool {
	for _, d := range s.Details() {
		if e, ok := d.(*prpcpb.ErrorDetails); ok && e.GetResponseTooBig() != nil {
			return true
		}
	}
	return false
}

func isHTML(h http.Header) bool {
	name, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	return err == nil && name == "text/html"
}

var (
	unseen = regexp.MustCompile(`(?is)<(script|style|head)\b.*?</(script|style|head)\s*>|<!--.*?-->`)
	tag    = regexp.MustCompile(`(?s)<[^>]*>`)
)

// textOf returns the text that a browser would show of a page, about.
func textOf(page string) string {
	page = unseen.ReplaceAllLiteralString(page, " ")
	page = tag.ReplaceAllLiteralString(page, " ")
	return strings.Join(strings.Fields(html.UnescapeString(page)), " ")
}
