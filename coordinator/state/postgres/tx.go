package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/coordinator/state/row"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/pgdb"
	"github.com/daybook-dev/daybook/logs/types"
)

// tx implements state.Tx. What it writes is queued, and sent together with what is read next, or with the commit, so that an update costs few
// round trips.
type tx struct {
	ctx  context.Context // of the call of Update that the transaction serves
	conn *pgx.Conn
	// queued are the statements that were not sent yet, open is how many changes among those sent were not answered, and begun says that there
	// was a first one.
	queued pgx.Batch
	open   int
	begun  bool
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

// queue queues a statement. The first one begins the transaction.
func (t *tx) queue(text string, args ...any) *pgx.QueuedQuery {
	if !t.begun {
		t.begun = true
		t.queued.Queue("BEGIN ISOLATION LEVEL READ COMMITTED")
	}
	return t.queued.Queue(text, args...)
}

// add queues a statement that returns the number of what it added.
func (t *tx) add(seq *int64, text string, args ...any) {
	t.open++
	t.queue(text, args...).QueryRow(func(r pgx.Row) error {
		err := r.Scan(seq)
		if err == nil {
			t.open--
		}
		return err
	})
}

// change queues a statement that returns nothing.
func (t *tx) change(text string, args ...any) {
	t.open++
	t.queue(text, args...).Exec(func(pgconn.CommandTag) error { t.open--; return nil })
}

// send sends what is queued, and returns the first error.
func (t *tx) send() error {
	batch := t.queued
	t.queued = pgx.Batch{}
	err := pgdb.Classify(t.conn.SendBatch(t.ctx, &batch).Close())
	if t.failed == nil {
		t.failed = err
	}
	return err
}

// find reads rows, after what was queued.
func find[T any](t *tx, targets func(*T) ([]any, func() error), text string, args ...any) (found []*T, err error) {
	if t.failed != nil {
		return nil, t.failed
	}
	t.queue(text, args...).Query(func(rows pgx.Rows) (err error) {
		found, err = collect(rows, targets)
		return err
	})
	return found, t.send()
}

// findOne reads a row; nil if there is none.
func findOne[T any](t *tx, targets func(*T) ([]any, func() error), text string, args ...any) (*T, error) {
	found, err := find(t, targets, text, args...)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return found[0], nil
}

// A row that was read stays as it is until the transaction ends. Its key does not change, so that others may refer to it.
const locked = ` FOR NO KEY UPDATE OF `

func (t *tx) Prefix(project types.Project, prefix types.StreamName) (*state.Prefix, error) {
	p, err := findOne(t, row.Prefix, fromPrefixes+thatPrefix, string(project), string(prefix))
	return orMissing(p, t.fail(err, "read prefix %s of project %s", prefix, project), "no prefix %s in project %s", prefix, project)
}

func (t *tx) Stream(project types.Project, id types.StreamID) (*state.Stream, error) {
	s, err := findOne(t, row.Stream, fromStreams+thatStream+locked+`s`, string(project), string(id))
	return orMissing(s, t.fail(err, "read stream %s of project %s", id, project), "no such stream in project %s", project)
}

func (t *tx) AddPrefix(p *state.Prefix) error {
	values, err := row.PrefixValues(p)
	if err != nil {
		return t.fail(err, "add prefix %s of project %s", p.Prefix, p.Project)
	}
	t.add(&p.Seq, `INSERT INTO prefixes (project, prefix, realm, secret, op_nonce, source, created, expires)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING seq`, values...)
	t.addFolders(p.Folders())
	t.change(addUsage, usageValues(p.Project, 1, 0, state.Volume{})...)
	return nil
}

// labelsOf stores the labels in the last parameter for the stream of the common table.
const labelsOf = `added AS (
		INSERT INTO labels (label, created, stream) SELECT label, s.created, s.seq FROM s, unnest(`

func (t *tx) AddStream(s *state.Stream) error {
	values, err := row.StreamValues(s)
	if err != nil {
		return t.fail(err, "add stream %s of project %s", s.ID, s.Prefix.Project)
	}
	s.Stored = s.Volume()
	values = append(append(row.NewStreamValues(s), values...), s.Labels(), s.Stored.Entries, s.Stored.ContentSize, s.Stored.StoredSize)
	if s.Prefix.Seq == 0 {
		// The prefix is queued, too.
		if err := t.send(); err != nil {
			return err
		}
		values[2] = s.Prefix.Seq
	}
	t.add(&s.Seq, `WITH s AS (
			INSERT INTO streams (project, id, prefix, name, proto_version, created, updated, phase, end_index, ended,
				purged, archived, stream_url, stream_size, index_url, index_size, archived_index, entry_count, content_size, lines, missing,
				end_reason, descriptor, replaced)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24)
			RETURNING seq, created
		), `+labelsOf+`$25::bigint[]) label), counted AS (
			INSERT INTO usage AS u (project, shard, prefixes, streams, entries, content_bytes, stored_bytes)
			VALUES ($1, pg_backend_pid() % 64, 0, 1, $26::bigint, $27::bigint, $28::bigint)`+sumUsage+`
		) SELECT seq FROM s`, values...)
	t.changed = append(t.changed, streamKey{s.Prefix.Project, s.ID})
	return nil
}

func (t *tx) PutStream(s *state.Stream) error {
	values, err := row.StreamValues(s)
	if err != nil {
		return t.fail(err, "change stream %s of project %s", s.ID, s.Prefix.Project)
	}
	t.change(`WITH s AS (
			UPDATE streams SET updated = $1, phase = $2, end_index = $3, ended = $4, purged = $5, archived = $6, stream_url = $7,
				stream_size = $8, index_url = $9, index_size = $10, archived_index = $11, entry_count = $12, content_size = $13, lines = $14,
				missing = $15, end_reason = $16, descriptor = $17, replaced = $18, version = version + 1
			WHERE seq = $19 RETURNING seq, created
		), `+labelsOf+`$20::bigint[]) label ON CONFLICT DO NOTHING) SELECT seq FROM s`, append(values, s.Seq, s.TagLabels())...)
	if v := s.Volume(); v != s.Stored {
		t.change(addUsage, usageValues(s.Prefix.Project, 0, 0, v.Minus(s.Stored))...)
		s.Stored = v
	}
	t.changed = append(t.changed, streamKey{s.Prefix.Project, s.ID})
	return nil
}

func (t *tx) PutPrefix(p *state.Prefix) error {
	t.change(`UPDATE prefixes SET expires = $1, deleted = $2 WHERE seq = $3`, row.Micros(p.Expires), row.Micros(p.Deleted), p.Seq)
	return nil
}

func (t *tx) DeleteStream(s *state.Stream) error {
	t.change(`DELETE FROM tasks WHERE stream = $1`, s.Seq)
	t.change(`DELETE FROM labels WHERE label = ANY($1) AND created = $2 AND stream = $3`, s.Labels(), s.Created.UnixMicro(), s.Seq)
	t.change(`DELETE FROM streams WHERE seq = $1`, s.Seq)
	t.change(addUsage, usageValues(s.Prefix.Project, 0, -1, state.Volume{}.Minus(s.Stored))...)
	t.changed = append(t.changed, streamKey{s.Prefix.Project, s.ID})
	return nil
}

func (t *tx) DeletePrefix(p *state.Prefix) (bool, error) {
	var n int64
	t.queue(`DELETE FROM prefixes WHERE seq = $1 AND NOT EXISTS (SELECT FROM streams WHERE prefix = $1)`, p.Seq).
		Exec(func(tag pgconn.CommandTag) error { n = tag.RowsAffected(); return nil })
	if err := t.send(); err != nil || n == 0 {
		return false, wrap(err, "delete prefix %s of project %s", p.Prefix, p.Project)
	}
	t.deleteFolders(p)
	t.change(addUsage, usageValues(p.Project, -1, 0, state.Volume{})...)
	return true, nil
}

func (t *tx) AddTask(k *state.Task) (err error) {
	t.tasksChanged = true
	values := row.TaskValues(k)
	if k.Stream.Seq == 0 {
		// The stream is queued, too.
		t.add(&k.Seq, `INSERT INTO tasks (stream, kind, available, lease_end, attempts, failures, last_error, dead)
			SELECT seq, $3, $4, $5, $6, $7, $8, $9 FROM streams WHERE id = $2 AND (project = $1) IS TRUE RETURNING seq`,
			append([]any{string(k.Stream.Prefix.Project), string(k.Stream.ID), int64(k.Kind)}, values...)...)
		return nil
	}
	t.add(&k.Seq, `INSERT INTO tasks (stream, kind, available, lease_end, attempts, failures, last_error, dead)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING seq`, append([]any{k.Stream.Seq, int64(k.Kind)}, values...)...)
	return nil
}

func (t *tx) PutTask(k *state.Task) error {
	t.change(`UPDATE tasks SET available = $1, lease_end = $2, attempts = $3, failures = $4, last_error = $5, dead = $6
		WHERE seq = $7`, append(row.TaskValues(k), k.Seq)...)
	t.tasksChanged = true
	return nil
}

func (t *tx) DeleteTask(k *state.Task) error {
	t.change(`DELETE FROM tasks WHERE seq = $1`, k.Seq)
	return nil
}

const fromTasks = `SELECT ` + row.TaskColumns + ` FROM tasks t JOIN streams s ON s.seq = t.stream JOIN prefixes p ON p.seq = s.prefix WHERE `

func (t *tx) Task(s *state.Stream, kind state.TaskKind) (*state.Task, error) {
	k, err := findOne(t, row.Task, fromTasks+`t.stream = $1 AND t.kind = $2`+locked+`t`, s.Seq, int64(kind))
	return k, t.fail(err, "read %s task of stream %s", kind, s.ID)
}

func (t *tx) TaskBySeq(seq int64) (*state.Task, error) {
	k, err := findOne(t, row.Task, fromTasks+`t.seq = $1`+locked+`t`, seq)
	return k, t.fail(err, "read task %d", seq)
}

const availableTasks = fromTasks + `t.dead IS NULL AND t.available <= $1 ORDER BY t.available LIMIT $2` + locked + `t SKIP LOCKED`

func (t *tx) AvailableTasks(now time.Time, limit int) ([]*state.Task, error) {
	tasks, err := find(t, row.Task, availableTasks, now.UnixMicro(), limit)
	return tasks, t.fail(err, "read available tasks")
}
