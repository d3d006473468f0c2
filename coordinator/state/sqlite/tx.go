package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	sqlitedriver "modernc.org/sqlite"
	sqlitelib "modernc.org/sqlite/lib"

	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/coordinator/state/row"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
)

// tx implements state.Tx. It serves the updates of a group, one after the other.
type tx struct {
	*writer
	// dirty says that the update at hand has written.
	dirty bool
	// changed are the streams to wake after the commit, and tasksChanged whether to wake those who wait for tasks.
	changed      []streamKey
	tasksChanged bool
}

// write executes a statement that writes. The first one begins the part of the transaction that is undone if the update fails.
func (t *tx) write(text string, args ...any) (sql.Result, error) {
	if !t.dirty {
		if _, err := t.exec("SAVEPOINT one"); err != nil {
			return nil, err
		}
		t.dirty = true
	}
	return t.exec(text, args...)
}

// change executes a statement that writes and returns the last inserted row's number.
func (t *tx) change(text string, args ...any) (int64, error) {
	r, err := t.write(text, args...)
	if err != nil {
		return 0, err
	}
	return r.LastInsertId()
}

// affect executes a statement that writes and returns the number of rows that it changed.
func (t *tx) affect(text string, args ...any) (int64, error) {
	r, err := t.write(text, args...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

func (t *tx) Prefix(project types.Project, prefix types.StreamName) (*state.Prefix, error) {
	return prefixBy(context.Background(), &t.statements, project, prefix)
}

func (t *tx) Stream(project types.Project, id types.StreamID) (*state.Stream, error) {
	return streamBy(context.Background(), &t.statements, project, id)
}

func (t *tx) AddPrefix(p *state.Prefix) error {
	values, err := row.PrefixValues(p)
	if err == nil {
		p.Seq, err = t.change(`INSERT INTO prefixes (project, prefix, realm, secret, op_nonce, source, created, expires)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?)`, values...)
	}
	if err == nil {
		err = t.addFolders(p)
	}
	if err == nil {
		err = t.addUsage(p.Project, 1, 0, state.Volume{})
	}
	return wrap(err, "add prefix %s of project %s", p.Prefix, p.Project)
}

func (t *tx) AddStream(s *state.Stream) error {
	values, err := row.StreamValues(s)
	if err == nil {
		s.Seq, err = t.change(`INSERT INTO streams (project, id, prefix, name, proto_version, created, updated, phase, end_index, ended,
			purged, archived, stream_url, stream_size, index_url, index_size, archived_index, entry_count, content_size, lines, missing,
			end_reason, descriptor, replaced)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, append(row.NewStreamValues(s), values...)...)
	}
	if err == nil {
		err = t.addLabels(s, s.Labels())
	}
	if s.Stored = s.Volume(); err == nil {
		err = t.addUsage(s.Prefix.Project, 0, 1, s.Stored)
	}
	t.changed = append(t.changed, streamKey{s.Prefix.Project, s.ID})
	return wrap(err, "add stream %s of project %s", s.ID, s.Prefix.Project)
}

func (t *tx) PutStream(s *state.Stream) error {
	values, err := row.StreamValues(s)
	if err == nil {
		_, err = t.change(`UPDATE streams SET updated = ?, phase = ?, end_index = ?, ended = ?, purged = ?, archived = ?, stream_url = ?,
			stream_size = ?, index_url = ?, index_size = ?, archived_index = ?, entry_count = ?, content_size = ?, lines = ?, missing = ?,
			end_reason = ?, descriptor = ?, replaced = ?
			WHERE seq = ?`, append(values, s.Seq)...)
	}
	if err == nil {
		err = t.addLabels(s, s.TagLabels())
	}
	if v := s.Volume(); err == nil && v != s.Stored {
		err = t.addUsage(s.Prefix.Project, 0, 0, v.Minus(s.Stored))
		s.Stored = v
	}
	t.changed = append(t.changed, streamKey{s.Prefix.Project, s.ID})
	return wrap(err, "change stream %s of project %s", s.ID, s.Prefix.Project)
}

func (t *tx) PutPrefix(p *state.Prefix) error {
	_, err := t.change(`UPDATE prefixes SET expires = ?, deleted = ? WHERE seq = ?`, row.Micros(p.Expires), row.Micros(p.Deleted), p.Seq)
	return wrap(err, "change prefix %s of project %s", p.Prefix, p.Project)
}

func (t *tx) DeleteStream(s *state.Stream) error {
	_, err := t.change(`DELETE FROM tasks WHERE stream = ?`, s.Seq)
	for _, l := range s.Labels() {
		if err == nil {
			_, err = t.change(`DELETE FROM labels WHERE label = ? AND created = ? AND stream = ?`, int64(l), s.Created.UnixMicro(), s.Seq)
		}
	}
	if err == nil {
		_, err = t.change(`DELETE FROM streams WHERE seq = ?`, s.Seq)
	}
	if err == nil {
		err = t.addUsage(s.Prefix.Project, 0, -1, state.Volume{}.Minus(s.Stored))
	}
	t.changed = append(t.changed, streamKey{s.Prefix.Project, s.ID})
	return wrap(err, "delete stream %s of project %s", s.ID, s.Prefix.Project)
}

func (t *tx) DeletePrefix(p *state.Prefix) (bool, error) {
	n, err := t.affect(`DELETE FROM prefixes WHERE seq = ? AND NOT EXISTS (SELECT 1 FROM streams WHERE prefix = prefixes.seq)`, p.Seq)
	if err == nil && n > 0 {
		err = t.deleteFolders(p)
	}
	if err == nil && n > 0 {
		err = t.addUsage(p.Project, -1, 0, state.Volume{})
	}
	return n > 0 && err == nil, wrap(err, "delete prefix %s of project %s", p.Prefix, p.Project)
}

func (t *tx) AddTask(k *state.Task) (err error) {
	k.Seq, err = t.change(`INSERT INTO tasks (stream, kind, available, lease_end, attempts, failures, last_error, dead)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?)`, append([]any{k.Stream.Seq, int64(k.Kind)}, row.TaskValues(k)...)...)
	t.tasksChanged = true
	return wrap(err, "add %s task of stream %s", k.Kind, k.Stream.ID)
}

func (t *tx) PutTask(k *state.Task) error {
	_, err := t.change(`UPDATE tasks SET available = ?, lease_end = ?, attempts = ?, failures = ?, last_error = ?, dead = ? WHERE seq = ?`,
		append(row.TaskValues(k), k.Seq)...)
	t.tasksChanged = true
	return wrap(err, "change task %d", k.Seq)
}

func (t *tx) DeleteTask(k *state.Task) error {
	_, err := t.change(`DELETE FROM tasks WHERE seq = ?`, k.Seq)
	return wrap(err, "delete task %d", k.Seq)
}

func (t *tx) Task(s *state.Stream, kind state.TaskKind) (*state.Task, error) {
	k, err := t.task(`t.stream = ? AND t.kind = ?`, s.Seq, int(kind))
	return k, wrap(err, "read %s task of stream %s", kind, s.ID)
}

func (t *tx) TaskBySeq(seq int64) (*state.Task, error) {
	k, err := t.task(`t.seq = ?`, seq)
	return k, wrap(err, "read task %d", seq)
}

const fromTasks = `SELECT ` + row.TaskColumns + ` FROM tasks t JOIN streams s ON s.seq = t.stream JOIN prefixes p ON p.seq = s.prefix WHERE `

func (t *tx) task(where string, args ...any) (*state.Task, error) {
	rows, err := t.query(context.Background(), fromTasks+where, args...)
	if err != nil {
		return nil, err
	}
	return first(rows, row.Task)
}

func (t *tx) AvailableTasks(now time.Time, limit int) ([]*state.Task, error) {
	rows, err := t.query(context.Background(), fromTasks+`t.dead IS NULL AND t.available <= ? ORDER BY t.available LIMIT ?`,
		now.UnixMicro(), limit)
	if err != nil {
		return nil, wrap(err, "read available tasks")
	}
	var tasks []*state.Task
	err = each(rows, row.Task, func(k *state.Task) bool { tasks = append(tasks, k); return true })
	return tasks, wrap(err, "read available tasks")
}

// wrap says what failed. Errors that have a kind, and context errors, need no more words.
func wrap(err error, format string, args ...any) error {
	if err == nil || fault.KindOf(err) != fault.Internal {
		return err
	}
	err = fmt.Errorf("coordinator state: "+format+": %w", append(args, err)...)
	var driver *sqlitedriver.Error
	if errors.As(err, &driver) && driver.Code() == sqlitelib.SQLITE_CONSTRAINT_UNIQUE {
		return fault.Wrap(fault.Exists, err)
	}
	return err
}
