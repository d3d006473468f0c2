// Package prpc carries unary gRPC calls over plain HTTP POST requests, as LUCI's pRPC does (protocol level 1.5): existing LogDog
// tools call Daybook's services by it, Daybook calls existing Coordinators by it, and scripts call everything with curl and JSON.
//
//	POST /prpc/<service>/<method>
//	Content-Type: application/prpc; encoding=binary     the request's encoding: binary, application/json, or encoding=text
//	Accept: application/prpc; encoding=binary           the response's
//	X-Prpc-Grpc-Timeout: 30000000u                      how long the call may take: up to 8 digits and one of H M S m u n
//	X-Prpc-Max-Response-Size: 33521664                  the largest response that the caller takes, in bytes
//
//	HTTP/1.1 200 OK
//	X-Prpc-Grpc-Code: 0                                 the gRPC code; it, and not the HTTP status, says how the call ended
//
// The body of a failure is its message and LF. Messages of failures that are the server's fault are not sent but logged. Details
// of the status are in X-Prpc-Status-Details-Bin. A JSON response begins with a line that no script tag can run.
//
// Server takes services as a grpc.Server does, from the same generated functions:
//
//	s := prpc.NewServer(prpc.Config{Logger: log})
//	logdog.RegisterLogsServer(s, logs)
//	http.Handle(prpc.Prefix, s)
//
// Client is a connection for generated clients. Both may be used concurrently once services are registered.
package prpc

import (
	"net/http"
	"time"

	"google.golang.org/grpc/codes"
)

// Prefix is what the paths of all calls begin with.
const Prefix = "/prpc/"

// The headers of the protocol.
const (
	headerCode            = "X-Prpc-Grpc-Code"
	headerDetails         = "X-Prpc-Status-Details-Bin"
	headerTimeout         = "X-Prpc-Grpc-Timeout"
	headerMaxResponseSize = "X-Prpc-Max-Response-Size"
)

const (
	// maxRequestSize bounds the body of a request, before and after decompression.
	maxRequestSize = 64 << 20
	// maxResponseSize is what clients take unless they say otherwise: 32 MiB, with room for headers.
	maxResponseSize = 32<<20 - 32<<10
	// compressAbove is the size from which on compressing a response pays.
	compressAbove = 1024
	// maxErrorText is how much of an error's text a client keeps.
	maxErrorText = 4096

	// A body may take bodyGrace to arrive or to be taken, and a second more for every slowest bytes of it.
	bodyGrace = 20 * time.Second
	slowest   = 64 << 10
)

// outcomes are the HTTP statuses of codes, and what is said instead of the messages of failures that are the server's.
var outcomes = [...]struct {
	status int
	said   string
}{
	codes.OK:                 {http.StatusOK, ""},
	codes.Canceled:           {499, ""},
	codes.Unknown:            {http.StatusInternalServerError, "the server failed to answer; its log says why"},
	codes.InvalidArgument:    {http.StatusBadRequest, ""},
	codes.DeadlineExceeded:   {http.StatusGatewayTimeout, "the time for this call is over"},
	codes.NotFound:           {http.StatusNotFound, ""},
	codes.AlreadyExists:      {http.StatusConflict, ""},
	codes.PermissionDenied:   {http.StatusForbidden, ""},
	codes.ResourceExhausted:  {http.StatusTooManyRequests, ""},
	codes.FailedPrecondition: {http.StatusBadRequest, ""},
	codes.Aborted:            {http.StatusConflict, ""},
	codes.OutOfRange:         {http.StatusBadRequest, ""},
	codes.Unimplemented:      {http.StatusNotImplemented, "the server does not offer this"},
	codes.Internal:           {http.StatusInternalServerError, "the server failed to answer; its log says why"},
	codes.Unavailable:        {http.StatusServiceUnavailable, "the server cannot answer now; try again"},
	codes.DataLoss:           {http.StatusInternalServerError, "stored data is damaged; the server's log says more"},
	codes.Unauthenticated:    {http.StatusUnauthorized, ""},
}

// outcome returns the HTTP status of a code, and what to say instead of the message; empty if the message may be sent.
func outcome(c codes.Code) (httpStatus int, said string) {
	if int(c) < len(outcomes) {
		return outcomes[c].status, outcomes[c].said
	}
	return http.StatusInternalServerError, outcomes[codes.Unknown].said
}
