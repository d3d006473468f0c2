package streamclient

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/daybook-dev/daybook/streamproto"
)

func setenv(t *testing.T, env map[string]string) {
	for _, name := range []string{streamproto.EnvAddress, streamproto.EnvProject, streamproto.EnvPrefix, streamproto.EnvCoordinatorHost, streamproto.EnvNamespace} {
		t.Setenv(name, env[name]) // also puts back what was there
		if _, ok := env[name]; !ok {
			if err := os.Unsetenv(name); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestFromEnvironment(t *testing.T) {
	setenv(t, map[string]string{
		streamproto.EnvAddress: "null", streamproto.EnvProject: "proj", streamproto.EnvPrefix: "builds/8", streamproto.EnvCoordinatorHost: "logs.example.org", streamproto.EnvNamespace: "ns",
	})
	e, err := FromEnvironment()
	if err != nil {
		t.Fatal(err)
	}
	if e.CoordinatorHost != "logs.example.org" || e.Project != "proj" || e.Prefix != "builds/8" || e.Namespace != "ns" ||
		e.Client.Namespace() != "ns" {
		t.Errorf("environment %+v", e)
	}
	one, err := e.ViewerURL(e.Path("compile/log"))
	if want := "https://logs.example.org/logs/proj/builds/8/+/ns/compile/log"; one != want || err != nil {
		t.Errorf("URL %s, %v; want %s", one, err, want)
	}
	two, err := e.ViewerURL("a/+/b", "c/+/d")
	if want := "https://logs.example.org/v/?s=proj%2Fa%2F%2B%2Fb&s=proj%2Fc%2F%2B%2Fd"; two != want || err != nil {
		t.Errorf("URL %s, %v; want %s", two, err, want)
	}

	setenv(t, map[string]string{streamproto.EnvAddress: "null", streamproto.EnvProject: "p"})
	if e, err = FromEnvironment(); err != nil {
		t.Fatal(err)
	}
	if _, err := e.ViewerURL("a/+/b"); !errors.Is(err, ErrNoHost) {
		t.Errorf("without a host: %v", err)
	}
	setenv(t, map[string]string{streamproto.EnvAddress: "null", streamproto.EnvCoordinatorHost: "file:///x"})
	if e, err = FromEnvironment(); err != nil {
		t.Fatal(err)
	}
	if _, err := e.ViewerURL("a/+/b"); !errors.Is(err, ErrNoProject) {
		t.Errorf("without a project: %v", err)
	}
}

func TestBadEnvironment(t *testing.T) {
	for _, env := range []map[string]string{nil, {streamproto.EnvAddress: ""}, {streamproto.EnvProject: "p"}} {
		setenv(t, env)
		if _, err := FromEnvironment(); !errors.Is(err, ErrNoButler) || !strings.Contains(err.Error(), streamproto.EnvAddress) {
			t.Errorf("%v: %v", env, err)
		}
	}
	for name, value := range map[string]string{streamproto.EnvAddress: "bogus:x", streamproto.EnvProject: "P", streamproto.EnvPrefix: "/", streamproto.EnvNamespace: "a b"} {
		env := map[string]string{streamproto.EnvAddress: "null"}
		env[name] = value
		setenv(t, env)
		if _, err := FromEnvironment(); err == nil || !strings.Contains(err.Error(), name) || errors.Is(err, ErrNoButler) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
