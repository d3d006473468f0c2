// Package bootstrap is how a program that a Butler starts finds it: by environment variables that LogDog's client libraries and ours read.
// docs/formats/handshake.md lists them.
//
//	e := bootstrap.New(server.Address(), out.URLConstructionEnv())
//	cmd.Env = e.Apply(os.Environ())
//
// A Butler may run below another one. What the inner one says replaces everything that the outer one said: a variable of theirs that does
// not apply is removed, so that no program mixes the one's address with the other's prefix.
//
// Everything here is safe for concurrent use.
package bootstrap

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"github.com/daybook-dev/daybook/butler/output"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/streamproto"
)

// ErrNoButler is returned by Read when no Butler is around.
var ErrNoButler = errors.New("no Butler is around: " + streamproto.EnvAddress + " is not set")

// Environment is what a Butler says to the programs below it. Fields that are empty are not said.
type Environment struct {
	// Address is that of the stream server.
	Address string
	// Project and Prefix are where the streams are.
	Project types.Project
	Prefix  types.StreamName
	// CoordinatorHost is the host of the pages that show the streams, or file:// and a directory.
	CoordinatorHost string
	// Namespace goes before the names of the streams that the program opens. A Butler does not say it; who starts programs may.
	Namespace types.StreamName
}

// New returns the environment of a Butler with a stream server at an address, and an output.
func New(address string, o output.Environment) Environment {
	return Environment{Address: address, Project: o.Project, Prefix: o.Prefix, CoordinatorHost: o.CoordinatorHost}
}

// variables are the fields by the names of their variables.
func (e *Environment) variables() [5]struct{ name, value string } {
	return [...]struct{ name, value string }{
		{streamproto.EnvAddress, e.Address},
		{streamproto.EnvProject, string(e.Project)},
		{streamproto.EnvPrefix, string(e.Prefix)},
		{streamproto.EnvCoordinatorHost, e.CoordinatorHost},
		{streamproto.EnvNamespace, string(e.Namespace)},
	}
}

// Apply returns environ, which is in the form of os.Environ and is not changed, with exactly the variables of e. An e that is empty
// removes them all.
func (e Environment) Apply(environ []string) []string {
	vars := e.variables()
	out := make([]string, 0, len(environ)+len(vars))
	for _, kv := range environ {
		name, _, _ := strings.Cut(kv, "=")
		if !slices.ContainsFunc(vars[:], func(v struct{ name, value string }) bool { return sameName(v.name, name) }) {
			out = append(out, kv)
		}
	}
	for _, v := range vars {
		if v.value != "" {
			out = append(out, v.name+"="+v.value)
		}
	}
	return out
}

// Read returns what a Butler said by environ, which is in the form of os.Environ. The error is ErrNoButler if none did.
func Read(environ []string) (Environment, error) {
	get := func(name string) (value string) {
		for _, kv := range environ {
			if n, v, ok := strings.Cut(kv, "="); ok && sameName(n, name) {
				value = v // the last one counts
			}
		}
		return value
	}
	e := Environment{
		Address:         get(streamproto.EnvAddress),
		Project:         types.Project(get(streamproto.EnvProject)),
		Prefix:          types.StreamName(get(streamproto.EnvPrefix)),
		CoordinatorHost: get(streamproto.EnvCoordinatorHost),
		Namespace:       types.StreamName(get(streamproto.EnvNamespace)),
	}
	if e.Address == "" {
		return Environment{}, ErrNoButler
	}
	for _, c := range []struct {
		name, value string
		validate    func() error
	}{
		{streamproto.EnvProject, string(e.Project), e.Project.Validate},
		{streamproto.EnvPrefix, string(e.Prefix), e.Prefix.Validate},
		{streamproto.EnvNamespace, string(e.Namespace), e.Namespace.Validate},
	} {
		if c.value == "" {
			continue
		}
		if err := c.validate(); err != nil {
			return Environment{}, fault.Wrap(fault.Invalid, fmt.Errorf("environment variable %s: %w", c.name, err))
		}
	}
	return e, nil
}

// sameName reports whether two names are of one variable.
func sameName(a, b string) bool {
	if runtime.GOOS == "windows" {
		return strings.EqualFold(a, b)
	}
	return a == b
}
