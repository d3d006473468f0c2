package quarantine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/vfs"
	"github.com/daybook-dev/daybook/logs/envelope"
	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
)

func open(t *testing.T, fsys vfs.FS, o Options) *Store {
	t.Helper()
	o.FS = fsys
	s, err := Open("/quarantine", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func message(body string) Message {
	return Message{Body: []byte(body), About: &daybookv1.QuarantinedMessage{
		Journal: "j", Offset: 7, Project: "p", Prefix: "a/b",
		Refusals: []*daybookv1.Refusal{{Reason: "refused", Stream: "s", Entries: 3, Error: "no"}},
	}}
}

func keep(t *testing.T, s *Store, bodies ...string) []bool {
	t.Helper()
	var all []Message
	for _, b := range bodies {
		all = append(all, message(b))
	}
	fresh, err := s.Keep(all)
	if err != nil {
		t.Fatal(err)
	}
	return fresh
}

// wants checks what is kept, and that it can be read.
func wants(t *testing.T, s *Store, bodies ...string) {
	t.Helper()
	all, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, about := range all {
		m, err := s.Get(about.GetId())
		if err != nil {
			t.Fatal(err)
		}
		if about.GetSize() != int64(len(m.Body)) || about.GetRefusals()[0].GetError() != "no" || about.GetKept() == nil {
			t.Errorf("message %v", about)
		}
		got = append(got, string(m.Body))
	}
	if !slices.Equal(got, bodies) {
		t.Errorf("kept %.200q, want %.200q", got, bodies)
	}
}

func TestKeepListGetDrop(t *testing.T) {
	fsys := vfs.NewMem()
	s := open(t, fsys, Options{})
	if fresh := keep(t, s, "a", "b", "a"); !slices.Equal(fresh, []bool{true, true, false}) {
		t.Errorf("fresh: %v", fresh)
	}
	if fresh := keep(t, s, "b", "c"); !slices.Equal(fresh, []bool{false, true}) {
		t.Errorf("fresh: %v", fresh)
	}
	wants(t, s, "a", "b", "c")
	all, _ := s.List()
	if all[0].GetArrivals() != 2 || all[1].GetArrivals() != 2 || all[2].GetArrivals() != 1 {
		t.Errorf("arrivals: %v", all)
	}
	if n, err := s.Drop(2, 2, 99); n != 1 || err != nil {
		t.Error(n, err)
	}
	wants(t, s, "a", "c")
	if _, err := s.Get(2); !fault.Is(err, fault.NotFound) {
		t.Errorf("Get of what was dropped: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Keep([]Message{message("x")}); !fault.Is(err, fault.Transient) {
		t.Errorf("Keep after Close: %v", err)
	}

	s = open(t, fsys, Options{})
	wants(t, s, "a", "c")
	// What was dropped may come back, under another id.
	keep(t, s, "b")
	wants(t, s, "a", "c", "b")
	if all, _ := s.List(); all[2].GetId() != 4 {
		t.Errorf("ids are used twice: %v", all)
	}
}

func TestOldestGoFirst(t *testing.T) {
	fsys := vfs.NewMem()
	reg := prometheus.NewRegistry()
	s := open(t, fsys, Options{MaxMessages: 3, Registerer: reg})
	keep(t, s, "a", "b", "c", "d", "e")
	wants(t, s, "c", "d", "e")
	if s.Evicted() != 2 {
		t.Errorf("%d messages were evicted", s.Evicted())
	}
	s.Close()
	s = open(t, fsys, Options{MaxMessages: 3})
	wants(t, s, "c", "d", "e")
	s.Close()

	s = open(t, fsys, Options{MaxBytes: 1000})
	keep(t, s, strings.Repeat("x", 600), strings.Repeat("y", 601))
	wants(t, s, strings.Repeat("y", 601))
	if fresh := keep(t, s, strings.Repeat("z", 1000)); !fresh[0] {
		t.Error("a message that is too large is not known")
	}
	wants(t, s, strings.Repeat("y", 601)) // pushes nothing out
}

func TestFileStaysBounded(t *testing.T) {
	fsys := vfs.NewMem()
	const limit = 20_000
	s := open(t, fsys, Options{MaxBytes: limit})
	for i := range 1000 {
		keep(t, s, fmt.Sprintf("%0900d", i))
		if size, err := s.file.Size(); err != nil || size > 2*limit+2000 {
			t.Fatalf("the file has %d bytes, %v", size, err)
		}
	}
	before, err := s.List()
	if err != nil || len(before) < 15 {
		t.Fatal(len(before), err)
	}
	s.Close()
	s = open(t, fsys, Options{MaxBytes: limit})
	if after, err := s.List(); err != nil || len(after) != len(before) || after[0].GetId() != before[0].GetId() {
		t.Errorf("after a restart: %v, %v", after, err)
	}
	if _, err := s.Drop(s.ids()...); err != nil {
		t.Fatal(err)
	}
	wants(t, s)
	s.Close()
	s = open(t, fsys, Options{})
	keep(t, s, "x")
	if all, _ := s.List(); all[0].GetId() != 1001 {
		t.Errorf("ids are used twice: %v", all)
	}
}

func TestSendersCannotFillIt(t *testing.T) {
	s := open(t, vfs.NewMem(), Options{})
	m := message("x")
	m.About.Project, m.About.Prefix = strings.Repeat("é", 5000), strings.Repeat("x", 5000)
	for range 100 {
		m.About.Refusals = append(m.About.Refusals, &daybookv1.Refusal{Stream: strings.Repeat("s", 5000), Error: strings.Repeat("e", 5000)})
	}
	if _, err := s.Keep([]Message{m}); err != nil {
		t.Fatal(err)
	}
	all, err := s.List()
	if err != nil || len(all[0].GetRefusals()) != maxRefusals || all[0].GetRefused() != 101 || s.live > 10_000 {
		t.Errorf("%d bytes, %v, %v", s.live, all, err)
	}
}

// TestPowerLoss cuts the power at random. What Keep and Drop have returned for is as they said.
func TestPowerLoss(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		fsys := vfs.NewMem()
		s := open(t, fsys, Options{MaxBytes: 3000, MaxMessages: 10})
		for i := range 30 {
			if rnd.IntN(4) == 0 && len(s.slots) > 0 {
				if _, err := s.Drop(s.slots[rnd.IntN(len(s.slots))].id); err != nil {
					t.Fatal(err)
				}
				continue
			}
			keep(t, s, fmt.Sprintf("%d %s", i, strings.Repeat("x", rnd.IntN(500))))
		}
		want := s.ids()
		cut := fsys.Clone()
		cut.PowerLoss(rnd)
		again, err := Open("/quarantine", Options{FS: cut, MaxBytes: 3000, MaxMessages: 10})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if got := again.ids(); !slices.Equal(got, want) {
			t.Fatalf("seed %d: ids %v, want %v", seed, got, want)
		}
		again.Close()
		s.Close()
	}
}

func TestTornTail(t *testing.T) {
	fsys := vfs.NewMem()
	s := open(t, fsys, Options{})
	keep(t, s, "a", "b")
	whole := s.size
	for cut := int64(1); cut < s.slots[1].record.size(); cut++ {
		torn := fsys.Clone()
		f, err := torn.Open("/quarantine/" + fileName)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(whole - cut); err != nil {
			t.Fatal(err)
		}
		f.Close()
		s := open(t, torn, Options{})
		wants(t, s, "a")
		keep(t, s, "c")
		wants(t, s, "a", "c")
		s.Close()
	}
}

func TestForeignFiles(t *testing.T) {
	for name, content := range map[string][]byte{
		"short": []byte("x"), "foreign": bytes.Repeat([]byte("x"), 100), "empty": nil,
	} {
		fsys := vfs.NewMem()
		if err := fsys.MkdirAll("/quarantine"); err != nil {
			t.Fatal(err)
		}
		f, err := fsys.Create("/quarantine/" + fileName)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(content, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := Open("/quarantine", Options{FS: fsys}); !fault.Is(err, fault.DataLoss) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFailingDisk(t *testing.T) {
	mem := vfs.NewMem()
	s := open(t, mem, Options{})
	keep(t, s, "a")
	mem.Limit(mem.Used() + 100)
	if _, err := s.Keep([]Message{message(strings.Repeat("x", 1000))}); !fault.Is(err, fault.Transient) {
		t.Fatalf("a full disk: %v", err)
	}
	wants(t, s, "a")
	mem.Limit(0)
	keep(t, s, "b")
	wants(t, s, "a", "b")
	s.Close()
	wants(t, open(t, mem, Options{}), "a", "b")
}

func TestService(t *testing.T) {
	secret := types.NewPrefixSecret()
	store := open(t, vfs.NewMem(), Options{})
	msg, err := new(envelope.Writer).Append(nil, &logpb.ButlerLogBundle{
		Project: "p", Prefix: "a", Secret: secret, Entries: []*logpb.ButlerLogBundle_Entry{{DeprecatedEntrySecret: secret}},
	})
	if err != nil {
		t.Fatal(err)
	}
	keep(t, store, string(msg), "junk", "more")
	failure := fault.New(fault.Invalid, "still bad")
	var replayed []string
	denied := false
	s := &Service{
		Store: store,
		Authorize: func(context.Context) error {
			if denied {
				return fault.New(fault.Denied, "no")
			}
			return nil
		},
		Replay: func(_ context.Context, msg []byte) error {
			replayed = append(replayed, string(msg))
			if string(msg) == "junk" {
				return failure
			}
			return nil
		},
	}
	got, err := s.GetQuarantined(t.Context(), &daybookv1.GetQuarantinedRequest{Id: 1})
	if err != nil || got.GetBundle().GetProject() != "p" || got.GetSecretLength() != 36 {
		t.Errorf("%v, %v", got, err)
	}
	if strings.Contains(got.String(), string(secret)) || bytes.Contains([]byte(fmt.Sprint(got)), secret) || len(got.GetBundle().GetSecret()) > 0 ||
		len(got.GetBundle().GetEntries()[0].GetDeprecatedEntrySecret()) > 0 {
		t.Error("the secret is shown")
	}
	if got, err := s.GetQuarantined(t.Context(), &daybookv1.GetQuarantinedRequest{Id: 2}); err != nil || got.GetBundle() != nil || got.GetDecodeError() == "" {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := s.GetQuarantined(t.Context(), &daybookv1.GetQuarantinedRequest{Id: 9}); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}

	r, err := s.ReplayQuarantined(t.Context(), &daybookv1.ReplayQuarantinedRequest{})
	if err != nil || len(r.GetResults()) != 3 || !r.GetResults()[0].GetStored() || r.GetResults()[1].GetError() != "still bad" {
		t.Errorf("%v, %v", r, err)
	}
	if !slices.Equal(replayed, []string{string(msg), "junk", "more"}) {
		t.Errorf("replayed %q", replayed)
	}
	wants(t, store, "junk")
	r, err = s.ReplayQuarantined(t.Context(), &daybookv1.ReplayQuarantinedRequest{Ids: []int64{77}})
	if err != nil || r.GetResults()[0].GetStored() || r.GetResults()[0].GetError() == "" {
		t.Errorf("%v, %v", r, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.ReplayQuarantined(ctx, &daybookv1.ReplayQuarantinedRequest{}); !fault.Is(err, fault.Canceled) {
		t.Error(err)
	}

	for _, bad := range []*daybookv1.DropQuarantinedRequest{{}, {All: true, Ids: []int64{1}}} {
		if _, err := s.DropQuarantined(t.Context(), bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("%v: %v", bad, err)
		}
	}
	keep(t, store, "x")
	if d, err := s.DropQuarantined(t.Context(), &daybookv1.DropQuarantinedRequest{Ids: []int64{2}}); err != nil || d.GetDropped() != 1 {
		t.Error(d, err)
	}
	list, err := s.ListQuarantined(t.Context(), &daybookv1.ListQuarantinedRequest{})
	if err != nil || len(list.GetMessages()) != 1 {
		t.Error(list, err)
	}
	if d, err := s.DropQuarantined(t.Context(), &daybookv1.DropQuarantinedRequest{All: true}); err != nil || d.GetDropped() != 1 {
		t.Error(d, err)
	}

	denied = true
	_, err1 := s.ListQuarantined(t.Context(), nil)
	_, err2 := s.GetQuarantined(t.Context(), nil)
	_, err3 := s.ReplayQuarantined(t.Context(), nil)
	_, err4 := s.DropQuarantined(t.Context(), nil)
	for _, err := range []error{err1, err2, err3, err4} {
		if !fault.Is(err, fault.Denied) {
			t.Errorf("whoever may not: %v", err)
		}
	}
}

// FuzzOpen opens files that somebody else has written.
func FuzzOpen(f *testing.F) {
	mem := vfs.NewMem()
	s, err := Open("/quarantine", Options{FS: mem})
	if err != nil {
		f.Fatal(err)
	}
	if _, err := s.Keep([]Message{message("a"), message("b")}); err != nil {
		f.Fatal(err)
	}
	if _, err := s.Drop(1); err != nil {
		f.Fatal(err)
	}
	b := make([]byte, s.size)
	if _, err := s.file.ReadAt(b, 0); err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:40])
	f.Fuzz(func(t *testing.T, b []byte) {
		mem := vfs.NewMem()
		if err := mem.MkdirAll("/quarantine"); err != nil {
			t.Fatal(err)
		}
		file, err := mem.Create("/quarantine/" + fileName)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.WriteAt(b, 0); err != nil {
			t.Fatal(err)
		}
		s, err := Open("/quarantine", Options{FS: mem})
		if err != nil {
			return
		}
		defer s.Close()
		if _, err := s.List(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Keep([]Message{message("new")}); err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	})
}
