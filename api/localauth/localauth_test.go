package localauth

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/daybook-dev/daybook/internal/fault"
)

// A context holds what was around it, and leads to a token.
func TestContext(t *testing.T) {
	s := New(func(context.Context) string { return "the token" })
	b, err := s.Context([]byte(`{"local_auth": {"rpc_port": 1, "old": true}, "realm": {"name": "p:r"}}`), 4711)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		LocalAuth struct {
			Port     int    `json:"rpc_port"`
			Secret   string `json:"secret"`
			Accounts []struct{ ID string }
			Default  string `json:"default_account_id"`
			Old      bool
		} `json:"local_auth"`
		Realm struct{ Name string }
	}
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	a := got.LocalAuth
	if a.Port != 4711 || a.Old || len(a.Accounts) != 2 || a.Accounts[0].ID != a.Default || a.Accounts[1].ID != "system" || got.Realm.Name != "p:r" {
		t.Fatalf("%s", b)
	}
	for _, outer := range []string{"x", "[]", "null", `"a"`} {
		if _, err := s.Context([]byte(outer), 1); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", outer, err)
		}
	}

	for name, c := range map[string]struct {
		method, path, kind, body string
		code                     int
		want                     string
	}{
		"access token": {http.MethodPost, "GetOAuthToken", "application/json; charset=utf-8", `{"scopes":["https://www.googleapis.com/auth/userinfo.email"],"secret":"SECRET","account_id":"task"}`, 200, `"access_token":"the token"`},
		"of system":    {http.MethodPost, "GetOAuthToken", "application/json", `{"secret":"SECRET","account_id":"system"}`, 200, `"access_token":"the token"`},
		"id token":     {http.MethodPost, "GetIDToken", "application/json", `{"audience":"https://x","secret":"SECRET","account_id":"task"}`, 200, `"id_token":"the token"`},
		"no account":   {http.MethodPost, "GetOAuthToken", "application/json", `{"secret":"SECRET","account_id":"other"}`, 200, `"error_code":1`},
		"wrong secret": {http.MethodPost, "GetOAuthToken", "application/json", `{"secret":"c2VjcmV0","account_id":"task"}`, 403, ""},
		"no secret":    {http.MethodPost, "GetOAuthToken", "application/json", `{"account_id":"task"}`, 403, ""},
		"no JSON":      {http.MethodPost, "GetOAuthToken", "application/json", `secret=SECRET`, 400, ""},
		"from a page":  {http.MethodPost, "GetOAuthToken", "text/plain", `{"secret":"SECRET","account_id":"task"}`, 415, ""},
		"too long":     {http.MethodPost, "GetOAuthToken", "application/json", `{"secret":"SECRET"` + strings.Repeat(" ", maxRequest) + `}`, 400, ""},
		"GET":          {http.MethodGet, "GetOAuthToken", "", "", 405, ""},
		"other method": {http.MethodPost, "GetAll", "application/json", "{}", 404, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(c.method, "/rpc/LuciLocalAuthService."+c.path, strings.NewReader(strings.ReplaceAll(c.body, "SECRET", a.Secret)))
			r.Header.Set("Content-Type", c.kind)
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			if w.Code != c.code || !strings.Contains(w.Body.String(), c.want) || c.want == "" && strings.Contains(w.Body.String(), "the token") {
				t.Errorf("%d %s", w.Code, w.Body)
			}
			if strings.Contains(c.want, "token") {
				var v struct{ Expiry int64 }
				if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil || time.Until(time.Unix(v.Expiry, 0)) < life/2 {
					t.Errorf("%v, expires at %d", err, v.Expiry)
				}
			}
		})
	}
}
