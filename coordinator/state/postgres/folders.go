package postgres

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/pressly/goose/v3"

	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/coordinator/state/row"
	"github.com/daybook-dev/daybook/logs/types"
)

const (
	// Who adds a folder relies on those above it, and who removes one on there being none below it.
	folderLock    = 0x6461796264697273
	shareFolders  = `SELECT pg_advisory_xact_lock_shared($1)`
	removeFolders = `SELECT pg_advisory_xact_lock($1)`

	addFolders = `INSERT INTO folders (parent, segment, label)
		SELECT * FROM unnest($1::bigint[], $2::text[], $3::bigint[]) ON CONFLICT DO NOTHING`

	listFolders = `SELECT f.segment, (SELECT count(*) FROM (SELECT FROM labels l WHERE l.label = f.label LIMIT $1) l),
			(SELECT l.created FROM labels l WHERE l.label = f.label ORDER BY l.created DESC, l.stream DESC LIMIT 1),
			EXISTS (SELECT FROM prefixes p WHERE (p.project = $2) IS TRUE AND sha256(p.prefix::bytea) = sha256(($3::text || f.segment)::bytea)
				AND p.deleted IS NULL),
			EXISTS (SELECT FROM folders c WHERE c.parent = f.label)
		FROM folders f WHERE f.parent = $4 AND f.segment > $5 ORDER BY f.segment LIMIT $6`

	addUsage = `INSERT INTO usage AS u (project, shard, prefixes, streams, entries, content_bytes, stored_bytes)
		VALUES ($1, pg_backend_pid() % 64, $2, $3, $4, $5, $6)` + sumUsage
	sumUsage = ` ON CONFLICT (project, shard) DO UPDATE SET prefixes = u.prefixes + excluded.prefixes, streams = u.streams + excluded.streams,
			entries = u.entries + excluded.entries, content_bytes = u.content_bytes + excluded.content_bytes,
			stored_bytes = u.stored_bytes + excluded.stored_bytes`

	readUsage = `SELECT coalesce(sum(prefixes), 0)::bigint, coalesce(sum(streams), 0)::bigint, coalesce(sum(entries), 0)::bigint,
		coalesce(sum(content_bytes), 0)::bigint, coalesce(sum(stored_bytes), 0)::bigint FROM usage WHERE project = $1`
)

// Folders implements state.Store.
func (s *Store) Folders(ctx context.Context, q state.FolderQuery) (found []state.Folder, err error) {
	above := ""
	if q.Parent != "" {
		above = string(q.Parent) + "/"
	}
	err = s.read(ctx, func(db querier) error {
		rows, err := all(ctx, db, row.Folder, listFolders,
			state.MaxFolderStreams, string(q.Project), above, int64(q.Within()), q.After, q.Limit)
		found = make([]state.Folder, len(rows))
		for i, f := range rows {
			f.Path = q.PathOf(f.Name)
			found[i] = *f
		}
		return err
	})
	return found, wrap(err, "list folders of project %s", q.Project)
}

// addFolders queues what stores the folders of a prefix.
func (t *tx) addFolders(rows []state.FolderRow) {
	parents, segments, labels := make([]int64, len(rows)), make([]string, len(rows)), make([]int64, len(rows))
	for i, f := range rows {
		parents[i], segments[i], labels[i] = int64(f.Parent), f.Segment, int64(f.Label)
	}
	t.change(shareFolders, int64(folderLock))
	t.change(addFolders, parents, segments, labels)
}

// deleteFolders queues what removes the folders that were there for the prefix alone. The prefix is gone already.
func (t *tx) deleteFolders(p *state.Prefix) {
	if p.Deep() {
		return // nothing tells whether others are below them
	}
	t.change(removeFolders, int64(folderLock))
	rows := p.Folders()
	for i := len(rows) - 1; i >= 0; i-- {
		t.change(`DELETE FROM folders f WHERE parent = $1 AND segment = $2 AND NOT EXISTS (SELECT FROM folders c WHERE c.parent = f.label)
				AND NOT EXISTS (SELECT FROM prefixes WHERE (project = $3) IS TRUE AND sha256(prefix::bytea) = sha256($4::text::bytea))`,
			int64(rows[i].Parent), rows[i].Segment, string(p.Project), string(rows[i].Path))
	}
}

func usageValues(project types.Project, prefixes, streams int, v state.Volume) []any {
	return []any{string(project), prefixes, streams, v.Entries, v.ContentSize, v.StoredSize}
}

// Usage implements state.Store.
func (s *Store) Usage(ctx context.Context, project types.Project) (u state.Usage, err error) {
	err = s.read(ctx, func(db querier) error {
		return db.QueryRow(ctx, readUsage, string(project)).
			Scan(&u.Prefixes, &u.Streams, &u.Archived.Entries, &u.Archived.ContentSize, &u.Archived.StoredSize)
	})
	return u, wrap(err, "read usage of project %s", project)
}

// fillFolders is the migration that lists the folders of the prefixes that are there.
var fillFolders = goose.NewGoMigration(3, &goose.GoFunc{RunTx: func(ctx context.Context, tx *sql.Tx) error {
	rows, err := tx.QueryContext(ctx, `SELECT project, prefix FROM prefixes`)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }() // Err tells
	found := make(map[state.FolderRow]bool)
	for rows.Next() {
		var p state.Prefix
		if err := rows.Scan(&p.Project, &p.Prefix); err != nil {
			return err
		}
		for _, f := range p.Folders() {
			found[f] = true
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for f := range found {
		_, err := tx.ExecContext(ctx, `INSERT INTO folders (parent, segment, label) VALUES ($1, $2, $3)`, int64(f.Parent), f.Segment, int64(f.Label))
		if err != nil {
			return fmt.Errorf("add folder %s: %w", f.Path, err)
		}
	}
	return nil
}}, nil)
