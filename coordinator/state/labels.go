package state

import (
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

// Label stands for a property of a stream that never goes away, in the index by which streams are found. It is a hash of the property: what a
// database finds by it is compared with what was asked for. Labels are stored, so how they are made does not change.
type Label int64

// maxFolders is how many folders of a prefix have labels, counted from the top.
const maxFolders = 16

func newLabel(project types.Project, kind byte, text ...string) Label {
	sum := sha256.Sum256([]byte(string(project) + "\x00" + string(kind) + strings.Join(text, "\x00")))
	return Label(binary.BigEndian.Uint64(sum[:])) // all bits are wanted, whatever their sign
}

func nameLabel(p types.Project, name types.StreamName) Label { return newLabel(p, 'n', string(name)) }
func folderLabel(p types.Project, folder string) Label       { return newLabel(p, 'f', folder) }
func contentLabel(p types.Project, content string) Label     { return newLabel(p, 'c', content) }
func typeLabel(p types.Project, t logpb.StreamType) Label    { return newLabel(p, 't', t.String()) }

// tagLabel stands for a tag. The empty value is any.
func tagLabel(p types.Project, key, value string) Label {
	if value == "" {
		return newLabel(p, 'k', key)
	}
	return newLabel(p, 'v', key, value)
}

// Labels returns the labels of the stream, each once.
func (s *Stream) Labels() []Label {
	project := s.Prefix.Project
	labels := []Label{nameLabel(project, s.Name)}
	for _, folder := range folders(string(s.Prefix.Prefix)) {
		labels = append(labels, folderLabel(project, folder))
	}
	d := new(logpb.LogStreamDescriptor)
	if proto.Unmarshal(s.Descriptor, d) == nil {
		labels = append(labels, typeLabel(project, d.GetStreamType()), contentLabel(project, d.GetContentType()))
	}
	return compact(append(labels, tagLabels(project, d)...))
}

// TagLabels returns the labels of the stream's tags, each once: those that may be added while it lives.
func (s *Stream) TagLabels() []Label {
	d := new(logpb.LogStreamDescriptor)
	if proto.Unmarshal(s.Descriptor, d) != nil {
		return nil
	}
	return compact(tagLabels(s.Prefix.Project, d))
}

func tagLabels(project types.Project, d *logpb.LogStreamDescriptor) []Label {
	var labels []Label
	for _, key := range slices.Sorted(maps.Keys(d.GetTags())) {
		labels = append(labels, tagLabel(project, key, ""))
		if value := d.GetTags()[key]; value != "" {
			labels = append(labels, tagLabel(project, key, value))
		}
	}
	return labels
}

func compact(labels []Label) []Label {
	slices.Sort(labels)
	return slices.Compact(labels)
}

// folders returns a, a/b and a/b/c for a/b/c, as far as they have labels.
func folders(prefix string) []string {
	var out []string
	for i := range len(prefix) {
		if prefix[i] == '/' && len(out) < maxFolders {
			out = append(out, prefix[:i])
		}
	}
	if len(out) < maxFolders {
		out = append(out, prefix)
	}
	return out
}

// folder returns the folder that all matches of the pattern lie in or are, and false if there is none.
func (p Pattern) folder() (string, bool) {
	if p.text == "" {
		return "", false
	}
	fixed, _, starred := strings.Cut(p.text, "*")
	if starred {
		i := strings.LastIndexByte(fixed, '/')
		if i < 0 {
			return "", false
		}
		fixed = fixed[:i]
	}
	all := folders(fixed)
	return all[len(all)-1], true
}
