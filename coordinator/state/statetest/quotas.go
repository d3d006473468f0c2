package statetest

import (
	"testing"
	"time"

	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/logs/types"
)

// quotas checks what quotas ask: counts and sums of one project, since a time, up to a limit.
func quotas(t *testing.T, f *fixture) {
	counts := func(project types.Project, since time.Time, limit int64) (open, prefixes int64) {
		t.Helper()
		f.update(func(tx state.Tx) (err error) {
			if open, err = tx.OpenStreams(project, limit); err == nil {
				prefixes, err = tx.RecentPrefixes(project, since, limit)
			}
			return err
		})
		return open, prefixes
	}
	archived := func(project types.Project, since time.Time) int64 {
		t.Helper()
		n, err := f.ArchivedSince(t.Context(), project, since)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	open, prefixes := counts("local", now.Add(-time.Hour), 10)
	f.equal([]int64{open, prefixes, archived("local", time.Time{})}, []int64{0, 0, 0})

	var streams []*state.Stream
	for i, project := range []types.Project{"local", "local", "local", "other"} {
		p := f.addPrefix(project, types.StreamName(rune('a'+i)))
		streams = append(streams, f.addStream(p, "s"))
	}
	created := streams[0].Prefix.Created
	open, prefixes = counts("local", created, 10)
	f.equal([]int64{open, prefixes}, []int64{3, 3})
	open, prefixes = counts("local", created.Add(time.Microsecond), 2)
	f.equal([]int64{open, prefixes}, []int64{2, 0})
	open, prefixes = counts("nobody", created, 10)
	f.equal([]int64{open, prefixes}, []int64{0, 0})

	at := now.Add(time.Minute)
	for i, s := range []*state.Stream{streams[0], streams[1], streams[3]} {
		if _, err := s.SetArchive(at.Add(time.Duration(i)*time.Hour), state.Archive{StreamURL: "s", IndexURL: "i", LastIndex: 0, EntryCount: 1, ContentSize: int64(100 << i)}, nil, ""); err != nil {
			t.Fatal(err)
		}
		f.update(func(tx state.Tx) error { return tx.PutStream(s) })
	}
	open, _ = counts("local", created, 10)
	f.equal(open, int64(1))
	f.equal([]int64{
		archived("local", at), archived("local", at.Add(time.Microsecond)), archived("local", at.Add(2*time.Hour)), archived("other", at),
	}, []int64{300, 200, 0, 400})
}
