package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// complete asks bash for the completions of a command line.
func complete(t *testing.T, script string, words ...string) []string {
	t.Helper()
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = "'" + w + "'"
	}
	cmd := exec.Command("bash", "-c", `source "$0"; COMP_WORDS=(`+strings.Join(quoted, " ")+`); COMP_CWORD=$((${#COMP_WORDS[@]}-1)); _daybook; printf '%s\n' "${COMPREPLY[@]}"`, script)
	cmd.Env = append(os.Environ(), "DAYBOOK_DATA="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return strings.Fields(string(out))
}

func TestBashCompletion(t *testing.T) {
	var c cli
	parser, err := newParser(&c)
	if err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(t.TempDir(), "completion")
	f, err := os.Create(script)
	if err != nil {
		t.Fatal(err)
	}
	if err := (&completionCmd{Shell: "bash"}).Run(&env{stdout: f, model: parser.Model}); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if got := complete(t, script, "daybook", "se"); !slices.Equal(got, []string{"serve"}) {
		t.Errorf("daybook se: %q", got)
	}
	if got := complete(t, script, "daybook", "run", "--pre"); !slices.Equal(got, []string{"--prefix"}) {
		t.Errorf("daybook run --pre: %q", got)
	}
	if got := complete(t, script, "daybook", "journals", "s"); !slices.Equal(got, []string{"suspend", "store-health"}) {
		t.Errorf("daybook journals s: %q", got)
	}
	if got := complete(t, script, "daybook", "journals", "read", "--offsets"); !slices.Equal(got, []string{"--offsets", "--offsets-out"}) {
		t.Errorf("daybook journals read --offsets: %q", got)
	}
	if got := complete(t, script, "daybook", "run", "bas"); !slices.Contains(got, "bash") {
		t.Errorf("daybook run bas: %q", got)
	}
}
