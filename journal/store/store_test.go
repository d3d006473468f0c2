package store_test

import (
	"context"
	"crypto/md5"
	"errors"
	"io"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/daybook-dev/daybook/internal/bucket"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/protocol"
	"github.com/daybook-dev/daybook/journal/store"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

func fragmentOf(journal, content, postfix string, begin int64) *protocol.Fragment {
	return &protocol.Fragment{
		Journal: journal, Begin: begin, End: begin + int64(len(content)), Sum: protocol.SHA1SumOf([]byte(content)),
		CompressionCodec: protocol.CompressionCodec_NONE, PathPostfix: postfix,
	}
}

func contentOf(s string) store.Content {
	return store.Content{ReaderAt: strings.NewReader(s), Size: int64(len(s)), MD5: md5.Sum([]byte(s))}
}

func acquire(t *testing.T, r *store.Registry, name string) *store.Store {
	t.Helper()
	s, err := r.Acquire(t.Context(), protocol.FragmentStore(name))
	if err != nil {
		t.Fatalf("Acquire: %v", err)
	}
	t.Cleanup(s.Release)
	return s
}

func registry(t *testing.T, o store.Options) *store.Registry {
	t.Helper()
	r := store.NewRegistry(o)
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return r
}

func list(t *testing.T, s *store.Store, journal protocol.Journal) (names []string) {
	t.Helper()
	for f, err := range s.List(t.Context(), journal) {
		if err != nil {
			t.Fatalf("List: %v", err)
		}
		if err := f.Validate(); err != nil || f.GetBackingStore() != string(s.URL()) || time.Since(time.Unix(f.GetModTime(), 0)) > time.Hour {
			t.Errorf("List gives %v, %v", f, err)
		}
		names = append(names, f.ContentPath())
	}
	return names
}

func get(t *testing.T, s *store.Store, f *protocol.Fragment, offset, length int64) string {
	t.Helper()
	r, err := s.Get(t.Context(), f, offset, length)
	if err != nil {
		t.Fatalf("Get: %v", err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	return string(b)
}

// contract is what every kind of store must do. name is the URL of an empty one.
func contract(t *testing.T, r *store.Registry, name string) {
	s := acquire(t, r, name)
	if err := s.AwaitHealth(t.Context()); err != nil {
		t.Fatalf("not healthy: %v", err)
	}
	if got := list(t, s, "aa/bb"); got != nil {
		t.Errorf("an empty store lists %v", got)
	}
	var want []string
	for i, postfix := range []string{"", "day=2023-11-14/x", "a%20+b"} {
		content := strings.Repeat("content", i+1)
		f := fragmentOf("aa/bb", content, postfix, int64(i)*100)
		for range 2 { // what is there already is well
			modified, err := s.Put(t.Context(), f, contentOf(content))
			if err != nil || time.Since(modified) > time.Hour {
				t.Fatalf("Put: %v, %v", modified, err)
			}
		}
		want = append(want, f.ContentPath())
		if got := get(t, s, f, 0, -1); got != content {
			t.Errorf("got %q, want %q", got, content)
		}
		if got := get(t, s, f, 3, 4); got != "tent" {
			t.Errorf("got the range %q", got)
		}
	}
	if _, err := s.Put(t.Context(), fragmentOf("aa/bbb", "other", "", 0), contentOf("other")); err != nil {
		t.Fatal(err)
	}
	if got := list(t, s, "aa/bb"); !cmp.Equal(sorted(got), want) {
		t.Errorf("List gives %v, want %v", got, want)
	}

	f := fragmentOf("aa/bb", "right", "", 1000)
	if _, err := s.Put(t.Context(), f, contentOf("wrong size")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(t.Context(), f, contentOf("right")); err != nil {
		t.Fatal(err)
	}
	if got := get(t, s, f, 0, -1); got != "right" {
		t.Errorf("what was left of a failure stays: %q", got)
	}
	for range 2 {
		if err := s.Remove(t.Context(), f); err != nil {
			t.Errorf("Remove: %v", err)
		}
	}
	if _, err := s.Get(t.Context(), f, 0, -1); !fault.Is(err, fault.NotFound) || store.IsAuthorization(err) {
		t.Errorf("Get of what is not there: %v; want NotFound", err)
	}
	if u, err := s.Sign(t.Context(), fragmentOf("aa/bb", "content", "", 0), time.Minute); err != nil {
		t.Errorf("Sign: %v", err)
	} else if _, err := url.Parse(u); err != nil {
		t.Errorf("Sign: %v", err)
	}
	for _, prefix := range []string{"", "some/where/"} {
		if err := s.CheckDelete(t.Context(), prefix); err != nil {
			t.Errorf("CheckDelete: %v", err)
		}
	}
}

// sorted sorts paths by the names at their ends.
func sorted(paths []string) []string {
	slices.SortFunc(paths, func(x, y string) int { return strings.Compare(path.Base(x), path.Base(y)) })
	return paths
}

func memory(buckets map[string]*bucket.Mem) func(context.Context, *url.URL, map[string]string) (bucket.Bucket, error) {
	return func(_ context.Context, u *url.URL, _ map[string]string) (bucket.Bucket, error) {
		if b := buckets[u.Host]; b != nil {
			return b, nil
		}
		return nil, fault.New(fault.Transient, "no such bucket here: %w", bucket.ErrMissing)
	}
}

func TestMemory(t *testing.T) {
	b := bucket.NewMem("b")
	contract(t, registry(t, store.Options{Open: memory(map[string]*bucket.Mem{"b": b})}), "s3://b/prefix/?region=r")
	for _, key := range b.Keys() {
		if !strings.HasPrefix(key, "prefix/") {
			t.Errorf("object %s lies outside of the store", key)
		}
	}
}

func TestFile(t *testing.T) {
	for _, name := range []string{"file:///", "file:///some/where/"} {
		root := t.TempDir()
		contract(t, registry(t, store.Options{Root: root}), name)
		if _, err := os.Stat(filepath.Join(root, strings.TrimPrefix(name, "file:///"), "aa", "bb")); err != nil {
			t.Error(err)
		}
	}
}

// TestFileMissing checks that a root that is not there is refused, that it is not made, and that it may come later.
func TestFileMissing(t *testing.T) {
	root := filepath.Join(t.TempDir(), "disk")
	s := acquire(t, registry(t, store.Options{Root: root}), "file:///a/")
	f := fragmentOf("aa/bb", "content", "", 0)
	if err := s.AwaitHealth(t.Context()); !store.IsAuthorization(err) {
		t.Errorf("health without the root: %v", err)
	}
	if _, err := s.Put(t.Context(), f, contentOf("content")); !store.IsAuthorization(err) {
		t.Errorf("Put without the root: %v", err)
	}
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(t.Context(), f, contentOf("content")); err != nil {
		t.Errorf("Put with the root: %v", err)
	}
	if err := s.Health(); err != nil {
		t.Errorf("a put does not prove the store healthy: %v", err)
	}
	if err := os.Rename(root, root+"-away"); err != nil {
		t.Fatal(err)
	}
	for _, err := range s.List(t.Context(), "aa/bb") {
		if !store.IsAuthorization(err) {
			t.Errorf("List without the root: %v", err)
		}
	}
	if err := os.Rename(root+"-away", root); err != nil {
		t.Fatal(err)
	}
	if got := get(t, s, f, 0, -1); got != "content" {
		t.Errorf("got %q", got)
	}
}

func TestForeignObjects(t *testing.T) {
	b := bucket.NewMem("b")
	s := acquire(t, registry(t, store.Options{Open: memory(map[string]*bucket.Mem{"b": b})}), "s3://b/")
	f := fragmentOf("aa/bb", "content", "post/fix", 0)
	if _, err := s.Put(t.Context(), f, contentOf("content")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"x", "post/0-1-zz.raw", ".partial-xyz", "0000-0001.raw"} {
		b.SetBytes("aa/bb/"+name, []byte("x"))
	}
	if got := list(t, s, "aa/bb"); !cmp.Equal(got, []string{f.ContentPath()}) {
		t.Errorf("List gives %v", got)
	}
}

func TestRewrite(t *testing.T) {
	b := bucket.NewMem("b")
	s := acquire(t, registry(t, store.Options{Open: memory(map[string]*bucket.Mem{"b": b})}), "s3://b/p/?find=aa/&REPLACE=old/name/")
	f := fragmentOf("aa/aa/bb", "content", "", 0)
	if _, err := s.Put(t.Context(), f, contentOf("content")); err != nil {
		t.Fatal(err)
	}
	if want := "p/old/name/aa/bb/" + f.ContentName(); b.Bytes(want) == nil {
		t.Errorf("objects %v, want %s", b.Keys(), want)
	}
	if got := list(t, s, "aa/aa/bb"); !cmp.Equal(got, []string{f.ContentPath()}) {
		t.Errorf("List gives %v", got)
	}
}

func TestOpenErrors(t *testing.T) {
	r := registry(t, store.Options{Root: t.TempDir()})
	for name, kind := range map[string]fault.Kind{
		"s3://b/?region=x&unknown=1":      fault.Invalid,
		"s3://b/?region=x&Region=y":       fault.Invalid,
		"s3://b/?region=%zz":              fault.Invalid,
		"file:///a/?profile=x":            fault.Invalid,
		"file:///a/../../b/":              fault.Invalid,
		"file:///a//b/":                   fault.Invalid,
		"ftp://b/":                        fault.Invalid,
		"s3://b":                          fault.Invalid,
		"azure://container/":              fault.Precondition,
		"azure-ad://tenant/account/cont/": fault.Precondition,
	} {
		t.Setenv("AZURE_ACCOUNT_KEY", "")
		t.Setenv("AZURE_CLIENT_SECRET", "")
		if _, err := r.Acquire(t.Context(), protocol.FragmentStore(name)); !fault.Is(err, kind) {
			t.Errorf("%s: %v; want %v", name, err, kind)
		}
	}
}

// TestVerified checks that a put that stored something else is not taken for one.
func TestVerified(t *testing.T) {
	b := bucket.NewMem("b")
	s := acquire(t, registry(t, store.Options{Open: memory(map[string]*bucket.Mem{"b": b})}), "s3://b/")
	f := fragmentOf("aa/bb", "content", "", 0)
	b.SetFault(func(op bucket.Op, key string) error {
		if op == bucket.OpStat && key == f.ContentPath() {
			b.SetBytes(key, []byte("Content"))
		}
		return nil
	})
	if _, err := s.Put(t.Context(), f, contentOf("content")); !fault.Is(err, fault.DataLoss) {
		t.Errorf("Put: %v; want DataLoss", err)
	}
}

func TestRegistry(t *testing.T) {
	b := bucket.NewMem("b")
	opened := 0
	inner := memory(map[string]*bucket.Mem{"b": b})
	r := registry(t, store.Options{Open: func(ctx context.Context, u *url.URL, args map[string]string) (bucket.Bucket, error) {
		opened++
		return inner(ctx, u, args)
	}})
	if _, err := r.Acquire(t.Context(), "s3://none/"); err == nil {
		t.Error("a store without a bucket was opened")
	}
	x := acquire(t, r, "s3://b/")
	y := acquire(t, r, "s3://b/")
	z := acquire(t, r, "s3://b/z/")
	if x != y || x == z || opened != 3 {
		t.Errorf("opened %d times", opened)
	}
	broken := errors.New("broken")
	b.SetFault(func(op bucket.Op, _ string) error {
		if op == bucket.OpCreate {
			return fault.Wrap(fault.Transient, broken)
		}
		return nil
	})
	if err := x.AwaitHealth(t.Context()); err != nil {
		t.Logf("the check came late: %v", err)
	}
	if _, err := x.Put(t.Context(), fragmentOf("aa/bb", "x", "", 0), contentOf("x")); !errors.Is(err, broken) {
		t.Errorf("Put: %v", err)
	}
	if err := x.Health(); !errors.Is(err, broken) {
		t.Errorf("a failed put leaves the store healthy: %v", err)
	}
}

// TestSlowOpen opens a store that takes its time, which holds up no other one.
func TestSlowOpen(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	inner := memory(map[string]*bucket.Mem{"slow": bucket.NewMem("slow"), "b": bucket.NewMem("b")})
	r := registry(t, store.Options{Open: func(ctx context.Context, u *url.URL, args map[string]string) (bucket.Bucket, error) {
		if u.Host == "slow" { // which is once
			close(entered)
			<-leave
		}
		return inner(ctx, u, args)
	}})
	var users sync.WaitGroup
	for range 3 {
		users.Go(func() {
			s, err := r.Acquire(t.Context(), "s3://slow/")
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(s.Release)
		})
	}
	<-entered
	acquire(t, r, "s3://b/")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Acquire(ctx, "s3://slow/"); !errors.Is(err, context.Canceled) {
		t.Errorf("Acquire: %v; want context.Canceled", err)
	}
	close(leave)
	users.Wait()
}
