package directory

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/daybook-dev/daybook/logs/logpb"
)

func entry(name string, typ logpb.StreamType, logs ...*logpb.LogEntry) *logpb.ButlerLogBundle_Entry {
	return &logpb.ButlerLogBundle_Entry{
		Desc: &logpb.LogStreamDescriptor{Name: name, StreamType: typ, ContentType: "x/y", Timestamp: timestamppb.Now()},
		Logs: logs,
	}
}

func text(lines ...string) *logpb.LogEntry {
	t := new(logpb.Text)
	for _, l := range lines {
		value := strings.TrimRight(l, "\r\n")
		t.Lines = append(t.Lines, &logpb.Text_Line{Value: []byte(value), Delimiter: l[len(value):]})
	}
	return &logpb.LogEntry{Content: &logpb.LogEntry_Text{Text: t}}
}

func datagram(data string, partial *logpb.Datagram_Partial) *logpb.LogEntry {
	return &logpb.LogEntry{Content: &logpb.LogEntry_Datagram{Datagram: &logpb.Datagram{Data: []byte(data), Partial: partial}}}
}

// files returns the content of all files but those with descriptors.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	got := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasPrefix(d.Name(), ".meta.") {
			return err
		}
		b, err := os.ReadFile(path)
		rel, _ := filepath.Rel(dir, path)
		got[filepath.ToSlash(rel)] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestOutput(t *testing.T) {
	dir := t.TempDir()
	o, err := New(dir)
	if err != nil {
		t.Fatal(err)
	}
	ended := entry("bin", logpb.StreamType_BINARY, &logpb.LogEntry{Content: &logpb.LogEntry_Binary{Binary: &logpb.Binary{Data: []byte{0, 255}}}})
	ended.Terminal = true
	long := strings.Repeat("x", 250)
	for _, bundle := range [][]*logpb.ButlerLogBundle_Entry{
		{entry("a/out", logpb.StreamType_TEXT, text("one\r\n", "two\n", "thr")), ended},
		{entry("a/out", logpb.StreamType_TEXT, text("ee\n", "end"))},
		{entry("d", logpb.StreamType_DATAGRAM, datagram("whole", nil), datagram("in ", &logpb.Datagram_Partial{Size: 8}))},
		{entry("d", logpb.StreamType_DATAGRAM, datagram("parts", &logpb.Datagram_Partial{Index: 1, Size: 8, Last: true}), datagram("", nil))},
		{entry("empty", logpb.StreamType_TEXT), entry("a", logpb.StreamType_TEXT, text("a file\n"))},
		{entry("empty/below", logpb.StreamType_TEXT, text("x\n")), entry(long, logpb.StreamType_TEXT, text("long\n"))},
	} {
		if err := o.SendBundle(&logpb.ButlerLogBundle{Entries: bundle}); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := o.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]string{
		"a/out": "one\r\ntwo\nthree\nend", "bin": "\x00\xff", "empty": "", "_other.a": "a file\n", "_other.empty/below": "x\n",
		"_00000.d": "whole", "_00001.d": "in parts", "_00002.d": "", segment(long): "long\n",
	}
	if diff := cmp.Diff(want, files(t, dir)); diff != "" {
		t.Error(diff)
	}
	meta, err := os.ReadFile(filepath.Join(dir, "a", ".meta.out"))
	if err != nil || !strings.Contains(string(meta), `"content_type"`) || !strings.Contains(string(meta), `"a/out"`) {
		t.Errorf("descriptor %s, %v", meta, err)
	}
	if n := o.Stats().SentMessages; n != 6 {
		t.Errorf("%d messages", n)
	}
}

// More streams than may have open files at once.
func TestManyStreams(t *testing.T) {
	dir := t.TempDir()
	o, err := New(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := make(map[string]string)
	for round := range 3 {
		for i := range 2 * maxOpen {
			name := fmt.Sprint("s", i)
			line := fmt.Sprintln(round, i)
			want[name] += line
			if err := o.SendBundle(&logpb.ButlerLogBundle{Entries: []*logpb.ButlerLogBundle_Entry{entry(name, logpb.StreamType_TEXT, text(line))}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(o.open) != maxOpen {
		t.Errorf("%d open files", len(o.open))
	}
	if err := o.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, files(t, dir)); diff != "" {
		t.Error(diff)
	}
}

// A stream that cannot be written does not disturb the others of its bundle.
func TestBrokenStream(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there is no /dev/full")
	}
	dir := t.TempDir()
	o, err := New(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/full", filepath.Join(dir, "full")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		err = o.SendBundle(&logpb.ButlerLogBundle{Entries: []*logpb.ButlerLogBundle_Entry{
			entry("full", logpb.StreamType_TEXT, text("x\n")), entry("../evil", logpb.StreamType_TEXT, text("x\n")), entry("good", logpb.StreamType_TEXT, text("y\n")),
		}})
		if err == nil || !strings.Contains(err.Error(), "stream full") || !strings.Contains(err.Error(), "evil") {
			t.Errorf("error %v", err)
		}
	}
	if err := o.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "good")); string(got) != "y\ny\n" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if s := o.Stats(); s.DiscardedMessages != 2 || s.Errors != 4 {
		t.Errorf("%+v", s)
	}
}
