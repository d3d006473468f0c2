package web

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/logs/logpb"
)

func TestEntries(t *testing.T) {
	f := newFake()
	stream := f.add(stdout, logpb.StreamType_TEXT)
	f.print(stream, 1500*time.Millisecond, "one\r\n<two>\xff\u2028\n")
	f.print(stream, 0, "lost\n")
	f.print(stream, 2*time.Second, "half")
	f.lose(stream, 1, 1)
	datagram := f.add("p/+/dg", logpb.StreamType_DATAGRAM)
	f.append(datagram, 0, func(e *logpb.LogEntry) {
		e.Content = &logpb.LogEntry_Datagram{Datagram: &logpb.Datagram{Data: []byte("a"), Partial: &logpb.Datagram_Partial{Size: 5}}}
	})
	f.append(datagram, 0, func(e *logpb.LogEntry) {
		e.Content = &logpb.LogEntry_Datagram{Datagram: &logpb.Datagram{Data: []byte("bc")}}
	})
	f.end(datagram, daybookv1.StreamState_INCOMPLETE, "gone")
	binary := f.add("p/+/bin", logpb.StreamType_BINARY)
	f.append(binary, 0, func(e *logpb.LogEntry) {
		e.Content = &logpb.LogEntry_Binary{Binary: &logpb.Binary{Data: []byte{0, 255}}}
	})
	s := serve(t, f)
	const (
		first  = `{"i":0,"t":1500,"n":1,"l":[{"v":"one","d":"\r\n"},{"v":"<two>` + `\ufffd\u2028` + `","d":"\n"}]}`
		second = `{"i":0,"t":1500,"n":2,"l":[{"v":"<two>` + `\ufffd\u2028` + `","d":"\n"}]}`
		third  = `{"i":2,"t":2000,"n":4,"l":[{"v":"half","d":""}]}`
	)
	gone := []*daybookv1.IndexRange{{First: 1, Last: 1}}
	open := `"end":` + jsonOf(t, &daybookv1.FollowResponse_End{State: daybookv1.StreamState_OPEN, TerminalIndex: -1, Missing: gone}) + `,`
	for path, want := range map[string]string{
		stdout:                     `{"first":"0","next":"3",` + open + `"m":[[1,1]],"e":[` + first + `,` + third + `]}`,
		stdout + "?index=1":        `{"first":"1","next":"3",` + open + `"m":[[1,1]],"e":[` + third + `]}`,
		stdout + "?index=3":        `{"first":"3","next":"3",` + open + `"e":[]}`,
		stdout + "?index=0.2":      `{"first":"0.2","next":"3",` + open + `"m":[[1,1]],"e":[` + second + `,` + third + `]}`,
		stdout + "?line=2":         `{"first":"0.2","next":"3",` + open + `"m":[[1,1]],"e":[` + second + `,` + third + `]}`,
		stdout + "?line=4":         `{"first":"1.4","next":"3",` + open + `"m":[[1,1]],"e":[` + third + `]}`,
		stdout + "?line=400":       `{"first":"1.4","next":"3",` + open + `"m":[[1,1]],"e":[` + third + `]}`,
		stdout + "?tail=2":         `{"first":"0.2","next":"3",` + open + `"m":[[1,1]],"e":[` + second + `,` + third + `]}`,
		stdout + "?until=1":        `{"first":"0","next":"0","e":[]}`,
		stdout + "?until=2":        `{"first":"0","next":"0.2","e":[{"i":0,"t":1500,"n":1,"l":[{"v":"one","d":"\r\n"}]}]}`,
		stdout + "?until=4":        `{"first":"0","next":"1","e":[` + first + `]}`,
		stdout + "?line=2&until=3": `{"first":"0.2","next":"1","e":[` + second + `]}`,
		"p/+/dg": `{"first":"0","next":"2","end":` +
			jsonOf(t, &daybookv1.FollowResponse_End{TerminalIndex: 1, State: daybookv1.StreamState_INCOMPLETE, Reason: "gone"}) + `,"e":[{"i":0,"t":0,"b":"YQ==","g":{"n":0,"i":0,"s":5,"last":false}},{"i":1,"t":0,"b":"YmM=","g":{"n":0,"i":0,"s":2,"last":true}}]}`,
		"p/+/bin?tail=5": `{"first":"0","next":"1","end":` +
			jsonOf(t, &daybookv1.FollowResponse_End{TerminalIndex: -1, State: daybookv1.StreamState_OPEN}) + `,"e":[{"i":0,"t":0,"b":"AP8="}]}`,
	} {
		if _, body := get(t, s.URL+"/api/v1/entries/local/"+path); body != want {
			t.Errorf("%s:\n got %s\nwant %s", path, body, want)
		}
	}
}

// jsonOf is how a message appears within an answer.
func jsonOf(t *testing.T, m proto.Message) string {
	t.Helper()
	b, err := messageJSON(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

type page struct {
	First, Next string
	End         json.RawMessage
	E           []struct {
		I, N int64
		L    []struct{ V, D string }
	}
}

func loadPage(t *testing.T, s *httptest.Server, query string) (p page) {
	t.Helper()
	_, body := get(t, s.URL+"/api/v1/entries/local/"+stdout+"?"+query)
	if err := json.Unmarshal([]byte(body), &p); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return p
}

// A long stream is read in pages that add up to the whole, and its lines are found in few steps.
func TestEntriesLong(t *testing.T) {
	t.Parallel()
	f := newFake()
	stream := f.add(stdout, logpb.StreamType_TEXT)
	for line, i := 0, 0; line < 40_000; i++ {
		var text strings.Builder
		for range 1 + i*i%70 { // uneven on purpose
			line++
			fmt.Fprintf(&text, "line %d %s\n", line, strings.Repeat("x", i%50))
		}
		f.print(stream, 0, text.String())
	}
	f.print(stream, 0, strings.Repeat("\n", 20_000)) // one entry of several pages
	f.end(stream, daybookv1.StreamState_COMPLETE, "")
	s := serve(t, f)
	lines, next, pages := int64(0), "0", 0
	for {
		p := loadPage(t, s, "index="+next)
		if p.First != next {
			t.Fatalf("page begins at %s, want %s", p.First, next)
		}
		for _, e := range p.E {
			if e.N != lines+1 {
				t.Fatalf("entry %d with line %d, want line %d", e.I, e.N, lines+1)
			}
			lines += int64(len(e.L))
		}
		pages++
		if next = p.Next; p.End != nil {
			break
		}
	}
	if lines != stream.meta.Lines || pages < 10 {
		t.Errorf("%d lines in %d pages, want %d", lines, pages, stream.meta.Lines)
	}
	for _, line := range []int64{1, 2, 37, 20_000, 39_999, 40_000, stream.meta.Lines - 10_000} {
		before := f.follows
		if e := loadPage(t, s, fmt.Sprintf("line=%d", line)).E[0]; e.N != line {
			t.Errorf("line %d was looked for and %d found", line, e.N)
		}
		if steps := f.follows - before; steps > 24 {
			t.Errorf("line %d took %d steps", line, steps)
		}
	}
	for _, tail := range []int64{1000, 21_000} {
		if p := loadPage(t, s, fmt.Sprintf("tail=%d", tail)); p.E[0].N != stream.meta.Lines-tail+1 {
			t.Errorf("tail %d begins at line %d of %d", tail, p.E[0].N, stream.meta.Lines)
		}
	}
}

// The fragments of one long line are found by its number. The end of it is not sent whole: readers begin within it only if there is no
// line behind it.
func TestLongLine(t *testing.T) {
	f := newFake()
	stream := f.add(stdout, logpb.StreamType_TEXT)
	f.print(stream, 0, "first\n")
	for range 64 {
		f.print(stream, 0, strings.Repeat("y", 100_000))
	}
	s := serve(t, f)
	if e := loadPage(t, s, "tail=10").E[0]; e.I != 55 || e.N != 2 {
		t.Errorf("tail=10 begins at %d, line %d, want 55, line 2", e.I, e.N)
	}
	f.print(stream, 0, "\nlast\n")
	for query, want := range map[string]int64{"line=2": 1, "line=3": 65, "line=1": 0, "tail=10": 65} {
		if got := loadPage(t, s, query).E[0].I; got != want {
			t.Errorf("%s begins at %d, want %d", query, got, want)
		}
	}
}

// event is one server-sent event, as the standard says to parse it.
type event struct{ id, name, data string }

type events struct {
	t *testing.T
	r *bufio.Reader
	// comments counts those since the last event.
	comments int
}

func (e *events) next() event {
	e.t.Helper()
	var ev event
	for {
		line, err := e.r.ReadString('\n')
		if err != nil {
			e.t.Fatalf("read event: %v", err)
		}
		field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "\n":
			if ev.data != "" {
				return ev
			}
			ev = event{}
		case field == "":
			e.comments++
			if e.comments > 2 {
				return event{name: "comment"}
			}
		case field == "id":
			ev.id = value
		case field == "event":
			ev.name = value
		case field == "data":
			ev.data = value
		}
	}
}

func followEvents(t *testing.T, url string, headers ...string) *events {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		res.Body.Close()
	})
	if got := res.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Fatalf("status %d, content type %q", res.StatusCode, got)
	}
	return &events{t: t, r: bufio.NewReader(res.Body)}
}

func (e *events) expect(want ...event) {
	e.t.Helper()
	for _, w := range want {
		got := e.next()
		if w.name == "state" && strings.Contains(got.data, w.data) {
			w.data = got.data
		}
		if got != w {
			e.t.Fatalf("got %+v\nwant %+v", got, w)
		}
	}
}

func TestFollow(t *testing.T) {
	f := newFake()
	stream := f.add(stdout, logpb.StreamType_TEXT)
	f.print(stream, 0, "one\ntwo\n")
	s := serve(t, f)
	url := s.URL + "/api/v1/follow/local/" + stdout
	e := followEvents(t, url)
	e.expect(
		event{name: "state", data: `"state":"OPEN"`},
		event{id: "1", data: `{"e":[{"i":0,"t":0,"n":1,"l":[{"v":"one","d":"\n"},{"v":"two","d":"\n"}]}]}`},
	)
	f.print(stream, 0, "three\n")
	e.expect(event{id: "2", data: `{"e":[{"i":1,"t":0,"n":3,"l":[{"v":"three","d":"\n"}]}]}`})
	f.cutAll()
	e.expect(event{name: "fault", data: `{"code":"transient","message":"the connection was cut"}`})

	// The browser comes again with the address it had and the last id it saw.
	e = followEvents(t, url+"?index=0", "Last-Event-ID", "2")
	e.expect(event{name: "state", data: `"state":"OPEN"`})
	f.print(stream, 0, "four\n")
	e.expect(event{id: "3", data: `{"e":[{"i":2,"t":0,"n":4,"l":[{"v":"four","d":"\n"}]}]}`})
	f.end(stream, daybookv1.StreamState_COMPLETE, "")
	e.expect(
		event{name: "state", data: `"state":"COMPLETE"`},
		event{name: "end", data: jsonOf(t, &daybookv1.FollowResponse_End{State: daybookv1.StreamState_COMPLETE, TerminalIndex: 2})},
	)
}

func TestFollowMissing(t *testing.T) {
	f := newFake()
	stream := f.add(stdout, logpb.StreamType_TEXT)
	for range 6 {
		f.print(stream, 0, "x\n")
	}
	f.lose(stream, 1, 3)
	f.lose(stream, 5, 5)
	f.end(stream, daybookv1.StreamState_INCOMPLETE, "the machine died")
	e := followEvents(t, serve(t, f).URL+"/api/v1/follow/local/"+stdout+"?index=2")
	e.expect(
		event{name: "state", data: `"state":"INCOMPLETE"`},
		event{id: "5", data: `{"m":[[2,3]],"e":[{"i":4,"t":0,"n":5,"l":[{"v":"x","d":"\n"}]}]}`},
		event{id: "6", data: `{"m":[[5,5]],"e":[]}`},
		event{name: "end", data: jsonOf(t, &daybookv1.FollowResponse_End{
			State: daybookv1.StreamState_INCOMPLETE, TerminalIndex: 5, Reason: "the machine died",
			Missing: []*daybookv1.IndexRange{{First: 1, Last: 3}, {First: 5, Last: 5}},
		})},
	)
}

// A large backlog comes in events of limited size, all of it, in order.
func TestFollowBatches(t *testing.T) {
	f := newFake()
	stream := f.add(stdout, logpb.StreamType_TEXT)
	line := strings.Repeat("z", 999) + "\n"
	for range 300 {
		f.print(stream, 0, strings.Repeat(line, 10))
	}
	f.end(stream, daybookv1.StreamState_COMPLETE, "")
	e := followEvents(t, serve(t, f).URL+"/api/v1/follow/local/"+stdout)
	next, count := int64(0), 0
	for {
		ev := e.next()
		if ev.name == "end" {
			break
		}
		if ev.name != "" {
			continue
		}
		if len(ev.data) > eventLimits.bytes+20_000 {
			t.Errorf("event of %d bytes", len(ev.data))
		}
		var data struct{ E []struct{ I int64 } }
		if err := json.Unmarshal([]byte(ev.data), &data); err != nil {
			t.Fatal(err)
		}
		for _, entry := range data.E {
			if entry.I != next {
				t.Fatalf("entry %d, want %d", entry.I, next)
			}
			next++
		}
		if ev.id != fmt.Sprint(next) {
			t.Fatalf("id %s after entry %d", ev.id, next-1)
		}
		count++
	}
	if next != 300 || count < 10 {
		t.Errorf("%d entries in %d events", next, count)
	}
}

// An entry of many lines is split between events, and a client may resume within it.
func TestFollowSplitEntry(t *testing.T) {
	f := newFake()
	stream := f.add(stdout, logpb.StreamType_TEXT)
	f.print(stream, 0, strings.Repeat("\n", eventLimits.lines)+"a\nb")
	s := serve(t, f)
	url := s.URL + "/api/v1/follow/local/" + stdout
	e := followEvents(t, url)
	e.expect(event{name: "state", data: `"state":"OPEN"`})
	if got := e.next(); got.id != "0.5001" {
		t.Fatalf("first id %s", got.id)
	}
	rest := event{id: "1", data: `{"e":[{"i":0,"t":0,"n":5001,"l":[{"v":"a","d":"\n"},{"v":"b","d":""}]}]}`}
	e.expect(rest)
	e = followEvents(t, url, "Last-Event-ID", "0.5001")
	e.expect(event{name: "state", data: `"state":"OPEN"`}, rest)
}

// A stream that does not exist yet is waited for on demand, with heartbeats.
func TestFollowWait(t *testing.T) {
	f := newFake()
	s := serveOptions(t, f, func(h *handler) { h.heartbeat = time.Millisecond })
	e := followEvents(t, s.URL+"/api/v1/follow/local/"+stdout+"?wait=1&tail=10")
	if got := e.next(); got.name != "comment" {
		t.Fatalf("got %+v before there is a stream", got)
	}
	f.print(f.add(stdout, logpb.StreamType_TEXT), 0, "one\n")
	for {
		e.comments = 0
		if ev := e.next(); ev.id == "1" {
			return
		} else if ev.name != "comment" && ev.name != "state" {
			t.Fatalf("got %+v", ev)
		}
	}
}

// Programs get an object a line, with the same content.
func TestFollowLines(t *testing.T) {
	f := newFake()
	stream := f.add(stdout, logpb.StreamType_TEXT)
	f.print(stream, 0, "one\n")
	s := serveOptions(t, f, func(h *handler) { h.heartbeat = time.Millisecond })
	url := s.URL + "/api/v1/follow/local/" + stdout
	read := func(url, accept string) func() string {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept", accept)
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { res.Body.Close() })
		if got := res.Header.Get("Content-Type"); got != "application/jsonl" {
			t.Fatalf("content type %q", got)
		}
		lines := bufio.NewReader(res.Body)
		return func() string {
			t.Helper()
			for {
				line, err := lines.ReadString('\n')
				if err != nil {
					t.Fatal(err)
				}
				if !json.Valid([]byte(line)) {
					t.Fatalf("%q is no JSON", line)
				}
				if line != "{}\n" { // which shows that the connection lives
					return line
				}
			}
		}
	}
	next := read(url+"?format=jsonl", "")
	if line := next(); !strings.HasPrefix(line, `{"state":{"project":"local"`) {
		t.Error(line)
	}
	if line, want := next(), `{"next":"1","e":[{"i":0,"t":0,"n":1,"l":[{"v":"one","d":"\n"}]}]}`+"\n"; line != want {
		t.Errorf("got %swant %s", line, want)
	}
	f.cutAll()
	if line, want := next(), `{"fault":{"code":"transient","message":"the connection was cut"}}`+"\n"; line != want {
		t.Errorf("got %swant %s", line, want)
	}
	f.print(stream, 0, "two\n")
	next = read(url+"?index=1", "application/x-ndjson")
	next() // the state
	if line, want := next(), `{"next":"2","e":[{"i":1,"t":0,"n":2,"l":[{"v":"two","d":"\n"}]}]}`+"\n"; line != want {
		t.Errorf("got %swant %s", line, want)
	}
	f.end(stream, daybookv1.StreamState_COMPLETE, "the machine died")
	next() // the state
	if line, want := next(), `{"end":`+jsonOf(t, &daybookv1.FollowResponse_End{State: daybookv1.StreamState_COMPLETE, TerminalIndex: 1, Reason: "the machine died"})+"}\n"; line != want {
		t.Errorf("got %swant %s", line, want)
	}
}
