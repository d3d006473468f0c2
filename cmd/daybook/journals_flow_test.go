package main

import (
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"github.com/daybook-dev/daybook/internal/fault"
)

// journalsShell runs commands on a data directory, each with a system of its own.
type journalsShell struct {
	t   *testing.T
	dir string
}

// run returns what a command prints.
func (s *journalsShell) run(stdin string, args ...string) (string, error) {
	s.t.Helper()
	file := func(content string) *os.File {
		f, err := os.CreateTemp(s.t.TempDir(), "")
		if err != nil {
			s.t.Fatal(err)
		}
		s.t.Cleanup(func() { _ = f.Close() })
		if _, err := f.WriteString(content); err != nil {
			s.t.Fatal(err)
		}
		_, _ = f.Seek(0, io.SeekStart)
		return f
	}
	var c cli
	parser, err := kong.New(&c, kong.Vars{"listen": defaultListen})
	if err != nil {
		s.t.Fatal(err)
	}
	kctx, err := parser.Parse(append(append([]string{"journals"}, args...), "--data", s.dir))
	if err != nil {
		s.t.Fatal(err)
	}
	e := &env{
		ctx: s.t.Context(), stdin: file(stdin), stdout: file(""), stderr: file(""),
		log: slog.New(slog.DiscardHandler), model: parser.Model,
	}
	err = kctx.Run(e)
	out, readErr := os.ReadFile(e.stdout.Name())
	if readErr != nil {
		s.t.Fatal(readErr)
	}
	return string(out), err
}

// must fails the test unless the command succeeds and prints what is wanted.
func (s *journalsShell) must(want, stdin string, args ...string) string {
	s.t.Helper()
	got, err := s.run(stdin, args...)
	if err != nil || !strings.Contains(got, want) {
		s.t.Fatalf("%q: %v, printed:\n%s\nwant:\n%s", args, err, got, want)
	}
	return got
}

const flowSpecs = `
name: acme/
replication: 1
fragment: {length: 1048576, compression_codec: GZIP, refresh_interval: 1m}
children:
- name: acme/one1
  labels: [{name: env, value: prod}]
- name: acme/two2
`

func TestJournalsFromBeginningToEnd(t *testing.T) {
	t.Setenv("DAYBOOK_SERVER", "")
	t.Setenv("DAYBOOK_BROKER", "")
	s := &journalsShell{t: t, dir: t.TempDir()}
	offsets := filepath.Join(s.dir, "offsets.json")
	all := []string{"-l", "name:prefix=acme/"}

	s.must("create acme/one1\n+ name: acme/one1\n", flowSpecs, "apply", "--dry-run")
	if _, err := s.run("", append([]string{"read"}, all...)...); !fault.Is(err, fault.NotFound) {
		t.Fatalf("a dry run changed something: %v", err)
	}
	s.must("2 created, at revision", flowSpecs, "apply")
	if _, err := s.run(flowSpecs, "apply"); !fault.Is(err, fault.Precondition) || !strings.Contains(err.Error(), "acme/two2 exists") {
		t.Fatalf("applied twice: %v", err)
	}
	s.must("acme/one1  prod\n", "", append([]string{"list", "-L", "env"}, all...)...)
	yaml := s.must("- name: acme/two2", "", append([]string{"list", "-o", "yaml"}, all...)...)
	s.must("-   compression_codec: GZIP\n+   compression_codec: NONE\n", strings.ReplaceAll(yaml, "GZIP", "NONE"), "apply", "--dry-run")
	var list struct{ Journals []any }
	if err := json.Unmarshal([]byte(s.must("", "", append([]string{"list", "-o", "json"}, all...)...)), &list); err != nil || len(list.Journals) != 2 {
		t.Fatalf("%v, %v", list, err)
	}

	s.must("", "whole\ninput", "append", "-l", "name=acme/one1")
	s.must("", "acme/two2\nrecord\n", append([]string{"append", "-f", "lines", "-m", "direct"}, all...)...)
	if got := s.must("", "", "read", "-l", "name=acme/one1", "--offsets-out", offsets); got != "whole\ninput" {
		t.Fatalf("read %q", got)
	}
	s.must("", "more", "append", "-l", "name=acme/one1")
	if got := s.must("", "", "read", "-l", "name=acme/one1", "--offsets", offsets, "--offsets-out", offsets); got != "more" {
		t.Fatalf("read %q", got)
	}
	if got := s.must("", "", "read", "-l", "name=acme/one1", "--offset", "6"); got != "inputmore" {
		t.Fatalf("read %q", got)
	}
	if got := s.must("", "", "read", "-l", "name=acme/one1", "--tail"); got != "" {
		t.Fatalf("read %q", got)
	}
	s.must("acme/one1", "", append([]string{"fragments"}, all...)...)
	s.must(`"journal":"acme/two2"`, "", append([]string{"fragments", "-o", "json"}, all...)...)
	s.must("acme/one1: goes on at offset 15", "", append([]string{"reset-head"}, all...)...)
	s.must("", "", append([]string{"prune", "--dry-run"}, all...)...)

	if runtime.GOOS != "windows" {
		t.Setenv("EDITOR", "sed -i.bak s/GZIP/SNAPPY/")
		s.must("2 changed, at revision", "", append([]string{"edit"}, all...)...)
		t.Setenv("EDITOR", "true")
		s.must("nothing was changed", "", append([]string{"edit"}, all...)...)
	}
	s.must("SNAPPY", "", append([]string{"list", "-o", "yaml"}, all...)...)
	gone := strings.Replace(s.must("", "", append([]string{"list", "-o", "yaml"}, all...)...), "name: acme/\n", "name: acme/\ndelete: true\n", 1)
	s.must("delete acme/one1\n- name", gone, "apply", "--dry-run")
	s.must("2 deleted, at revision", gone, "apply")
	if _, err := s.run("", append([]string{"suspend"}, all...)...); !fault.Is(err, fault.NotFound) {
		t.Fatalf("deleted journals: %v", err)
	}
}
