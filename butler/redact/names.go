package redact

import (
	"net/url"
	"path"
	"strings"
)

// SecretNames are the names of environment variables whose values are secrets, as patterns of path.Match, which match in any
// case.
var SecretNames = []string{
	"*PASSWORD", "*PASSWD", "*PASSPHRASE", "*SECRET", "*TOKEN", "*API_KEY", "*APIKEY", "*ACCESS_KEY", "*SECRET_KEY", "*PRIVATE_KEY",
	"*ENCRYPTION_KEY", "*SIGNING_KEY", "*CREDENTIALS", "*CONNECTION_STRING", "*_PAT", "*_AUTH",
}

// minEnviron is the least length of a variable's value that is taken for a secret: "true" and "none" are none.
const minEnviron = 6

// Secrets returns the values of an environment (in the form of os.Environ) that are to be redacted: those of variables named like
// secrets, and the passwords in those that are URLs, whatever they are named.
func Secrets(environ []string) []string {
	var out []string
	for _, kv := range environ {
		name, value, ok := strings.Cut(kv, "=")
		if !ok || len(value) < minEnviron || len(value) > MaxValue {
			continue
		}
		switch {
		case secretName(name):
			out = append(out, value)
		case strings.Contains(value, "://") && strings.Contains(value, "@"):
			u, err := url.Parse(value)
			if err != nil {
				continue
			}
			password, _ := u.User.Password()
			// What is printed may be either form.
			for _, form := range []string{password, url.QueryEscape(password), rawPassword(value)} {
				if len(form) >= minEnviron {
					out = append(out, form)
				}
			}
		}
	}
	return out
}

func secretName(name string) bool {
	name = strings.ToUpper(name)
	for _, pattern := range SecretNames {
		if ok, _ := path.Match(pattern, name); ok {
			return true
		}
	}
	return false
}

// rawPassword returns the password of a URL as it is written there.
func rawPassword(value string) string {
	_, rest, _ := strings.Cut(value, "://")
	authority, _, _ := strings.Cut(rest, "/")
	user, _, _ := strings.Cut(authority, "@")
	_, password, _ := strings.Cut(user, ":")
	return password
}
