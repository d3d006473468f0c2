package client_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/client"
	pb "github.com/daybook-dev/daybook/journal/protocol"
)

// The child of TestKilledProcesses, which is this program again, is told by these what to do.
const (
	childBroker = "DAYBOOK_TEST_BROKER"
	childSpool  = "DAYBOOK_TEST_SPOOL"
	childRound  = "DAYBOOK_TEST_ROUND" // "last" to send what is there, and no more.
)

const (
	plainJournal  = "crash/plain"
	fencedJournal = "crash/fenced"
)

// Processes are killed at any moment between the start of an append and its acknowledgement. What they released arrives: in
// order, whole, and nothing else does. A batch may arrive twice, unless registers forbid it.
func TestKilledProcesses(t *testing.T) {
	f := newFleet(t, nil, "east")
	f.add(plainJournal, 0)
	f.add(fencedJournal, 0)
	// Without any registers no check would fail.
	f.edit(fencedJournal, func(j *gazetteJournal) { j.registers = pb.MustLabelSet("last", "none") })
	dir := t.TempDir()
	const rounds = 10
	released := map[string][]int{plainJournal: make([]int, rounds), fencedJournal: make([]int, rounds)} // As far as they told.
	for round := range rounds {
		if round%3 == 1 {
			for j := range released {
				f.edit(j, func(j *gazetteJournal) { j.loseAnswers = 2 })
			}
		}
		c, lines := startChild(t, f, dir, fmt.Sprint(round))
		// In some rounds the process dies while it is still sending what another one has left.
		for most := rand.IntN(100) * (round % 3); released[fencedJournal][round] < most || released[plainJournal][round] == 0; {
			line, ok := <-lines
			if !ok {
				t.Fatal("the child has ended")
			}
			noteRelease(t, released, round, line)
		}
		if _, err := client.OpenAppendService(t.Context(), nil, dir); !fault.Is(err, fault.Precondition) {
			t.Errorf("a directory in use was opened: %v", err)
		}
		check(t, c.Process.Kill())
		for line := range lines {
			noteRelease(t, released, round, line)
		}
		_ = c.Wait() // It was killed.
		if round%4 == 2 {
			tearTails(t, dir)
		}
	}
	c, lines := startChild(t, f, dir, "last")
	for line := range lines {
		t.Error(line)
	}
	check(t, c.Wait())
	if left, err := filepath.Glob(filepath.Join(dir, "*", "*.queued")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	for _, j := range []string{plainJournal, fencedJournal} {
		checkArrived(t, j, f.text(j), released[j])
	}
}

// startChild starts a process that appends, and tells its releases.
func startChild(t *testing.T, f *fleet, dir, round string) (*exec.Cmd, <-chan string) {
	t.Helper()
	c := exec.Command(os.Args[0], "-test.run=^TestAppendUntilKilled$", "-test.v=false")
	c.Env = append(os.Environ(), childBroker+"="+f.brokers[0].endpoint, childSpool+"="+dir, childRound+"="+round)
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	check(t, err)
	check(t, c.Start())
	lines := make(chan string)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			if s.Text() != "PASS" {
				lines <- s.Text()
			}
		}
	}()
	return c, lines
}

func noteRelease(t *testing.T, released map[string][]int, round int, line string) {
	t.Helper()
	journal, number, _ := strings.Cut(line, " ")
	n := 0
	if _, err := fmt.Sscan(number, &n); err != nil || released[journal] == nil || n != released[journal][round]+1 {
		t.Fatalf("the child says %q", line)
	}
	released[journal][round] = n
}

// tearTails gives files the ends that releases leave that were not finished.
func tearTails(t *testing.T, dir string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*", "*.queued"))
	check(t, err)
	for i, name := range names {
		file, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
		check(t, err)
		_, err = file.WriteString([]string{"\x00\x00\x00\x00\x00\x00\x00\x00torn", "\x09\x00\x00\x80abcdtorn", "\x01"}[i%3])
		check(t, errors.Join(err, file.Close()))
	}
}

// checkArrived checks a journal against what was released in each round: all that was told, and one more at most, of which nobody
// could tell any more.
func checkArrived(t *testing.T, journal, text string, released []int) {
	t.Helper()
	type line struct{ round, number int }
	var seen []line
	at := make(map[line]int)
	next, repeated := 0, 0 // next of a run of lines that are there again
	for l := range strings.Lines(text) {
		var got line
		var size int
		head, padding, _ := strings.Cut(strings.TrimSuffix(l, "\n"), ":")
		if _, err := fmt.Sscanf(head, "%d.%d.%d", &got.round, &got.number, &size); err != nil || len(padding) != size {
			t.Fatalf("%s has a line %.60q", journal, l)
		}
		place, again := at[got]
		switch {
		case !again && next != 0 && next != len(seen):
			t.Fatalf("%s: %v follows a repetition that ends early", journal, got)
		case !again:
			at[got], next = len(seen), 0
			seen = append(seen, got)
		case journal == fencedJournal:
			t.Fatalf("%s has %v twice", journal, got)
		case next != 0 && next != len(seen) && place != next:
			t.Fatalf("%s: %v is out of order", journal, got)
		default:
			next = place + 1
			repeated++
		}
	}
	i := 0
	for round, told := range released {
		n := 0
		for ; i < len(seen) && seen[i].round == round; i++ {
			if n++; seen[i].number != n {
				t.Fatalf("%s: %v instead of number %d", journal, seen[i], n)
			}
		}
		if n != told && n != told+1 {
			t.Errorf("%s: %d releases of round %d arrived of %d", journal, n, round, told)
		}
	}
	if i != len(seen) {
		t.Errorf("%s: %v is out of order", journal, seen[i])
	}
	t.Logf("%s: %d releases, %d of them more than once", journal, len(seen), repeated)
}

// TestAppendUntilKilled is the child.
func TestAppendUntilKilled(t *testing.T) {
	dir, round := os.Getenv(childSpool), os.Getenv(childRound)
	if dir == "" {
		return // This is not the child.
	}
	c, err := client.Dial(pb.Endpoint(os.Getenv(childBroker)), client.DialConfig{})
	check(t, err)
	s, err := client.OpenAppendService(t.Context(), c, dir, client.WithSpoolLimit(16<<20))
	check(t, err)
	if round == "last" {
		// What was made, but not acknowledged in time, is refused as it comes again.
		if err := s.Close(t.Context()); err != nil && !errors.Is(err, client.ErrRegisterMismatch) {
			t.Error(err)
		}
		check(t, c.Close())
		return
	}
	var work sync.WaitGroup
	work.Go(func() {
		for n := 1; n <= 1000; n++ {
			release(t, s, &pb.AppendRequest{Journal: plainJournal}, round, n)
		}
	})
	work.Go(func() {
		// Each append demands that it follows the one before it.
		for op := range s.PendingExcept(plainJournal) {
			<-op.Done()
		}
		resp, err := client.Append(t.Context(), c, &pb.AppendRequest{Journal: fencedJournal})
		check(t, err)
		last := resp.Registers.ValueOf("last")
		for n := 1; ; n++ {
			id := fmt.Sprint(round, "-", n)
			release(t, s, &pb.AppendRequest{
				Journal: fencedJournal, UnionRegisters: pb.MustLabelSet("last", id),
				CheckRegisters: &pb.LabelSelector{Include: pb.MustLabelSet("last", last)},
			}, round, n)
			last = id
		}
	})
	work.Wait()
}

// release makes one release, after one that is rolled back from time to time.
func release(t *testing.T, s *client.AppendService, req *pb.AppendRequest, round string, n int) {
	size := rand.IntN(100)
	if rand.IntN(8) == 0 {
		size = rand.IntN(40_000) // More than is written at once.
	}
	if err := s.WaitForRoom(context.Background(), 100_000); err != nil {
		t.Error(err)
	}
	if rand.IntN(5) == 0 {
		op := s.StartAppend(req, nil)
		_, _ = op.Writer().WriteString("never" + strings.Repeat("!", size))
		_ = op.Require(errors.New("rolled back")).Release()
	}
	op := s.StartAppend(req, nil)
	_, _ = fmt.Fprintf(op.Writer(), "%s.%d.%d:%s\n", round, n, size, strings.Repeat("x", size))
	if err := op.Release(); err != nil {
		t.Error(err)
		os.Exit(1)
	}
	fmt.Println(req.Journal, n)
}
