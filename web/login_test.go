package web

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"google.golang.org/grpc"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/internal/fault"
)

func newTestLogin() *Login {
	return NewLogin(func(_ context.Context, token string) (string, error) {
		if token != "dbk_good" {
			return "", fault.New(fault.Unauthenticated, "no")
		}
		return "token:<x>", nil
	})
}

func do(h http.Handler, r *http.Request) *http.Response {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func login(token, next string) *http.Request {
	form := url.Values{"token": {token}, "next": {next}}
	r := httptest.NewRequest(http.MethodPost, "http://logs/login", strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return r
}

func TestLogin(t *testing.T) {
	for _, secure := range []bool{false, true} {
		r := login(" dbk_good\n", "/logs/local/a?x=1")
		if secure {
			r.TLS = &tls.ConnectionState{}
		}
		resp := do(newTestLogin(), r)
		if resp.StatusCode != http.StatusSeeOther || resp.Header.Get("Location") != "/logs/local/a?x=1" {
			t.Fatalf("%s to %q", resp.Status, resp.Header.Get("Location"))
		}
		cookies := resp.Cookies()
		if len(cookies) != 1 {
			t.Fatalf("%d cookies", len(cookies))
		}
		c := cookies[0]
		if !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Secure != secure || c.Path != "/" || c.Value != "dbk_good" {
			t.Errorf("secure %v: %+v", secure, c)
		}
		back := httptest.NewRequest(http.MethodGet, "/", nil)
		back.AddCookie(c)
		back.TLS = r.TLS
		if got := Token(back); got != "dbk_good" {
			t.Errorf("the cookie gives %q", got)
		}
	}
}

func TestLoginRefuses(t *testing.T) {
	for _, token := range []string{"", "dbk_bad", `dbk_good"`} {
		resp := do(newTestLogin(), login(token, "/"))
		if resp.StatusCode != http.StatusUnauthorized || len(resp.Cookies()) != 0 {
			t.Errorf("%q: %s, cookies %v", token, resp.Status, resp.Cookies())
		}
	}
	foreign := login("dbk_good", "/")
	foreign.Header.Set("Sec-Fetch-Site", "cross-site")
	if resp := do(newTestLogin(), foreign); resp.StatusCode != http.StatusForbidden {
		t.Errorf("from another site: %s", resp.Status)
	}
	big := login(strings.Repeat("x", maxLoginForm), "/")
	if resp := do(newTestLogin(), big); resp.StatusCode != http.StatusBadRequest {
		t.Errorf("a large form: %s", resp.Status)
	}
	if resp := do(newTestLogin(), httptest.NewRequest(http.MethodPut, "/login", nil)); resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("PUT: %s", resp.Status)
	}
}

func TestLoginLeadsNowhereElse(t *testing.T) {
	for next, want := range map[string]string{
		"":                     "/",
		"/a":                   "/a",
		"//evil.example":       "/",
		"/\\evil.example":      "/",
		"https://evil.example": "/",
		"javascript:alert(1)":  "/",
		"evil":                 "/",
		"/%2f/evil":            "/",
		"/a\r\nX: y":           "/",
	} {
		if got := ownPath(next); got != want {
			t.Errorf("%q leads to %q, want %q", next, got, want)
		}
	}
}

func TestLogout(t *testing.T) {
	resp := do(newTestLogin(), httptest.NewRequest(http.MethodPost, "/logout", nil))
	if c := resp.Cookies(); resp.StatusCode != http.StatusSeeOther || len(c) != 1 || c[0].MaxAge >= 0 || c[0].Value != "" {
		t.Errorf("%s, %v", resp.Status, c)
	}
	r := httptest.NewRequest(http.MethodGet, "/login", nil)
	r.AddCookie(&http.Cookie{Name: plainCookie, Value: "dbk_good"})
	w := httptest.NewRecorder()
	newTestLogin().ServeHTTP(w, r)
	if body := w.Body.String(); !strings.Contains(body, "token:&lt;x&gt;") || strings.Contains(body, "dbk_good") {
		t.Errorf("the page of one who is logged in:\n%s", body)
	}
}

// guardedLogs lets nobody see a stream.
type guardedLogs struct{ daybookv1.LogsClient }

func (guardedLogs) GetStream(context.Context, *daybookv1.GetStreamRequest, ...grpc.CallOption) (*daybookv1.Stream, error) {
	return nil, fault.New(fault.Unauthenticated, "who are you?")
}

func TestPagesLeadToTheLogin(t *testing.T) {
	for _, needed := range []bool{true, false} {
		_, routes := newHandler(Config{Logs: guardedLogs{}, Login: func() bool { return needed }, Logger: slog.New(slog.DiscardHandler)})
		for accept, want := range map[string]int{"text/html": http.StatusFound, "*/*": http.StatusUnauthorized} {
			if !needed {
				want = http.StatusUnauthorized
			}
			r := httptest.NewRequest(http.MethodGet, "/logs/local/a/+/b", nil)
			r.Header.Set("Accept", accept)
			if resp := do(routes, r); resp.StatusCode != want {
				t.Errorf("needed %v, %s: %s", needed, accept, resp.Status)
			}
		}
	}
}

func TestRefuse(t *testing.T) {
	unknown := fault.New(fault.Unauthenticated, "who are you?")
	denied := fault.New(fault.Denied, "you may not")
	for _, test := range []struct {
		path, accept string
		err          error
		status       int
		contains     string
	}{
		{"/logs/local/a/+/b?x=1", "text/html", unknown, http.StatusFound, "next=%2Flogs%2Flocal%2Fa%2F%2B%2Fb%3Fx%3D1"},
		{"/logs/local/a/+/b", "*/*", unknown, http.StatusUnauthorized, "ERROR: who are you?"},
		{"/logs/local/a/+/b", "text/html", denied, http.StatusForbidden, "ERROR: you may not"},
		{"/api/v1/streams", "text/html", unknown, http.StatusUnauthorized, `{"code":"unauthenticated","message":"who are you?"}`},
	} {
		r := httptest.NewRequest(http.MethodGet, test.path, nil)
		r.Header.Set("Accept", test.accept)
		w := httptest.NewRecorder()
		Refuse(w, r, test.err)
		if got := w.Header().Get("Location") + w.Body.String(); w.Code != test.status || !strings.Contains(got, test.contains) {
			t.Errorf("%s: %d, %q", test.path, w.Code, got)
		}
	}
}

// Wherever a login is asked to lead, it leads to a path of ours.
func FuzzOwnPath(f *testing.F) {
	for _, s := range []string{"/", "/logs/a/b?x=1#y", "//a", "/\\a", "https:/a", "/%2f%2fa", "/a\nb", "\x00", "/./", "/?//", "?/a", "%2f0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, next string) {
		path := ownPath(next)
		u, err := url.Parse(path)
		if err != nil || u.Host != "" || u.Scheme != "" || !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") || strings.ContainsAny(path, "\\\r\n") {
			t.Errorf("%q leads to %q", next, path)
		}
	})
}
