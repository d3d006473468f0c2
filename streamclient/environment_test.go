package streamclient

import (
	"errors"
	"os"
	"strings"
	"testing"
)

func setenv(t *testing.T, env map[string]string) {
	for _, name := range []string{EnvStreamServer, EnvProject, EnvPrefix, EnvCoordinatorHost, EnvNamespace} {
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
		EnvStreamServer: "null", EnvProject: "proj", EnvPrefix: "builds/8", EnvCoordinatorHost: "logs.example.org", EnvNamespace: "ns",
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

	setenv(t, map[string]string{EnvStreamServer: "null", EnvProject: "p"})
	if e, err = FromEnvironment(); err != nil {
		t.Fatal(err)
	}
	if _, err := e.ViewerURL("a/+/b"); !errors.Is(err, ErrNoHost) {
		t.Errorf("without a host: %v", err)
	}
	setenv(t, map[string]string{EnvStreamServer: "null", EnvCoordinatorHost: "file:///x"})
	if e, err = FromEnvironment(); err != nil {
		t.Fatal(err)
	}
	if _, err := e.ViewerURL("a/+/b"); !errors.Is(err, ErrNoProject) {
		t.Errorf("without a project: %v", err)
	}
}

func TestBadEnvironment(t *testing.T) {
	for _, env := range []map[string]string{nil, {EnvStreamServer: ""}, {EnvProject: "p"}} {
		setenv(t, env)
		if _, err := FromEnvironment(); !errors.Is(err, ErrNoButler) || !strings.Contains(err.Error(), EnvStreamServer) {
			t.Errorf("%v: %v", env, err)
		}
	}
	for name, value := range map[string]string{EnvStreamServer: "bogus:x", EnvProject: "P", EnvPrefix: "/", EnvNamespace: "a b"} {
		env := map[string]string{EnvStreamServer: "null"}
		env[name] = value
		setenv(t, env)
		if _, err := FromEnvironment(); err == nil || !strings.Contains(err.Error(), name) || errors.Is(err, ErrNoButler) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
