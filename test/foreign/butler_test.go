//go:build unix

package foreign

import (
	"bytes"
	"compress/zlib"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/daybook-dev/daybook/internal/testkit"
)

// toolbox is the environment of a tool, and what tools have in common.
type toolbox struct {
	t    testing.TB
	ctx  context.Context
	http *http.Client
	// host is the Coordinator, pubsub where to publish, and context the content of the file with the way to tokens.
	host, pubsub string
	context      []byte
	agent        string
	// known is a token that is known already; nil is to ask for one.
	known func() string
}

var variable = regexp.MustCompile(`(?m)^(\w+)=(.*)$`)

// newTools returns the environment that `daybook luci-context` makes with these flags.
func newTools(t testing.TB, h *testkit.House, flags ...string) *toolbox {
	t.Helper()
	file := t.TempDir() + "/context.json"
	p := h.Start(append([]string{"luci-context", "--output", file}, flags...)...)
	p.Await(p.Stdout, regexp.MustCompile(`DAYBOOK_SERVER=.*\n`))
	tools := &toolbox{t: t, http: &http.Client{Transport: new(http.Transport)}, agent: "pRPC Client 1.5"}
	t.Cleanup(tools.http.CloseIdleConnections)
	for _, v := range variable.FindAllStringSubmatch(p.Stdout.String(), -1) {
		switch v[1] {
		case "LUCI_CONTEXT":
			var err error
			if tools.context, err = os.ReadFile(v[2]); err != nil || v[2] != file {
				t.Fatal(v[2], err)
			}
		case "PUBSUB_EMULATOR_HOST":
			tools.pubsub = v[2]
		case "DAYBOOK_HOST":
			tools.host = v[2]
		}
	}
	var cancel context.CancelFunc
	tools.ctx, cancel = context.WithTimeout(t.Context(), testkit.Patience)
	t.Cleanup(cancel)
	return tools
}

// token asks for a token, as tools do before their first call.
func (b *toolbox) token() string {
	b.t.Helper()
	if b.known != nil {
		return b.known()
	}
	var found struct {
		LocalAuth *struct {
			Port     int    `json:"rpc_port"`
			Secret   []byte `json:"secret"`
			Accounts []struct {
				ID string `json:"id"`
			} `json:"accounts"`
			Default string `json:"default_account_id"`
		} `json:"local_auth"`
	}
	if err := json.Unmarshal(b.context, &found); err != nil || found.LocalAuth == nil || found.LocalAuth.Default == "" || len(found.LocalAuth.Accounts) == 0 {
		b.t.Fatalf("no way to tokens in %s: %v", b.context, err)
	}
	body, err := json.Marshal(map[string]any{
		"scopes": []string{"https://www.googleapis.com/auth/userinfo.email"}, "secret": found.LocalAuth.Secret, "account_id": found.LocalAuth.Default,
	})
	if err != nil {
		b.t.Fatal(err)
	}
	resp := b.post(fmt.Sprintf("http://127.0.0.1:%d/rpc/LuciLocalAuthService.GetOAuthToken", found.LocalAuth.Port), body, http.Header{"Content-Type": {"application/json"}})
	var got struct {
		Token  string `json:"access_token"`
		Expiry int64  `json:"expiry"`
		Error  string `json:"error_message"`
	}
	if err := json.Unmarshal([]byte(resp.body), &got); err != nil || resp.StatusCode != http.StatusOK || got.Token == "" || time.Until(time.Unix(got.Expiry, 0)) < 10*time.Minute {
		b.t.Fatalf("token: %s %s", resp.Status, resp.body)
	}
	return got.Token
}

func (b *toolbox) post(url string, body []byte, header http.Header) answer {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header = header
	resp, err := b.http.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return answer{resp, string(content)}
}

// call makes a pRPC as existing tools do, and demands of the answer what they do.
func (b *toolbox) call(method, request string, req object, response string) (object, codes.Code) {
	b.t.Helper()
	header := http.Header{
		"Content-Type": {"application/prpc; encoding=binary"}, "Accept": {"application/prpc; encoding=binary"}, "User-Agent": {b.agent}, "X-Prpc-Grpc-Timeout": {"30000000u"}, "X-Prpc-Max-Response-Size": {"33521664"},
	}
	if token := b.token(); token != "" {
		header.Set("Authorization", "Bearer "+token)
	}
	resp := b.post("http://"+b.host+"/prpc/"+method, encode(request, req), header)
	var code codes.Code
	if _, err := fmt.Sscanf(resp.Header.Get("X-Prpc-Grpc-Code"), "%d", &code); err != nil || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
		b.t.Fatalf("%s: %s %v %s", method, resp.Status, resp.Header, resp.body)
	}
	if code != codes.OK {
		if resp.StatusCode < 400 || resp.Header.Get("Content-Type") != "text/plain; charset=utf-8" || !strings.HasSuffix(resp.body, "\n") {
			b.t.Errorf("%s: code %d as %s %v %q", method, code, resp.Status, resp.Header, resp.body)
		}
		return nil, code
	}
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "application/prpc; encoding=binary" {
		b.t.Fatalf("%s: %s %v", method, resp.Status, resp.Header)
	}
	o, err := decode(response, []byte(resp.body))
	if err != nil {
		b.t.Fatalf("%s: %v", method, err)
	}
	return o, code
}

// butler is a run of logdog_butler.
type butler struct {
	*toolbox
	prefix, topic string
	secret, nonce []byte
	topics        *client
}

// topicName is what a Butler demands of the last part of a topic.
var topicName = regexp.MustCompile(`^[A-Za-z][-A-Za-z0-9_.~+%]{2,254}$`)

// newButler registers a prefix and connects to its topic.
func newButler(b *toolbox, prefix string) *butler {
	b.t.Helper()
	w := &butler{toolbox: b, prefix: prefix, nonce: make([]byte, 32)}
	if _, err := rand.Read(w.nonce); err != nil {
		b.t.Fatal(err)
	}
	resp, code := w.register()
	if code != codes.OK {
		b.t.Fatalf("register %s: code %d", prefix, code)
	}
	w.secret, w.topic = resp.bytes("secret"), resp.text("log_bundle_topic")
	parts := strings.Split(w.topic, "/")
	if len(w.secret) != 36 || len(parts) != 4 || parts[0] != "projects" || parts[2] != "topics" || !topicName.MatchString(parts[3]) || strings.HasPrefix(parts[3], "goog") {
		b.t.Fatalf("a Butler would not take secret %x and topic %s", w.secret, w.topic)
	}
	w.topics = dial(b.t, "http://"+b.pubsub)
	return w
}

func (w *butler) register() (object, codes.Code) {
	w.t.Helper()
	return w.call("logdog.Registration/RegisterPrefix", "RegisterPrefixRequest", object{
		"project": "local", "prefix": w.prefix, "source_info": []string{"LogDog Butler", "GOARCH=amd64", "GOOS=linux"}, "op_nonce": w.nonce, "expiration": object{},
	}, "RegisterPrefixResponse")
}

// invoke makes a call of google.pubsub.v1.Publisher.
func (w *butler) invoke(method, request string, req object, response string) (object, error) {
	var out []byte
	if err := w.topics.conn.Invoke(w.topics.ctx, "/google.pubsub.v1.Publisher/"+method, encode(request, req), &out); err != nil {
		return nil, err
	}
	return decode(response, out)
}

// message returns a bundle in its envelope, compressed as Butlers do: from 860 bytes on.
func (w *butler) message(entries ...object) []byte {
	w.t.Helper()
	bundle := encode("ButlerLogBundle", object{
		"timestamp": now(), "entries": entries, "project": "local", "prefix": w.prefix, "secret": w.secret,
	})
	meta := object{"type": 1, "proto_version": "1"}
	if len(bundle) >= 860 {
		var b bytes.Buffer
		z := zlib.NewWriter(&b)
		if _, err := z.Write(bundle); err != nil {
			w.t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			w.t.Fatal(err)
		}
		bundle, meta["compression"] = b.Bytes(), 1
	}
	var out []byte
	for _, frame := range [][]byte{encode("ButlerMetadata", meta), bundle} {
		out = append(binary.AppendUvarint(out, uint64(len(frame))), frame...)
	}
	return out
}

// publish publishes a bundle with what it says of these streams.
func (w *butler) publish(entries ...object) {
	w.t.Helper()
	resp, err := w.invoke("Publish", "PublishRequest", object{"topic": w.topic, "messages": []object{{"data": w.message(entries...)}}}, "PublishResponse")
	if err != nil || len(resp.texts("message_ids")) != 1 || resp.texts("message_ids")[0] == "" {
		w.t.Fatalf("publish: %v, %v", resp, err)
	}
}

func now() object {
	t := time.Now()
	return object{"seconds": int(t.Unix()), "nanos": t.Nanosecond()}
}

// The types of streams.
const (
	textStream     = 0
	binaryStream   = 1
	datagramStream = 2
)

var contentTypes = [...]string{"text/plain; charset=utf-8", "application/octet-stream", "application/x-logdog-datagram"}

// run is what a bundle says of a stream: log entries from an index on; and that they are the last, if end is set.
func run(name string, kind, index int, end bool, contents ...object) object {
	e := object{"desc": object{"name": name, "stream_type": kind, "content_type": contentTypes[kind], "timestamp": now(), "tags": []object{{"key": "step", "value": name}}}}
	var logs []object
	for i, c := range contents {
		l := object{"time_offset": object{"nanos": 1000 * (index + i)}, "prefix_index": index + i, "stream_index": index + i, "sequence": index + i}
		for k, v := range c {
			l[k] = v
		}
		logs = append(logs, l)
	}
	e["logs"] = logs
	if end {
		e["terminal"], e["terminal_index"] = true, index+len(contents)-1
	}
	return e
}

// lines is the content of an entry of text: values and their delimiters.
func lines(values ...string) object {
	var out []object
	for i := 0; i < len(values); i += 2 {
		out = append(out, object{"value": []byte(values[i]), "delimiter": values[i+1]})
	}
	return object{"text": object{"lines": out}}
}

func data(b string) object { return object{"binary": object{"data": []byte(b)}} }

// datagram is the content of an entry; with a size it is the fragment with this index of so much.
func datagram(b string, index, size int, last bool) object {
	d := object{"data": []byte(b)}
	if size > 0 {
		d["partial"] = object{"index": index, "size": size, "last": last}
	}
	return object{"datagram": d}
}

// A Butler's registration is its own, however often it has to ask, and its topic takes its bundles alone.
func TestButler(t *testing.T) {
	t.Parallel()
	h := testkit.NewHouse(t)
	h.Serve()
	b := newTools(t, h)
	w := newButler(b, "foreign/butler")
	again, code := w.register()
	if code != codes.OK || !bytes.Equal(again.bytes("secret"), w.secret) || again.text("log_bundle_topic") != w.topic {
		t.Errorf("the same registration again: %v, code %d", again, code)
	}
	other := *w
	other.nonce = bytes.Repeat([]byte{1}, 32)
	if _, code := other.register(); code != codes.AlreadyExists {
		t.Errorf("another registration: code %d", code)
	}
	// Scripts register by JSON.
	resp := b.post("http://"+b.host+"/prpc/logdog.Registration/RegisterPrefix", []byte(`{"project": "local", "prefix": "foreign/json", "sourceInfo": ["a script"]}`),
		http.Header{"Content-Type": {"application/json"}, "Accept": {"application/json"}, "Authorization": {"Bearer " + b.token()}})
	var registered struct {
		Secret []byte
		Topic  string `json:"logBundleTopic"`
	}
	body, prefixed := strings.CutPrefix(resp.body, ")]}'\n")
	if err := json.Unmarshal([]byte(body), &registered); err != nil || !prefixed || len(registered.Secret) != 36 || registered.Topic != w.topic {
		t.Errorf("registered by JSON: %s %s, %v", resp.Status, resp.body, err)
	}
	if topic, err := w.invoke("GetTopic", "GetTopicRequest", object{"topic": w.topic}, "Topic"); err != nil || topic.text("name") != w.topic {
		t.Error(topic, err)
	}
	for what, c := range map[string]struct {
		topic string
		data  []byte
		want  codes.Code
	}{
		"another topic":      {"projects/daybook/topics/other", w.message(run("a", textStream, 0, true, lines("x", "\n"))), codes.NotFound},
		"what is no message": {w.topic, []byte("hello"), codes.InvalidArgument},
		"nothing":            {w.topic, nil, codes.InvalidArgument},
	} {
		_, err := w.invoke("Publish", "PublishRequest", object{"topic": c.topic, "messages": []object{{"data": c.data}}}, "PublishResponse")
		if status.Code(err) != c.want {
			t.Errorf("publish %s: %v", what, err)
		}
	}
	if _, err := w.invoke("DeleteTopic", "GetTopicRequest", object{"topic": w.topic}, "Topic"); status.Code(err) != codes.Unimplemented {
		t.Error(err)
	}
}

// What was published is there after the server was killed at once.
func TestPublishedIsDurable(t *testing.T) {
	t.Parallel()
	h := testkit.NewHouse(t)
	s := h.Serve()
	b := newTools(t, h)
	w := newButler(b, "foreign/durable")
	large := strings.Repeat("0123456789abcdef", 1<<16)
	w.publish(run("large", binaryStream, 0, false, data(large)))
	w.publish(run("large", binaryStream, 1, true, data("end")))
	s.Kill()
	s.Restart()
	r := newReader(b)
	if out, code := r.cat("foreign/durable/+/large", catFlags{raw: true}); code != codes.OK || out != large+"end" {
		t.Errorf("%d bytes, code %d", len(out), code)
	}
}

// Where tokens are demanded, tools get theirs by the context, and what they publish without one is let in by it.
func TestButlerWithToken(t *testing.T) {
	t.Parallel()
	h := testkit.NewHouse(t)
	s := h.Serve("--auth")
	writing := strings.TrimSpace(h.Run("token", "create", "--name", "writer", "--project", "local", "--role", "writer"))
	reading := strings.TrimSpace(h.Run("token", "create", "--name", "reader", "--project", "local", "--role", "reader"))

	// Somebody who has nothing but the address.
	stranger := &toolbox{t: t, ctx: t.Context(), http: http.DefaultClient, host: s.Addr, pubsub: s.Addr, agent: "pRPC Client 1.5"}
	for token, want := range map[string]codes.Code{"": codes.Unauthenticated, "wrong": codes.Unauthenticated, reading: codes.PermissionDenied} {
		stranger.known = func() string { return token }
		if _, code := stranger.call("logdog.Registration/RegisterPrefix", "RegisterPrefixRequest", object{"project": "local", "prefix": "foreign/stranger"}, "RegisterPrefixResponse"); code != want {
			t.Errorf("register with token %q: code %d", token, code)
		}
	}

	there := []string{"--server", s.Addr, "--token"}
	w := newButler(newTools(t, h, append(there, writing)...), "foreign/token")
	w.publish(run("a", textStream, 0, true, lines("let in", "\n")))
	large := strings.Repeat("0123456789abcdef", 1<<14)
	w.publish(run("b", binaryStream, 0, true, data(large)))
	direct := *w
	direct.topics = dial(t, s.URL)
	if _, err := direct.invoke("Publish", "PublishRequest", object{"topic": w.topic, "messages": []object{{"data": w.message(run("c", textStream, 0, true, lines("x", "\n")))}}}, "PublishResponse"); status.Code(err) != codes.Unauthenticated {
		t.Errorf("publish without a token: %v", err)
	}

	r := newReader(newTools(t, h, append(there, reading)...))
	for name, want := range map[string]string{"a": "let in\n", "b": large} {
		if got, code := r.cat("foreign/token/+/"+name, catFlags{raw: true}); got != want || code != codes.OK {
			t.Errorf("cat %s: %.100q, code %d", name, got, code)
		}
	}
	if got, code := newReader(w.toolbox).cat("foreign/token/+/a", catFlags{raw: true}); code != codes.PermissionDenied {
		t.Errorf("the writer reads %.100q, code %d", got, code)
	}
}

// What a Butler publishes that has no right to a prefix does no harm to the one that has, and none to the others in its message.
func TestStrangersBundles(t *testing.T) {
	t.Parallel()
	h := testkit.NewHouse(t)
	h.Serve()
	b := newTools(t, h)
	w, r := newButler(b, "foreign/strangers"), newReader(b)
	stranger := *w
	stranger.secret = bytes.Repeat([]byte("x"), 36)
	stranger.publish(run("s", textStream, 0, true, lines("not mine", "\n")))
	bad := run("bad", textStream, 0, true, lines("a", "\n"), data("binary in a text"))
	missing := run("missing", textStream, 0, true, lines("a", "\n"))
	delete(missing, "desc")
	w.publish(bad, missing, run("s", textStream, 0, true, lines("mine", "\n")))
	if got, code := r.cat("foreign/strangers/+/s", catFlags{raw: true}); got != "mine\n" || code != codes.OK {
		t.Errorf("%q, code %d", got, code)
	}
	if got, code := r.query("foreign/strangers", nil); len(got) != 1 || code != codes.OK {
		t.Errorf("streams %q, code %d", got, code)
	}
}
