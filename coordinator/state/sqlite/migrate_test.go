package sqlite

import (
	"io/fs"
	"path/filepath"
	"testing"

	"github.com/pressly/goose/v3"
	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/logs/logpb"
)

// What was registered before there were labels, folders and counters is found by them, and counted.
func TestOldState(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	db, err := connect(path, durable...)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		t.Fatal(err)
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, dir, goose.WithGoMigrations(fillLabels, fillFolders))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.UpTo(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	raw, err := proto.Marshal(&logpb.LogStreamDescriptor{Tags: map[string]string{"k": "v"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(`INSERT INTO prefixes VALUES (7, 'local', 'a/b', '@legacy', x'00', x'', 'null', 1, 2)`); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"one", "two"} {
		_, err := db.Exec(`INSERT INTO streams (project, id, prefix, name, proto_version, descriptor, created, updated, phase, stream_url, stream_size,
			index_url, index_size, archived_index, entry_count, content_size, lines, missing)
			VALUES ('local', ?1, 7, ?1, '1', ?2, 3, 3, 0, '', 0, '', 0, 0, 0, 0, 0, '[]')`, name, raw)
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s := open(t, path)
	defer func() { _ = s.Close() }()
	name, err := state.ParsePattern("one")
	if err != nil {
		t.Fatal(err)
	}
	folder, err := state.ParsePattern("a/**")
	if err != nil {
		t.Fatal(err)
	}
	for want, q := range map[int]state.StreamQuery{
		1: {Name: name},
		2: {Tags: map[string]string{"k": "v"}, Prefix: folder},
		0: {Tags: map[string]string{"k": "w"}},
	} {
		q.Project, q.Limit = "local", 10
		if found, _, err := s.FindStreams(t.Context(), q); err != nil || len(found) != want {
			t.Errorf("%d streams are found, %d wanted: %v", len(found), want, err)
		}
	}
	folders, err := s.Folders(t.Context(), state.FolderQuery{Project: "local", Parent: "a", Limit: 10})
	if err != nil || len(folders) != 1 || folders[0].Path != "a/b" || folders[0].Streams != 2 {
		t.Errorf("folders %v, %v", folders, err)
	}
	if u, err := s.Usage(t.Context(), "local"); err != nil || u.Prefixes != 1 || u.Streams != 2 {
		t.Errorf("usage %v, %v", u, err)
	}
}
