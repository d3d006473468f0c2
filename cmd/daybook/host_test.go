package main

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestOwnHost(t *testing.T) {
	h := ownHost(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
	for host, want := range map[string]int{
		"127.0.0.1:4660": http.StatusOK, "127.0.0.1": http.StatusOK, "localhost:1": http.StatusOK, "[::1]:4660": http.StatusOK, "[::1]": http.StatusOK,
		"evil.example": http.StatusMisdirectedRequest, "evil.example:4660": http.StatusMisdirectedRequest, "": http.StatusMisdirectedRequest,
		"10.0.0.1:4660": http.StatusMisdirectedRequest, "localhost.evil.example": http.StatusMisdirectedRequest,
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Host = host
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("host %q: %d, want %d", host, w.Code, want)
		}
	}
}
