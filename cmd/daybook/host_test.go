package main

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestOwnHost(t *testing.T) {
	ok := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	loopback := ownHost(ok, "", true)
	everywhere := ownHost(ok, "daybook.example", false)
	const refused = http.StatusMisdirectedRequest
	for host, want := range map[string]struct{ loopback, everywhere int }{
		"127.0.0.1:4660": {200, 200}, "127.0.0.1": {200, 200}, "localhost:1": {200, 200}, "[::1]:4660": {200, 200}, "[::1]": {200, 200},
		"evil.example": {refused, refused}, "evil.example:4660": {refused, refused}, "": {refused, refused}, ":4660": {refused, refused},
		"10.0.0.1:4660": {refused, 200}, "localhost.evil.example": {refused, refused},
		"daybook.example": {refused, 200}, "daybook.example:80": {refused, 200}, "x.daybook.example": {refused, refused},
	} {
		get := func(h http.Handler) int {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.Host = host
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			return w.Code
		}
		if got := get(loopback); got != want.loopback {
			t.Errorf("host %q on loopback: %d, want %d", host, got, want.loopback)
		}
		if got := get(everywhere); got != want.everywhere {
			t.Errorf("host %q everywhere: %d, want %d", host, got, want.everywhere)
		}
	}
}
