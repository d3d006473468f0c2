package sqlite

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/logs/types"
)

// The columns in the order of the scan functions. Tables have these aliases in every query.
const (
	prefixColumns = `p.seq, p.project, p.prefix, p.realm, p.secret, p.op_nonce, p.source, p.created, p.expires`
	streamColumns = prefixColumns + `, s.seq, s.id, s.name, s.proto_version, s.descriptor, s.created, s.updated, s.phase, s.end_index,
		s.ended, s.purged, s.archived, s.stream_url, s.stream_size, s.index_url, s.index_size, s.archived_index, s.entry_count,
		s.content_size, s.lines, s.missing, s.end_reason`
	taskColumns = streamColumns + `, t.seq, t.kind, t.available, t.lease_end, t.attempts, t.failures, t.last_error, t.dead`
)

// prefixTargets, streamTargets and taskTargets are where Scan puts a row. Call done after Scan.
func prefixTargets(p *state.Prefix) (targets []any, done func() error) {
	var source []byte
	targets = []any{
		&p.Seq, &p.Project, &p.Prefix, &p.Realm, (*[]byte)(&p.Secret), &p.OpNonce, &source,
		instant{&p.Created},
		instant{&p.Expires},
	}
	return targets, func() error { return json.Unmarshal(source, &p.Source) }
}

func streamTargets(s *state.Stream) (targets []any, done func() error) {
	s.Prefix = new(state.Prefix)
	targets, prefixDone := prefixTargets(s.Prefix)
	var end sql.NullInt64
	var missing []byte
	a := &s.Archive
	targets = append(targets, &s.Seq, &s.ID, &s.Name, &s.ProtoVersion, &s.Descriptor, instant{&s.Created}, instant{&s.Updated},
		&s.Phase, &end, instant{&s.Ended}, instant{&s.Purged}, instant{&a.At}, &a.StreamURL, &a.StreamSize, &a.IndexURL, &a.IndexSize,
		&a.LastIndex, &a.EntryCount, &a.ContentSize, &a.Lines, &missing, &s.EndReason)
	return targets, func() error {
		if end.Valid {
			s.End = state.End{Known: true, Index: types.MessageIndex(end.Int64)}
		}
		if err := json.Unmarshal(missing, &s.Missing); err != nil {
			return err
		}
		return prefixDone()
	}
}

func taskTargets(t *state.Task) (targets []any, done func() error) {
	t.Stream = new(state.Stream)
	targets, done = streamTargets(t.Stream)
	return append(targets, &t.Seq, &t.Kind, instant{&t.Available}, instant{&t.LeaseEnd}, &t.Attempts, &t.Failures, &t.LastError,
		instant{&t.Dead}), done
}

// each scans all rows until visit returns false.
func each[T any](rows *sql.Rows, targets func(*T) ([]any, func() error), visit func(*T) bool) error {
	defer func() { _ = rows.Close() }() // Err tells
	for rows.Next() {
		v := new(T)
		to, done := targets(v)
		if err := rows.Scan(to...); err != nil {
			return err
		}
		if err := done(); err != nil {
			return fmt.Errorf("damaged row: %w", err)
		}
		if !visit(v) {
			break
		}
	}
	return rows.Err()
}

// first returns the first row, or nil.
func first[T any](rows *sql.Rows, targets func(*T) ([]any, func() error)) (found *T, err error) {
	err = each(rows, targets, func(v *T) bool { found = v; return false })
	return found, err
}

// instant scans a time; NULL is the zero time.
type instant struct{ t *time.Time }

// Scan implements sql.Scanner.
func (i instant) Scan(src any) error {
	switch v := src.(type) {
	case nil:
		*i.t = time.Time{}
	case int64:
		*i.t = time.UnixMicro(v).UTC()
	default:
		return fmt.Errorf("time is a %T", src)
	}
	return nil
}

// micros is the stored form of a time.
func micros(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMicro()
}

// endIndex is the stored form of an end.
func endIndex(e state.End) any {
	if !e.Known {
		return nil
	}
	return int64(e.Index)
}

// Missing ranges are stored as JSON: [{"first":3,"last":5}].
func encodeRanges(ranges []state.Range) (string, error) {
	if len(ranges) == 0 {
		return "[]", nil
	}
	b, err := json.Marshal(ranges)
	return string(b), err
}
