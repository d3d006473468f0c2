package disklog

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/daybook-dev/daybook/internal/vfs"
	"github.com/daybook-dev/daybook/journal/broker/engine"
	"github.com/daybook-dev/daybook/journal/broker/engine/enginetest"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// script is a fixed sequence of operations in which everything happens, of which every moment is kept.
type script struct {
	t    *testing.T
	disk *vfs.Mem
	log  *Log

	mu      sync.Mutex
	op      int
	model   model
	moments []*moment
	points  map[string]int // by kind of operation and directory
}

func (s *script) hook(op vfs.Op, name string) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.moments = append(s.moments, &moment{op: s.op, what: string(op) + " " + name, disk: s.disk.Clone(), before: maps.Clone(s.model)})
	dir := strings.Split(strings.TrimPrefix(filepath.ToSlash(name), "/data/"), "/")[0]
	s.points[string(op)+" "+dir]++
	return 0, nil
}

// do does one thing, and notes in the model what has come of it.
func (s *script) do(run func() error, change func(model)) {
	s.t.Helper()
	if err := run(); err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if change != nil {
		change(s.model)
	}
	// Acknowledged, and nothing has happened since.
	s.moments = append(s.moments, &moment{op: s.op + 1, disk: s.disk.Clone(), before: maps.Clone(s.model)})
	for _, m := range s.moments {
		if m.op == s.op {
			m.after = maps.Clone(s.model)
		}
	}
	s.op++
}

func (s *script) apply(name protocol.Journal, remove bool) {
	s.t.Helper()
	c := &protocol.ApplyRequest_Change{Upsert: enginetest.Spec(name), ExpectModRevision: -1}
	if remove {
		c = &protocol.ApplyRequest_Change{Delete: string(name), ExpectModRevision: -1}
	}
	s.do(func() error {
		_, err := s.log.Apply(s.t.Context(), []*protocol.ApplyRequest_Change{c})
		return err
	}, func(m model) {
		if delete(m, name); !remove {
			m[name] = modelJournal{}
		}
	})
}

func (s *script) append(name protocol.Journal, size int, staged bool) {
	s.t.Helper()
	a := enginetest.Append(strings.Repeat(fmt.Sprint(s.op%10), size))
	content := a.Content
	a.Roll.Length = 500
	a.Union = protocol.MustLabelSet("op", fmt.Sprint(s.op))
	if staged {
		a.Content, a.Staged = nil, enginetest.Stage(s.t, s.log, content)
	}
	s.do(func() error {
		if _, err := s.log.Commit(s.t.Context(), name, a); err != nil || !staged {
			return err
		}
		return a.Staged.Close()
	}, func(m model) {
		j := m[name]
		j.content = append(slices.Clip(j.content), content...)
		j.registers = a.Union
		m[name] = j
	})
}

// shorten stores the first finished fragment, or drops it.
func (s *script) shorten(name protocol.Journal, store bool) {
	s.t.Helper()
	f := enginetest.State(s.t, s.log, name).Finished[0]
	stored := engine.StoredFragment{Fragment: f, Store: "file:///a/", Modified: 7}
	s.do(func() error {
		if store {
			return s.log.Stored(s.t.Context(), name, stored)
		}
		return s.log.Trim(s.t.Context(), name, f.End)
	}, func(m model) {
		j := m[name]
		if store {
			j.stored = append(slices.Clip(j.stored), stored)
		} else {
			j.begin, j.stored = int(f.End), nil
		}
		m[name] = j
	})
}

// TestCrashPoints kills the process, and cuts the power, before each single operation on the disk of a history in which everything
// happens, and after each acknowledgement.
func TestCrashPoints(t *testing.T) {
	s := &script{t: t, disk: vfs.NewMem(), model: model{}, points: make(map[string]int)}
	s.do(func() (err error) {
		s.log, err = Open(t.Context(), "/data", small(vfs.Inject(s.disk, s.hook)))
		return err
	}, nil)
	s.apply("test/a", false)
	s.apply("test/b", false)
	for range 4 {
		for range 4 {
			s.append("test/a", 100, false)
			s.append("test/b", 190, false) // the segments are 4 KiB long
			s.append("test/a", 400, false) // more than is in a record
		}
		s.append("test/b", 1000, true)
		s.append("test/b", 3500, true) // becomes a file as it is
		s.do(s.log.checkpoint, nil)
		s.shorten("test/a", true)
		s.shorten("test/b", false)
		s.do(s.log.checkpoint, nil)
		s.apply("test/c", false)
		s.append("test/c", 50, false)
		s.apply("test/c", true)
	}
	enginetest.Close(t, s.log)
	for _, point := range []string{
		"write journals", "write log", "sync log", "create log", "rename log", "syncdir log",
		"write staging", "sync staging", "sync journals", "rename journals", "syncdir journals", "truncate journals", "remove journals",
		"create checkpoint", "write checkpoint", "sync checkpoint", "rename checkpoint", "syncdir checkpoint", "remove checkpoint",
	} {
		if s.points[point] == 0 {
			t.Errorf("the history has no %q", point)
		}
	}
	random := rand.New(rand.NewPCG(1, 0))
	for i, m := range s.moments {
		if m.after == nil {
			m.after = m.before
		}
		for _, how := range []string{"kill", "power", "some power"} {
			if how == "some power" && i%3 != 0 {
				continue // TestPowerLoss does more of these
			}
			crash := &moment{op: m.op, disk: m.disk.Clone(), before: maps.Clone(m.before), after: maps.Clone(m.after)}
			switch how {
			case "power":
				crash.disk.PowerLoss(nil)
			case "some power":
				crash.disk.PowerLoss(random)
			}
			crash.check(named{t, fmt.Sprintf("moment %d of %d, %s %s", i, len(s.moments), m.what, how)}, t)
		}
	}
	t.Logf("%d moments; %v", len(s.moments), s.points)
}

// named says in failures where it is.
type named struct {
	*testing.T
	where string
}

func (n named) Fatalf(format string, args ...any) {
	n.Helper()
	n.T.Fatalf(n.where+": "+format, args...)
}

// TestTornTail cuts the log short, at every byte of its last records and at the end of every other: what is left is always whole
// appends, in order. What is behind the cut is not there, or zero, or anything.
func TestTornTail(t *testing.T) {
	disk, appends, segment := written(t)
	records := end(t, disk, segment)
	last := records[len(records)-1]
	cuts := slices.Clone(records[3:]) // the first three are the start and the two journals
	for cut := records[len(records)-4]; cut < last; cut++ {
		cuts = append(cuts, cut)
	}
	random := rand.NewChaCha8([32]byte{})
	for _, cut := range cuts {
		for _, how := range []string{"truncate", "zero", "garbage"} {
			d := disk.Clone()
			f, err := d.Open(segment)
			if err != nil {
				t.Fatal(err)
			}
			behind := make([]byte, last-cut)
			switch how {
			case "truncate":
				err = f.Truncate(cut)
			case "garbage":
				_, _ = random.Read(behind)
				fallthrough
			default:
				_, err = f.WriteAt(behind, cut)
			}
			if err != nil {
				t.Fatal(err)
			}
			l := open(t, "/data", small(d))
			got := enginetest.Content(t, l, "test/a")
			n := 0
			for n < len(appends) && len(strings.Join(appends[:n], "")) < len(got) {
				n++
			}
			whole := 0 // records of test/a before the cut
			for i, r := range records[3 : len(records)-1] {
				if r < records[i+4] && records[i+4] <= cut && !isOther(i) {
					whole++
				}
			}
			if !bytes.Equal(got, []byte(strings.Join(appends[:n], ""))) || n < whole {
				t.Fatalf("%s at %d: %d appends, %d were whole: %q", how, cut, n, whole, got)
			}
			res := enginetest.Must(t, l, "test/a", enginetest.Append("go on"))
			if int(res.Begin) != len(got) {
				t.Fatalf("%s at %d: goes on at %d after %d", how, cut, res.Begin, len(got))
			}
			enginetest.Close(t, l)
		}
	}
}

// isOther reports whether record i of those that written makes is of the other journal.
func isOther(i int) bool { return i < 12 && i%2 == 1 }
