package state

import (
	"strings"
	"time"

	"github.com/daybook-dev/daybook/logs/types"
)

// PrefixQuery selects prefixes of a project that were not deleted, newest first.
type PrefixQuery struct {
	Project types.Project
	Prefix  Pattern
	// Since and Until are the times between which a prefix was registered, the first included.
	Since, Until time.Time
	// After is the place of the last prefix of the page before; the zero Position begins at the newest.
	After Position
	// Limit is the most prefixes wanted; it must be positive.
	Limit int
}

// Span returns the part of the listing that the query asks for.
func (q *PrefixQuery) Span() Span { return newSpan(q.Since, q.Until, q.After) }

// Match reports whether the query selects the prefix, wherever it lies.
func (q *PrefixQuery) Match(p *Prefix) bool { return p.Deleted.IsZero() && q.Prefix.Match(p.Prefix) }

// maxSegment is the longest segment of a prefix that is a folder. What lies in longer ones is found by other queries.
const maxSegment = 1000

// MaxFolderStreams is the most streams that are counted in a folder.
const MaxFolderStreams = 1000

// FolderQuery selects the folders directly within a folder, by name. The hierarchy is that of prefixes, to a depth of 16.
type FolderQuery struct {
	Project types.Project
	// Parent is the folder whose folders are wanted; empty for those at the top.
	Parent types.StreamName
	// After is the Name of the last folder of the page before.
	After string
	// Limit is the most folders wanted; it must be positive.
	Limit int
}

// Folder is a segment of prefixes.
type Folder struct {
	// Name is the segment, Path the whole name down to it.
	Name string
	Path types.StreamName
	// Streams counts the streams in and below the folder, also hidden ones, up to MaxFolderStreams.
	Streams int
	// Newest is when the newest of them was registered; zero if there is none.
	Newest time.Time
	// Prefix says that the folder itself is a prefix, and Folders that there are folders in it.
	Prefix, Folders bool
}

// FolderRow is a folder as stores keep it.
type FolderRow struct {
	// Parent and Label stand for the folder above and the folder itself; the label is also that of the streams below it.
	Parent, Label Label
	Segment       string
	Path          types.StreamName
}

// Folders returns the folders that the prefix lies in, the topmost first, and itself.
func (p *Prefix) Folders() []FolderRow {
	parent := folderLabel(p.Project, "")
	var rows []FolderRow
	for _, path := range folders(string(p.Prefix)) {
		segment := path[strings.LastIndexByte(path, '/')+1:]
		if len(segment) > maxSegment {
			break
		}
		r := FolderRow{Parent: parent, Label: folderLabel(p.Project, path), Segment: segment, Path: types.StreamName(path)}
		rows, parent = append(rows, r), r.Label
	}
	return rows
}

// Deep reports whether the prefix has more segments than folders. Of such prefixes the folders do not tell whether they are there.
func (p *Prefix) Deep() bool {
	rows := p.Folders()
	return len(rows) == 0 || rows[len(rows)-1].Path != p.Prefix
}

// Within returns the label of the folder in which the query looks.
func (q *FolderQuery) Within() Label { return folderLabel(q.Project, string(q.Parent)) }

// PathOf returns the whole name of a folder that the query found.
func (q *FolderQuery) PathOf(segment string) types.StreamName {
	if q.Parent == "" {
		return types.StreamName(segment)
	}
	return q.Parent + "/" + types.StreamName(segment)
}

// Usage is what a project holds.
type Usage struct {
	// Prefixes and Streams are those that are there, also hidden ones.
	Prefixes, Streams int64
	// Archived is the size of the archives.
	Archived Volume
}
