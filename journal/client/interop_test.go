package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/auth"
	"github.com/daybook-dev/daybook/journal/client"
	pb "github.com/daybook-dev/daybook/journal/protocol"
)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantIs(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got error %v, want %v", err, want)
	}
}

func appendOf(journal string) *pb.AppendRequest { return &pb.AppendRequest{Journal: journal} }

// cached returns a configuration with a cache of routes, for a client in a zone.
func cached(zone string) client.DialConfig {
	return client.DialConfig{Zone: zone, Router: client.NewRouteCache(16, time.Minute)}
}

// Calls go through any broker first, and then to the one that serves them: appends to the primary, reads to the own zone.
func TestCallsFindTheirBroker(t *testing.T) {
	f := newFleet(t, nil, "east", "west", "west")
	f.add("acme/one", 1, 0)
	c := f.dial(2, cached("east"))
	content := strings.Repeat("0123456789abcdef", 300<<10) // More than a message may be, which is 4 MiB.
	for i, want := range []int{2, 1, 1} {
		resp, err := client.Append(t.Context(), c, appendOf("acme/one;meta"), strings.NewReader(content), strings.NewReader("\n"))
		check(t, err)
		if n := int64(len(content) + 1); resp.Commit.Begin != int64(i)*n || resp.Commit.End != int64(i+1)*n {
			t.Errorf("append %d: %v", i, resp.Commit)
		}
		if f.brokers[want].called("Append") != 1 {
			t.Errorf("append %d was not made to broker %d", i, want)
		}
	}
	for range 2 {
		r := client.NewReader(t.Context(), c, &pb.ReadRequest{Journal: "acme/one;other", DoNotProxy: true})
		got, err := io.ReadAll(r)
		wantIs(t, err, client.ErrOffsetNotYetAvailable)
		if string(got) != f.text("acme/one") || f.brokers[0].called("Read") != 1 || r.Response.WriteHead != int64(len(got)) {
			t.Errorf("%d bytes were read", len(got))
		}
	}
	for _, b := range f.brokers {
		if n := b.called("Read") + b.called("Append"); n != 0 {
			t.Errorf("%s had %d more calls", b.id, n)
		}
	}
}

// Without a cache the headers of responses say where a read goes on.
func TestRetryReaderFollowsRefusals(t *testing.T) {
	f := newFleet(t, nil, "east", "west")
	f.add("acme/one", 1)
	c := f.dial(0, client.DialConfig{})
	_, err := client.Append(t.Context(), c, appendOf("acme/one"), strings.NewReader("hello"))
	check(t, err)
	_, err = client.NewReader(t.Context(), c, &pb.ReadRequest{Journal: "acme/one", DoNotProxy: true}).Read(make([]byte, 9))
	wantIs(t, err, client.ErrNotJournalBroker)
	f.brokers[0].called("Read")

	rr := client.NewRetryReader(t.Context(), c, &pb.ReadRequest{Journal: "acme/one", DoNotProxy: true})
	defer rr.Cancel()
	got, err := io.ReadAll(rr)
	wantIs(t, err, client.ErrOffsetNotYetAvailable)
	if string(got) != "hello" || f.brokers[0].called("Read") != 1 || f.brokers[1].called("Read") != 1 {
		t.Errorf("%q", got)
	}

	tail := client.NewRetryReader(t.Context(), c, &pb.ReadRequest{Journal: "acme/one", Offset: -1, DoNotProxy: true})
	defer tail.Cancel()
	_, err = tail.Read(nil)
	wantIs(t, err, client.ErrOffsetJump)
	if tail.Offset() != 5 || f.brokers[0].called("Read") != 1 {
		t.Errorf("the tail is at %d", tail.Offset())
	}
}

// A tail does not begin at zero because a broker does not know yet what is in the stores.
func TestTailOfANewReplica(t *testing.T) {
	f := newFleet(t, nil, "east", "west")
	f.add("acme/one", 1)
	f.add("acme/empty", 1)
	for _, cfg := range []client.DialConfig{{}, cached("west")} {
		c := f.dial(0, cfg)
		_, err := client.Append(t.Context(), c, appendOf("acme/one"), strings.NewReader("hello"))
		check(t, err)
		f.edit("acme/one", func(j *gazetteJournal) { j.unlisted = true })
		for journal, want := range map[string]int64{"acme/one": int64(len(f.text("acme/one"))), "acme/empty": 0} {
			rr := client.NewRetryReader(t.Context(), c, &pb.ReadRequest{Journal: journal, Offset: -1, Block: true, DoNotProxy: true})
			_, err = rr.Read(nil)
			wantIs(t, err, client.ErrOffsetJump)
			if rr.Offset() != want || rr.Reader.Response.WriteHead != want {
				t.Errorf("the tail of %s is at %d instead of %d", journal, rr.Offset(), want)
			}
			rr.Cancel()
		}
	}
}

// A reader and a service go on when brokers die and their journals are given to others.
func TestFailover(t *testing.T) {
	f := newFleet(t, nil, "east", "east", "west", "west")
	f.add("acme/one", 1, 2)
	c := f.dial(0, cached("east"))
	s := client.NewAppendService(t.Context(), c)
	write := func(text string) {
		t.Helper()
		op := s.StartAppend(appendOf("acme/one"), nil)
		_, _ = op.Writer().WriteString(text)
		check(t, op.Release())
		check(t, op.Err())
	}
	rr := client.NewRetryReader(t.Context(), c, &pb.ReadRequest{Journal: "acme/one", Block: true, DoNotProxy: true})
	defer rr.Cancel()
	read := func(want string) {
		t.Helper()
		got := make([]byte, len(want))
		if _, err := io.ReadFull(rr, got); err != nil || string(got) != want {
			t.Fatalf("read %q instead of %q: %v", got, want, err)
		}
	}
	write("one,") // Now the cache has the primary.
	read("one,")
	f.brokers[1].stop() // The reader was in its own zone, which is this one.
	f.assign("acme/one", 2, 3)
	write("two,")
	read("two,")
	f.brokers[2].stop()
	f.assign("acme/one", 3)
	write("three,")
	read("three,")
	f.brokers[3].stop()
	f.assign("acme/one", 0) // Nobody is left of whom the client has heard.
	write("four")
	read("four")
	check(t, s.Close(t.Context()))
	if got := f.text("acme/one"); got != "one,two,three,four" {
		t.Errorf("the journal has %q", got)
	}
}

// What will pass is tried again, and what will not is told.
func TestStatusesOfAppends(t *testing.T) {
	f := newFleet(t, nil, "east")
	f.add("acme/one", 0)
	c := f.dial(0, cached("east"))
	refuse := func(s ...pb.Status) { f.edit("acme/one", func(j *gazetteJournal) { j.refuseAppends = s }) }
	for _, try := range []func() error{
		func() error {
			_, err := client.Append(t.Context(), c, appendOf("acme/one"), strings.NewReader("x"))
			return err
		},
		func() error {
			s := client.NewAppendService(t.Context(), c)
			op := s.StartAppend(appendOf("acme/one"), nil)
			_, _ = op.Writer().WriteString("x")
			err := errors.Join(op.Release(), op.Err())
			_ = s.Close(t.Context())
			return err
		},
	} {
		refuse(pb.Status_INSUFFICIENT_JOURNAL_BROKERS, pb.Status_NO_JOURNAL_PRIMARY_BROKER, pb.Status_NOT_JOURNAL_PRIMARY_BROKER)
		check(t, try())
		for s, want := range map[pb.Status]error{
			pb.Status_NOT_ALLOWED: client.ErrNotAllowed, pb.Status_INDEX_HAS_GREATER_OFFSET: client.ErrIndexHasGreaterOffset,
			pb.Status_FRAGMENT_STORE_UNHEALTHY: client.ErrFragmentStoreUnhealthy,
		} {
			refuse(s)
			wantIs(t, try(), want)
		}
		refuse()
		f.brokers[0].called("Append")
		f.edit("acme/one", func(j *gazetteJournal) { j.loseAnswers = 1 })
		check(t, try())
		if n := f.brokers[0].called("Append"); n != 2 {
			t.Errorf("%d calls; an answer that was lost means another one", n)
		}
	}
	if got := f.text("acme/one"); got != "xxxxxx" { // Three of each, of which one is there twice.
		t.Errorf("the journal has %q", got)
	}

	_, err := client.Append(t.Context(), c, appendOf("acme/none"))
	wantIs(t, err, client.ErrJournalNotFound)
	_, err = io.ReadAll(client.NewReader(t.Context(), c, &pb.ReadRequest{Journal: "acme/none"}))
	wantIs(t, err, client.ErrJournalNotFound)
	rr := client.NewRetryReader(t.Context(), c, &pb.ReadRequest{Journal: "acme/none"})
	defer rr.Cancel()
	_, err = io.ReadAll(rr)
	wantIs(t, err, client.ErrJournalNotFound)

	// A suspended journal refuses readers, and is resumed by an append, at first without success.
	f.edit("acme/one", func(j *gazetteJournal) {
		j.spec.Suspend = &pb.JournalSpec_Suspend{Level: pb.JournalSpec_Suspend_FULL, Offset: 4}
	})
	_, err = io.ReadAll(client.NewReader(t.Context(), c, &pb.ReadRequest{Journal: "acme/one"}))
	wantIs(t, err, client.ErrSuspended)
	_, err = client.Append(t.Context(), c, &pb.AppendRequest{Journal: "acme/one", Suspend: pb.AppendRequest_SUSPEND_NO_RESUME})
	wantIs(t, err, client.ErrSuspended)
	_, err = client.Append(t.Context(), c, appendOf("acme/one"))
	check(t, err)
}

// Registers and offsets make appends conditional.
func TestConditionalAppends(t *testing.T) {
	f := newFleet(t, nil, "east")
	f.add("acme/one", 0)
	c := f.dial(0, client.DialConfig{})
	take := func(check, set string) (*pb.AppendResponse, error) {
		req := &pb.AppendRequest{Journal: "acme/one", UnionRegisters: pb.MustLabelSet("author", set)}
		if check != "" {
			req.CheckRegisters = pb.Must(pb.ParseLabelSelector("author=" + check))
		}
		return client.Append(t.Context(), c, req, strings.NewReader(set+","))
	}
	resp, err := take("", "me")
	check(t, err)
	if got := resp.Registers.ValueOf("author"); got != "me" {
		t.Errorf("the author is %q", got)
	}
	_, err = take("me", "you")
	check(t, err)
	resp, err = take("me", "me")
	wantIs(t, err, client.ErrRegisterMismatch)
	if got := resp.Registers.ValueOf("author"); got != "you" || !strings.Contains(err.Error(), "author=you") {
		t.Errorf("%v: the author is %q", err, got)
	}
	_, err = client.Append(t.Context(), c, &pb.AppendRequest{Journal: "acme/one", Offset: 3}, strings.NewReader("x"))
	wantIs(t, err, client.ErrWrongAppendOffset)
	_, err = client.Append(t.Context(), c, &pb.AppendRequest{Journal: "acme/one", Offset: 7}, strings.NewReader("x"))
	check(t, err)
	if got := f.text("acme/one"); got != "me,you,x" {
		t.Errorf("the journal has %q", got)
	}
}

// Fragments are fetched from their store, what was deleted is jumped over, and the rest comes from the broker.
func TestFragmentsOfAStore(t *testing.T) {
	root := t.TempDir()
	defer client.InstallFileTransport(root)()
	f := newFleet(t, nil, "east", "west")
	f.add("acme/one", 0)
	f.edit("acme/one", func(j *gazetteJournal) {
		j.begin, j.content = 100, []byte("first,second,local")
		for i, text := range []string{"first,", "second,"} {
			begin := j.begin + int64(6*i)
			fr := &pb.Fragment{
				Journal: "acme/one", Begin: begin, End: begin + int64(len(text)), Sum: pb.SHA1SumOf([]byte(text)),
				CompressionCodec: pb.CompressionCodec_NONE, BackingStore: "file:///", ModTime: int64(1000 * (i + 1)),
			}
			name := filepath.Join(root, filepath.FromSlash(fr.ContentPath()))
			check(t, os.MkdirAll(filepath.Dir(name), 0o700))
			check(t, os.WriteFile(name, []byte(text), 0o600))
			j.fragments = append(j.fragments, &gazetteFragment{fr, "file:///" + fr.ContentPath()})
		}
	})
	c := f.dial(1, cached("east"))
	read := func(req *pb.ReadRequest) (text string, jumps int, end error) {
		rr := client.NewRetryReader(t.Context(), c, req)
		defer rr.Cancel()
		var b bytes.Buffer
		for {
			_, err := b.ReadFrom(rr)
			if !errors.Is(err, client.ErrOffsetJump) {
				return b.String(), jumps, err
			}
			jumps++
		}
	}
	for _, direct := range []bool{true, false} {
		for _, want := range []struct {
			req   *pb.ReadRequest
			text  string
			jumps int
			end   error
		}{
			{&pb.ReadRequest{}, "first,second,local", 1, client.ErrOffsetNotYetAvailable},
			{&pb.ReadRequest{Offset: 103}, "st,second,local", 0, client.ErrOffsetNotYetAvailable},
			{&pb.ReadRequest{Offset: 103, EndOffset: 110}, "st,seco", 0, nil},
			{&pb.ReadRequest{Offset: 100, BeginModTime: 1500}, "second,local", 1, client.ErrOffsetNotYetAvailable},
			{&pb.ReadRequest{Offset: -1}, "", 1, client.ErrOffsetNotYetAvailable},
			{&pb.ReadRequest{Offset: 50, EndOffset: 60}, "", 1, nil},
		} {
			want.req.Journal, want.req.DoNotProxy = "acme/one", direct
			text, jumps, end := read(want.req)
			if text != want.text || jumps != want.jumps || !errors.Is(end, want.end) {
				t.Errorf("%v: %q, %d jumps, %v", want.req, text, jumps, end)
			}
		}
	}
	all, err := client.ListAllFragments(t.Context(), c, &pb.FragmentsRequest{Journal: "acme/one", PageLimit: 1})
	if err != nil || len(all.Fragments) != 2 || all.Fragments[1].Spec.Begin != 106 {
		t.Errorf("%v, %v", all, err)
	}
}

// A token ends while a read blocks: the reader comes back with another one, and misses nothing.
func TestTokensEndDuringReads(t *testing.T) {
	keys := pb.Must(auth.ParseKeys("c2VjcmV0"))
	f := newFleet(t, keys, "east")
	f.add("acme/one", 0)
	a := &brief{keys: keys}
	c := f.dial(0, client.DialConfig{Authorizer: a})
	rr := client.NewRetryReader(t.Context(), c, &pb.ReadRequest{Journal: "acme/one", Block: true})
	defer rr.Cancel()
	got := make(chan string)
	go func() {
		b := make([]byte, 5)
		_, err := io.ReadFull(rr, b)
		got <- fmt.Sprintf("%s %v", b, err)
	}()
	for range 2 { // A read has begun, and another one has taken its place.
		<-f.brokers[0].reads
	}
	_, err := client.Append(auth.WithClaims(t.Context(), auth.ForJournal(auth.Append, "acme/one")), c, appendOf("acme/one"), strings.NewReader("hello"))
	check(t, err)
	if text := <-got; text != "hello <nil>" {
		t.Error(text)
	}
	// A token that cannot be had again is not a read that may be tried again.
	old := pb.Must(keys.Sign(auth.Claims{Capability: auth.All, Expires: time.Now().Add(-time.Minute)}))
	over := client.NewRetryReader(t.Context(), f.dial(0, client.DialConfig{Authorizer: auth.Token(old)}), &pb.ReadRequest{Journal: "acme/one"})
	defer over.Cancel()
	if _, err := over.Read(make([]byte, 1)); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("a token that is over: %v", err)
	}
	// Claims to another journal do not even tell whether this one exists.
	ctx := auth.WithClaims(t.Context(), auth.ForJournal(auth.Append, "acme/other"))
	_, err = client.Append(ctx, c, appendOf("acme/one"))
	wantIs(t, err, client.ErrJournalNotFound)
	ctx = auth.WithClaims(t.Context(), auth.ForJournal(auth.Read, "acme/one"))
	if _, err = client.Append(ctx, c, appendOf("acme/one")); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("a token to read: %v", err)
	}
}

// brief is an authorizer whose tokens for reads last a second.
type brief struct{ keys *auth.Keys }

func (b *brief) Authorize(ctx context.Context, c auth.Claims) (string, error) {
	if c.Capability == auth.Read {
		c.Issued, c.Expires = time.Now(), time.Now().Add(time.Second)
	}
	return b.keys.Authorize(ctx, c)
}
