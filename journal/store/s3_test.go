package store_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"io"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

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
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	r := registry(t, store.Options{Client: client})
	t.Run("Contract", func(t *testing.T) { contract(t, r, string(server.Store("some/prefix/"))) })
	t.Run("Bucket", func(t *testing.T) {
		buckettest.Run(t, func(t *testing.T) bucket.Bucket {
			u, err := server.Store("").URL()
			if err != nil {
				t.Fatal(err)
			}
			b, err := cloud.OpenS3(t.Context(), cloud.S3{Bucket: u.Host, Endpoint: u.Query().Get("endpoint"), Region: "us-east-1"})
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
	t.Run("Signed", func(t *testing.T) {
		s := acquire(t, r, string(server.Store("signed/")))
		f := fragmentOf("aa/bb", "content", "a=b/c%d+e", 0)
		if _, err := s.Put(t.Context(), f, contentOf("content")); err != nil {
			t.Fatal(err)
		}
		u, err := s.Sign(t.Context(), f, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Get(u)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "content" {
			t.Errorf("the URL gives %s %q, %v", resp.Status, b, err)
		}
	})
	t.Run("NoBucket", func(t *testing.T) {
		s := acquire(t, r, string(server.StoreIn("none", "")))
		f := fragmentOf("aa/bb", "content", "", 0)
		_, putErr := s.Put(t.Context(), f, contentOf("content"))
		_, getErr := s.Get(t.Context(), f, 0, -1)
		var listErr error
		for _, listErr = range s.List(t.Context(), "aa/bb") {
		}
		for op, err := range map[string]error{"put": putErr, "get": getErr, "list": listErr, "health": s.AwaitHealth(t.Context())} {
			if !store.IsAuthorization(err) || fault.Is(err, fault.NotFound) {
				t.Errorf("%s without a bucket: %v", op, err)
			}
		}
	})
	t.Run("Parts", func(t *testing.T) {
		s := acquire(t, r, string(server.Store("parts/")))
		b := make([]byte, 65<<20)
		random := rand.NewChaCha8([32]byte{1})
		_, _ = random.Read(b) // never fails
		f := &protocol.Fragment{Journal: "aa/bb", End: int64(len(b)), Sum: protocol.SHA1SumOf(b), CompressionCodec: protocol.CompressionCodec_NONE}
		if _, err := s.Put(t.Context(), f, store.Content{ReaderAt: bytes.NewReader(b), Size: int64(len(b)), MD5: md5.Sum(b)}); err != nil {
			t.Fatal(err)
		}
		const from = 64<<20 - 10
		if got := get(t, s, f, from, 20); got != string(b[from:from+20]) {
			t.Error("other content came back across the parts")
		}
	})
	t.Run("Death", func(t *testing.T) {
		s := acquire(t, r, string(server.Store("death/")))
		f := fragmentOf("aa/bb", "content", "", 0)
		server.Kill()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
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
