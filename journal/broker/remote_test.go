package broker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/daybook-dev/daybook/internal/bucket"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/broker"
	"github.com/daybook-dev/daybook/journal/broker/engine/disklog"
	"github.com/daybook-dev/daybook/journal/client"
	"github.com/daybook-dev/daybook/journal/fragment"
	"github.com/daybook-dev/daybook/journal/protocol"
	"github.com/daybook-dev/daybook/journal/store"
	"github.com/daybook-dev/daybook/journal/store/storetest"
)

// TestObjectStores runs the broker on real servers of every kind: in every codec content is stored, read back through the
// broker from anywhere, and fetched from signed URLs by plain HTTP and by the client.
func TestObjectStores(t *testing.T) {
	for name, start := range map[string]func(*testing.T) *storetest.Server{
		"S3":    storetest.StartS3,
		"GCS":   func(t *testing.T) *storetest.Server { return storetest.StartGCS(t, true) },
		"Azure": storetest.StartAzure,
	} {
		t.Run(name, func(t *testing.T) {
			server := start(t)
			c := withStores(t, store.Options{Client: plain})()
			defer c.stop()
			for codec := range protocol.CompressionCodec_name {
				if codec := protocol.CompressionCodec(codec); codec != protocol.CompressionCodec_INVALID {
					storedAndFetched(t, c, codec, server.Store("fragments/"))
				}
			}
		})
	}
}

// plain keeps no connections that a test would have to wait for.
var plain = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}}

func storedAndFetched(t *testing.T, c *cluster, codec protocol.CompressionCodec, name protocol.FragmentStore) {
	journal := "test/" + strings.ToLower(codec.String())
	s := storedSpec(journal, codec, string(name))
	s.Fragment.PathPostfixTemplate = `year={{.Spool.FirstAppendTime.Format "2006"}}`
	c.createStored(s)
	var want []byte
	for i := range 8 {
		content := strings.Repeat(fmt.Sprintf("line %d of %s\n", i, journal), 60)
		c.mustAppend(journal, content)
		want = append(want, content...)
	}
	all := c.awaitStored(journal, int64(len(want)))
	for _, from := range []int64{0, 1, 500, int64(len(want)) / 2, int64(len(want)) - 3} {
		if got, _ := c.read(&protocol.ReadRequest{Journal: journal, Offset: from}, 0); !bytes.Equal(got, want[from:]) {
			t.Errorf("%s from %d: other content", journal, from)
		}
		if got, _ := c.read(&protocol.ReadRequest{Journal: journal, Offset: from, EndOffset: from + 2}, 0); !bytes.Equal(got, want[from:from+2]) {
			t.Errorf("%s from %d, two bytes: %q", journal, from, got)
		}
		got, metas := c.read(&protocol.ReadRequest{Journal: journal, Offset: from, DoNotProxy: true}, 0)
		if len(got) != 0 || metas[0].GetFragmentUrl() == "" {
			t.Errorf("%s from %d is read through the broker, against the request: %v", journal, from, metas)
			continue
		}
		f := metas[0].GetFragment()
		r, err := client.OpenFragmentURL(t.Context(), f, from, metas[0].GetFragmentUrl())
		if err != nil {
			t.Errorf("%s from %d: open the URL: %v", journal, from, err)
			continue
		}
		fetched, err := io.ReadAll(r)
		if err = errors.Join(err, r.Close()); err != nil || !bytes.Equal(fetched, want[from:f.GetEnd()]) {
			t.Errorf("%s from %d: the URL gives other content, %v", journal, from, err)
		}
	}
	signed := c.fragments(&protocol.FragmentsRequest{Journal: journal, SignatureTTL: durationpb.New(time.Hour)})
	if len(signed) != len(all) {
		t.Errorf("%s has %d fragments, and %d with URLs", journal, len(all), len(signed))
	}
	for _, item := range signed {
		f := item.GetSpec()
		got, err := fetch(t.Context(), item.GetSignedUrl(), codec)
		if err != nil || !bytes.Equal(got, want[f.GetBegin():f.GetEnd()]) {
			t.Errorf("%s: plain HTTP gives other content of [%d, %d), %v", journal, f.GetBegin(), f.GetEnd(), err)
		}
	}
	state, err := c.log.Load(t.Context(), protocol.Journal(journal))
	if err != nil || len(state.Finished) != 0 || len(state.Stored) != len(all) {
		t.Errorf("%s: there are still local copies: %v, %v", journal, state.Finished, err)
	}
}

// fetch gets a fragment's file by plain HTTP and decodes it.
func fetch(ctx context.Context, u string, codec protocol.CompressionCodec) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, err
	}
	resp, err := plain.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, errors.New(resp.Status)
	}
	if codec == protocol.CompressionCodec_GZIP_OFFLOAD_DECOMPRESSION && resp.Header.Get("Content-Encoding") == "gzip" {
		codec = protocol.CompressionCodec_GZIP // which the store has not taken off
	}
	r, err := fragment.NewReader(resp.Body, codec)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// recorder is a proxy before a server that notes what is asked of it.
type recorder struct {
	mu   sync.Mutex
	puts []string // objects that the server took, in order
	gets []string // ranges that were asked for
	sent int64    // bytes of answers to gets
}

func (r *recorder) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.puts, r.gets, r.sent = nil, nil, 0
}

// record starts a recorder before a server.
func record(t *testing.T, server *storetest.Server) (r *recorder, endpoint string) {
	t.Helper()
	target, err := url.Parse(server.Endpoint())
	if err != nil {
		t.Fatal(err)
	}
	r = new(recorder)
	proxy := &httputil.ReverseProxy{
		// The name of the host stays, as it is signed.
		Rewrite:   func(p *httputil.ProxyRequest) { p.Out.URL.Scheme, p.Out.URL.Host = target.Scheme, target.Host },
		Transport: plain.Transport,
		ModifyResponse: func(resp *http.Response) error {
			if resp.Request.Method == http.MethodPut && resp.StatusCode == http.StatusOK && strings.Contains(resp.Request.URL.Path, "/test/") {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.puts = append(r.puts, resp.Request.URL.Path)
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method == http.MethodGet && strings.Contains(req.URL.Path, "/test/") {
			r.mu.Lock()
			r.gets = append(r.gets, req.Header.Get("Range"))
			r.mu.Unlock()
			w = &counting{ResponseWriter: w, recorder: r}
		}
		proxy.ServeHTTP(w, req)
	}))
	t.Cleanup(front.Close)
	return r, front.URL
}

type counting struct {
	http.ResponseWriter
	recorder *recorder
}

func (c *counting) Write(p []byte) (int, error) {
	c.recorder.mu.Lock()
	c.recorder.sent += int64(len(p))
	c.recorder.mu.Unlock()
	return c.ResponseWriter.Write(p)
}

func storeBehind(endpoint string, server *storetest.Server) string {
	query := url.Values{"endpoint": {endpoint}, "region": {"us-east-1"}}
	return fmt.Sprintf("s3://%s/fragments/?%s", server.Bucket(), query.Encode())
}

// TestRangedReads reads small pieces of large fragments, and counts what the store has to send.
func TestRangedReads(t *testing.T) {
	server := storetest.StartS3(t)
	seen, endpoint := record(t, server)
	c := withStores(t, store.Options{Client: plain})()
	defer c.stop()
	const size, piece = 4 << 20, 64 << 10
	content := make([]byte, 0, size)
	for i := 0; len(content) < size; i++ {
		content = fmt.Appendf(content, "%x\n", uint64(i)*0x9e3779b97f4a7c15)
	}
	content = content[:size]
	for _, codec := range []protocol.CompressionCodec{protocol.CompressionCodec_NONE, protocol.CompressionCodec_ZSTANDARD} {
		journal := "test/" + strings.ToLower(codec.String())
		c.createStored(storedSpec(journal, codec, storeBehind(endpoint, server)))
		var chunks []string
		for at := 0; at < size; at += 1 << 20 {
			chunks = append(chunks, string(content[at:at+1<<20]))
		}
		c.mustAppend(journal, chunks...) // one append, and so one fragment
		c.awaitStored(journal, size)
		seen.reset()
		const from = size - 2*piece
		if got, _ := c.read(&protocol.ReadRequest{Journal: journal, Offset: from, EndOffset: from + piece}, 0); !bytes.Equal(got, content[from:from+piece]) {
			t.Errorf("%s: other content", journal)
		}
		seen.mu.Lock()
		gets, sent := len(seen.gets), seen.sent
		ranged := gets == 1 && seen.gets[0] != ""
		seen.mu.Unlock()
		if codec == protocol.CompressionCodec_NONE && (!ranged || sent != piece) {
			t.Errorf("%s: a piece of %d bytes costs %d requests, %d bytes", journal, piece, gets, sent)
		}
		if gets != 1 || sent > size {
			t.Errorf("%s: a piece costs %d requests, %d bytes", journal, gets, sent)
		}
		seen.reset()
		if got, _ := c.read(&protocol.ReadRequest{Journal: journal, Offset: piece}, 0); !bytes.Equal(got, content[piece:]) {
			t.Errorf("%s: other content", journal)
		}
		seen.mu.Lock()
		gets, sent = len(seen.gets), seen.sent
		seen.mu.Unlock()
		if gets != 1 || sent > size {
			t.Errorf("%s: %d bytes cost %d requests, %d bytes", journal, size-piece, gets, sent)
		}
		// Piece by piece, as a client does that asks for ranges. Compressed content is fetched once all the same.
		seen.reset()
		var all []byte
		for at := int64(0); at < size; at += piece {
			got, _ := c.read(&protocol.ReadRequest{Journal: journal, Offset: at, EndOffset: at + piece}, 0)
			all = append(all, got...)
		}
		if !bytes.Equal(all, content) {
			t.Errorf("%s: other content in pieces", journal)
		}
		seen.mu.Lock()
		gets, sent = len(seen.gets), seen.sent
		seen.mu.Unlock()
		if sent > size {
			t.Errorf("%s: %d bytes in pieces cost %d requests, %d bytes", journal, size, gets, sent)
		}
	}
}

// gauge returns the value of a gauge.
func gauge(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

// TestStoreDies kills the store's server while clients append, and lets it come back: appends go on, the backlog grows and is
// then stored oldest first, each fragment once, and local copies are dropped.
func TestStoreDies(t *testing.T) {
	server := storetest.StartS3(t)
	seen, endpoint := record(t, server)
	reg := prometheus.NewRegistry()
	stores := store.NewRegistry(store.Options{Client: plain})
	c := startWith(t, t.TempDir(), disklog.Options{}, broker.Config{Stores: stores, Scratch: t.TempDir(), Registerer: reg})
	c.closers = append(c.closers, stores.Close)
	defer c.stop()
	journals := []string{"test/a", "test/b"}
	for _, journal := range journals {
		c.createStored(storedSpec(journal, protocol.CompressionCodec_SNAPPY, storeBehind(endpoint, server)))
		c.mustAppend(journal, "first")
		c.awaitStored(journal, 5)
	}

	// Clients append until they are told to stop, and report each append.
	appended := make(chan struct{})
	stop := make(chan struct{})
	want := make([][]byte, len(journals))
	var clients sync.WaitGroup
	for i, journal := range journals {
		want[i] = []byte("first")
		clients.Go(func() {
			for n := 0; ; n++ {
				content := strings.Repeat(fmt.Sprint(n%10), 1025)
				resp, err := c.append(&protocol.AppendRequest{Journal: journal}, content)
				if err != nil || resp.GetStatus() != protocol.Status_OK {
					t.Errorf("append: %v, %v", resp, err)
				}
				want[i] = append(want[i], content...)
				select {
				case appended <- struct{}{}:
				case <-stop:
					return
				}
			}
		})
	}
	await := func(n int) {
		for range n {
			<-appended
		}
	}
	await(20)
	server.Kill()
	await(20)
	before := gauge(t, reg, "daybook_journal_unstored_bytes")
	await(100)
	after, age := gauge(t, reg, "daybook_journal_unstored_bytes"), gauge(t, reg, "daybook_journal_unstored_age_seconds")
	if after <= before || age <= 0 {
		t.Errorf("without the store %v, and then %v bytes wait to be stored, for %v seconds", before, after, age)
	}
	server.Start()
	await(20)
	close(stop)
	clients.Wait()

	for i, journal := range journals {
		c.awaitStored(journal, int64(len(want[i])))
		if got, _ := c.read(&protocol.ReadRequest{Journal: journal}, 0); !bytes.Equal(got, want[i]) {
			t.Errorf("%s: other content", journal)
		}
		state, err := c.log.Load(t.Context(), protocol.Journal(journal))
		if err != nil || len(state.Finished) != 0 {
			t.Errorf("%s: there are still local copies: %v, %v", journal, state.Finished, err)
		}
		st, err := stores.Acquire(t.Context(), protocol.FragmentStore(storeBehind(endpoint, server)))
		if err != nil {
			t.Fatal(err)
		}
		end := int64(0)
		for f, err := range st.List(t.Context(), protocol.Journal(journal)) {
			if err != nil || f.GetBegin() != end {
				t.Fatalf("%s: the store has %v after %d, %v", journal, f, end, err)
			}
			end = f.GetEnd()
		}
		st.Release()
		if end != int64(len(want[i])) {
			t.Errorf("%s: the store has %d of %d bytes", journal, end, len(want[i]))
		}
		var puts []string
		seen.mu.Lock()
		for _, key := range seen.puts {
			if strings.Contains(key, journal+"/") {
				puts = append(puts, key)
			}
		}
		seen.mu.Unlock()
		if !isSorted(puts) {
			t.Errorf("%s: stored in another order, or twice: %v", journal, puts)
		}
	}
	if left := gauge(t, reg, "daybook_journal_unstored_bytes"); left != 0 {
		t.Errorf("%v bytes wait to be stored when all are", left)
	}
}

// TestStuckStore checks that a store that does not answer holds up no other.
func TestStuckStore(t *testing.T) {
	stuck, well := bucket.NewMem("stuck"), bucket.NewMem("well")
	entered, leave := make(chan struct{}), make(chan struct{})
	var once sync.Once
	stuck.SetFault(func(op bucket.Op, key string) error {
		if op == bucket.OpCommit && strings.Contains(key, "/test/") {
			once.Do(func() { close(entered) })
			<-leave
		}
		return nil
	})
	c := withStores(t, store.Options{Open: func(_ context.Context, u *url.URL, _ map[string]string) (bucket.Bucket, error) {
		if u.Host == "stuck" {
			return stuck, nil
		}
		return well, nil
	}})()
	defer c.stop()
	defer close(leave)
	for i := range 20 { // more than there are workers
		name := fmt.Sprintf("test/stuck-%02d", i)
		c.createStored(storedSpec(name, protocol.CompressionCodec_NONE, "s3://stuck/prefix/"))
		c.mustAppend(name, "content")
	}
	<-entered
	c.createStored(storedSpec("test/well", protocol.CompressionCodec_NONE, "s3://well/prefix/"))
	c.mustAppend("test/well", "content")
	c.awaitStored("test/well", 7)
}

// TestRefusedJournal checks that a journal whose fragments a store refuses holds up no other journal of the store.
func TestRefusedJournal(t *testing.T) {
	b := bucket.NewMem("b")
	refused := make(chan struct{})
	var once sync.Once
	b.SetFault(func(op bucket.Op, key string) error {
		if op == bucket.OpCommit && strings.Contains(key, "/test/refused/") {
			once.Do(func() { close(refused) })
			return fault.New(fault.Denied, "the object is locked")
		}
		return nil
	})
	c := withStores(t, memory(b))()
	defer c.stop()
	c.createStored(storedSpec("test/refused", protocol.CompressionCodec_NONE, memoryStore))
	c.mustAppend("test/refused", "content")
	<-refused
	for _, journal := range []string{"test/a", "test/b"} {
		c.createStored(storedSpec(journal, protocol.CompressionCodec_NONE, memoryStore))
		c.mustAppend(journal, "content")
	}
	for _, journal := range []string{"test/a", "test/b"} {
		c.awaitStored(journal, 7)
	}
}

// TestWrongSize checks that what a store took in another size is stored again, also when a listing shows it before.
func TestWrongSize(t *testing.T) {
	b := bucket.NewMem("b")
	reg := prometheus.NewRegistry()
	stores := store.NewRegistry(memory(b))
	c := startWith(t, t.TempDir(), disklog.Options{}, broker.Config{Stores: stores, Scratch: t.TempDir(), Registerer: reg})
	c.closers = append(c.closers, stores.Close)
	defer c.stop()
	var mu sync.Mutex
	cut, listed := false, false
	b.SetFault(func(op bucket.Op, key string) error {
		if !strings.Contains(key, "/test/a/") {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		switch {
		case op == bucket.OpStat && !cut && b.Bytes(key) != nil:
			cut = true
			b.SetBytes(key, []byte("cont"))
		case op == bucket.OpList && cut:
			listed = true
		case op == bucket.OpCreate && cut && !listed:
			return fault.New(fault.Transient, "the store is down")
		}
		return nil
	})
	c.createStored(storedSpec("test/a", protocol.CompressionCodec_NONE, memoryStore))
	c.mustAppend("test/a", "content")
	f := c.awaitStored("test/a", 7)[0].GetSpec()
	if got := b.Bytes("prefix/" + f.ContentPath()); string(got) != "content" {
		t.Errorf("the object is %q", got)
	}
	state, err := c.log.Load(t.Context(), "test/a")
	if err != nil || len(state.Stored) != 1 || len(state.Finished) != 0 {
		t.Errorf("the journal has %v, %v", state, err)
	}
	if n := counted(t, reg, "daybook_journal_store_failures_total"); n == 0 {
		t.Error("the failure is not counted")
	}
}

// TestRemovalIsRetried lets a store refuse to remove what was dropped.
func TestRemovalIsRetried(t *testing.T) {
	b := bucket.NewMem("b")
	c := withStores(t, memory(b))()
	defer c.stop()
	c.createStored(storedSpec("test/a", protocol.CompressionCodec_NONE, memoryStore))
	c.mustAppend("test/a", "content")
	c.awaitStored("test/a", 7)
	b.SetFault(func(op bucket.Op, _ string) error {
		if op == bucket.OpDelete {
			return fault.New(fault.Transient, "the store is down")
		}
		return nil
	})
	if err := c.broker.Trim(t.Context(), "test/a", 7); !fault.IsTransient(err) {
		t.Errorf("Trim: %v; want a transient error", err)
	}
	if got, _ := c.read(&protocol.ReadRequest{Journal: "test/a"}, 0); len(got) != 0 {
		t.Errorf("what was dropped is read: %q", got)
	}
	b.SetFault(nil)
	if err := c.broker.Trim(t.Context(), "test/a", 7); err != nil {
		t.Errorf("Trim: %v", err)
	}
	for _, key := range b.Keys() {
		if strings.Contains(key, "/test/a/") {
			t.Errorf("object %s is left", key)
		}
	}
}
