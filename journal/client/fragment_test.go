package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/fragment"
	pb "github.com/daybook-dev/daybook/journal/protocol"
)

const fragmentText = "hello, journal\nhello again\n"

// testFragment returns a fragment of the text that begins at offset 100, and its file.
func testFragment(t testing.TB, codec pb.CompressionCodec) (*pb.Fragment, []byte) {
	t.Helper()
	f := &pb.Fragment{
		Journal: "test/journal", Begin: 100, End: 100 + int64(len(fragmentText)),
		Sum: pb.SHA1SumOf([]byte(fragmentText)), CompressionCodec: codec, BackingStore: "file:///", ModTime: 1,
	}
	var b bytes.Buffer
	w, err := fragment.NewWriter(&b, codec)
	wantNil(t, err)
	_, err = io.WriteString(w, fragmentText)
	wantNil(t, err)
	wantNil(t, w.Close())
	return f, b.Bytes()
}

// fileStore keeps files below a directory that is installed for the scheme file, and returns the URL of a fragment.
func fileStore(t testing.TB) func(f *pb.Fragment, file []byte) string {
	t.Helper()
	root := t.TempDir()
	t.Cleanup(InstallFileTransport(root))
	return func(f *pb.Fragment, file []byte) string {
		name := filepath.Join(root, filepath.FromSlash(f.ContentPath()))
		wantNil(t, os.MkdirAll(filepath.Dir(name), 0o700))
		wantNil(t, os.WriteFile(name, file, 0o600))
		return "file:///" + f.ContentPath()
	}
}

var allCodecs = []pb.CompressionCodec{
	pb.CompressionCodec_NONE, pb.CompressionCodec_GZIP, pb.CompressionCodec_ZSTANDARD, pb.CompressionCodec_SNAPPY,
}

func TestOpenFragmentURL(t *testing.T) {
	put := fileStore(t)
	for _, codec := range allCodecs {
		f, file := testFragment(t, codec)
		for _, offset := range []int64{0, 100, 101, 115, f.End - 1, f.End} {
			fr, err := OpenFragmentURL(t.Context(), f, offset, put(f, file))
			wantNil(t, err)
			begin := max(offset, f.Begin)
			if fr.Offset != begin || fr.Journal != f.Journal {
				t.Errorf("%s: opened at %d, is at %d", codec, offset, fr.Offset)
			}
			got, err := io.ReadAll(fr)
			if err != nil || string(got) != fragmentText[begin-100:] || fr.Offset != f.End {
				t.Errorf("%s from %d: %q, %v", codec, offset, got, err)
			}
			wantNil(t, fr.Close())
		}
		_, err := OpenFragmentURL(t.Context(), f, f.End+1, put(f, file))
		wantErrorIs(t, err, io.EOF)
	}
}

func TestFragmentsAreChecked(t *testing.T) {
	put := fileStore(t)
	for _, codec := range allCodecs {
		whole, file := testFragment(t, codec)
		for name, c := range map[string]struct {
			change func(f *pb.Fragment)
			err    error
		}{
			"too short": {func(f *pb.Fragment) { f.End += 5 }, io.ErrUnexpectedEOF},
			"too long":  {func(f *pb.Fragment) { f.End -= 5 }, ErrDidNotReadExpectedEOF},
			"other sum": {func(f *pb.Fragment) { f.Sum.Part2++ }, nil},
		} {
			f, _ := testFragment(t, codec)
			c.change(f)
			fr, err := OpenFragmentURL(t.Context(), f, f.Begin, put(f, file))
			wantNil(t, err)
			got, err := io.ReadAll(fr)
			want := fragmentText[:min(f.ContentLength(), whole.ContentLength())]
			if !fault.Is(err, fault.DataLoss) || c.err != nil && !errors.Is(err, c.err) || string(got) != want {
				t.Errorf("%s, %s: %q, %v", codec, name, got, err)
			}
			if n, again := fr.Read(make([]byte, 9)); n != 0 || !errors.Is(again, err) {
				t.Errorf("%s, %s: then %d, %v", codec, name, n, again)
			}
			wantNil(t, fr.Close())
		}
	}
	f, file := testFragment(t, pb.CompressionCodec_NONE)
	f.CompressionCodec = pb.CompressionCodec_GZIP
	if _, err := OpenFragmentURL(t.Context(), f, f.Begin, put(f, file)); !fault.Is(err, fault.DataLoss) {
		t.Errorf("another codec: %v", err)
	}
}

func TestFileTransportStaysBelowItsRoot(t *testing.T) {
	put := fileStore(t)
	f, file := testFragment(t, pb.CompressionCodec_NONE)
	put(f, file)
	for _, u := range []string{"file:///missing", "file:///../etc/passwd", "file:///test", "file:///", "file:///%00"} {
		if _, err := OpenFragmentURL(t.Context(), f, f.Begin, u); !fault.Is(err, fault.NotFound) {
			t.Errorf("%s: %v", u, err)
		}
	}
	remove := InstallFileTransport(t.TempDir())
	u := "file:///" + f.ContentPath()
	if _, err := OpenFragmentURL(t.Context(), f, f.Begin, u); !fault.Is(err, fault.NotFound) {
		t.Errorf("another root: %v", err)
	}
	remove()
	fr, err := OpenFragmentURL(t.Context(), f, f.Begin, u)
	wantNil(t, err)
	wantNil(t, fr.Close())
}

// httpStore answers with the handler.
func httpStore(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(func() {
		fragmentClient.Load().CloseIdleConnections()
		s.Close()
	})
	return s.URL + "/x?signature=secret"
}

func TestFetchByHTTP(t *testing.T) {
	plain, plainFile := testFragment(t, pb.CompressionCodec_NONE)
	zipped, zippedFile := testFragment(t, pb.CompressionCodec_GZIP)
	offload, _ := testFragment(t, pb.CompressionCodec_GZIP_OFFLOAD_DECOMPRESSION)
	for _, c := range []struct {
		name    string
		f       *pb.Fragment
		handler http.HandlerFunc
		codec   pb.CompressionCodec
	}{
		{"ranges", plain, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") != "bytes=7-" {
				t.Errorf("range %q", r.Header.Get("Range"))
			}
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(plainFile))
		}, pb.CompressionCodec_NONE},
		{"range ignored", plain, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(plainFile) }, pb.CompressionCodec_NONE},
		{"stored with an encoding", zipped, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Accept-Encoding") != "gzip" {
				t.Errorf("accepts %q", r.Header.Get("Accept-Encoding"))
			}
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(zippedFile)
		}, pb.CompressionCodec_GZIP},
		{"the store decompresses", offload, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Accept-Encoding") != "identity" {
				t.Errorf("accepts %q", r.Header.Get("Accept-Encoding"))
			}
			_, _ = w.Write(plainFile)
		}, pb.CompressionCodec_GZIP_OFFLOAD_DECOMPRESSION},
		{"the store does not decompress", offload, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(zippedFile)
		}, pb.CompressionCodec_GZIP},
	} {
		fr, err := OpenFragmentURL(t.Context(), c.f, 107, httpStore(t, c.handler))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		got, err := io.ReadAll(fr)
		if err != nil || string(got) != fragmentText[7:] || fr.CompressionCodec != c.codec {
			t.Errorf("%s: %q, %v", c.name, got, err)
		}
		wantNil(t, fr.Close())
	}
}

func TestFetchRefused(t *testing.T) {
	f, file := testFragment(t, pb.CompressionCodec_NONE)
	for code, kind := range map[int]fault.Kind{404: fault.NotFound, 403: fault.Denied, 416: fault.DataLoss, 503: fault.Transient, 418: fault.Internal} {
		_, err := OpenFragmentURL(t.Context(), f, 107, httpStore(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }))
		if !fault.Is(err, kind) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%d: %v", code, err)
		}
	}
	for name, h := range map[string]http.HandlerFunc{
		"another range": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes 0-5/10")
			w.WriteHeader(http.StatusPartialContent)
		},
		"a file": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
		},
	} {
		if _, err := OpenFragmentURL(t.Context(), f, 107, httpStore(t, h)); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	// What the connection cuts off is not the store's damage.
	fr, err := OpenFragmentURL(t.Context(), f, f.Begin, httpStore(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "27")
		_, _ = w.Write(file[:9])
	}))
	wantNil(t, err)
	if got, err := io.ReadAll(fr); string(got) != fragmentText[:9] || !fault.Is(err, fault.Transient) || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut off: %q, %v", got, err)
	}
	wantNil(t, fr.Close())
	for _, u := range []string{"http://127.0.0.1:1/x?signature=secret", "http://[::bad?signature=secret"} {
		if _, err := OpenFragmentURL(t.Context(), f, 107, u); err == nil || strings.Contains(err.Error(), "secret") {
			t.Error(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = OpenFragmentURL(ctx, f, 107, "http://127.0.0.1:1/")
	wantErrorIs(t, err, context.Canceled)
}

// referral is a metadata message that refers to a store.
func referral(f *pb.Fragment, offset int64, fragmentURL string) *pb.ReadResponse {
	return &pb.ReadResponse{Header: testHeader(), Offset: offset, WriteHead: f.End, Fragment: f, FragmentUrl: fragmentURL}
}

func TestReaderFollowsReferral(t *testing.T) {
	put := fileStore(t)
	f, file := testFragment(t, pb.CompressionCodec_GZIP)
	u := put(f, file)
	b, _ := script([]any{referral(f, 107, u)})
	req := func() *pb.ReadRequest { return &pb.ReadRequest{Journal: "test/journal", Offset: 107, DoNotProxy: true} }
	for _, end := range []int64{0, 110, f.End} {
		q := req()
		q.EndOffset = end
		r := NewReader(t.Context(), b.start(t), q)
		got, err := io.ReadAll(r)
		if end == 0 {
			end = f.End
		}
		if err != nil || string(got) != fragmentText[7:end-100] || r.Request.Offset != end {
			t.Errorf("%q, %v", got, err)
		}
	}
	q := req()
	q.MetadataOnly = true
	r := NewReader(t.Context(), b.start(t), q)
	if got, err := io.ReadAll(r); err != nil || len(got) != 0 || r.Response.FragmentUrl != u {
		t.Errorf("metadata: %q, %v", got, err)
	}
}

func TestReaderSeeksInFragment(t *testing.T) {
	put := fileStore(t)
	f, file := testFragment(t, pb.CompressionCodec_ZSTANDARD)
	b, _ := script([]any{referral(f, 100, put(f, file))})
	r := NewReader(t.Context(), b.start(t), &pb.ReadRequest{Journal: "test/journal", Offset: 100, DoNotProxy: true})
	p := make([]byte, 2)
	for n := 0; n == 0; {
		var err error
		n, err = r.Read(p)
		wantNil(t, err)
	}
	for _, c := range []struct {
		offset int64
		whence int
		want   int64
		ok     bool
	}{
		{105, io.SeekStart, 105, true},
		{2, io.SeekCurrent, 107, true},
		{104, io.SeekStart, 107, false},
		{f.End, io.SeekStart, 107, false},
		{-1, io.SeekCurrent, 107, false},
	} {
		if at, err := r.Seek(c.offset, c.whence); at != c.want || c.ok != (err == nil) {
			t.Errorf("%v: %d, %v", c, at, err)
		}
	}
	if got, err := io.ReadAll(r); err != nil || string(got) != fragmentText[7:] {
		t.Errorf("%q, %v", got, err)
	}
}

// Fragment after fragment is fetched; damage surfaces instead of being read over.
func TestRetryReaderReadsFragments(t *testing.T) {
	put := fileStore(t)
	f, file := testFragment(t, pb.CompressionCodec_SNAPPY)
	second, _ := testFragment(t, pb.CompressionCodec_SNAPPY)
	second.Begin, second.End = f.End, f.End+f.ContentLength()
	damaged, _ := testFragment(t, pb.CompressionCodec_SNAPPY)
	damaged.Begin, damaged.End, damaged.Sum = second.End, second.End+f.ContentLength(), pb.SHA1SumOf([]byte("other"))
	b, _ := script(
		[]any{referral(f, 100, put(f, file))},
		[]any{referral(second, second.Begin, put(second, file))},
		[]any{referral(damaged, damaged.Begin, put(damaged, file))},
		[]any{head(damaged.End)},
	)
	rr := NewRetryReader(t.Context(), b.start(t), &pb.ReadRequest{Journal: "test/journal", Offset: 100, DoNotProxy: true})
	defer rr.Cancel()
	got, err := io.ReadAll(rr)
	if !fault.Is(err, fault.DataLoss) || string(got) != strings.Repeat(fragmentText, 3) || rr.Offset() != damaged.End {
		t.Errorf("%q up to %d, %v", got, rr.Offset(), err)
	}
	_, err = io.ReadAll(rr)
	wantErrorIs(t, err, ErrOffsetNotYetAvailable)
}

func TestRetryReaderSurfacesMissingFragment(t *testing.T) {
	fileStore(t)
	f, _ := testFragment(t, pb.CompressionCodec_NONE)
	b, count := script([]any{referral(f, 100, "file:///missing")})
	rr := NewRetryReader(t.Context(), b.start(t), &pb.ReadRequest{Journal: "test/journal", Offset: 100, DoNotProxy: true})
	defer rr.Cancel()
	// Each attempt begins with metadata, after which Read returns without content.
	_, err := io.ReadAll(rr)
	if !fault.Is(err, fault.NotFound) || count.Load() != 5 {
		t.Errorf("%v after %d RPCs", err, count.Load())
	}
}

func TestListAllFragments(t *testing.T) {
	f := func(begin int64) *pb.FragmentsResponse_XFragment {
		return &pb.FragmentsResponse_XFragment{Spec: &pb.Fragment{
			Journal: "test/journal", Begin: begin, End: begin + 10, CompressionCodec: pb.CompressionCodec_NONE,
		}}
	}
	page := func(status pb.Status, next int64, fragments ...*pb.FragmentsResponse_XFragment) *pb.FragmentsResponse {
		return &pb.FragmentsResponse{Status: status, Header: testHeader(), NextPageToken: next, Fragments: fragments}
	}
	for _, c := range []struct {
		name  string
		pages []any
		n     int
		kind  fault.Kind
		ok    bool
	}{
		{"two pages", []any{page(0, 20, f(0), f(10)), page(0, 0, f(20))}, 3, 0, true},
		{"suspended", []any{page(pb.Status_SUSPENDED, 0)}, 0, fault.Precondition, false},
		{"fails later", []any{page(0, 20, f(0)), status.Error(codes.Unavailable, "gone")}, 1, fault.Transient, false},
		{"invalid", []any{&pb.FragmentsResponse{Status: 99}}, 0, fault.Internal, false},
		{"token going back", []any{page(0, 20, f(0)), page(0, 10, f(10)), page(0, 0)}, 2, fault.Internal, false},
	} {
		var calls atomic.Int32
		b := &broker{fragments: func(*pb.FragmentsRequest) (*pb.FragmentsResponse, error) {
			switch p := c.pages[calls.Add(1)-1].(type) {
			case *pb.FragmentsResponse:
				return p, nil
			case error:
				return nil, p
			}
			return nil, nil
		}}
		cache := NewRouteCache(1, time.Minute)
		resp, err := ListAllFragments(t.Context(), pb.NewRoutedJournalClient(b.start(t), cache), &pb.FragmentsRequest{Journal: "test/journal"})
		if c.ok != (err == nil) || !c.ok && !fault.Is(err, c.kind) || len(resp.GetFragments()) != c.n || resp.GetNextPageToken() != 0 {
			t.Errorf("%s: %v, %v", c.name, resp, err)
		}
		if c.ok && len(cache.Route(t.Context(), "test/journal").Members) == 0 {
			t.Errorf("%s: the route was not learnt", c.name)
		}
	}
}

func TestFragmentStoreHealth(t *testing.T) {
	var got *pb.FragmentStoreHealthRequest
	answer := &pb.FragmentStoreHealthResponse{Header: testHeader()}
	b := &broker{health: func(req *pb.FragmentStoreHealthRequest) (*pb.FragmentStoreHealthResponse, error) {
		got = req
		return answer, nil
	}}
	rjc := b.start(t)
	empty, dir := "", "probe/"
	for _, c := range []struct {
		prefix *string
		check  bool
		want   string
	}{{nil, false, ""}, {&empty, true, ""}, {&dir, true, "probe/"}} {
		_, err := FragmentStoreHealth(t.Context(), rjc, "s3://bucket/", c.prefix)
		wantNil(t, err)
		if got.CheckDelete != c.check || got.CheckDeletePrefix != c.want || got.FragmentStore != "s3://bucket/" {
			t.Errorf("%v", got)
		}
	}
	answer = &pb.FragmentStoreHealthResponse{Header: testHeader(), Status: pb.Status_FRAGMENT_STORE_UNHEALTHY, StoreHealthError: "denied"}
	resp, err := FragmentStoreHealth(t.Context(), rjc, "s3://bucket/", nil)
	if err != nil || resp.StoreHealthError != "denied" {
		t.Errorf("%v, %v", resp, err)
	}
	answer = &pb.FragmentStoreHealthResponse{Header: testHeader(), Status: pb.Status_NOT_ALLOWED}
	_, err = FragmentStoreHealth(t.Context(), rjc, "s3://bucket/", nil)
	wantErrorIs(t, err, ErrNotAllowed)
	if _, err = FragmentStoreHealth(t.Context(), rjc, "s3://", nil); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
}
