package broker_test

import (
	"bytes"
	"crypto/sha1"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/daybook-dev/daybook/journal/broker/engine/disklog"
	"github.com/daybook-dev/daybook/journal/protocol"
)

var (
	soak     = flag.Duration("soak", time.Second, "how long TestSoak runs")
	soakSeed = flag.Uint64("soak-seed", 0, "seed of TestSoak; 0 draws one")
)

// model is what a journal must be: a simple one, in memory.
type model struct {
	mu        sync.Mutex
	content   []byte
	registers string // the value of the label "turn"
	trimmed   int64  // content below may be gone
}

// soaking is a soak on its way.
type soaking struct {
	*cluster
	models [6]*model
}

func (s *soaking) name(i int) string { return fmt.Sprintf("soak/journal-%d", i) }

// TestSoak does what clients do, at random and many at a time, restarts the broker now and then, and compares it with a model
// all the while.
func TestSoak(t *testing.T) {
	seed := *soakSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-soak-seed %d", seed)
	dir := t.TempDir()
	opts := disklog.Options{SegmentSize: 4 << 20, OpenFiles: 4, CheckpointInterval: 200 * time.Millisecond}
	s := &soaking{cluster: start(t, dir, opts)}
	var changes []*protocol.ApplyRequest_Change
	for i := range s.models {
		s.models[i] = new(model)
		sp := spec(s.name(i))
		sp.Fragment.Length = 64 << 10 // so that fragments are finished all the time
		changes = append(changes, &protocol.ApplyRequest_Change{Upsert: sp})
	}
	s.apply(changes...)
	for round, end := uint64(0), time.Now().Add(*soak); round == 0 || time.Now().Before(end); round++ {
		var wg sync.WaitGroup
		for w := range uint64(8) {
			random := rand.New(rand.NewPCG(seed, round<<8|w))
			wg.Go(func() {
				for range 30 {
					s.step(random)
				}
			})
		}
		wg.Wait()
		for i := range s.models {
			s.verify(i)
		}
		if t.Failed() {
			break
		}
		s.stop()
		s.cluster = start(t, dir, opts)
	}
	for i := range s.models {
		s.verify(i)
	}
	s.stop()
}

// step does one thing to one journal.
func (s *soaking) step(random *rand.Rand) {
	i := random.IntN(len(s.models))
	m := s.models[i]
	// One client at a time per journal, so that the model knows what comes of it; the journals are concurrent.
	m.mu.Lock()
	defer m.mu.Unlock()
	switch n := random.IntN(100); {
	case n < 50:
		s.appendSome(random, i, 1+random.IntN(4<<10))
	case n < 60:
		s.appendSome(random, i, 1+random.IntN(300<<10))
	case n < 62:
		s.appendSome(random, i, 1<<20+random.IntN(2<<20))
	case n < 65:
		s.appendSome(random, i, 0)
	case n < 72:
		s.refused(random, i)
	case n < 75:
		m.trimmed = max(m.trimmed, random.Int64N(int64(len(m.content))+1))
		if err := s.broker.Trim(s.t.Context(), protocol.Journal(s.name(i)), protocol.Offset(m.trimmed)); err != nil {
			s.t.Error(err)
		}
	default:
		s.readSome(random, i)
	}
}

func (s *soaking) appendSome(random *rand.Rand, i, size int) {
	m := s.models[i]
	content := make([]byte, size)
	for k := range content {
		content[k] = byte(random.Uint32())
	}
	req := &protocol.AppendRequest{Journal: s.name(i)}
	turn := m.registers
	if size > 0 && random.IntN(3) == 0 {
		turn = fmt.Sprint(random.Uint32())
		req.UnionRegisters = protocol.MustLabelSet("turn", turn)
	}
	if m.registers != "" && random.IntN(3) == 0 {
		req.CheckRegisters = &protocol.LabelSelector{Include: protocol.MustLabelSet("turn", m.registers)}
	}
	if random.IntN(3) == 0 {
		req.Offset = int64(len(m.content))
	}
	var chunks []string
	for rest := content; len(rest) > 0; {
		n := min(len(rest), 1+random.IntN(200<<10))
		chunks, rest = append(chunks, string(rest[:n])), rest[n:]
	}
	resp, err := s.append(req, chunks...)
	if err != nil || resp.GetStatus() != protocol.Status_OK {
		s.t.Errorf("append to %s: %v, %v", s.name(i), resp, err)
		return
	}
	commit := resp.GetCommit()
	if commit.GetBegin() != int64(len(m.content)) || commit.GetEnd() != int64(len(m.content)+size) || commit.GetSum().ToDigest() != sha1.Sum(content) {
		s.t.Errorf("%d bytes at %d landed at %v", size, len(m.content), commit)
	}
	if size > 0 {
		m.registers = turn
	}
	if got := resp.GetRegisters().ValuesOf("turn"); m.registers != "" && (len(got) != 1 || got[0] != m.registers) {
		s.t.Errorf("registers %v, want %s", resp.GetRegisters(), m.registers)
	}
	m.content = append(m.content, content...)
}

// refused appends what must change nothing.
func (s *soaking) refused(random *rand.Rand, i int) {
	m := s.models[i]
	req := &protocol.AppendRequest{Journal: s.name(i)}
	want := protocol.Status_WRONG_APPEND_OFFSET
	if m.registers != "" && random.IntN(2) == 0 {
		req.CheckRegisters = &protocol.LabelSelector{Include: protocol.MustLabelSet("turn", "another")}
		want = protocol.Status_REGISTER_MISMATCH
	} else {
		req.Offset = int64(len(m.content)) + 1 + random.Int64N(100)
	}
	if resp, err := s.append(req, "refused"); err != nil || resp.GetStatus() != want {
		s.t.Errorf("%v, %v; want %v", resp, err, want)
	}
}

// readSome reads a range.
func (s *soaking) readSome(random *rand.Rand, i int) {
	m := s.models[i]
	if len(m.content) == 0 {
		return
	}
	begin := random.Int64N(int64(len(m.content)))
	end := begin + 1 + random.Int64N(min(int64(len(m.content))-begin, 500<<10))
	s.compare(i, begin, end, []int32{0, 100_000, 1 << 20}[random.IntN(3)])
}

// verify reads everything. No client is at work.
func (s *soaking) verify(i int) {
	m := s.models[i]
	if len(m.content) > 0 {
		s.compare(i, 0, int64(len(m.content)), 0)
	}
	if _, metas := s.read(&protocol.ReadRequest{Journal: s.name(i), Offset: -1}, 0); metas[0].GetWriteHead() != int64(len(m.content)) {
		s.t.Errorf("%s ends at %v, want %d", s.name(i), metas, len(m.content))
	}
}

// compare reads a range, of which the beginning may have been trimmed, and compares.
func (s *soaking) compare(i int, begin, end int64, chunk int32) {
	m := s.models[i]
	got, metas := s.read(&protocol.ReadRequest{Journal: s.name(i), Offset: begin, EndOffset: end, MaxContent: chunk}, 0)
	from := metas[0].GetOffset()
	switch {
	case from < begin || from > max(begin, m.trimmed):
		s.t.Errorf("%s read at %d begins at %d; trimmed below %d", s.name(i), begin, from, m.trimmed)
	case from >= end:
		if len(got) != 0 {
			s.t.Errorf("%s read in [%d, %d): %d bytes from %d on", s.name(i), begin, end, len(got), from)
		}
	case !bytes.Equal(got, m.content[from:end]):
		s.t.Errorf("%s read in [%d, %d): content differs", s.name(i), from, end)
	}
}
