//go:build unix

package main

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/daybook-dev/daybook/internal/testkit"
)

// A command below luci-context has a context that holds what was around it, and ends as it would without.
func TestLuciContext(t *testing.T) {
	s := newShop(t)
	outer := t.TempDir() + "/outer.json"
	if err := os.WriteFile(outer, []byte(`{"realm": {"name": "local:@root"}, "local_auth": {"rpc_port": 1}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Setenv("LUCI_CONTEXT", outer)

	p := testkit.Start(t, s.Command("luci-context", "--", "sh", "-c",
		`ls -l "$LUCI_CONTEXT"; echo "$LUCI_CONTEXT"; cat "$LUCI_CONTEXT"; echo; echo "$DAYBOOK_HOST $PUBSUB_EMULATOR_HOST"; exit 7`))
	if code := p.Wait(); code != 7 {
		t.Fatalf("exit code %d: %s", code, p.Stderr)
	}
	out := strings.Split(p.Stdout.String(), "\n")
	if len(out) < 4 || !strings.HasPrefix(out[0], "-rw------- ") || out[1] == outer {
		t.Fatalf("%q", out)
	}
	var context map[string]map[string]any
	if err := json.Unmarshal([]byte(out[2]), &context); err != nil || context["realm"]["name"] != "local:@root" || context["local_auth"]["rpc_port"] == 1. {
		t.Errorf("%s, %v", out[2], err)
	}
	host, pubsub, _ := strings.Cut(out[3], " ")
	if host != s.server.Addr || !strings.HasPrefix(pubsub, "127.0.0.1:") {
		t.Errorf("%q", out[3])
	}
	if _, err := os.Stat(out[1]); !os.IsNotExist(err) {
		t.Errorf("the context is still there: %v", err)
	}
	if _, err := os.Stat(outer); err != nil {
		t.Errorf("the context around it: %v", err)
	}

	for name, c := range map[string]struct {
		args []string
		code int
	}{
		"killed":             {[]string{"--", "sh", "-c", "kill -KILL $$"}, 128 + int(syscall.SIGKILL)},
		"no such command":    {[]string{"--", "/no/such/command"}, 127},
		"not to be executed": {[]string{"--", outer}, 126},
		"nothing to do":      {nil, exitUsage},
	} {
		if p := testkit.Start(t, s.Command(append([]string{"luci-context"}, c.args...)...)); p.Wait() != c.code {
			t.Errorf("%s: %v: %s", name, p.State(), p.Stderr)
		}
	}

	// A signal is the command's, which may still have something to do.
	p = testkit.Start(t, s.Command("luci-context", "--", "sh", "-c", `trap 'echo "last words"; exit 3' TERM; echo ready; while :; do sleep 0.05; done`))
	p.Await(p.Stdout, regexp.MustCompile("ready"))
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 3 || !strings.Contains(p.Stdout.String(), "last words") {
		t.Errorf("exit code %d, %q", code, p.Stdout)
	}

	// Without a command, the file is there until the end.
	file := t.TempDir() + "/context.json"
	p = testkit.Start(t, s.Command("luci-context", "--output", file))
	p.Await(p.Stdout, regexp.MustCompile(`LUCI_CONTEXT=`+regexp.QuoteMeta(file)+`\n(?s:.*)DAYBOOK_SERVER=`))
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d: %s", code, p.Stderr)
	}
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("the context is still there: %v", err)
	}

	if err := os.WriteFile(outer, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	p = testkit.Start(t, s.Command("luci-context", "--", "true"))
	if code := p.Wait(); code != exitUsage || !strings.Contains(p.Stderr.String(), "LUCI_CONTEXT") {
		t.Errorf("below a context that is none: exit code %d: %s", code, p.Stderr)
	}
}
