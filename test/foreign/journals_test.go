//go:build unix

package foreign

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protowire"
)

func selector(include ...object) object {
	return object{"selector": object{"include": object{"labels": include}, "exclude": object{}}}
}

func label(name, value string) object { return object{"name": name, "value": value} }

// snapshot reads one snapshot of a list, up to the mark that ends it if it is a watch.
func snapshot(t testing.TB, s *stream, watch bool) (names []string, head object) {
	t.Helper()
	for first := true; ; first = false {
		resp, err := s.recv()
		switch {
		case errors.Is(err, io.EOF) && !watch && !first:
			return names, head
		case err != nil:
			t.Fatal(err)
		case first:
			if head = resp.sub("header"); head == nil {
				t.Fatalf("a snapshot begins with %v", resp)
			}
		case resp.has("header"):
			t.Fatalf("a snapshot goes on with %v", resp)
		case len(resp.list("journals")) == 0 && watch:
			return names, head
		case len(resp.list("journals")) == 0:
			t.Fatal("a snapshot goes on with nothing")
		}
		for _, j := range resp.list("journals") {
			names = append(names, j.sub("spec").text("name"))
		}
	}
}

func TestListAndApply(t *testing.T) {
	t.Parallel()
	_, c := serve(t)
	var specs []object
	for i := range 60 { // three messages
		specs = append(specs, spec(fmt.Sprintf("many/journal-%02d", i), func(s, _ object) {
			s["labels"] = object{"labels": []object{label("app.gazette.dev/tag", fmt.Sprint("t", i%2))}}
		}))
	}
	c.create(specs...)
	list := func(req object) []string {
		names, _ := snapshot(t, c.start("List", req), false)
		return names
	}
	for what, test := range map[string]struct {
		req  object
		want int
	}{
		"a directory, in the old way": {selector(label("prefix", "many/")), 60},
		"a directory":                 {selector(object{"name": "name", "value": "many/", "prefix": true}), 60},
		"one":                         {selector(label("name", "many/journal-07")), 1},
		"a label":                     {selector(label("app.gazette.dev/tag", "t1")), 30},
		"either":                      {selector(label("name", "many/journal-01"), label("prefix", "many/journal-0/")), 1},
		"none":                        {selector(label("name", "many/none")), 0},
	} {
		if names := list(test.req); len(names) != test.want {
			t.Errorf("%s: %d journals, want %d", what, len(names), test.want)
		}
	}
	if all := list(object{}); len(all) < 60 {
		t.Errorf("everything is %d journals", len(all))
	}

	one := func(name string) object {
		resp, err := c.start("List", selector(label("name", name))).recv()
		if err != nil || len(resp.list("journals")) != 1 {
			t.Fatalf("list %s: %v, %v", name, resp, err)
		}
		return resp.list("journals")[0]
	}
	before := one("many/journal-07")
	if r := before.sub("route"); len(r.list("members")) == 0 || len(r.texts("endpoints")) == 0 {
		t.Errorf("the route is %v", r)
	}
	revision := before.num("mod_revision")
	changed := before.sub("spec")
	changed["replication"] = 3 // more than there are; appends are not to mind
	upsert := func(expect int) object {
		return object{"changes": []object{{"expect_mod_revision": expect, "upsert": changed}}}
	}
	c.must(etcdTransactionFailed, "Apply", upsert(0))
	c.must(etcdTransactionFailed, "Apply", upsert(revision+1000))
	applied := c.must(ok, "Apply", upsert(revision))
	after := one("many/journal-07")
	if after.sub("spec").num("replication") != 3 || after.num("create_revision") != before.num("create_revision") ||
		after.num("mod_revision") != applied.sub("header").sub("etcd").num("revision") {
		t.Errorf("after the change: %v", after)
	}
	// A client that goes on with the revision it was told finds what it changed.
	if _, metas := c.readAll(object{"journal": "many/journal-07", "min_etcd_revision": after.num("mod_revision")}); metas[0].num("status") != offsetNotYetAvailable {
		t.Errorf("read: %v", metas)
	}
	// All or nothing.
	c.must(etcdTransactionFailed, "Apply", object{"changes": []object{
		{"upsert": spec("many/another")}, {"expect_mod_revision": 1, "delete": "many/journal-07"},
	}})
	if names := list(selector(label("name", "many/another"))); len(names) != 0 {
		t.Error("half of a change was made")
	}
	c.must(ok, "Apply", object{"changes": []object{{"expect_mod_revision": after.num("mod_revision"), "delete": "many/journal-07"}}})
	c.must(ok, "Apply", object{"changes": []object{{"expect_mod_revision": -1, "delete": "many/journal-07"}}})
	c.must(ok, "Apply", object{})

	for what, change := range map[string]object{
		"a deletion of what is new":    {"delete": "many/journal-01"},
		"nothing":                      {},
		"both":                         {"upsert": spec("many/x"), "delete": "many/x"},
		"a wrong revision":             {"expect_mod_revision": -2, "upsert": spec("many/x")},
		"no replication":               {"upsert": spec("many/x", func(s, _ object) { s["replication"] = 0 })},
		"much replication":             {"upsert": spec("many/x", func(s, _ object) { s["replication"] = 6 })},
		"short fragments":              {"upsert": spec("many/x", func(_, f object) { f["length"] = 1023 })},
		"no codec":                     {"upsert": spec("many/x", func(_, f object) { delete(f, "compression_codec") })},
		"an unknown codec":             {"upsert": spec("many/x", func(_, f object) { f["compression_codec"] = 6 })},
		"no store":                     {"upsert": spec("many/x", func(_, f object) { f["stores"] = []string{"nowhere"} })},
		"a rate below nothing":         {"upsert": spec("many/x", func(s, _ object) { s["max_append_rate"] = -1 })},
		"flags of both kinds":          {"upsert": spec("many/x", func(s, _ object) { s["flags"] = 3 })},
		"a short flush":                {"upsert": spec("many/x", func(_, f object) { f["flush_interval"] = object{"seconds": 59} })},
		"labels that are not in order": {"upsert": spec("many/x", func(s, _ object) { s["labels"] = object{"labels": []object{label("zz", ""), label("aa", "")}} })},
		"the name as a label":          {"upsert": spec("many/x", func(s, _ object) { s["labels"] = object{"labels": []object{label("name", "x")}} })},
		"a broken template":            {"upsert": spec("many/x", func(_, f object) { f["path_postfix_template"] = "{{" })},
	} {
		_, err := c.invoke("Apply", object{"changes": []object{change}})
		c.refused(what, err, codes.InvalidArgument)
	}
	_, err := c.invoke("Apply", object{"changes": []object{{"upsert": spec("many/x")}, {"upsert": spec("many/x")}}})
	c.refused("one journal twice", err, codes.InvalidArgument)
}

func TestWatch(t *testing.T) {
	t.Parallel()
	server, c := serve(t)
	watched := selector(object{"name": "name", "value": "watched/", "prefix": true})
	watched["watch"] = true
	w := c.start("List", watched)
	names, head := snapshot(t, w, true)
	if len(names) != 0 {
		t.Fatalf("at first: %v", names)
	}
	c.create(spec("other/one"))
	c.create(spec("watched/one"))
	names, next := snapshot(t, w, true)
	if len(names) != 1 || next.sub("etcd").num("revision") <= head.sub("etcd").num("revision") {
		t.Fatalf("after the first: %v, %v after %v", names, next, head)
	}
	// A watch that was cut off goes on after what it saw, also at another process on the same data.
	server.Kill()
	if _, err := w.recv(); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("the watch of a server that died ends with %v", err)
	}
	server.Restart()
	c = dial(t, server.URL)
	watched["watch_resume"] = next
	w = c.start("List", watched)
	c.create(spec("watched/two"))
	names, last := snapshot(t, w, true)
	if len(names) != 2 || last.sub("etcd").num("revision") <= next.sub("etcd").num("revision") {
		t.Errorf("after the restart: %v, %v", names, last)
	}
	if last.sub("etcd").num("cluster_id") != next.sub("etcd").num("cluster_id") || last.sub("etcd").num("raft_term") == next.sub("etcd").num("raft_term") {
		t.Errorf("etcd %v after %v", last.sub("etcd"), next.sub("etcd"))
	}
}

func TestAppend(t *testing.T) {
	t.Parallel()
	_, c := serve(t)
	c.create(spec("acme/journal", func(s, _ object) { s["replication"] = 3 }), spec("acme/readonly", func(s, _ object) { s["flags"] = 1 }),
		spec("acme/writeonly", func(s, _ object) { s["flags"] = 2 }))

	resp := c.mustAppend("acme/journal", "hello, ", "world")
	commit := resp.sub("commit")
	if commit.num("begin") != 0 || commit.num("end") != 12 || commit.text("journal") != "acme/journal" || resp.num("total_chunks") != 3 {
		t.Errorf("the response is %v", resp)
	}
	// SHA-1 of the content, as big-endian numbers.
	if sum := commit.sub("sum"); uint64(sum.num("part1")) != 0xb7e23ec29af22b0b || uint64(sum.num("part2")) != 0x4e41da31e868d572 || uint64(sum.num("part3")) != 0x26121c84 {
		t.Errorf("the sum is %x", sum)
	}
	header := resp.sub("header")
	if r := header.sub("route"); len(r.list("members")) != 1 || r.num("primary") != 0 || len(r.texts("endpoints")) != 1 {
		t.Errorf("the route is %v", r)
	}
	// Nothing appended has a sum, too: that of nothing.
	if sum := c.mustAppend("acme/journal").sub("commit").sub("sum"); uint64(sum.num("part1")) != 0xda39a3ee5e6b4b0d {
		t.Errorf("the sum of nothing is %x", sum)
	}
	// Metadata in the name does not matter; the header of a peer that forwards is taken if it is for us.
	for what, test := range map[string]struct {
		opening object
		want    int
	}{
		"metadata":             {object{"journal": "acme/journal;a/reader"}, ok},
		"the header echoed":    {object{"journal": "acme/journal", "header": header}, ok},
		"a header for anybody": {object{"journal": "acme/journal", "header": object{"process_id": object{}, "route": header.sub("route"), "etcd": header.sub("etcd")}}, ok},
		"do not proxy":         {object{"journal": "acme/journal", "do_not_proxy": true}, ok},
		"a wrong offset":       {object{"journal": "acme/journal", "offset": 5}, wrongAppendOffset},
		"the last offset":      {object{"journal": "acme/journal", "offset": maxOffset}, wrongAppendOffset},
		"no journal":           {object{"journal": "acme/none"}, journalNotFound},
		"a journal to read":    {object{"journal": "acme/readonly"}, notAllowed},
	} {
		resp, err := c.append(test.opening, "1")
		if err != nil || resp.num("status") != test.want {
			t.Errorf("%s: %v, %v", what, resp, err)
		}
	}
	end := c.mustAppend("acme/journal").sub("commit").num("end")
	if resp, err := c.append(object{"journal": "acme/journal", "offset": end}, "2"); err != nil || resp.num("status") != ok || resp.sub("commit").num("begin") != end {
		t.Errorf("at the right offset: %v, %v", resp, err)
	}
	other := object{"process_id": object{}, "route": header.sub("route"), "etcd": object{"cluster_id": 1, "member_id": 1, "revision": 1, "raft_term": 1}}
	_, err := c.append(object{"journal": "acme/journal", "header": other}, "x")
	c.refused("the header of another cluster", err, codes.FailedPrecondition)
	stranger := object{"process_id": object{"zone": "a", "suffix": "stranger"}, "route": header.sub("route"), "etcd": header.sub("etcd")}
	_, err = c.append(object{"journal": "acme/journal", "header": stranger}, "x")
	c.refused("the header for another process", err, codes.FailedPrecondition)
	_, err = c.append(object{"journal": "acme/journal", "header": object{}}, "x")
	c.refused("an empty header", err, codes.InvalidArgument)

	// What a client does that gives up: it ends the stream without the empty message.
	for what, messages := range map[string][]object{
		"cut off":                 {{"journal": "acme/journal"}, {"content": []byte("x")}},
		"opened twice":            {{"journal": "acme/journal"}, {"journal": "acme/journal"}},
		"more after the commit":   {{"journal": "acme/journal"}, {}, {"content": []byte("x")}},
		"content in the opening":  {{"journal": "acme/journal", "content": []byte("x")}, {}},
		"an offset later":         {{"journal": "acme/journal"}, {"content": []byte("x"), "offset": 5}, {}},
		"registers without any":   {{"journal": "acme/journal", "union_registers": object{"labels": []object{label("aa", "b")}}}, {}},
		"a prefix for a register": {{"journal": "acme/journal", "union_registers": object{"labels": []object{{"name": "aa", "prefix": true}}}}, {}},
		"an unknown suspension":   {{"journal": "acme/journal", "suspend": 5}, {}},
		"a negative offset":       {{"journal": "acme/journal", "offset": -1}, {}},
		"nothing at all":          nil,
	} {
		s := c.open("Append")
		for _, m := range messages {
			s.send(m)
		}
		_ = s.CloseSend()
		if resp, err := s.recv(); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%s: %v, %v", what, resp, err)
		}
	}
	if got := c.mustAppend("acme/journal").sub("commit").num("end"); got != end+1 {
		t.Errorf("the head is %d, want %d: something was committed", got, end+1)
	}
	// A refusal comes before the content was sent, and does not break who sends it.
	s := c.open("Append")
	s.send(object{"journal": "acme/none"})
	if resp, err := s.recv(); err != nil || resp.num("status") != journalNotFound {
		t.Errorf("an early refusal: %v, %v", resp, err)
	}
	if _, metas := c.readAll(object{"journal": "acme/writeonly"}); metas[0].num("status") != notAllowed {
		t.Errorf("a journal to write is read: %v", metas)
	}
	c.mustAppend("acme/writeonly", "x")
	c.must(notAllowed, "ListFragments", object{"journal": "acme/writeonly"})
}

func TestRegisters(t *testing.T) {
	t.Parallel()
	server, c := serve(t)
	c.create(spec("acme/locked"))
	set := func(labels ...object) object { return object{"labels": labels} }
	check := func(include, exclude object) object { return object{"include": include, "exclude": exclude} }
	appendWith := func(want int, change object) object {
		t.Helper()
		change["journal"] = "acme/locked"
		resp, err := c.append(change, "x")
		if err != nil || resp.num("status") != want {
			t.Fatalf("append with %v: %v, %v", change, resp, err)
		}
		return resp.sub("registers")
	}
	appendWith(ok, object{"check_registers": check(set(label("owner", "me")), set())}) // of no registers, everything is true
	if got := appendWith(ok, object{"union_registers": set(label("owner", "me"), label("seq", "1"))}); len(got.list("labels")) != 2 {
		t.Errorf("registers %v", got)
	}
	appendWith(registerMismatch, object{"check_registers": check(set(label("owner", "you")), set())})
	appendWith(registerMismatch, object{"check_registers": check(set(), set(label("owner", "")))})
	server.Kill() // registers are as durable as content here
	server.Restart()
	c = dial(t, server.URL)
	if got := appendWith(registerMismatch, object{"check_registers": check(set(label("owner", "you")), set())}); len(got.list("labels")) != 2 {
		t.Errorf("registers after a restart: %v", got)
	}
	got := appendWith(ok, object{
		"check_registers": check(set(object{"name": "owner", "value": "m", "prefix": true}), set()), "subtract_registers": set(label("seq", "1")), "union_registers": set(label("owner", "you")),
	})
	if labels := got.list("labels"); len(labels) != 1 || labels[0].text("value") != "you" {
		t.Errorf("registers %v", got)
	}
	if got := appendWith(ok, object{"subtract_registers": set(label("owner", "you"))}); len(got.list("labels")) != 0 {
		t.Errorf("registers %v", got)
	}
}

func TestRead(t *testing.T) {
	t.Parallel()
	_, c := serve(t)
	c.create(spec("acme/journal"))
	content := strings.Repeat("0123456789", 20_000)
	half := len(content) / 2
	read := func(want string, status int, change object) []object {
		t.Helper()
		if !change.has("journal") {
			change["journal"] = "acme/journal"
		}
		got, metas := c.readAll(change)
		if got != want || metas[len(metas)-1].num("status") != status {
			t.Errorf("read %v: %d bytes, want %d; %v", change, len(got), len(want), metas)
		}
		return metas
	}
	if m := read("", offsetNotYetAvailable, object{}); m[0].num("write_head") != 0 {
		t.Errorf("of nothing: %v", m)
	}
	read("", offsetNotYetAvailable, object{"offset": -1})
	c.mustAppend("acme/journal", content[:half])
	c.mustAppend("acme/journal", content[half:])
	metas := read(content, offsetNotYetAvailable, object{})
	if last := metas[len(metas)-1]; last.num("offset") != len(content) || last.num("write_head") != len(content) {
		t.Errorf("at the end: %v", last)
	}
	read(content[7:], offsetNotYetAvailable, object{"offset": 7, "do_not_proxy": true})
	read(content[7:half+9], ok, object{"offset": 7, "end_offset": half + 9})
	read(content[7:half], ok, object{"offset": 7, "end_offset": half, "block": true})
	read(content[len(content)-1:], ok, object{"offset": len(content) - 1, "end_offset": len(content), "block": true})
	read("", ok, object{"offset": 7, "metadata_only": true})
	read("", ok, object{"offset": 7, "metadata_only": true, "block": true})
	read("", ok, object{"offset": 7, "end_offset": 7})
	if m := read("", offsetNotYetAvailable, object{"offset": -1, "metadata_only": true}); m[0].num("write_head") != len(content) {
		t.Errorf("of the head: %v", m)
	}
	if m := read("", offsetNotYetAvailable, object{"offset": 1 << 40}); m[0].num("offset") != 1<<40 {
		t.Errorf("beyond the head: %v", m)
	}
	read("", journalNotFound, object{"journal": "acme/none"})

	// Who waits at the head sees what comes, from where he began to wait, and is not told before.
	tail := c.start("Read", object{"journal": "acme/journal;tail", "offset": -1, "block": true})
	beyond := c.start("Read", object{"journal": "acme/journal", "offset": len(content) + 2, "block": true})
	c.blocked(2)
	c.mustAppend("acme/journal", "more")
	for what, s := range map[string]struct {
		*stream
		offset int
		want   string
	}{"tail": {tail, len(content), "more"}, "beyond": {beyond, len(content) + 2, "re"}} {
		meta, err := s.recv()
		if err != nil || meta.num("offset") != s.offset || meta.num("status") != ok {
			t.Fatalf("%s: %v, %v", what, meta, err)
		}
		if got, err := s.recv(); err != nil || string(got.bytes("content")) != s.want {
			t.Errorf("%s: %v, %v", what, got, err)
		}
	}
	// A journal that goes ends its readers; the next is told.
	c.must(ok, "Apply", object{"changes": []object{{"expect_mod_revision": -1, "delete": "acme/journal"}}})
	if resp, err := tail.recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the tail of a journal that goes ends with %v, %v", resp, err)
	}
	read("", journalNotFound, object{})
}

// blocked waits until so many reads wait for content.
func (c *client) blocked(n int) {
	c.t.Helper()
	await(c.t, fmt.Sprint(n, " blocked reads"), func() bool {
		return scrape(c.t, "http://"+strings.TrimPrefix(c.conn.Target(), "dns:///"))["daybook_journal_blocked_reads"] >= float64(n)
	})
}

func TestSuspension(t *testing.T) {
	t.Parallel()
	_, c := serve(t)
	c.create(spec("acme/sleepy"), spec("acme/empty"))
	const resume, noResume, ifFlushed, now, keep = 0, 1, 2, 3, 4
	appendAs := func(journal string, mode, want int, chunks ...string) {
		t.Helper()
		resp, err := c.append(object{"journal": journal, "suspend": mode}, chunks...)
		if err != nil || resp.num("status") != want {
			t.Fatalf("append to %s in mode %d: %v, %v; want %d", journal, mode, resp, err, want)
		}
	}
	level := func(journal string) int {
		resp, err := c.start("List", selector(label("name", journal))).recv()
		if err != nil {
			t.Fatal(err)
		}
		return resp.list("journals")[0].sub("spec").sub("suspend").num("level")
	}
	appendAs("acme/sleepy", resume, ok, "content")
	appendAs("acme/sleepy", ifFlushed, ok) // which is to say: not now
	appendAs("acme/sleepy", now, suspended)
	if l := level("acme/sleepy"); l != 1 {
		t.Errorf("level %d", l)
	}
	appendAs("acme/sleepy", now, suspended)
	appendAs("acme/sleepy", noResume, suspended)
	appendAs("acme/sleepy", keep, ok)
	if content, _ := c.readAll(object{"journal": "acme/sleepy"}); content != "content" {
		t.Errorf("a journal that sleeps has %q", content)
	}
	c.must(ok, "ListFragments", object{"journal": "acme/sleepy"})
	appendAs("acme/sleepy", resume, ok, "more")
	if content, _ := c.readAll(object{"journal": "acme/sleepy"}); content != "contentmore" || level("acme/sleepy") != 0 {
		t.Errorf("a journal that was woken has %q", content)
	}

	appendAs("acme/empty", ifFlushed, suspended)
	if l := level("acme/empty"); l != 2 {
		t.Errorf("level %d", l)
	}
	for _, mode := range []int{noResume, ifFlushed, now, keep} {
		appendAs("acme/empty", mode, suspended)
	}
	if _, metas := c.readAll(object{"journal": "acme/empty"}); metas[0].num("status") != suspended {
		t.Errorf("read: %v", metas)
	}
	c.must(suspended, "ListFragments", object{"journal": "acme/empty"})
	appendAs("acme/empty", resume, ok, "up")

	// What reset-head does: the head, and an append right there.
	_, metas := c.readAll(object{"journal": "acme/empty", "offset": -1, "metadata_only": true})
	resp, err := c.append(object{"journal": "acme/empty", "offset": metas[0].num("write_head"), "suspend": keep})
	if err != nil || resp.num("status") != ok {
		t.Errorf("reset the head: %v, %v", resp, err)
	}
}

// A peer of a cluster that replicates by itself is told that there is none here; an error, as Unavailable would be, is not to
// make it try again.
func TestReplicateIsRefused(t *testing.T) {
	t.Parallel()
	_, c := serve(t)
	c.create(spec("acme/journal"))
	header := c.mustAppend("acme/journal", "x").sub("header")
	s := c.start("Replicate", object{
		"header": header, "acknowledge": true,
		"proposal": object{"journal": "acme/journal", "sum": object{}, "compression_codec": 1},
	})
	_, err := s.recv()
	c.refused("Replicate", err, codes.Unimplemented)
	_, err = c.invoke("Apply", object{})
	if err != nil {
		t.Error(err)
	}
	var out []byte
	c.refused("an unknown method", c.conn.Invoke(c.ctx, "/protocol.Journal/Nothing", []byte{}, &out), codes.Unimplemented)
}

// Fields of newer clients, compressed messages, tokens that nobody demands, and content types of the same family are no reason
// to refuse a call.
func TestOddClients(t *testing.T) {
	t.Parallel()
	server, c := serve(t)
	c.create(spec("acme/journal"))
	c.mustAppend("acme/journal", "content")
	request := encode("ReadRequest", object{"journal": "acme/journal", "metadata_only": true})
	request = protowire.AppendString(protowire.AppendTag(request, 99, protowire.BytesType), "new")
	request = protowire.AppendVarint(protowire.AppendTag(request, 98, protowire.VarintType), 1<<40)
	for what, test := range map[string]struct {
		ctx  context.Context
		dial []grpc.DialOption
		call []grpc.CallOption
	}{
		"application/grpc":       {ctx: c.ctx},
		"application/grpc+proto": {ctx: c.ctx, call: []grpc.CallOption{grpc.ForceCodec(raw{"proto"})}},
		"compressed":             {ctx: c.ctx, call: []grpc.CallOption{grpc.UseCompressor(gzip.Name)}},
		"another authority":      {ctx: c.ctx, dial: []grpc.DialOption{grpc.WithAuthority("broker.example:8080")}},
		"a token":                {ctx: metadata.AppendToOutgoingContext(c.ctx, "authorization", "Bearer "+token8(t, []byte{0}, `{"cap":8,"exp":4102444800}`))},
		"an opaque token":        {ctx: metadata.AppendToOutgoingContext(c.ctx, "authorization", "Bearer opaque")},
	} {
		cc := dial(t, server.URL, test.dial...)
		s, err := cc.conn.NewStream(test.ctx, &grpc.StreamDesc{ServerStreams: true}, "/protocol.Journal/Read", test.call...)
		if err == nil {
			err = errors.Join(s.SendMsg(request), s.CloseSend())
		}
		var out []byte
		if err == nil {
			err = s.RecvMsg(&out)
		}
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if resp, err := cc.response("Read", out, true); err != nil || resp.num("status") != ok {
			t.Errorf("%s: %v", what, resp)
		}
	}
}

// Long calls of many clients share a connection with short ones.
func TestManyStreamsOfOneConnection(t *testing.T) {
	t.Parallel()
	_, c := serve(t)
	c.create(spec("acme/journal"))
	ctx, cancel := context.WithTimeout(c.ctx, time.Minute)
	defer cancel()
	var tails []*stream
	for range 500 {
		tails = append(tails, c.with(ctx).start("Read", object{"journal": "acme/journal", "block": true}))
	}
	c.blocked(500)
	c.mustAppend("acme/journal", "content")
	for _, s := range tails {
		if _, err := s.recv(); err != nil {
			t.Fatal(err)
		}
		if resp, err := s.recv(); err != nil || string(resp.bytes("content")) != "content" {
			t.Fatalf("%v, %v", resp, err)
		}
	}
}
