package web

import (
	"context"
	"html/template"
	"net/http"
	"net/url"
	"path"
	"strings"

	"github.com/daybook-dev/daybook/internal/fault"
)

const (
	// The cookie that holds a browser's token. With the prefix, browsers take it from us by TLS only, and give it to nobody else.
	tlsCookie   = "__Host-daybook"
	plainCookie = "daybook"
	cookieLife  = 30 * 24 * 60 * 60 // seconds; the token may end before

	maxLoginForm = 64 << 10
)

// Login is the door for people: a page that takes a token and keeps it in their browser, in a cookie that scripts cannot read and that
// other sites cannot send along with anything but a link.
type Login struct {
	verify func(ctx context.Context, token string) (name string, err error)
	css    string
	icon   string
	forms  *http.CrossOriginProtection
}

// NewLogin returns the handler of /login and /logout. verify returns the name of a token's holder, and an error of kind Unauthenticated
// for a token that is not good.
func NewLogin(verify func(ctx context.Context, token string) (name string, err error)) *Login {
	l := &Login{verify: verify, forms: http.NewCrossOriginProtection()}
	for name := range loadAssets("").files {
		switch path.Ext(name) {
		case ".css":
			l.css = "/static/" + name
		case ".svg":
			l.icon = "/static/" + name
		}
	}
	return l
}

// Token returns the token in a request's cookie; empty if there is none.
func Token(r *http.Request) string {
	c, err := r.Cookie(cookieName(r))
	if err != nil {
		return ""
	}
	return c.Value
}

func cookieName(r *http.Request) string {
	if r.TLS != nil {
		return tlsCookie
	}
	return plainCookie
}

func setCookie(w http.ResponseWriter, r *http.Request, token string) {
	c := &http.Cookie{
		Name: cookieName(r), Value: token, Path: "/", MaxAge: cookieLife,
		HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: r.TLS != nil,
	}
	if token == "" {
		c.MaxAge = -1
	}
	http.SetCookie(w, c)
}

// ServeHTTP answers GET and POST.
func (l *Login) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	secure(w.Header())
	w.Header().Set("Cache-Control", "no-store")
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		l.page(w, r, http.StatusOK, "")
		return
	case http.MethodPost:
	default:
		w.Header().Set("Allow", "GET, HEAD, POST")
		http.Error(w, "Use GET and POST.", http.StatusMethodNotAllowed)
		return
	}
	if err := l.forms.Check(r); err != nil {
		http.Error(w, "Pages of other sites may not do this.", http.StatusForbidden)
		return
	}
	if r.URL.Path == "/logout" {
		setCookie(w, r, "")
		http.Redirect(w, r, "/login", http.StatusSeeOther)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxLoginForm)
	if err := r.ParseForm(); err != nil {
		http.Error(w, "This is not the form of the page.", http.StatusBadRequest)
		return
	}
	token := strings.TrimSpace(r.PostForm.Get("token"))
	_, err := l.verify(r.Context(), token)
	switch {
	case token == "" || fault.Is(err, fault.Unauthenticated) || strings.ContainsAny(token, "\",;\\ "): // which a cookie would not keep
		l.page(w, r, http.StatusUnauthorized, "This token is not valid here. Was it copied whole? It may also have expired.")
	case err != nil:
		l.page(w, r, fault.HTTP(err), "The token cannot be checked now. Try again.")
	default:
		setCookie(w, r, token)
		http.Redirect(w, r, ownPath(r.PostForm.Get("next")), http.StatusSeeOther)
	}
}

// ownPath returns where a login leads: a path of ours, whatever was asked for.
func ownPath(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.Scheme != "" || u.Host != "" || !strings.HasPrefix(next, "/") || strings.HasPrefix(u.Path, "//") || strings.ContainsAny(next, "\\\r\n\t") {
		return "/"
	}
	return u.RequestURI()
}

var loginPage = template.Must(template.New("login").Parse(`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Daybook · log in</title>
<link rel="icon" href="{{.Icon}}" type="image/svg+xml">
<link rel="stylesheet" href="{{.CSS}}">
</head>
<body>
<header class="top"><a class="brand" href="/">Daybook</a></header>
<main class="list login">
{{with .Problem}}<p class="notice bad" role="alert">{{.}}</p>{{end}}
{{if .Name}}<p>You are logged in as <code>{{.Name}}</code>.</p>
<form method="post" action="/logout"><button>Log out</button></form>
{{else}}{{/* Without an action the form goes where the page is, so that the line of a link to one survives the login. */ -}}
<form method="post">
<input type="hidden" name="next" value="{{.Next}}">
<label>Token <input type="password" name="token" autocomplete="current-password" required autofocus></label>
<button>Log in</button>
</form>
<p class="quiet">An administrator makes tokens with <code>daybook token create</code>.</p>{{end}}
</main>
</body>
</html>
`))

func (l *Login) page(w http.ResponseWriter, r *http.Request, status int, problem string) {
	data := struct{ CSS, Icon, Problem, Name, Next string }{CSS: l.css, Icon: l.icon, Problem: problem, Next: ownPath(r.FormValue("next"))}
	if token := Token(r); token != "" && problem == "" {
		if name, err := l.verify(r.Context(), token); err == nil {
			data.Name = name
		}
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_ = loginPage.Execute(w, data) // who is gone is not told
}

// Refuse answers a request of a caller who is not let in, before any handler sees it: people are led to the login, programs are told in
// the way of what they asked for.
func Refuse(w http.ResponseWriter, r *http.Request, err error) {
	secure(w.Header())
	w.Header().Set("Cache-Control", "no-store")
	switch {
	case strings.HasPrefix(r.URL.Path, "/api/"):
		(&handler{}).apiError(w, r, err)
	case fault.Is(err, fault.Unauthenticated) && isVisit(r):
		toLogin(w, r)
	default:
		if fault.Is(err, fault.Unauthenticated) {
			w.Header().Set("WWW-Authenticate", "Bearer")
		}
		http.Error(w, "ERROR: "+publicMessage(err), fault.HTTP(err))
	}
}

// isVisit tells a person with a browser from a program.
func isVisit(r *http.Request) bool {
	return (r.Method == http.MethodGet || r.Method == http.MethodHead) && strings.Contains(r.Header.Get("Accept"), "text/html")
}

func toLogin(w http.ResponseWriter, r *http.Request) {
	if Token(r) != "" {
		setCookie(w, r, "") // it was no good
	}
	to := url.URL{Path: "/login", RawQuery: url.Values{"next": {r.URL.RequestURI()}}.Encode()}
	http.Redirect(w, r, to.String(), http.StatusFound)
}
