package sqlite

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/daybook-dev/daybook/coordinator/state"
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

// change executes a statement that writes and returns the last inserted row's number. The first one begins the part of the
// transaction that is undone if the update fails.
func (t *tx) change(text string, args ...any) (int64, error) {
	if !t.dirty {
		if _, err := t.exec("SAVEPOINT one"); err != nil {
			return 0, err
		}
		t.dirty = true
	}
	r, err := t.exec(text, args...)
	if err != nil {
		return 0, err
	}
	return r.LastInsertId()
}

func (t *tx) Prefix(project types.Project, prefix types.StreamName) (*state.Prefix, error) {
	return prefixBy(context.Background(), &t.statements, project, prefix)
}

func (t *tx) Stream(project types.Project, id types.StreamID) (*state.Stream, error) {
	return streamBy(context.Background(), &t.statements, project, id)
}

func (t *tx) AddPrefix(p *state.Prefix) error {
	source, err := json.Marshal(p.Source)
	if err == nil {
		p.Seq, err = t.change(`INSERT INTO prefixes (project, prefix, realm, secret, op_nonce, source, created, expires)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
			string(p.Project), string(p.Prefix), p.Realm, blob(p.Secret), blob(p.OpNonce), string(source), micros(p.Created), micros(p.Expires))
	}
	return wrap(err, "add prefix %s of project %s", p.Prefix, p.Project)
}

func (t *tx) AddStream(s *state.Stream) error {
	missing, err := encodeRanges(s.Missing)
	if err == nil {
		a := &s.Archive
		s.Seq, err = t.change(`INSERT INTO streams (project, id, prefix, name, proto_version, descriptor, created, updated, phase, end_index,
			ended, purged, archived, stream_url, stream_size, index_url, index_size, archived_index, entry_count, content_size, lines, missing, end_reason)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			string(s.Prefix.Project), string(s.ID), s.Prefix.Seq, string(s.Name), s.ProtoVersion, blob(s.Descriptor), micros(s.Created),
			micros(s.Updated), int(s.Phase), endIndex(s.End), micros(s.Ended), micros(s.Purged), micros(a.At), a.StreamURL, a.StreamSize,
			a.IndexURL, a.IndexSize, int64(a.LastIndex), a.EntryCount, a.ContentSize, a.Lines, missing, s.EndReason)
	}
	t.changed = append(t.changed, streamKey{s.Prefix.Project, s.ID})
	return wrap(err, "add stream %s of project %s", s.ID, s.Prefix.Project)
}

func (t *tx) PutStream(s *state.Stream) error {
	missing, err := encodeRanges(s.Missing)
	if err == nil {
		a := &s.Archive
		_, err = t.change(`UPDATE streams SET updated = ?, phase = ?, end_index = ?, ended = ?, purged = ?, archived = ?, stream_url = ?,
			stream_size = ?, index_url = ?, index_size = ?, archived_index = ?, entry_count = ?, content_size = ?, lines = ?, missing = ?,
			descriptor = ?, end_reason = ?
			WHERE seq = ?`,
			micros(s.Updated), int(s.Phase), endIndex(s.End), micros(s.Ended), micros(s.Purged), micros(a.At), a.StreamURL,
			a.StreamSize, a.IndexURL, a.IndexSize, int64(a.LastIndex), a.EntryCount, a.ContentSize, a.Lines, missing, blob(s.Descriptor), s.EndReason, s.Seq)
	}
	t.changed = append(t.changed, streamKey{s.Prefix.Project, s.ID})
	return wrap(err, "change stream %s of project %s", s.ID, s.Prefix.Project)
}

func (t *tx) AddTask(k *state.Task) (err error) {
	k.Seq, err = t.change(`INSERT INTO tasks (stream, kind, available, lease_end, attempts, failures, last_error, dead)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
		k.Stream.Seq, int(k.Kind), micros(k.Available), micros(k.LeaseEnd), k.Attempts, k.Failures, k.LastError, micros(k.Dead))
	t.tasksChanged = true
	return wrap(err, "add %s task of stream %s", k.Kind, k.Stream.ID)
}

func (t *tx) PutTask(k *state.Task) error {
	_, err := t.change(`UPDATE tasks SET available = ?, lease_end = ?, attempts = ?, failures = ?, last_error = ?, dead = ? WHERE seq = ?`,
		micros(k.Available), micros(k.LeaseEnd), k.Attempts, k.Failures, k.LastError, micros(k.Dead), k.Seq)
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

const fromTasks = `SELECT ` + taskColumns + ` FROM tasks t JOIN streams s ON s.seq = t.stream JOIN prefixes p ON p.seq = s.prefix WHERE `

func (t *tx) task(where string, args ...any) (*state.Task, error) {
	rows, err := t.query(context.Background(), fromTasks+where, args...)
	if err != nil {
		return nil, err
	}
	return first(rows, taskTargets)
}

func (t *tx) AvailableTasks(now time.Time, limit int) ([]*state.Task, error) {
	rows, err := t.query(context.Background(), fromTasks+`t.dead IS NULL AND t.available <= ? ORDER BY t.available LIMIT ?`,
		now.UnixMicro(), limit)
	if err != nil {
		return nil, wrap(err, "read available tasks")
	}
	var tasks []*state.Task
	err = each(rows, taskTargets, func(k *state.Task) bool { tasks = append(tasks, k); return true })
	return tasks, wrap(err, "read available tasks")
}

// blob is never NULL.
func blob(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// wrap says what failed. Errors that have a kind, and context errors, need no more words.
func wrap(err error, format string, args ...any) error {
	if err == nil || fault.KindOf(err) != fault.Internal {
		return err
	}
	return fmt.Errorf("coordinator state: "+format+": %w", append(args, err)...)
}
