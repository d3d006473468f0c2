package state

import (
	"context"
	"math"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

// Window is the most streams that a search looks at. It bounds the time of a search that finds little among much, which goes on from
// where it stopped.
const Window = 2000

// ReadBytes is how many bytes of descriptors are read at once, and one more descriptor. What a search returns is about as large at most.
const ReadBytes = 8 << 20

// Position is a place in a listing of streams, newest first: that of a stream. The zero Position is the beginning.
type Position struct {
	Created time.Time
	Seq     int64
}

// Position returns the stream's place.
func (s *Stream) Position() Position { return Position{Created: s.Created, Seq: s.Seq} }

// IsZero reports whether p is the beginning.
func (p Position) IsZero() bool { return p.Seq == 0 && p.Created.IsZero() }

// StreamQuery selects streams of a project, newest first. Zero fields select everything.
type StreamQuery struct {
	Project      types.Project
	Prefix, Name Pattern
	// Tags must all be there; an empty value is any.
	Tags        map[string]string
	Type        *logpb.StreamType
	ContentType string
	// Phases are those wanted.
	Phases []Phase
	// Since and Until are the times between which a stream was created, the first included.
	Since, Until time.Time
	// Purged also selects streams that are hidden; OnlyPurged selects those that were purged, and no others.
	Purged, OnlyPurged bool

	// After is where the page before ended.
	After Position
	// Limit is the most streams wanted; it must be positive.
	Limit int
}

// Match reports whether the query selects the stream, wherever it lies.
func (q *StreamQuery) Match(s *Stream) bool {
	if s.Prefix.Project != q.Project || !q.Prefix.Match(s.Prefix.Prefix) || !q.Name.Match(s.Name) ||
		len(q.Phases) > 0 && !slices.Contains(q.Phases, s.Phase) || !q.Purged && !q.OnlyPurged && s.Hidden() || q.OnlyPurged && s.Purged.IsZero() {
		return false
	}
	if len(q.Tags) == 0 && q.Type == nil && q.ContentType == "" {
		return true
	}
	d := new(logpb.LogStreamDescriptor)
	if proto.Unmarshal(s.Descriptor, d) != nil {
		return false
	}
	for key, value := range q.Tags {
		if got, ok := d.GetTags()[key]; !ok || value != "" && value != got {
			return false
		}
	}
	return (q.Type == nil || *q.Type == d.GetStreamType()) && (q.ContentType == "" || q.ContentType == d.GetContentType())
}

// Path is a way through a database's index to the streams of a query, newest first: through one of these, or all of the project.
type Path struct {
	Prefix *types.StreamName
	Label  *Label
	Phase  *Phase
}

// Paths returns the ways to what the query selects. There is at least one.
func (q *StreamQuery) Paths() []Path {
	if prefix, ok := q.Prefix.Literal(); ok {
		return []Path{{Prefix: &prefix}} // few streams share one
	}
	var paths []Path
	for _, l := range q.labels() {
		paths = append(paths, Path{Label: &l})
	}
	if len(q.Phases) == 1 {
		paths = append(paths, Path{Phase: &q.Phases[0]})
	}
	if len(paths) == 0 {
		paths = append(paths, Path{})
	}
	return paths
}

// labels returns the labels that every selected stream has.
func (q *StreamQuery) labels() []Label {
	var labels []Label
	if name, ok := q.Name.Literal(); ok {
		labels = append(labels, nameLabel(q.Project, name))
	}
	if folder, ok := q.Prefix.folder(); ok {
		labels = append(labels, folderLabel(q.Project, folder))
	}
	for key, value := range q.Tags {
		labels = append(labels, tagLabel(q.Project, key, value))
	}
	if q.Type != nil {
		labels = append(labels, typeLabel(q.Project, *q.Type))
	}
	if q.ContentType != "" {
		labels = append(labels, contentLabel(q.Project, q.ContentType))
	}
	return compact(labels)
}

// Span is a part of a listing: from From, included, to Before, which is not.
type Span struct{ Before, From Position }

// Rest is what the query asks of streams beside the path to them, as far as a database can tell.
type Rest struct {
	Prefix, Name       Pattern
	Labels             []Label
	Phases             []Phase
	Purged, OnlyPurged bool
}

// Rest returns what the query asks beside the path.
func (q *StreamQuery) Rest(p Path) Rest {
	r := Rest{Prefix: q.Prefix, Name: q.Name, Labels: q.labels(), Phases: q.Phases, Purged: q.Purged, OnlyPurged: q.OnlyPurged}
	if p.Prefix != nil {
		r.Prefix = Pattern{}
	}
	if p.Label != nil {
		r.Labels = slices.DeleteFunc(r.Labels, func(l Label) bool { return l == *p.Label })
	}
	if p.Phase != nil {
		r.Phases = nil
	}
	if _, ok := r.Name.Literal(); ok {
		r.Name = Pattern{} // it has a label
	}
	return r
}

// Index is what a store gives Find to search with. Both methods go along the path, newest first.
type Index interface {
	// Edge returns the position of the nth stream of the span, or the zero Position if there are fewer.
	Edge(ctx context.Context, project types.Project, p Path, span Span, n int) (Position, error)
	// Read returns at most limit streams of the span that may be selected, in order. It stops behind the one with which their descriptors
	// have ReadBytes.
	Read(ctx context.Context, project types.Project, p Path, span Span, r Rest, limit int) ([]*Stream, error)
}

// Find searches for what the query selects, for stores. It takes the path on which the next Window streams reach furthest back, looks at
// these, and returns where to go on: the zero Position if there is nothing more.
func Find(ctx context.Context, index Index, q StreamQuery) (found []*Stream, next Position, err error) {
	all := q.Span()
	var path Path
	span := all
	for i, p := range q.Paths() {
		edge, err := index.Edge(ctx, q.Project, p, all, Window)
		if err != nil {
			return nil, Position{}, err
		}
		if edge.IsZero() {
			path, span, next = p, all, Position{}
			break
		}
		if i == 0 || edge.before(span.From) {
			path, span.From, next = p, edge, edge
		}
	}
	size := 0 // of the descriptors found
	for rest := q.Rest(path); ; {
		want := q.Limit - len(found)
		read, err := index.Read(ctx, q.Project, path, span, rest, want)
		if err != nil {
			return nil, Position{}, err
		}
		readSize := 0
		for _, s := range read {
			span.Before = s.Position()
			readSize += len(s.Descriptor)
			if err := ctx.Err(); err != nil { // a comparison may take a while
				return nil, Position{}, err
			}
			if q.Match(s) {
				found = append(found, s)
				size += len(s.Descriptor)
			}
		}
		if len(found) == q.Limit || size >= ReadBytes {
			return found, span.Before, nil
		}
		if len(read) < want && readSize < ReadBytes {
			return found, next, nil
		}
	}
}

// Span returns the part of the listing that the query asks for.
func (q *StreamQuery) Span() Span { return newSpan(q.Since, q.Until, q.After) }

func newSpan(since, until time.Time, after Position) Span {
	s := Span{Before: Position{Created: time.UnixMicro(math.MaxInt64).UTC()}, From: Position{Created: time.UnixMicro(math.MinInt64).UTC()}}
	if !until.IsZero() {
		s.Before = Position{Created: until}
	}
	if !after.IsZero() && after.before(s.Before) {
		s.Before = after
	}
	if !since.IsZero() {
		s.From = Position{Created: since}
	}
	return s
}

// before reports whether p is older than o.
func (p Position) before(o Position) bool {
	if c := p.Created.Compare(o.Created); c != 0 {
		return c < 0
	}
	return p.Seq < o.Seq
}
