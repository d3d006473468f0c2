package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/coordinator/state/row"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
)

// tx implements state.Tx.
type tx struct {
	ctx context.Context // of the call of Update that the transaction serves
	db  pgx.Tx
	// failed is the first error of a statement.
	failed error
	// changed are the streams to wake after the commit, and tasksChanged whether to wake those who wait for tasks.
	changed      []streamKey
	tasksChanged bool
}

// fail notes an error of a statement, and says what failed.
func (t *tx) fail(err error, format string, args ...any) error {
	err = wrap(err, format, args...)
	if err != nil && t.failed == nil && !fault.Is(err, fault.NotFound) {
		t.failed = err
	}
	return err
}

// number executes a statement that returns a number.
func (t *tx) number(text string, args ...any) (n int64, err error) {
	err = t.db.QueryRow(t.ctx, text, args...).Scan(&n)
	return n, err
}

// A row that was read stays as it is until the transaction ends. Its key does not change, so that others may refer to it.
const locked = ` FOR NO KEY UPDATE OF `

func (t *tx) Prefix(project types.Project, prefix types.StreamName) (*state.Prefix, error) {
	p, err := prefixBy(t.ctx, t.db, project, prefix)
	return p, t.fail(err, "read prefix %s of project %s", prefix, project)
}

func (t *tx) Stream(project types.Project, id types.StreamID) (*state.Stream, error) {
	s, err := streamBy(t.ctx, t.db, project, id, locked+`s`)
	return s, t.fail(err, "read stream %s of project %s", id, project)
}

func (t *tx) AddPrefix(p *state.Prefix) error {
	values, err := row.PrefixValues(p)
	if err == nil {
		b := new(pgx.Batch)
		b.Queue(`INSERT INTO prefixes (project, prefix, realm, secret, op_nonce, source, created, expires)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING seq`, values...).QueryRow(func(r pgx.Row) error { return r.Scan(&p.Seq) })
		queueFolders(b, p.Folders())
		b.Queue(addUsage, usageValues(p.Project, 1, 0, state.Volume{})...)
		err = t.db.SendBatch(t.ctx, b).Close()
	}
	return t.fail(err, "add prefix %s of project %s", p.Prefix, p.Project)
}

// labelsOf stores the labels in the last parameter for the stream of the common table.
const labelsOf = `added AS (
		INSERT INTO labels (label, created, stream) SELECT label, s.created, s.seq FROM s, unnest(`

func (t *tx) AddStream(s *state.Stream) error {
	values, err := row.StreamValues(s)
	if err == nil {
		s.Stored = s.Volume()
		values = append(append(row.NewStreamValues(s), values...), s.Labels(), s.Stored.Entries, s.Stored.ContentSize, s.Stored.StoredSize)
		s.Seq, err = t.number(`WITH s AS (
			INSERT INTO streams (project, id, prefix, name, proto_version, created, updated, phase, end_index, ended,
				purged, archived, stream_url, stream_size, index_url, index_size, archived_index, entry_count, content_size, lines, missing,
				end_reason, descriptor, replaced)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24)
			RETURNING seq, created
		), `+labelsOf+`$25::bigint[]) label), counted AS (
			INSERT INTO usage AS u (project, shard, prefixes, streams, entries, content_bytes, stored_bytes)
			VALUES ($1, pg_backend_pid() % 64, 0, 1, $26::bigint, $27::bigint, $28::bigint)`+sumUsage+`
		) SELECT seq FROM s`, values...)
	}
	t.changed = append(t.changed, streamKey{s.Prefix.Project, s.ID})
	return t.fail(err, "add stream %s of project %s", s.ID, s.Prefix.Project)
}

func (t *tx) PutStream(s *state.Stream) error {
	values, err := row.StreamValues(s)
	if err == nil {
		_, err = t.number(`WITH s AS (
			UPDATE streams SET updated = $1, phase = $2, end_index = $3, ended = $4, purged = $5, archived = $6, stream_url = $7,
				stream_size = $8, index_url = $9, index_size = $10, archived_index = $11, entry_count = $12, content_size = $13, lines = $14,
				missing = $15, end_reason = $16, descriptor = $17, replaced = $18, version = version + 1
			WHERE seq = $19 RETURNING seq, created
		), `+labelsOf+`$20::bigint[]) label ON CONFLICT DO NOTHING) SELECT seq FROM s`, append(values, s.Seq, s.TagLabels())...)
	}
	if v := s.Volume(); err == nil && v != s.Stored {
		_, err = t.db.Exec(t.ctx, addUsage, usageValues(s.Prefix.Project, 0, 0, v.Minus(s.Stored))...)
		s.Stored = v
	}
	t.changed = append(t.changed, streamKey{s.Prefix.Project, s.ID})
	return t.fail(err, "change stream %s of project %s", s.ID, s.Prefix.Project)
}

func (t *tx) PutPrefix(p *state.Prefix) error {
	_, err := t.db.Exec(t.ctx, `UPDATE prefixes SET expires = $1, deleted = $2 WHERE seq = $3`,
		row.Micros(p.Expires), row.Micros(p.Deleted), p.Seq)
	return t.fail(err, "change prefix %s of project %s", p.Prefix, p.Project)
}

func (t *tx) DeleteStream(s *state.Stream) error {
	b := new(pgx.Batch)
	b.Queue(`DELETE FROM tasks WHERE stream = $1`, s.Seq)
	b.Queue(`DELETE FROM labels WHERE label = ANY($1) AND created = $2 AND stream = $3`, s.Labels(), s.Created.UnixMicro(), s.Seq)
	b.Queue(`DELETE FROM streams WHERE seq = $1`, s.Seq)
	b.Queue(addUsage, usageValues(s.Prefix.Project, 0, -1, state.Volume{}.Minus(s.Stored))...)
	t.changed = append(t.changed, streamKey{s.Prefix.Project, s.ID})
	return t.fail(t.db.SendBatch(t.ctx, b).Close(), "delete stream %s of project %s", s.ID, s.Prefix.Project)
}

func (t *tx) DeletePrefix(p *state.Prefix) (bool, error) {
	tag, err := t.db.Exec(t.ctx, `DELETE FROM prefixes WHERE seq = $1 AND NOT EXISTS (SELECT FROM streams WHERE prefix = $1)`, p.Seq)
	deleted := tag.RowsAffected() > 0
	if err == nil && deleted {
		err = t.deleteFolders(p)
	}
	if err == nil && deleted {
		_, err = t.db.Exec(t.ctx, addUsage, usageValues(p.Project, -1, 0, state.Volume{})...)
	}
	return deleted && err == nil, t.fail(err, "delete prefix %s of project %s", p.Prefix, p.Project)
}

func (t *tx) AddTask(k *state.Task) (err error) {
	k.Seq, err = t.number(`INSERT INTO tasks (stream, kind, available, lease_end, attempts, failures, last_error, dead)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING seq`, append([]any{k.Stream.Seq, int64(k.Kind)}, row.TaskValues(k)...)...)
	t.tasksChanged = true
	return t.fail(err, "add %s task of stream %s", k.Kind, k.Stream.ID)
}

func (t *tx) PutTask(k *state.Task) error {
	_, err := t.db.Exec(t.ctx, `UPDATE tasks SET available = $1, lease_end = $2, attempts = $3, failures = $4, last_error = $5, dead = $6
		WHERE seq = $7`, append(row.TaskValues(k), k.Seq)...)
	t.tasksChanged = true
	return t.fail(err, "change task %d", k.Seq)
}

func (t *tx) DeleteTask(k *state.Task) error {
	_, err := t.db.Exec(t.ctx, `DELETE FROM tasks WHERE seq = $1`, k.Seq)
	return t.fail(err, "delete task %d", k.Seq)
}

const fromTasks = `SELECT ` + row.TaskColumns + ` FROM tasks t JOIN streams s ON s.seq = t.stream JOIN prefixes p ON p.seq = s.prefix WHERE `

func (t *tx) Task(s *state.Stream, kind state.TaskKind) (*state.Task, error) {
	k, err := first(t.ctx, t.db, row.Task, fromTasks+`t.stream = $1 AND t.kind = $2`+locked+`t`, s.Seq, int64(kind))
	return k, t.fail(err, "read %s task of stream %s", kind, s.ID)
}

func (t *tx) TaskBySeq(seq int64) (*state.Task, error) {
	k, err := first(t.ctx, t.db, row.Task, fromTasks+`t.seq = $1`+locked+`t`, seq)
	return k, t.fail(err, "read task %d", seq)
}

const availableTasks = fromTasks + `t.dead IS NULL AND t.available <= $1 ORDER BY t.available LIMIT $2` + locked + `t SKIP LOCKED`

func (t *tx) AvailableTasks(now time.Time, limit int) ([]*state.Task, error) {
	tasks, err := all(t.ctx, t.db, row.Task, availableTasks, now.UnixMicro(), limit)
	return tasks, t.fail(err, "read available tasks")
}
