package types

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// addressScheme is the scheme of the URL form of a StreamAddr.
const addressScheme = "logdog"

// StreamAddr names a stream on a server: logdog://host/project/prefix/+/name (spec butler 1.1.6).
type StreamAddr struct {
	Host    string     `json:"host,omitempty"`
	Project Project    `json:"project,omitempty"`
	Path    StreamPath `json:"path,omitempty"`
}

// ParseStreamAddr parses the URL form. The project and the path in it have to be valid.
func ParseStreamAddr(s string) (StreamAddr, error) {
	u, err := url.Parse(s)
	if err != nil {
		return StreamAddr{}, fmt.Errorf("stream address %q: not a URL", clip(s))
	}
	if u.Scheme != addressScheme {
		return StreamAddr{}, fmt.Errorf("stream address %q: the scheme is not %s://", clip(s), addressScheme)
	}
	project, path, ok := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	if !ok {
		return StreamAddr{}, fmt.Errorf("stream address %q: no project and path", clip(s))
	}
	a := StreamAddr{Host: u.Host, Project: Project(project), Path: StreamPath(path)}
	if err := a.validateNames(); err != nil {
		return StreamAddr{}, fmt.Errorf("stream address %q: %w", clip(s), err)
	}
	return a, nil
}

// Validate demands a host, a valid project and a valid path.
func (a StreamAddr) Validate() error {
	if a.Host == "" {
		return errors.New("host is empty")
	}
	return a.validateNames()
}

func (a StreamAddr) validateNames() error {
	if err := a.Project.Validate(); err != nil {
		return err
	}
	return a.Path.Validate()
}

// URL returns the URL form.
func (a StreamAddr) URL() *url.URL {
	return &url.URL{Scheme: addressScheme, Host: a.Host, Path: Construct(string(a.Project), string(a.Path))}
}

// String and Set make a StreamAddr a command-line flag.
func (a *StreamAddr) String() string { return a.URL().String() }

// Set implements flag.Value.
func (a *StreamAddr) Set(s string) error {
	v, err := ParseStreamAddr(s)
	if err != nil {
		return err
	}
	*a = v
	return nil
}

// ViewerURL returns the page that shows the given streams of a project, in their order (spec butler 5.6).
func ViewerURL(host string, project Project, paths ...StreamPath) string {
	u := url.URL{Scheme: "https", Host: host, Path: "/v/"}
	if len(paths) == 1 {
		u.Path = "/" + Construct("logs", string(project), string(paths[0]))
		return u.String()
	}
	streams := make(url.Values)
	for _, p := range paths {
		streams.Add("s", Construct(string(project), string(p)))
	}
	u.RawQuery = streams.Encode()
	return u.String()
}
