package main

import (
	"os"
	"strings"
	"testing"

	"github.com/daybook-dev/daybook/internal/testkit"
)

// asProgram makes the test binary stand in for the program.
const asProgram = "DAYBOOK_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Exit(program(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// What is wrong with a command line is told with the command whose help says more.
func TestCommandLineRefusals(t *testing.T) {
	bin, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	h := testkit.NewHouseOf(t, bin)
	h.Setenv(asProgram, "1")
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"sevre", exitUsage, `did you mean "serve"?; see daybook --help`},
		{"ls --limt 3", exitUsage, `did you mean "--limit"?; see daybook ls --help`},
		{"journals read", exitUsage, "missing flags: --selector=SELECTOR; see daybook journals read --help"},
		{"journals raed", exitUsage, "see daybook journals --help"},
		{"quarantine show x", exitUsage, "see daybook quarantine show --help"},
		{"help nosuch", exitUsage, "daybook --help lists the commands"},
		{"undelete local/a/+/b", exitFailure, "daybook ls --purged shows"},
		{"cat --server https://127.0.0.1 --tls-ca " + t.TempDir() + "/none local/a/+/b", exitUsage, "read the trusted certificates: open "},
		{"ls --server 127.0.0.1:1", exitFailure, "no connection: dial tcp 127.0.0.1:1: "},
		{"tail --server 127.0.0.1:1 local/a/+/b", exitFailure, "is a server running there?"},
	} {
		p := testkit.Start(t, h.Command(strings.Fields(c.args)...))
		if code := p.Wait(); code != c.code || !strings.Contains(p.Stderr.String(), c.says) {
			t.Errorf("%s: exit code %d, %s", c.args, code, p.Stderr)
		}
	}
	p := testkit.Start(t, h.Command("--version"))
	if code := p.Wait(); code != exitOK || !strings.HasPrefix(p.Stdout.String(), "daybook ") {
		t.Errorf("--version: exit code %d, %s%s", code, p.Stdout, p.Stderr)
	}
}
