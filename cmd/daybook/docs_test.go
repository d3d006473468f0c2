//go:build unix

package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/daybook-dev/daybook/internal/testkit"
)

// The examples of docs/api.md do what stands below them, in their order.
func TestExamplesOfTheAPI(t *testing.T) {
	s := newShop(t)
	page, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := 0
	for _, block := range regexp.MustCompile("(?ms)^```sh\n(.*?)^```$").FindAllStringSubmatch(string(page), -1) {
		var out string
		for line := range strings.Lines(block[1]) {
			line = strings.TrimSuffix(line, "\n")
			if want, ok := strings.CutPrefix(line, "# "); ok {
				if !strings.Contains(out, want) {
					t.Errorf("%q is not in what the example before it prints:\n%s", want, out)
				}
				continue
			}
			examples++
			line = strings.ReplaceAll(line, "127.0.0.1:4660", s.server.Addr)
			c := s.Command()
			if rest, ok := strings.CutPrefix(line, "daybook "); ok {
				line = `"$0" ` + rest
			}
			c.Args = []string{"-c", line, c.Path}
			c.Path = "/bin/sh"
			p := testkit.Start(t, c)
			if code := p.Wait(); code != 0 {
				t.Fatalf("%s\nexit code %d: %s%s", line, code, p.Stdout, p.Stderr)
			}
			out = p.Stdout.String()
			if strings.Contains(line, "--prefix nightly/build --tag") {
				followToEnd(t, s.server.Addr, "nightly/build/+/stdout", "nightly/build/+/stderr")
			}
		}
	}
	if examples < 20 {
		t.Errorf("only %d examples were found", examples)
	}
}

// Flags that say nothing sensible are refused with what to say instead, before anything is asked.
func TestListingRefusals(t *testing.T) {
	s := newShop(t)
	for _, args := range [][]string{
		{"ls", "--tag", "/"},
		{"ls", "--type", "voice"},
		{"ls", "--state", "lost"},
		{"ls", "--since", "yesterday"},
		{"ls", "--until", "-1h"},
		{"ls", "--since", "999999999999d"},
		{"ls", "LOCAL"},
		{"ls", "--project", "LOCAL"},
		{"usage", "LOCAL"},
		{"purge", "local/a/b"},
		{"purge", "--prefix", "local/"},
		{"undelete", "a"},
		{"tail", "--json", "local/a/+/b"},
		{"tail", "-f", "-n", "1", "--json", "local/a/+/b"},
	} {
		p := testkit.Start(t, s.Command(args...))
		if code := p.Wait(); code != exitUsage || !strings.HasPrefix(p.Stderr.String(), "daybook: ") {
			t.Errorf("%q: exit code %d, %s", args, code, p.Stderr)
		}
	}
	for _, args := range [][]string{
		{"purge", "local/none/+/x"},
		{"undelete", "--prefix", "local/none"},
		{"cat", "--purged", "local/none/+/x"},
		{"ls", "none"},
		{"ls", "--folders", "none"},
	} {
		p := testkit.Start(t, s.Command(args...))
		if code := p.Wait(); code != exitFailure || p.Stdout.String() != "" {
			t.Errorf("%q: exit code %d, %s%s", args, code, p.Stdout, p.Stderr)
		}
	}
}
