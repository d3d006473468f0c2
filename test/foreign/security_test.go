//go:build unix

package foreign

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
)

// call sends bytes as they are, and returns what the first response or error is.
func (c *client) call(method string, request []byte, opts ...grpc.CallOption) error {
	s, err := c.conn.NewStream(c.ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/protocol.Journal/"+method, opts...)
	if err != nil {
		return err
	}
	_ = s.SendMsg(request)
	_ = s.CloseSend()
	var out []byte
	return s.RecvMsg(&out)
}

var methods = []string{"List", "Apply", "Read", "Append", "Replicate", "ListFragments", "FragmentStoreHealth"}

// What no client of good will sends is refused with a code that tells whose fault it is, costs the server little, and leaves it
// in good order.
func TestHostileClients(t *testing.T) {
	t.Parallel()
	server, c := serve(t)
	c.create(spec("acme/journal"))
	c.mustAppend("acme/journal", "content")

	// Bytes that are no message.
	deep := []byte{}
	for range 20_000 { // messages within messages
		deep = protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), deep[:min(len(deep), 60_000)])
	}
	for what, b := range map[string][]byte{
		"a length beyond the end": {0x0a, 0xff, 0xff, 0xff, 0xff, 0x07},
		"an endless number":       bytes.Repeat([]byte{0xff}, 100),
		"an unended group":        {0x0b},
		"field zero":              {0x02, 0x00},
	} {
		for _, method := range methods {
			if err := c.call(method, b); status.Code(err) == codes.OK || status.Code(err) == codes.Unavailable || status.Code(err) == codes.Unknown {
				t.Errorf("%s to %s: %v", what, method, err)
			}
		}
	}
	for _, method := range methods {
		if err := c.call(method, deep); status.Code(err) == codes.Unavailable {
			t.Errorf("deep to %s: %v", method, err)
		}
	}
	for _, name := range []string{
		"../../etc/passwd", "acme/../journal", "/acme/journal", "acme//journal", "acme/journal/", "acme/journal;a;b", "acme/journal;../x", "acme\x00journal",
		"acme/journal\n", "acme/#journal", "\xff\xfe\xfd\xfc", "..", "../x", strings.Repeat("x", 513),
	} {
		for method, req := range map[string]object{
			"Read": {"journal": name}, "ListFragments": {"journal": name}, "Append": {"journal": name},
			"Apply": {"changes": []object{{"expect_mod_revision": -1, "delete": name}}},
		} {
			// A string that is not UTF-8 is not even a message.
			if err := c.call(method, encode(requestOf(method), req)); status.Code(err) != codes.InvalidArgument && (name[0] != 0xff || status.Code(err) != codes.Internal) {
				t.Errorf("%s of %q: %v", method, name, err)
			}
		}
		_, err := c.invoke("Apply", object{"changes": []object{{"upsert": spec(name)}}})
		c.refused(fmt.Sprintf("Apply of %q", name), err, codes.InvalidArgument, codes.Internal)
	}
	// Numbers at their ends.
	for _, offset := range []int{math.MinInt64, math.MinInt64 + 1, -2} {
		c.refused("read", c.call("Read", encode("ReadRequest", object{"journal": "acme/journal", "offset": offset})), codes.InvalidArgument)
		c.refused("append", c.call("Append", encode("AppendRequest", object{"journal": "acme/journal", "offset": offset})), codes.InvalidArgument)
		c.refused("list fragments", c.call("ListFragments", encode("FragmentsRequest", object{"journal": "acme/journal", "next_page_token": offset})), codes.InvalidArgument)
	}
	if _, metas := c.readAll(object{"journal": "acme/journal", "offset": maxOffset, "end_offset": maxOffset}); metas[0].num("status") != offsetNotYetAvailable {
		t.Errorf("read at the last offset: %v", metas)
	}
	if got, _ := c.readAll(object{"journal": "acme/journal", "end_offset": maxOffset, "begin_mod_time": math.MinInt64}); got != "content" {
		t.Errorf("read everything since ever: %q", got)
	}
	c.refused("a revision that will not come", c.call("Read", encode("ReadRequest", object{"journal": "acme/journal", "min_etcd_revision": maxOffset})), codes.OutOfRange)
	for what, f := range map[string]func(s, f object){
		"a fragment of all lengths": func(_, f object) { f["length"] = math.MaxInt64 },
		"an offset below zero":      func(s, _ object) { s["suspend"] = object{"offset": -1} },
		"an endless refresh":        func(_, f object) { f["refresh_interval"] = object{"seconds": math.MaxInt64} },
		"a duration that is none":   func(_, f object) { f["flush_interval"] = object{"seconds": 60, "nanos": -5} },
		"a template without end":    func(_, f object) { f["path_postfix_template"] = `{{range $i := .Name}}{{end}}{{template "x"}}` },
		"a template of a novel":     func(_, f object) { f["path_postfix_template"] = strings.Repeat("x", 100_000) },
		"many stores":               func(_, f object) { f["stores"] = strings.Split(strings.Repeat("file:///x/ ", 10_000)+"file:///", " ") },
	} {
		_, err := c.invoke("Apply", object{"changes": []object{{"upsert": spec("acme/odd", f)}}})
		c.refused(what, err, codes.InvalidArgument)
	}

	// Much of everything.
	var labels []object
	for i := range 30_000 {
		labels = append(labels, label(fmt.Sprintf("label-%06d", i), strings.Repeat("x", 100)))
	}
	many := object{"labels": labels}
	c.refused("a selector of many labels", c.call("List", encode("ListRequest", object{"selector": object{"include": many}})), codes.InvalidArgument)
	c.refused("a check of many registers", c.call("Append", encode("AppendRequest", object{"journal": "acme/journal", "check_registers": object{"include": many}})), codes.InvalidArgument)
	c.refused("many registers", c.call("Append", encode("AppendRequest", object{"journal": "acme/journal", "union_registers": many})), codes.InvalidArgument)
	c.refused("an entry that is not small", c.call("List", make([]byte, 65<<20), grpc.MaxCallSendMsgSize(1<<30)), codes.ResourceExhausted)
	bomb := metadata.AppendToOutgoingContext(c.ctx, "x-bomb", strings.Repeat("b", 1<<20))
	if err := c.with(bomb).call("List", nil); status.Code(err) == codes.OK {
		t.Error("a bomb of headers is taken")
	}

	// Selectors that would take a matcher long that tries everything: they are sets, matched one by one.
	var alike []object
	for i := range 250 {
		alike = append(alike, object{"name": "aa", "value": strings.Repeat("a", i+1), "prefix": true})
	}
	for range 50 {
		if err := c.call("List", encode("ListRequest", object{"selector": object{"include": object{"labels": alike}}})); err != nil {
			t.Fatal(err)
		}
	}

	// Streams that are opened, and then nothing; then those that go away.
	ctx, cancel := context.WithCancel(c.ctx)
	for range 1000 {
		if _, err := c.with(ctx).conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/protocol.Journal/Append"); err != nil {
			t.Fatal(err)
		}
		c.with(ctx).start("Read", object{"journal": "acme/journal", "offset": 7, "block": true})
	}
	c.blocked(1000)
	c.mustAppend("acme/journal", "!")
	cancel()
	base := server.URL
	await(t, "the end of what was canceled", func() bool {
		got := scrape(t, base)
		return got["daybook_journal_blocked_reads"] <= 1 &&
			got[`gazette_journal_server_started_totals{operation="Append"}`] == got[`gazette_journal_server_completed_totals{operation="Append",status="ok"}`]+
				got[`gazette_journal_server_completed_totals{operation="Append",status="<error>"}`]
	})
	if got, _ := c.readAll(object{"journal": "acme/journal"}); got != "content!" {
		t.Errorf("the journal has %q", got)
	}
	s := c.start("List", object{})
	if names, _ := snapshot(t, s, false); len(names) == 0 {
		t.Errorf("journals: %v", names)
	}
	if strings.Contains(server.Stderr.String(), "panic") {
		t.Error(server.Stderr)
	}
}
