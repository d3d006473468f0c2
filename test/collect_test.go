//go:build unix

package test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/daybook-dev/daybook/api/ingest"
	"github.com/daybook-dev/daybook/internal/testkit"
)

// strange returns records that the Collector cannot use: foreign bytes, nonsense, and a bundle below a prefix that nobody registered. The
// secret in it is nothing but the letter U.
func strange(t *testing.T) []byte {
	t.Helper()
	text, err := os.ReadFile("../collector/testdata/collector.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors struct {
		Message string `json:"message_plain_b64"`
	}
	if err := json.Unmarshal(text, &vectors); err != nil {
		t.Fatal(err)
	}
	bundle, err := base64.StdEncoding.DecodeString(vectors.Message)
	if err != nil {
		t.Fatal(err)
	}
	out := []byte("foreign bytes")
	for _, msg := range [][]byte{[]byte("nonsense"), bundle} {
		if out, err = ingest.AppendHeader(out, len(msg)); err != nil {
			t.Fatal(err)
		}
		out = append(out, msg...)
	}
	return out
}

// What the Collector cannot use stops nothing. It survives the death of the server, is shown without its secret, and goes when it is told to.
func TestQuarantine(t *testing.T) {
	t.Parallel()
	h := testkit.NewHouse(t)
	server := h.Serve()
	file := filepath.Join(t.TempDir(), "strange")
	if err := os.WriteFile(file, strange(t), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range 2 { // each message is kept once
		h.Run("journals", "append", "-l", "name="+ingest.DefaultJournal, "-i", file)
		c := runWriter(t, h, fmt.Sprintf("behind/%d", i), testkit.Writer{Stdout: text(uint64(i), 1000), Stderr: text(9, 10)})
		c.finish(t)
		c.check(t)
	}
	server.Kill()
	server.Restart()

	list := h.Run("quarantine", "ls")
	if n := strings.Count(list, "\n"); n != 4 {
		t.Errorf("%d lines, want a head and three messages:\n%s", n, list)
	}
	for _, want := range []string{"malformed", "testproj/testing/prefix/+/stdout", "prefix is not registered"} {
		if !strings.Contains(list, want) {
			t.Errorf("the list lacks %q:\n%s", want, list)
		}
	}
	shown := h.Run("quarantine", "show", "3")
	for _, want := range []string{"36 bytes, not shown", "  hello\n", "entries 0 to 4, ends at 4"} {
		if !strings.Contains(shown, want) {
			t.Errorf("the message lacks %q:\n%s", want, shown)
		}
	}
	if strings.Contains(shown+list+server.Stderr.String(), "UUUUUU") {
		t.Error("the secret is shown, or logged")
	}

	replay := h.Start("quarantine", "replay", "--all")
	if code := replay.Wait(); code != 1 || strings.Count(replay.Stdout.String(), "\n") != 3 {
		t.Errorf("replay: exit code %d\n%s%s", code, replay.Stdout, replay.Stderr)
	}
	h.Run("quarantine", "drop", "1", "2")
	h.Run("quarantine", "drop", "--all")
	if list := h.Run("quarantine", "ls"); list != "" {
		t.Errorf("after all was dropped:\n%s", list)
	}
}

// Several ingest journals, found while the server runs, and its death in the middle of what goes into them: every byte comes back, and none
// twice.
func TestManyIngestJournals(t *testing.T) {
	t.Parallel()
	h := testkit.NewHouse(t)
	server := h.Serve()
	specs := filepath.Join(t.TempDir(), "specs.yaml")
	err := os.WriteFile(specs, []byte(`name: daybook/ingest/
replication: 1
labels: [{name: `+ingest.Label+`, value: default}]
fragment: {length: 67108864, compression_codec: NONE, refresh_interval: 1h}
children: [{name: daybook/ingest/001}, {name: daybook/ingest/002}, {name: daybook/ingest/003}]
`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	h.Run("journals", "apply", "--specs", specs)

	gate := testkit.NewGate(t)
	var captures []*capture
	var processes []*testkit.Process
	for i := range 8 {
		w := testkit.Writer{Stdout: text(uint64(i), size(100_000, 10<<20)), Stderr: text(uint64(100+i), 1000), Gate: gate.Addr()}
		captures = append(captures, runWriter(t, h, fmt.Sprintf("spread/%d", i), w))
		processes = append(processes, captures[i].Process)
	}
	gate.Await(processes...)
	server.Kill()
	server.Restart()
	gate.Open()
	for _, c := range captures {
		c.finish(t)
	}
	h.Run("flush") // what commands that outran the outage left behind
	for _, c := range captures {
		c.check(t)
	}
	used := 0
	for line := range strings.SplitSeq(fetch(t, server.URL+"/metrics"), "\n") {
		if strings.HasPrefix(line, "daybook_collector_journal_position{") && !strings.HasSuffix(line, " 0") {
			used++
		}
	}
	if used < 2 {
		t.Errorf("%d journals were used", used)
	}
	server.Stop(testkit.Patience)
}
