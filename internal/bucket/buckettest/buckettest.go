// Package buckettest is the one test body that every bucket is held to.
package buckettest

import (
	"bytes"
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/daybook-dev/daybook/internal/bucket"
	"github.com/daybook-dev/daybook/internal/fault"
)

// Run runs the tests. open returns a new, empty bucket.
func Run(t *testing.T, open func(t *testing.T) bucket.Bucket) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, bucket.Bucket)
	}{
		{"PutGet", testPutGet},
		{"Upload", testUpload},
		{"Atomic", testAtomic},
		{"List", testList},
		{"Delete", testDelete},
		{"Keys", testKeys},
		{"URL", testURL},
		{"Concurrent", testConcurrent},
		{"Canceled", testCanceled},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := open(t)
			t.Cleanup(func() {
				if err := b.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			})
			test.run(t, b)
		})
	}
}

func put(t *testing.T, b bucket.Bucket, key, content string) {
	t.Helper()
	if err := bucket.Put(t.Context(), b, key, strings.NewReader(content)); err != nil {
		t.Fatalf("Put %s: %v", key, err)
	}
}

func get(t *testing.T, b bucket.Bucket, key string, offset, length int64) string {
	t.Helper()
	r, err := b.Get(t.Context(), key, offset, length)
	if err != nil {
		t.Fatalf("Get %s: %v", key, err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("read %s: %v", key, err)
	}
	return string(data)
}

func testPutGet(t *testing.T, b bucket.Bucket) {
	put(t, b, "a/b/c", "0123456789")
	put(t, b, "empty", "")
	for _, c := range []struct {
		offset, length int64
		want           string
	}{
		{0, -1, "0123456789"}, {0, 0, ""}, {0, 4, "0123"}, {3, 4, "3456"}, {8, 100, "89"}, {9, -1, "9"}, {10, -1, ""}, {100, 5, ""},
	} {
		if got := get(t, b, "a/b/c", c.offset, c.length); got != c.want {
			t.Errorf("Get %d, %d = %q, want %q", c.offset, c.length, got, c.want)
		}
	}
	if got := get(t, b, "empty", 0, -1); got != "" {
		t.Errorf("the empty object holds %q", got)
	}
	info, err := b.Stat(t.Context(), "a/b/c")
	if err != nil || info.Key != "a/b/c" || info.Size != 10 || info.Modified.IsZero() {
		t.Errorf("Stat = %+v, %v", info, err)
	}
	p := make([]byte, 4)
	if err := bucket.ReadFull(t.Context(), b, "a/b/c", 2, p); err != nil || string(p) != "2345" {
		t.Errorf("ReadFull = %q, %v", p, err)
	}
	if err := bucket.ReadFull(t.Context(), b, "a/b/c", 8, p); !fault.Is(err, fault.DataLoss) {
		t.Errorf("ReadFull beyond the end: %v; want DataLoss", err)
	}
	for _, key := range []string{"a", "a/b", "a/b/c/d", "none"} {
		if _, err := b.Stat(t.Context(), key); !fault.Is(err, fault.NotFound) {
			t.Errorf("Stat %s: %v; want NotFound", key, err)
		}
		if _, err := b.Get(t.Context(), key, 0, -1); !fault.Is(err, fault.NotFound) {
			t.Errorf("Get %s: %v; want NotFound", key, err)
		}
	}
	if _, err := b.Get(t.Context(), "a/b/c", -1, -1); !fault.Is(err, fault.Invalid) {
		t.Errorf("Get from -1: %v; want Invalid", err)
	}
}

func testUpload(t *testing.T, b bucket.Bucket) {
	upload := func(key, content string, absent bool) error {
		return b.Upload(t.Context(), key, bucket.Object{Content: strings.NewReader(content), Size: int64(len(content)), IfAbsent: absent})
	}
	for _, content := range []string{"first", ""} {
		if err := upload("a/b"+content, content, true); err != nil {
			t.Fatalf("Upload: %v", err)
		}
		if got := get(t, b, "a/b"+content, 0, -1); got != content {
			t.Errorf("the object is %q, want %q", got, content)
		}
	}
	if err := upload("a/bfirst", "other", true); !fault.Is(err, fault.Exists) {
		t.Errorf("Upload of what is there: %v; want Exists", err)
	}
	if got := get(t, b, "a/bfirst", 0, -1); got != "first" {
		t.Errorf("the object is %q", got)
	}
	if err := upload("a/bfirst", "second", false); err != nil {
		t.Errorf("Upload: %v", err)
	}
	if got := get(t, b, "a/bfirst", 0, -1); got != "second" {
		t.Errorf("the object is %q", got)
	}
	info, err := b.Stat(t.Context(), "a/bfirst")
	if second := md5.Sum([]byte("second")); err != nil || info.MD5 != nil && !bytes.Equal(info.MD5, second[:]) {
		t.Errorf("Stat = %+v, %v; want no sum or %x", info, err, second)
	}
	sum := md5.Sum([]byte("content"))
	for content, ok := range map[string]bool{"content": true, "Content": false} {
		err := b.Upload(t.Context(), fmt.Sprint("sum/", ok), bucket.Object{Content: strings.NewReader(content), Size: 7, MD5: sum[:]})
		if ok != (err == nil) || !ok && !fault.Is(err, fault.Transient) {
			t.Errorf("Upload of %q with the sum of \"content\": %v", content, err)
		}
		if _, err := b.Stat(t.Context(), fmt.Sprint("sum/", ok)); ok != (err == nil) || !ok && !fault.Is(err, fault.NotFound) {
			t.Errorf("Stat of %q with the sum of \"content\": %v", content, err)
		}
	}
	if err := upload("a//b", "x", false); !fault.Is(err, fault.Invalid) {
		t.Errorf("Upload without a key: %v; want Invalid", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Upload(ctx, "late", bucket.Object{Content: strings.NewReader("x"), Size: 1}); !errors.Is(err, context.Canceled) {
		t.Errorf("Upload: %v; want context.Canceled", err)
	}
}

func testAtomic(t *testing.T, b bucket.Bucket) {
	create := func() bucket.Writer {
		t.Helper()
		w, err := b.Create(t.Context(), "k")
		if err != nil {
			t.Fatalf("Create: %v", err)
		}
		if _, err := io.WriteString(w, "partial"); err != nil {
			t.Fatalf("Write: %v", err)
		}
		return w
	}
	w := create()
	wantKeys(t, b, "")
	if _, err := b.Stat(t.Context(), "k"); !fault.Is(err, fault.NotFound) {
		t.Errorf("Stat before Commit: %v; want NotFound", err)
	}
	w.Abort()
	w.Abort()
	wantKeys(t, b, "")

	put(t, b, "k", "old")
	w = create()
	r, err := b.Get(t.Context(), "k", 0, -1)
	if err != nil {
		t.Fatalf("Get: %v", err)
	}
	defer r.Close()
	if err := w.Commit(); err != nil {
		t.Fatalf("Commit: %v", err)
	}
	w.Abort()
	if got := get(t, b, "k", 0, -1); got != "partial" {
		t.Errorf("after Commit the object is %q", got)
	}
	if err := bucket.Put(t.Context(), b, "k", io.MultiReader(strings.NewReader("x"), failing{})); !errors.Is(err, errFailing) {
		t.Errorf("Put from a failing reader: %v", err)
	}
	if got := get(t, b, "k", 0, -1); got != "partial" {
		t.Errorf("a failed Put left %q", got)
	}
}

var errFailing = errors.New("failing reader")

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errFailing }

func wantKeys(t *testing.T, b bucket.Bucket, prefix string, want ...string) {
	t.Helper()
	var got []string
	for info, err := range b.List(t.Context(), prefix) {
		if err != nil {
			t.Fatalf("List %q: %v", prefix, err)
		}
		got = append(got, info.Key)
		if info.Size != int64(len(info.Key)) {
			t.Errorf("List gives %s %d bytes", info.Key, info.Size)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("List %q (-want +got):\n%s", prefix, diff)
	}
}

func testList(t *testing.T, b bucket.Bucket) {
	keys := []string{"a-b", "a/b", "a/b-c/d", "a/b0", "a/c/d/e", "a/c/d/f", "a0", "b"}
	for _, key := range keys {
		put(t, b, key, key)
	}
	wantKeys(t, b, "", keys...)
	for _, prefix := range []string{"a", "a/", "a/b", "a/b-", "a/c/", "a/c/d", "a/c/d/f", "c", "a/c/d/ff", "b/"} {
		var want []string
		for _, key := range keys {
			if strings.HasPrefix(key, prefix) {
				want = append(want, key)
			}
		}
		wantKeys(t, b, prefix, want...)
	}
	n := 0
	for _, err := range b.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n == 2 {
			break
		}
	}
}

func testDelete(t *testing.T, b bucket.Bucket) {
	put(t, b, "a/b/c", "a/b/c")
	put(t, b, "a/d", "a/d")
	for range 2 {
		if err := b.Delete(t.Context(), "a/b/c"); err != nil {
			t.Errorf("Delete: %v", err)
		}
	}
	if err := b.Delete(t.Context(), "a"); err != nil {
		t.Errorf("Delete: %v", err)
	}
	wantKeys(t, b, "", "a/d")
	put(t, b, "a/b", "a/b") // what held objects before can be an object
	wantKeys(t, b, "", "a/b", "a/d")
}

func testKeys(t *testing.T, b bucket.Bucket) {
	long := strings.Repeat("x", 255)
	for _, key := range []string{long, "a b/ü=%+~(1),$&!'#;@[]{}^", "...a", ".hidden/x", "a/-", strings.Repeat("y/", 511) + "yy"} {
		put(t, b, key, key)
		if got := get(t, b, key, 0, -1); got != key {
			t.Errorf("object %q holds %q", key, got)
		}
	}
	for _, key := range []string{
		"", "/a", "a/", "a//b", ".", "..", "a/../b", "../a", "a/.", `a\b`, "a:b", "a\x00b", "a\nb", "a\x7f", "a*", "a?", `"`, "<", ">", "|",
		long + "x", strings.Repeat("y/", 512) + "y", ".partial-1", "a/.partial-1", "a.", "a /b",
	} {
		_, createErr := b.Create(t.Context(), key)
		_, getErr := b.Get(t.Context(), key, 0, -1)
		_, statErr := b.Stat(t.Context(), key)
		for _, err := range []error{createErr, getErr, statErr, b.Delete(t.Context(), key)} {
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("key %q: %v; want Invalid", key, err)
			}
		}
	}
}

func testURL(t *testing.T, b bucket.Bucket) {
	for _, key := range []string{"a", "a/b/c.zst", "a b/%20/ü+&=#;~"} {
		u := b.URL(key)
		got, err := b.KeyOf(u)
		if err != nil || got != key {
			t.Errorf("KeyOf(%q) = %q, %v; want %q", u, got, err, key)
		}
		for _, r := range u {
			if r <= ' ' || r > '~' {
				t.Errorf("URL %q holds %q", u, r)
			}
		}
	}
	for _, u := range []string{"", "a", "gs://elsewhere/a", "::", b.URL("a") + "?x", b.URL("a") + "#x", b.URL("a") + "/../b", strings.Replace(b.URL("a"), "://", "://x", 1)} {
		if key, err := b.KeyOf(u); !fault.Is(err, fault.Invalid) {
			t.Errorf("KeyOf(%q) = %q, %v; want Invalid", u, key, err)
		}
	}
}

// testConcurrent puts and deletes in the same directories at once, and replaces an object that is read.
func testConcurrent(t *testing.T, b bucket.Bucket) {
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for k := range 25 {
				key := fmt.Sprintf("a/b/%d", i)
				// A server may refuse what collides with something else, and take it when it is asked again.
				err := bucket.Put(t.Context(), b, key, strings.NewReader(key))
				for again := 0; fault.Is(err, fault.Transient) && again < 20; again++ {
					err = bucket.Put(t.Context(), b, key, strings.NewReader(key))
				}
				if err != nil {
					t.Errorf("Put: %v", err)
				}
				if k < 24 {
					if err := b.Delete(t.Context(), key); err != nil {
						t.Errorf("Delete: %v", err)
					}
				}
				if err := bucket.Put(t.Context(), b, "same", bytes.NewReader(bytes.Repeat([]byte{byte('0' + i)}, 4))); err != nil {
					t.Errorf("Put: %v", err)
				}
				r, err := b.Get(t.Context(), "same", 0, -1)
				if err != nil {
					t.Errorf("Get: %v", err)
					continue
				}
				data, err := io.ReadAll(r)
				if err != nil || len(data) != 4 || bytes.Count(data, data[:1]) != 4 {
					t.Errorf("read %q, %v: not what one writer put", data, err)
				}
				if err := r.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			}
		})
	}
	wg.Wait()
	wantKeys(t, b, "a", "a/b/0", "a/b/1", "a/b/2", "a/b/3")
}

func testCanceled(t *testing.T, b bucket.Bucket) {
	put(t, b, "k", "content")
	ctx, cancel := context.WithCancel(t.Context())
	w, err := b.Create(ctx, "other")
	if err != nil {
		t.Fatalf("Create: %v", err)
	}
	r, err := b.Get(ctx, "k", 0, -1)
	if err != nil {
		t.Fatalf("Get: %v", err)
	}
	defer r.Close()
	cancel()
	_, readErr := io.ReadAll(r)
	_, writeErr := io.WriteString(w, "x")
	_, createErr := b.Create(ctx, "x")
	_, getErr := b.Get(ctx, "k", 0, -1)
	_, statErr := b.Stat(ctx, "k")
	for op, err := range map[string]error{
		"Read": readErr, "Write": writeErr, "Commit": w.Commit(), "Create": createErr, "Get": getErr, "Stat": statErr, "Delete": b.Delete(ctx, "k"),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v; want context.Canceled", op, err)
		}
	}
	w.Abort()
	for _, err := range b.List(ctx, "") {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("List: %v; want context.Canceled", err)
		}
	}
	if got := get(t, b, "k", 0, -1); got != "content" {
		t.Errorf("the object holds %q", got)
	}
}
