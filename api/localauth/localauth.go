// Package localauth hands out tokens to tools of this machine by the protocol that existing ones know: a file, named by the environment
// variable LUCI_CONTEXT, says at which port of loopback they are, and with which secret they may be asked for.
//
//	s := localauth.New(func(context.Context) string { return token })
//	context, err := s.Context(outer, port)      // the content of the file
//	http.Serve(listener, s)                     // on that port of 127.0.0.1
//
// The file is a JSON object. Its section local_auth is ours, the others are copied from the context around it, as the protocol demands:
//
//	{"local_auth": {"rpc_port": 41234, "secret": "BASE64", "accounts": [{"id": "task", "email": "-"}, …], "default_account_id": "task"}}
//
// A tool posts {"secret": "BASE64", "account_id": "task", "scopes": ["…"]} to /rpc/LuciLocalAuthService.GetOAuthToken and gets
// {"access_token": "…", "expiry": SECONDS}; with "audience" instead of scopes, GetIDToken gives it an id_token. What the
// caller has to give up on is {"error_code": N, "error_message": "…"}, with status 200.
//
// A Server is safe for concurrent use.
package localauth

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"time"

	"github.com/daybook-dev/daybook/internal/fault"
)

const (
	// Variable names the environment variable with the path of the file.
	Variable = "LUCI_CONTEXT"

	section    = "local_auth"
	prefix     = "/rpc/LuciLocalAuthService."
	secretSize = 32
	maxRequest = 64 << 10
	// life is how long tools may keep a token before they ask again. What they get is good for as long as its issuer says.
	life = time.Hour
	// codeNoAccount is the error code of requests for accounts that are not there.
	codeNoAccount = 1
)

// accounts are the names under which tools know the one account that there is: that of what they run, and that of the machine.
var accounts = []account{{ID: "task", Email: "-"}, {ID: "system", Email: "-"}}

type account struct {
	ID    string `json:"id"`
	Email string `json:"email"` // "-" is none
}

type localAuth struct {
	Port     int       `json:"rpc_port"`
	Secret   []byte    `json:"secret"`
	Accounts []account `json:"accounts"`
	Default  string    `json:"default_account_id"`
}

// Server hands out tokens to those who have the file. It is made by New.
type Server struct {
	secret []byte
	token  func(context.Context) string
}

// New returns a Server of what token returns for the context of a request.
func New(token func(context.Context) string) *Server {
	s := &Server{secret: make([]byte, secretSize), token: token}
	_, _ = rand.Read(s.secret) // never fails
	return s
}

// Context returns the content of the file when the server is at that port of 127.0.0.1. Of outer, the content of the file that
// was valid so far, everything is kept but its local_auth; empty is none. If it is no JSON object, the error is of kind Invalid.
func (s *Server) Context(outer []byte, port int) ([]byte, error) {
	sections := make(map[string]json.RawMessage)
	if len(outer) > 0 {
		if err := json.Unmarshal(outer, &sections); err != nil || sections == nil {
			return nil, fault.New(fault.Invalid, "the file that %s names is no JSON object", Variable)
		}
	}
	ours, err := json.Marshal(localAuth{Port: port, Secret: s.secret, Accounts: accounts, Default: accounts[0].ID})
	if err != nil {
		return nil, fmt.Errorf("write a local auth context: %w", err)
	}
	sections[section] = ours
	return json.Marshal(sections)
}

type request struct {
	Secret  []byte `json:"secret"`
	Account string `json:"account_id"`
}

type accessToken struct {
	Token  string `json:"access_token"`
	Expiry int64  `json:"expiry"` // Unix time
}

type idToken struct {
	Token  string `json:"id_token"`
	Expiry int64  `json:"expiry"`
}

type failure struct {
	Code    int    `json:"error_code"`
	Message string `json:"error_message"`
}

// ServeHTTP answers a tool.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// A page in a browser can post, but neither JSON nor a secret that it does not have.
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	var req request
	switch {
	case r.URL.Path != prefix+"GetOAuthToken" && r.URL.Path != prefix+"GetIDToken":
		http.NotFound(w, r)
	case r.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "only POST is answered", http.StatusMethodNotAllowed)
	case kind != "application/json":
		http.Error(w, "the content type is not application/json", http.StatusUnsupportedMediaType)
	case err != nil || json.Unmarshal(body, &req) != nil:
		http.Error(w, "the request cannot be read", http.StatusBadRequest)
	case subtle.ConstantTimeCompare(req.Secret, s.secret) != 1:
		http.Error(w, "the secret is not that of the context", http.StatusForbidden)
	case !slices.ContainsFunc(accounts, func(a account) bool { return a.ID == req.Account }):
		answer(w, failure{codeNoAccount, fmt.Sprintf("there is no account %.100q in the context", req.Account)})
	case r.URL.Path == prefix+"GetIDToken":
		answer(w, idToken{s.token(r.Context()), time.Now().Add(life).Unix()})
	default:
		answer(w, accessToken{s.token(r.Context()), time.Now().Add(life).Unix()})
	}
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(v) // a caller who is gone needs no answer
}
