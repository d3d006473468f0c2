package sqlite

import (
	"context"
	"database/sql"
	"slices"
	"strings"

	"github.com/pressly/goose/v3"

	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/logs/types"
)

const addLabel = `INSERT OR IGNORE INTO labels (label, created, stream) VALUES (?, ?, ?)`

// maxLabels is the most labels that are stored by one statement.
const maxLabels = 64

func (t *tx) addLabels(s *state.Stream, labels []state.Label) error {
	for some := range slices.Chunk(labels, maxLabels) {
		args := make([]any, 0, 3*len(some))
		for _, l := range some {
			args = append(args, int64(l), s.Created.UnixMicro(), s.Seq)
		}
		if _, err := t.change(addLabel+strings.Repeat(`, (?, ?, ?)`, len(some)-1), args...); err != nil {
			return err
		}
	}
	return nil
}

// fillLabels is the migration that labels the streams that are there.
var fillLabels = goose.NewGoMigration(4, &goose.GoFunc{RunTx: func(ctx context.Context, tx *sql.Tx) error {
	rows, err := tx.QueryContext(ctx, `SELECT p.project, p.prefix, s.seq, s.name, s.created, s.descriptor
		FROM streams s JOIN prefixes p ON p.seq = s.prefix`)
	if err != nil {
		return err
	}
	defer rows.Close()
	add, err := tx.PrepareContext(ctx, addLabel)
	if err != nil {
		return err
	}
	defer func() { _ = add.Close() }() // its transaction tells
	for rows.Next() {
		var project types.Project
		var created int64
		s := &state.Stream{Prefix: new(state.Prefix)}
		if err := rows.Scan(&project, &s.Prefix.Prefix, &s.Seq, &s.Name, &created, &s.Descriptor); err != nil {
			return err
		}
		s.Prefix.Project = project
		for _, l := range s.Labels() {
			if _, err := add.ExecContext(ctx, int64(l), created, s.Seq); err != nil {
				return err
			}
		}
	}
	return rows.Err()
}}, nil)
