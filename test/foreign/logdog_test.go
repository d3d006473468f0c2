//go:build unix

package foreign

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/daybook-dev/daybook/internal/testkit"
)

// reader is logdog: its requests in its order, and its patience, which has no end.
type reader struct {
	*toolbox
	// delay is how long it rests before it asks again for what is not there; the tool's is 5 s.
	delay time.Duration
	// onMissing and onOutput are called when the stream is not there, and with what was written so far, after each answer with entries.
	onMissing func()
	onOutput  func(string)
	rests     int // after answers without entries
}

func newReader(b *toolbox) *reader {
	r := &reader{toolbox: new(toolbox), delay: 20 * time.Millisecond}
	*r.toolbox = *b
	r.agent = "logdog CLI"
	return r
}

func (r *reader) rest() {
	r.t.Helper()
	t := time.NewTimer(r.delay)
	defer t.Stop()
	select {
	case <-t.C:
	case <-r.ctx.Done():
		r.t.Fatal("logdog would not come to an end")
	}
}

// get is a Get or a Tail, which is made again for as long as the server says that it is its own fault.
func (r *reader) get(method, request string, req object) (object, codes.Code) {
	r.t.Helper()
	for attempt := 0; ; attempt++ {
		resp, code := r.call("logdog.Logs/"+method, request, req, "GetResponse")
		if code == codes.OK && req["state"] == true && (!resp.has("state") || !resp.has("desc")) {
			r.t.Fatalf("%s %v: no state, or no descriptor: %v", method, req, resp)
		}
		if attempt == 5 || code != codes.Internal && code != codes.Unknown && code != codes.Unavailable {
			return resp, code
		}
		r.rest()
	}
}

type catFlags struct {
	raw                                 bool
	index, count, fetchSize, fetchBytes int
}

// cat is `logdog cat`: it returns what that would write, and the code of the error that ends it.
func (r *reader) cat(path string, f catFlags) (string, codes.Code) {
	r.t.Helper()
	var out strings.Builder
	next, terminal, left := f.index, -1, f.count
	for {
		if terminal >= 0 && next > terminal || f.count > 0 && left == 0 {
			return out.String(), codes.OK
		}
		req := object{"project": "local", "path": path, "index": next, "byte_count": f.fetchBytes, "log_count": f.fetchSize}
		if f.fetchSize == 0 && f.fetchBytes == 0 {
			req["byte_count"] = 1 << 20
		}
		if f.count > 0 && (f.fetchSize == 0 || left < f.fetchSize) {
			req["log_count"] = left
		}
		if terminal < 0 {
			req["state"] = true
		}
		resp, code := r.get("Get", "GetRequest", req)
		if code == codes.NotFound {
			if r.onMissing != nil {
				r.onMissing()
			}
			r.rest()
			continue
		}
		if code != codes.OK {
			return out.String(), code
		}
		if state := resp.sub("state"); state != nil && state.num("terminal_index") >= 0 {
			terminal = state.num("terminal_index")
		}
		logs := resp.list("logs")
		if len(logs) == 0 {
			if terminal < 0 || next <= terminal {
				r.rests++
				r.rest()
			}
			continue
		}
		for _, l := range logs {
			out.WriteString(render(l, f.raw))
		}
		next, left = logs[len(logs)-1].num("stream_index")+1, left-len(logs)
		if r.onOutput != nil {
			r.onOutput(out.String())
		}
	}
}

// render returns what is written of an entry.
func render(l object, raw bool) string {
	var out strings.Builder
	for _, line := range l.sub("text").list("lines") {
		out.Write(line.bytes("value"))
		if raw {
			out.WriteString(line.text("delimiter"))
		} else {
			out.WriteByte('\n')
		}
	}
	if b := l.sub("binary").bytes("data"); raw {
		out.Write(b)
	} else {
		out.WriteString(hex.EncodeToString(b))
	}
	out.Write(l.sub("datagram").bytes("data"))
	return out.String()
}

// latest is `logdog latest -raw`.
func (r *reader) latest(path string) (string, codes.Code) {
	r.t.Helper()
	resp, code := r.get("Tail", "TailRequest", object{"project": "local", "path": path, "state": true})
	if code != codes.OK || len(resp.list("logs")) == 0 {
		return "", code
	}
	if len(resp.list("logs")) > 1 {
		r.t.Fatalf("the last of %s: %v", path, resp)
	}
	last := resp.list("logs")[0]
	partial := last.sub("datagram").sub("partial")
	if partial == nil {
		return render(last, true), code
	}
	index := last.num("stream_index")
	if partial["last"] != true {
		// The datagram before this one, which may be whole or have fragments of its own.
		if index -= partial.num("index") + 1; index < 0 {
			return "", code
		}
		if resp, code = r.get("Get", "GetRequest", object{"project": "local", "path": path, "index": index, "log_count": 1}); code != codes.OK {
			return "", code
		}
		last = resp.list("logs")[0]
		if partial = last.sub("datagram").sub("partial"); partial == nil {
			return render(last, true), code
		}
	}
	first := index - partial.num("index")
	resp, code = r.get("Get", "GetRequest", object{"project": "local", "path": path, "index": first, "log_count": partial.num("index") + 1})
	if code != codes.OK {
		return "", code
	}
	var out string
	for i, l := range resp.list("logs") {
		p := l.sub("datagram").sub("partial")
		if l.num("stream_index") != first+i || p.num("index") != i || p.num("size") != partial.num("size") {
			r.t.Fatalf("fragment %d of %s: %v", i, path, l)
		}
		out += render(l, true)
	}
	if len(out) != partial.num("size") {
		r.t.Fatalf("%d bytes of a datagram of %d", len(out), partial.num("size"))
	}
	return out, code
}

// query is `logdog query`: it returns the paths, sorted, as their order means nothing.
func (r *reader) query(path string, flags object) ([]string, codes.Code) {
	r.t.Helper()
	req := object{"project": "local", "path": path}
	for k, v := range flags {
		req[k] = v
	}
	var paths []string
	for {
		resp, code := r.call("logdog.Logs/Query", "QueryRequest", req, "QueryResponse")
		if code != codes.OK {
			return paths, code
		}
		for _, s := range resp.list("streams") {
			paths = append(paths, s.text("path"))
			if req["state"] == true && (!s.has("state") || s.sub("desc").text("name") == "") {
				r.t.Errorf("query %v: %v has no state, or no descriptor", req, s)
			}
		}
		if resp.text("next") == "" {
			slices.Sort(paths)
			return paths, code
		}
		req["next"] = resp.text("next")
	}
}

// Everything that the tool can be asked about streams that have ended, before they are archived and after.
func TestLogDog(t *testing.T) {
	t.Parallel()
	h := testkit.NewHouse(t)
	h.Serve()
	b := newTools(t, h)
	w, r := newButler(b, "foreign/tools"), newReader(b)
	large := strings.Repeat("a line of forty bytes, with its line end", 1000)
	w.publish(
		run("text", textStream, 0, true, lines("hello", "\n", "wor", ""), lines("ld", "\n"), lines("crlf", "\r\n", "no end", "")),
		run("a/binary", binaryStream, 0, false, data("\x00\x01"), data("\xff")),
		run("a/datagram", datagramStream, 0, true, datagram("whole", 0, 0, false), datagram("par", 0, 7, false), datagram("tial", 1, 7, true)),
		run("a/cut", datagramStream, 0, true, datagram("whole", 0, 0, false), datagram("par", 0, 7, false)),
		run("a/begun", datagramStream, 0, true, datagram("par", 0, 7, false)),
	)
	w.publish(run("a/binary", binaryStream, 2, true, data(large)))
	at := func(name string) string { return "foreign/tools/+/" + name }

	check := func(t *testing.T) {
		for _, c := range []struct {
			name  string
			flags catFlags
			want  string
		}{
			{"text", catFlags{raw: true}, "hello\nworld\ncrlf\r\nno end"},
			{"text", catFlags{}, "hello\nwor\nld\ncrlf\nno end\n"},
			{"text", catFlags{raw: true, index: 1}, "ld\ncrlf\r\nno end"},
			{"text", catFlags{raw: true, index: 1, count: 1}, "ld\n"},
			{"text", catFlags{raw: true, fetchSize: 1}, "hello\nworld\ncrlf\r\nno end"},
			{"text", catFlags{raw: true, fetchBytes: 1}, "hello\nworld\ncrlf\r\nno end"},
			{"text", catFlags{raw: true, index: 7}, ""},
			{"a/binary", catFlags{raw: true}, "\x00\x01\xff" + large},
			{"a/binary", catFlags{count: 2}, "0001ff"},
			{"a/datagram", catFlags{raw: true}, "wholepartial"},
		} {
			if got, code := r.cat(at(c.name), c.flags); got != c.want || code != codes.OK {
				t.Errorf("cat %s %+v: %.100q, code %d", c.name, c.flags, got, code)
			}
		}
		for name, want := range map[string]string{"text": "crlf\r\nno end", "a/binary": large, "a/datagram": "partial", "a/cut": "whole", "a/begun": ""} {
			if got, code := r.latest(at(name)); got != want || code != codes.OK {
				t.Errorf("latest %s: %.100q, code %d", name, got, code)
			}
		}
		all := []string{at("a/begun"), at("a/binary"), at("a/cut"), at("a/datagram"), at("text")}
		for _, c := range []struct {
			path  string
			flags object
			want  []string
		}{
			{"foreign/tools/+/**", nil, all},
			{"foreign/tools", object{"state": true}, all},
			{"foreign/tools/+/**", object{"max_results": 2, "state": true}, all},
			{"foreign/tools/+/*", nil, all[4:]},
			{"foreign/tools/+/a/b*", nil, all[:2]},
			{"foreign/tools/+/**", object{"content_type": contentTypes[textStream]}, all[4:]},
			{"foreign/tools/+/**", object{"stream_type": object{"value": binaryStream}}, all[1:2]},
			{"foreign/tools/+/**", object{"stream_type": object{}}, all[4:]},
			{"foreign/tools/+/**", object{"tags": []object{{"key": "step", "value": "text"}}}, all[4:]},
			{"foreign/tools/+/**", object{"tags": []object{{"key": "step"}}}, all},
			{"foreign/tools/+/**", object{"purged": 2}, all},
			{"foreign/tools/+/other", nil, nil},
		} {
			if got, code := r.query(c.path, c.flags); !slices.Equal(got, c.want) || code != codes.OK {
				t.Errorf("query %s %v: %q, code %d", c.path, c.flags, got, code)
			}
		}
	}
	if _, code := r.cat(at("a/begun"), catFlags{}); code != codes.OK { // until the Collector has all of the bundles
		t.Fatalf("code %d", code)
	}
	if _, code := r.cat(at("a/binary"), catFlags{}); code != codes.OK {
		t.Fatalf("code %d", code)
	}
	t.Run("recent", check)
	for _, name := range []string{"text", "a/binary", "a/datagram", "a/cut", "a/begun"} {
		await(t, name+" in the archive", func() bool {
			resp, code := r.get("Get", "GetRequest", object{"project": "local", "path": at(name), "state": true, "log_count": -1})
			if code != codes.OK || len(resp.list("logs")) != 0 {
				t.Fatalf("the state of %s: %v, code %d", name, resp, code)
			}
			archive := resp.sub("state").sub("archive")
			if archive != nil && (archive["complete"] != true || archive.text("stream_url") == "" || archive.text("index_url") == "") {
				t.Fatalf("the archive of %s: %v", name, archive)
			}
			return archive != nil
		})
	}
	t.Run("archived", check)
}

// A stream that is being written, seen from before its beginning to its end. The answers come when there is something: a tool that rests
// for ever after an empty one gets there too.
func TestLogDogFollows(t *testing.T) {
	t.Parallel()
	h := testkit.NewHouse(t)
	h.Serve()
	b := newTools(t, h)
	w, r := newButler(b, "foreign/live"), newReader(b)
	var want string
	publish := func(i int, end bool) {
		line := fmt.Sprintf("line %d", i)
		w.publish(run("live", textStream, i, end, lines(line, "\n")))
		want += line + "\n"
	}
	const last = 20
	next := 0
	missing := 0
	r.onMissing = func() {
		if missing++; missing == 3 {
			publish(0, false)
			next = 1
		}
	}
	r.onOutput = func(got string) {
		r.delay = testkit.Patience
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
		if next <= last {
			publish(next, next == last)
			next++
		}
	}
	got, code := r.cat("foreign/live/+/live", catFlags{raw: true})
	if got != want || code != codes.OK || r.rests > 0 {
		t.Errorf("%q, code %d, %d rests", got, code, r.rests)
	}
}

// What is not there ends the tool, or it is waited for: nothing may hold it for ever that will never come.
func TestLogDogMisses(t *testing.T) {
	t.Parallel()
	h := testkit.NewHouse(t)
	h.Serve()
	b := newTools(t, h)
	r := newReader(b)
	noAccess := func(what string, code codes.Code) {
		t.Helper()
		if code != codes.Unauthenticated && code != codes.PermissionDenied {
			t.Errorf("%s: code %d", what, code)
		}
	}
	_, code := r.cat("no/such/prefix/+/stdout", catFlags{})
	noAccess("cat below an absent prefix", code)
	_, code = r.latest("no/such/prefix/+/stdout")
	noAccess("latest below an absent prefix", code)
	_, code = r.query("no/such/prefix/+/**", nil)
	noAccess("query of an absent prefix", code)
	for _, method := range []string{"Get", "Tail", "Query"} {
		response := map[bool]string{true: "QueryResponse", false: "GetResponse"}[method == "Query"]
		_, code = r.call("logdog.Logs/"+method, method+"Request", object{"project": "absent", "path": "a/+/b"}, response)
		noAccess(method+" of an absent project", code)
		for _, malformed := range []object{{"path": "a/+/b"}, {"project": "Bad", "path": "a/+/b"}, {"project": "local", "path": "/+/b"}, {"project": "local", "path": "a/+/b//c"}} {
			if _, code = r.call("logdog.Logs/"+method, method+"Request", malformed, response); code != codes.InvalidArgument {
				t.Errorf("%s %v: code %d", method, malformed, code)
			}
		}
	}
	w := newButler(b, "foreign/misses")
	if _, code := r.get("Tail", "TailRequest", object{"project": "local", "path": "foreign/misses/+/none"}); code != codes.NotFound {
		t.Errorf("latest of a stream that is not there: code %d", code)
	}
	w.publish(run("open", textStream, 0, false, lines("x", "\n")))
	if got, code := r.cat("foreign/misses/+/open", catFlags{raw: true, count: 1}); got != "x\n" || code != codes.OK {
		t.Errorf("%q, code %d", got, code)
	}
	if got, code := r.latest("foreign/misses/+/open"); got != "x\n" || code != codes.OK {
		t.Errorf("%q, code %d", got, code)
	}

	// Streams of our own may end without an entry, which the tool knows no end for.
	h.Run("run", "--prefix", "foreign/silent", "--", "true")
	if got, code := r.cat("foreign/silent/+/stdout", catFlags{raw: true}); got != "" || code != codes.OK {
		t.Errorf("cat of an empty stream: %q, code %d", got, code)
	}
	if got, code := r.latest("foreign/silent/+/stdout"); got != "" || code != codes.OK {
		t.Errorf("latest of an empty stream: %q, code %d", got, code)
	}
}

// A stream that was purged is there for nobody but administrators, as is who may read the data directory, until that is taken back.
func TestLogDogPurged(t *testing.T) {
	t.Parallel()
	h := testkit.NewHouse(t)
	h.Serve()
	b := newTools(t, h)
	w, admin, r := newButler(b, "foreign/purged"), newReader(b), newReader(b)
	r.known = func() string { return "" }
	w.publish(run("kept", textStream, 0, true, lines("kept", "\n")), run("purged", textStream, 0, true, lines("purged", "\n")))
	const kept, purged = "foreign/purged/+/kept", "foreign/purged/+/purged"
	check := func(when string, hidden bool) {
		t.Helper()
		want, paths, code := "purged\n", []string{kept, purged}, codes.OK
		if hidden {
			want, paths, code = "", paths[:1], codes.NotFound
		}
		if _, got := r.get("Get", "GetRequest", object{"project": "local", "path": purged, "state": true}); got != code {
			t.Errorf("%s: Get: code %d, want %d", when, got, code)
		}
		if got, gotCode := r.latest(purged); got != want || gotCode != code {
			t.Errorf("%s: latest: %q, code %d", when, got, gotCode)
		}
		if got, code := r.query("foreign/purged", nil); !slices.Equal(got, paths) || code != codes.OK {
			t.Errorf("%s: query: %q, code %d", when, got, code)
		}
		if got, code := r.cat(kept, catFlags{raw: true}); got != "kept\n" || code != codes.OK {
			t.Errorf("%s: the other stream: %q, code %d", when, got, code)
		}
	}
	for _, path := range []string{kept, purged} {
		if _, code := r.cat(path, catFlags{}); code != codes.OK { // until the Collector has both
			t.Fatalf("code %d", code)
		}
	}
	check("before", false)
	h.Run("purge", "local/"+purged)
	check("purged", true)
	if got, code := admin.latest(purged); got != "purged\n" || code != codes.OK {
		t.Errorf("latest for an administrator: %q, code %d", got, code)
	}
	if got, code := admin.query("foreign/purged", object{"purged": 1}); !slices.Equal(got, []string{purged}) || code != codes.OK {
		t.Errorf("query for an administrator: %q, code %d", got, code)
	}
	if got, code := r.query("foreign/purged", object{"purged": 1}); code != codes.InvalidArgument {
		t.Errorf("query of what is purged: %q, code %d", got, code)
	}
	h.Run("undelete", "local/"+purged)
	check("undeleted", false)
}
