package output

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/logs/logpb"
)

// Split cuts a bundle whose serialized form is larger than limit into several that share its memory.
func Split(b *logpb.ButlerLogBundle, limit int) ([]*logpb.ButlerLogBundle, error) {
	if size := proto.Size(b); size <= limit {
		return []*logpb.ButlerLogBundle{b}, nil
	} else if len(b.GetEntries()) == 1 && len(b.Entries[0].GetLogs()) < 2 {
		return nil, fmt.Errorf("an entry of %q makes a bundle of %d bytes; at most %d are possible",
			b.Entries[0].GetDesc().GetName(), size, limit)
	}
	with := func(entries ...*logpb.ButlerLogBundle_Entry) *logpb.ButlerLogBundle {
		return &logpb.ButlerLogBundle{
			DeprecatedSource: b.DeprecatedSource, Timestamp: b.Timestamp, Project: b.Project, Prefix: b.Prefix, Secret: b.Secret, Entries: entries,
		}
	}
	var halves [2]*logpb.ButlerLogBundle
	if n := len(b.Entries); n > 1 {
		halves[0], halves[1] = with(b.Entries[:n/2]...), with(b.Entries[n/2:]...)
	} else {
		e := b.Entries[0]
		middle := len(e.Logs) / 2
		halves[0] = with(&logpb.ButlerLogBundle_Entry{Desc: e.Desc, Logs: e.Logs[:middle]})
		halves[1] = with(&logpb.ButlerLogBundle_Entry{
			Desc: e.Desc, Logs: e.Logs[middle:], Terminal: e.Terminal, TerminalIndex: e.TerminalIndex, Ended: e.Ended,
		})
	}
	var out []*logpb.ButlerLogBundle
	for _, h := range halves {
		parts, err := Split(h, limit)
		if err != nil {
			return nil, err
		}
		out = append(out, parts...)
	}
	return out, nil
}
