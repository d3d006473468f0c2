package streamclient

import (
	"errors"
	"fmt"
	"os"

	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/streamproto"
)

var (
	// ErrNoButler is returned, wrapped, by FromEnvironment when no Butler started this program.
	ErrNoButler = errors.New("no Butler is around; start the program with 'daybook run'")
	// ErrNoProject is returned for an address of a page when the Butler has no project: its streams are not on a server.
	ErrNoProject = errors.New("no project is known, so there is no page")
	// ErrNoHost is returned for an address of a page when the Butler has no server.
	ErrNoHost = errors.New("no server is known, so there is no page")
)

// Environment is what a Butler told the programs below it. All but Client may be empty.
type Environment struct {
	// CoordinatorHost is where readers find the streams, or file:// and a directory.
	CoordinatorHost string
	Project         types.Project
	// Prefix is what all streams of the Butler have in common.
	Prefix types.StreamName
	// Namespace goes before the names of this program's streams; Client puts it there.
	Namespace types.StreamName
	Client    *Client
}

// FromEnvironment returns what the environment's variables say. The error is ErrNoButler, wrapped, if the variable with the
// Butler's address is not there or empty.
func FromEnvironment() (*Environment, error) {
	address := os.Getenv(streamproto.EnvAddress)
	if address == "" {
		return nil, fmt.Errorf("%s is not set: %w", streamproto.EnvAddress, ErrNoButler)
	}
	e := &Environment{
		CoordinatorHost: os.Getenv(streamproto.EnvCoordinatorHost),
		Project:         types.Project(os.Getenv(streamproto.EnvProject)),
		Prefix:          types.StreamName(os.Getenv(streamproto.EnvPrefix)),
		Namespace:       types.StreamName(os.Getenv(streamproto.EnvNamespace)),
	}
	var err error
	if e.Client, err = New(address, e.Namespace); err != nil {
		return nil, fmt.Errorf("%s: %w", streamproto.EnvAddress, err)
	}
	for _, v := range []struct {
		name, value string
		validate    func() error
	}{
		{streamproto.EnvPrefix, string(e.Prefix), e.Prefix.Validate},
		{streamproto.EnvProject, string(e.Project), e.Project.Validate},
		{streamproto.EnvNamespace, string(e.Namespace), e.Namespace.Validate},
	} {
		if v.value == "" {
			continue
		}
		if err := v.validate(); err != nil {
			return nil, fmt.Errorf("%s: %.200q: %w", v.name, v.value, err)
		}
	}
	return e, nil
}

// ViewerURL returns the address of the page that shows the streams with the given paths. Confirm knows better, where the
// Butler does.
func (e *Environment) ViewerURL(paths ...types.StreamPath) (string, error) {
	switch {
	case e.Project == "":
		return "", ErrNoProject
	case e.CoordinatorHost == "":
		return "", ErrNoHost
	}
	return types.ViewerURL(e.CoordinatorHost, e.Project, paths...), nil
}

// Path returns the path of a stream that Client opens by the given name.
func (e *Environment) Path(name types.StreamName) types.StreamPath {
	return e.Prefix.Join(e.Namespace.Concat(name))
}
