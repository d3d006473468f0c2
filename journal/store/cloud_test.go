package store_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha1"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/daybook-dev/daybook/internal/bucket"
	"github.com/daybook-dev/daybook/internal/bucket/buckettest"
	"github.com/daybook-dev/daybook/internal/bucket/cloud"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/protocol"
	"github.com/daybook-dev/daybook/journal/store"
	"github.com/daybook-dev/daybook/journal/store/storetest"
)

func TestS3(t *testing.T) {
	server := storetest.StartS3(t)
	objectStore(t, server, func(ctx context.Context) (bucket.Bucket, error) {
		return cloud.OpenS3(ctx, cloud.S3{Bucket: server.Bucket(), Endpoint: server.Endpoint(), Region: "us-east-1"})
	})
}

func TestGCS(t *testing.T) {
	server := storetest.StartGCS(t, false)
	objectStore(t, server, func(ctx context.Context) (bucket.Bucket, error) { return cloud.OpenGCS(ctx, server.Bucket()) })
}

func TestAzure(t *testing.T) {
	server := storetest.StartAzure(t)
	objectStore(t, server, func(context.Context) (bucket.Bucket, error) { return cloud.OpenAzure(server.Bucket()) })
}

// objectStore is what every kind of object store must do, in the form of a bucket and of a store.
func objectStore(t *testing.T, server *storetest.Server, open func(context.Context) (bucket.Bucket, error)) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}}
	r := registry(t, store.Options{Client: client})
	t.Run("Contract", func(t *testing.T) { contract(t, r, string(server.Store("some/prefix/"))) })
	t.Run("Bucket", func(t *testing.T) {
		buckettest.Run(t, func(t *testing.T) bucket.Bucket {
			b, err := open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for info, err := range b.List(t.Context(), "") {
				if err == nil {
					err = b.Delete(t.Context(), info.Key)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			return b
		})
	})
	t.Run("Signed", func(t *testing.T) { signed(t, r, client, server) })
	t.Run("NoBucket", func(t *testing.T) {
		s := acquire(t, r, string(server.StoreIn("none", "")))
		f := fragmentOf("aa/bb", "content", "", 0)
		_, putErr := s.Put(t.Context(), f, contentOf("content"))
		_, getErr := s.Get(t.Context(), f, 0, -1)
		var listErr error
		for _, listErr = range s.List(t.Context(), "aa/bb") {
		}
		for op, err := range map[string]error{
			"put": putErr, "get": getErr, "list": listErr, "remove": s.Remove(t.Context(), f), "health": s.AwaitHealth(t.Context()),
		} {
			if !store.IsAuthorization(err) || fault.Is(err, fault.NotFound) {
				t.Errorf("%s without a bucket: %v", op, err)
			}
		}
	})
	t.Run("Pages", func(t *testing.T) { pages(t, open) })
	t.Run("Parts", func(t *testing.T) {
		s := acquire(t, r, string(server.Store("parts/")))
		// Content that is nowhere in memory.
		const size = 64<<20 + 100
		content := func() io.Reader { return io.NewSectionReader(pattern{}, 0, size) }
		sha, sum := sha1.New(), md5.New()
		if _, err := io.Copy(io.MultiWriter(sha, sum), content()); err != nil {
			t.Fatal(err)
		}
		f := &protocol.Fragment{Journal: "aa/bb", End: size, Sum: protocol.SHA1SumFromDigest([20]byte(sha.Sum(nil))), CompressionCodec: protocol.CompressionCodec_NONE}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range 2 { // what is there already is well
			if _, err := s.Put(t.Context(), f, store.Content{ReaderAt: pattern{}, Size: size, MD5: [16]byte(sum.Sum(nil))}); err != nil {
				t.Fatal(err)
			}
		}
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; took > 32<<20 {
			t.Errorf("uploads of %d bytes take %d bytes of memory", size, took)
		}
		const from = 64<<20 - 10
		want := make([]byte, 20)
		_, _ = pattern{}.ReadAt(want, from) // never fails
		if got := get(t, s, f, from, 20); got != string(want) {
			t.Error("other content came back across the parts")
		}
	})
	t.Run("Death", func(t *testing.T) {
		s := acquire(t, r, string(server.Store("death/")))
		f := fragmentOf("aa/bb", "content", "", 0)
		server.Kill()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if _, err := s.Put(ctx, f, contentOf("content")); !fault.IsTransient(err) {
			t.Errorf("Put without a server: %v; want a transient error", err)
		}
		server.Start()
		if _, err := s.Put(t.Context(), f, contentOf("content")); err != nil {
			t.Errorf("Put with the server back: %v", err)
		}
	})
}

// pattern is content without an end.
type pattern struct{}

func (pattern) ReadAt(p []byte, at int64) (int, error) {
	for i := range p {
		x := at + int64(i)
		p[i] = byte(x ^ x>>8 ^ x>>20)
	}
	return len(p), nil
}

// signed fetches fragments by plain HTTP.
func signed(t *testing.T, r *store.Registry, client *http.Client, server *storetest.Server) {
	s := acquire(t, r, string(server.Store("signed/")))
	for _, codec := range []protocol.CompressionCodec{protocol.CompressionCodec_NONE, protocol.CompressionCodec_GZIP_OFFLOAD_DECOMPRESSION} {
		f := fragmentOf("aa/bb", "content", "a=b/c%d+e", 0)
		f.CompressionCodec = codec
		if _, err := s.Put(t.Context(), f, contentOf("content")); err != nil {
			t.Fatal(err)
		}
		u, err := s.Sign(t.Context(), f, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		for byteRange, want := range map[string]string{"": "content", "bytes=3-": "tent", "bytes=1-2": "on"} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, u, nil)
			if err != nil {
				t.Fatal(err)
			}
			// Without the second one a store may take the encoding off.
			req.Header = http.Header{"Range": {byteRange}, "Accept-Encoding": {"gzip"}}
			if byteRange == "" {
				req.Header.Del("Range")
			}
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(resp.Body)
			if err != nil || string(b) != want {
				t.Errorf("%s: the URL gives for the range %q: %s %q, %v; want %q", codec, byteRange, resp.Status, b, err, want)
			}
			if encoding := resp.Header.Get("Content-Encoding"); (encoding == "gzip") != (codec != protocol.CompressionCodec_NONE) {
				t.Errorf("%s: the URL gives the encoding %q", codec, encoding)
			}
			resp.Body.Close()
		}
		if got := get(t, s, f, 0, -1); got != "content" {
			t.Errorf("%s: the store gives %q", codec, got)
		}
	}
}

// pages lists more objects than a provider gives at once.
func pages(t *testing.T, open func(context.Context) (bucket.Bucket, error)) {
	b, err := open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	var want []string
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(16)
	for i := range 1005 {
		key := fmt.Sprintf("many/%04d/x", i)
		want = append(want, key)
		group.Go(func() error {
			return b.Upload(ctx, key, bucket.Object{Content: bytes.NewReader([]byte("x")), Size: 1})
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	var got []string
	for info, err := range b.List(t.Context(), "many/") {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, info.Key)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d objects are listed as %d (-want +got):\n%s", len(want), len(got), cmp.Diff(want, got))
	}
}
