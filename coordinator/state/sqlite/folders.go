package sqlite

import (
	"context"
	"database/sql"
	"errors"

	"github.com/pressly/goose/v3"

	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/coordinator/state/row"
	"github.com/daybook-dev/daybook/logs/types"
)

const (
	addFolder = `INSERT OR IGNORE INTO folders (parent, segment, label) VALUES (?, ?, ?)`

	listFolders = `SELECT f.segment, (SELECT count(*) FROM (SELECT 1 FROM labels l WHERE l.label = f.label LIMIT ?)),
			(SELECT l.created FROM labels l WHERE l.label = f.label ORDER BY l.created DESC LIMIT 1),
			EXISTS (SELECT 1 FROM prefixes p WHERE p.project = ? AND p.prefix = ? || f.segment AND p.deleted IS NULL),
			EXISTS (SELECT 1 FROM folders c WHERE c.parent = f.label)
		FROM folders f WHERE f.parent = ? AND f.segment > ? ORDER BY f.segment LIMIT ?`

	addUsage = `INSERT INTO usage (project, prefixes, streams, entries, content_bytes, stored_bytes) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (project) DO UPDATE SET prefixes = prefixes + excluded.prefixes, streams = streams + excluded.streams,
			entries = entries + excluded.entries, content_bytes = content_bytes + excluded.content_bytes,
			stored_bytes = stored_bytes + excluded.stored_bytes`
)

// Folders implements state.Store.
func (s *Store) Folders(ctx context.Context, q state.FolderQuery) ([]state.Folder, error) {
	above := ""
	if q.Parent != "" {
		above = string(q.Parent) + "/"
	}
	rows, err := s.queries.query(ctx, listFolders, state.MaxFolderStreams, string(q.Project), above, int64(q.Within()), q.After, q.Limit)
	if err != nil {
		return nil, s.after(wrap(err, "list folders of project %s", q.Project))
	}
	var found []state.Folder
	err = each(rows, row.Folder, func(f *state.Folder) bool {
		f.Path = q.PathOf(f.Name)
		found = append(found, *f)
		return true
	})
	return found, s.after(wrap(err, "list folders of project %s", q.Project))
}

func (t *tx) addFolders(p *state.Prefix) error {
	for _, f := range p.Folders() {
		if _, err := t.change(addFolder, int64(f.Parent), f.Segment, int64(f.Label)); err != nil {
			return err
		}
	}
	return nil
}

// deleteFolders removes the folders that were there for the prefix alone. The prefix is gone already.
func (t *tx) deleteFolders(p *state.Prefix) error {
	if p.Deep() {
		return nil // nothing tells whether others are below them
	}
	rows := p.Folders()
	for i := len(rows) - 1; i >= 0; i-- {
		_, err := t.change(`DELETE FROM folders WHERE parent = ? AND segment = ?
				AND NOT EXISTS (SELECT 1 FROM folders c WHERE c.parent = folders.label)
				AND NOT EXISTS (SELECT 1 FROM prefixes WHERE project = ? AND prefix = ?)`,
			int64(rows[i].Parent), rows[i].Segment, string(p.Project), string(rows[i].Path))
		if err != nil {
			return err
		}
	}
	return nil
}

// Usage implements state.Store.
func (s *Store) Usage(ctx context.Context, project types.Project) (state.Usage, error) {
	var u state.Usage
	stmt, err := s.queries.get(ctx, `SELECT prefixes, streams, entries, content_bytes, stored_bytes FROM usage WHERE project = ?`)
	if err == nil {
		err = stmt.QueryRowContext(ctx, string(project)).
			Scan(&u.Prefixes, &u.Streams, &u.Archived.Entries, &u.Archived.ContentSize, &u.Archived.StoredSize)
	}
	if errors.Is(err, sql.ErrNoRows) {
		return state.Usage{}, nil
	}
	return u, s.after(wrap(err, "read usage of project %s", project))
}

// addUsage counts what a project got or lost.
func (t *tx) addUsage(project types.Project, prefixes, streams int, v state.Volume) error {
	_, err := t.change(addUsage, string(project), prefixes, streams, v.Entries, v.ContentSize, v.StoredSize)
	return err
}

// fillFolders is the migration that lists the folders of the prefixes that are there.
var fillFolders = goose.NewGoMigration(6, &goose.GoFunc{RunTx: func(ctx context.Context, tx *sql.Tx) error {
	rows, err := tx.QueryContext(ctx, `SELECT project, prefix FROM prefixes`)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }() // Err tells
	add, err := tx.PrepareContext(ctx, addFolder)
	if err != nil {
		return err
	}
	defer func() { _ = add.Close() }() // its transaction tells
	for rows.Next() {
		var p state.Prefix
		if err := rows.Scan(&p.Project, &p.Prefix); err != nil {
			return err
		}
		for _, f := range p.Folders() {
			if _, err := add.ExecContext(ctx, int64(f.Parent), f.Segment, int64(f.Label)); err != nil {
				return err
			}
		}
	}
	return rows.Err()
}}, nil)
