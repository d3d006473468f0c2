// Package row is the form that prefixes, streams and tasks have in databases, as docs/formats/state.md describes it: columns, what
// they are scanned into, and the values that are stored. Statements are the stores' own.
package row

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/logs/types"
)

// The columns in the order of the targets. Tables have these aliases in every query.
const (
	PrefixColumns = `p.seq, p.project, p.prefix, p.realm, p.secret, p.op_nonce, p.source, p.created, p.expires, p.deleted`
	StreamColumns = PrefixColumns + `, s.seq, s.id, s.name, s.proto_version, s.created, s.updated, s.phase, s.end_index,
		s.ended, s.purged, s.archived, s.stream_url, s.stream_size, s.index_url, s.index_size, s.archived_index, s.entry_count,
		s.content_size, s.lines, s.missing, s.end_reason, s.descriptor, s.replaced`
	TaskColumns = StreamColumns + `, t.seq, t.kind, t.available, t.lease_end, t.attempts, t.failures, t.last_error, t.dead`
)

// Prefix returns where Scan puts a row. Call done after Scan.
func Prefix(p *state.Prefix) (targets []any, done func() error) {
	var source []byte
	targets = []any{
		&p.Seq, &p.Project, &p.Prefix, &p.Realm, (*[]byte)(&p.Secret), &p.OpNonce, &source,
		&instant{&p.Created},
		&instant{&p.Expires},
		&instant{&p.Deleted},
	}
	return targets, func() error { return damaged(json.Unmarshal(source, &p.Source)) }
}

// Stream is like Prefix, and sets the stream's Prefix.
func Stream(s *state.Stream) (targets []any, done func() error) {
	s.Prefix = new(state.Prefix)
	targets, prefixDone := Prefix(s.Prefix)
	var end sql.NullInt64
	var missing, replaced []byte
	a := &s.Archive
	targets = append(targets, &s.Seq, &s.ID, &s.Name, &s.ProtoVersion, &instant{&s.Created}, &instant{&s.Updated},
		&s.Phase, &end, &instant{&s.Ended}, &instant{&s.Purged}, &instant{&a.At}, &a.StreamURL, &a.StreamSize, &a.IndexURL, &a.IndexSize,
		&a.LastIndex, &a.EntryCount, &a.ContentSize, &a.Lines, &missing, &s.EndReason, &s.Descriptor, &replaced)
	return targets, func() error {
		if end.Valid {
			s.End = state.End{Known: true, Index: types.MessageIndex(end.Int64)}
		}
		if err := json.Unmarshal(missing, &s.Missing); err != nil {
			return damaged(err)
		}
		if err := json.Unmarshal(replaced, &s.Replaced); err != nil {
			return damaged(err)
		}
		s.Stored = s.Volume()
		return prefixDone()
	}
}

// Task is like Prefix, and sets the task's Stream.
func Task(t *state.Task) (targets []any, done func() error) {
	t.Stream = new(state.Stream)
	targets, done = Stream(t.Stream)
	return append(targets, &t.Seq, &t.Kind, &instant{&t.Available}, &instant{&t.LeaseEnd}, &t.Attempts, &t.Failures, &t.LastError,
		&instant{&t.Dead}), done
}

func damaged(err error) error {
	if err != nil {
		return fmt.Errorf("damaged row: %w", err)
	}
	return nil
}

// PrefixValues are project, prefix, realm, secret, op_nonce, source, created, expires.
func PrefixValues(p *state.Prefix) ([]any, error) {
	source, err := json.Marshal(p.Source)
	return []any{
		string(p.Project), string(p.Prefix), p.Realm, blob(p.Secret), blob(p.OpNonce), string(source), Micros(p.Created), Micros(p.Expires),
	}, err
}

// NewStreamValues are project, id, prefix, name, proto_version, created.
func NewStreamValues(s *state.Stream) []any {
	return []any{string(s.Prefix.Project), string(s.ID), s.Prefix.Seq, string(s.Name), s.ProtoVersion, Micros(s.Created)}
}

// StreamValues are what of a stream changes: updated, phase, end_index, ended, purged, archived, stream_url, stream_size, index_url,
// index_size, archived_index, entry_count, content_size, lines, missing, end_reason, descriptor, replaced.
func StreamValues(s *state.Stream) ([]any, error) {
	// Missing ranges are stored as JSON: [{"first":3,"last":5}].
	missing := []byte("[]")
	if len(s.Missing) > 0 {
		var err error
		if missing, err = json.Marshal(s.Missing); err != nil {
			return nil, err
		}
	}
	// Archives to be removed, too: [{"stream":"…","index":"…"}].
	replaced := []byte("[]")
	if len(s.Replaced) > 0 {
		var err error
		if replaced, err = json.Marshal(s.Replaced); err != nil {
			return nil, err
		}
	}
	var end any
	if s.End.Known {
		end = int64(s.End.Index)
	}
	a := &s.Archive
	return []any{
		Micros(s.Updated), int64(s.Phase), end, Micros(s.Ended), Micros(s.Purged), Micros(a.At), a.StreamURL, a.StreamSize, a.IndexURL,
		a.IndexSize, int64(a.LastIndex), a.EntryCount, a.ContentSize, a.Lines, string(missing), s.EndReason, blob(s.Descriptor),
		string(replaced),
	}, nil
}

// TokenColumns are the columns of a token.
const TokenColumns = `id, hash, name, scopes, created, expires, last_used` //nolint:gosec // these are names of columns

// Token is like Prefix.
func Token(t *state.Token) (targets []any, done func() error) {
	return []any{&t.ID, &t.Hash, &t.Name, &t.Scopes, &instant{&t.Created}, &instant{&t.Expires}, &instant{&t.LastUsed}}, nothing
}

// TokenValues are id, hash, name, scopes, created, expires, last_used.
func TokenValues(t *state.Token) []any {
	return []any{t.ID, blob(t.Hash), t.Name, string(t.Scopes), Micros(t.Created), Micros(t.Expires), Micros(t.LastUsed)}
}

// Lease is like Prefix, for name, holder and until.
func Lease(l *state.Lease) (targets []any, done func() error) {
	return []any{&l.Name, &l.Holder, &instant{&l.Until}}, nothing
}

// Folder is like Prefix, for segment, streams, newest, and whether it is a prefix and has folders.
func Folder(f *state.Folder) (targets []any, done func() error) {
	return []any{&f.Name, &f.Streams, &instant{&f.Newest}, &f.Prefix, &f.Folders}, nothing
}

func nothing() error { return nil }

// TaskValues are available, lease_end, attempts, failures, last_error, dead.
func TaskValues(t *state.Task) []any {
	return []any{Micros(t.Available), Micros(t.LeaseEnd), int64(t.Attempts), int64(t.Failures), t.LastError, Micros(t.Dead)}
}

// Micros is the stored form of a time; that of the zero time is NULL.
func Micros(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMicro()
}

// blob is never NULL.
func blob(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// instant scans a time; NULL is the zero time.
type instant struct{ t *time.Time }

// Scan implements sql.Scanner.
func (i *instant) Scan(src any) error {
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
