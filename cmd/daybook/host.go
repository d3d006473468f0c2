package main

import (
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/api/prpc"
)

// ownHost refuses requests that were made for another host than this one, whose name is the given one and localhost. Without it, a page of
// any web site could have its name resolve to loopback and read everything here through the user's browser. An address is no
// name that could resolve to another; those beyond loopback are answered unless only loopback is served.
func ownHost(next http.Handler, name string, onlyLoopback bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		ip := net.ParseIP(trimBrackets(host))
		if host == "" || host != "localhost" && host != name && (ip == nil || onlyLoopback && !ip.IsLoopback()) {
			http.Error(w, "this server answers to localhost, to its addresses, and to the name of --advertise", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// ownPages refuses calls that a browser makes for a page of another origin, unless the origin is allowed to call the service. The
// browser would not show it the answer, but the call would be made.
func ownPages(calls http.Handler, allowed func(service, origin string) bool) http.Handler {
	protection := http.NewCrossOriginProtection()
	protection.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Prpc-Grpc-Code", strconv.Itoa(int(codes.PermissionDenied)))
		http.Error(w, "pages of other origins may not call this server", http.StatusForbidden)
	}))
	protected := protection.Handler(calls)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		service, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, prpc.Prefix), "/")
		if origin := r.Header.Get("Origin"); origin != "" && allowed(service, origin) {
			calls.ServeHTTP(w, r)
			return
		}
		protected.ServeHTTP(w, r)
	})
}

// mayCall reports whether pages of an origin may call a service: those that are configured may read logs (spec coordinator 8.3).
func (s *system) mayCall(service, origin string) bool {
	return service == logdog.Logs_ServiceDesc.ServiceName && slices.Contains(s.settings.Current().Service.AllowedOrigins, origin)
}

// crossOrigin is what browsers are told of mayCall.
func (s *system) crossOrigin(service, origin string) prpc.Access {
	allowed := s.mayCall(service, origin)
	return prpc.Access{Allow: allowed, Credentials: allowed}
}

func trimBrackets(host string) string {
	if len(host) > 2 && host[0] == '[' && host[len(host)-1] == ']' {
		return host[1 : len(host)-1]
	}
	return host
}
