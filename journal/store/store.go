// Package store keeps fragments of journals in places that outlive brokers: directories, and buckets of S3, Google Cloud
// Storage and Azure (package bucket/cloud). A place is named by the URL in a journal's spec (protocol.FragmentStore).
//
// A Registry opens each store once, whoever uses it, checks that it works, and closes it when nobody uses it any more:
//
//	s, err := registry.Acquire(ctx, "s3://bucket/journals/")
//	defer s.Release()
//	modified, err := s.Put(ctx, fragment, content)
//
// What Put reports is durable and has been compared with what the store says it has. Names of objects are those of the
// journal protocol: <path of the store><journal>/<postfix>/<begin>-<end>-<sum><extension>.
//
// Errors have the kinds of package bucket. Everything is safe for concurrent use.
package store

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/daybook-dev/daybook/internal/bucket"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// Store is a place for fragments. It is used until Release.
type Store struct {
	url    protocol.FragmentStore
	parsed *url.URL
	// prefix comes before the paths of fragments in the bucket.
	prefix        string
	find, replace string

	bucket   bucket.Bucket
	registry *Registry
	metrics  *metrics
	logger   *slog.Logger
	health   health

	users int // guarded by registry.mu
	stop  context.CancelFunc
	ended sync.WaitGroup
}

// Content is the file of a fragment, in the fragment's codec.
type Content struct {
	io.ReaderAt
	Size int64
	// MD5 is the sum of the file, which is compared with the store's.
	MD5 [16]byte
}

// URL returns the store's name.
func (s *Store) URL() protocol.FragmentStore { return s.url }

// key returns the name of the object at a path, which begins with a journal.
func (s *Store) key(path string) string {
	if s.find != "" {
		path = strings.Replace(path, s.find, s.replace, 1)
	}
	return s.prefix + path
}

// Put stores a fragment's file, unless it is there already, and returns when it was stored. The fragment is durable then.
func (s *Store) Put(ctx context.Context, f *protocol.Fragment, c Content) (modified time.Time, err error) {
	defer s.observe("put", time.Now(), &err)
	key := s.key(f.ContentPath())
	object := bucket.Object{Content: c, Size: c.Size, MD5: c.MD5[:], IfAbsent: true}
	if f.GetCompressionCodec() == protocol.CompressionCodec_GZIP_OFFLOAD_DECOMPRESSION {
		object.Encoding = "gzip"
	}
	putErr := s.bucket.Upload(ctx, key, object)
	if putErr != nil && !fault.Is(putErr, fault.Exists) {
		return time.Time{}, putErr
	}
	info, err := s.bucket.Stat(ctx, key)
	if err == nil && putErr != nil && !c.is(info) {
		// The name tells the content, so this is the same content packed differently, or what a failure left. Ours is right.
		object.IfAbsent = false
		if err = s.bucket.Upload(ctx, key, object); err == nil {
			info, err = s.bucket.Stat(ctx, key)
		}
	}
	if err != nil {
		return time.Time{}, err
	}
	if !c.is(info) {
		return time.Time{}, fault.New(fault.DataLoss, "store %s: %s has %d bytes with sum %x after %d with sum %x were put",
			s.url, key, info.Size, info.MD5, c.Size, c.MD5)
	}
	s.metrics.put(c.Size, object.Encoding)
	return info.Modified, nil
}

// is reports whether an object can be the content.
func (c *Content) is(info bucket.Info) bool {
	return info.Size == c.Size && (info.MD5 == nil || bytes.Equal(info.MD5, c.MD5[:]))
}

// Get reads length bytes of a fragment's file from an offset; a negative length reads to the end.
func (s *Store) Get(ctx context.Context, f *protocol.Fragment, offset, length int64) (_ io.ReadCloser, err error) {
	defer s.observe("get", time.Now(), &err)
	return s.bucket.Get(ctx, s.key(f.ContentPath()), offset, length)
}

// List gives the fragments of a journal. Other objects below the journal's name are left out, and told to the log.
func (s *Store) List(ctx context.Context, journal protocol.Journal) iter.Seq2[*protocol.Fragment, error] {
	return func(yield func(*protocol.Fragment, error) bool) {
		var err error
		defer s.observe("list", time.Now(), &err)
		prefix := s.key(string(journal) + "/")
		items := 0
		defer func() { s.metrics.items.Observe(float64(items)) }()
		for info, listErr := range s.bucket.List(ctx, prefix) {
			if err = listErr; err != nil {
				yield(nil, fmt.Errorf("list fragments of %s in %s: %w", journal, s.url, err))
				return
			}
			items++
			f, parseErr := protocol.ParseFragmentFromRelativePath(journal, strings.TrimPrefix(info.Key, prefix))
			if parseErr != nil {
				s.logger.Warn("fragment store: not a fragment", "store", s.url, "object", info.Key, "error", parseErr)
				continue
			}
			f.BackingStore, f.ModTime = string(s.url), info.Modified.Unix()
			if !yield(f, nil) {
				return
			}
		}
	}
}

// Remove removes a fragment. That it is not there is no error.
func (s *Store) Remove(ctx context.Context, f *protocol.Fragment) (err error) {
	defer s.observe("remove", time.Now(), &err)
	return s.bucket.Delete(ctx, s.key(f.ContentPath()))
}

// Shared reports whether clients elsewhere can use the URLs that Sign returns.
func (s *Store) Shared() bool { return s.parsed.Scheme != "file" }

// Sign returns a URL of a fragment's file that anybody can read from for a time. That of a directory is of the scheme file,
// and of use only to those who see the same directory at the same place.
func (s *Store) Sign(ctx context.Context, f *protocol.Fragment, ttl time.Duration) (_ string, err error) {
	if !s.Shared() {
		return (&url.URL{Scheme: "file", Path: "/" + s.key(f.ContentPath())}).String(), nil
	}
	defer s.observe("sign", time.Now(), &err)
	return s.bucket.SignedURL(ctx, s.key(f.ContentPath()), ttl)
}

// IsAuthorization reports whether a store cannot be used for lack of permission, or because its bucket or base directory does
// not exist.
func IsAuthorization(err error) bool { return fault.Is(err, fault.Denied) || isMissing(err) }

// arguments takes the query of a store's URL apart. Names are in any case; those that the store does not know are refused.
func arguments(u *url.URL, known ...string) (map[string]string, error) {
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, fault.New(fault.Invalid, "arguments of the store: %w", err)
	}
	args := make(map[string]string)
	for name, values := range query {
		lower := strings.ToLower(name)
		_, again := args[lower]
		found := false
		for _, k := range append([]string{"find", "replace"}, known...) {
			found = found || k == lower
		}
		switch {
		case !found:
			return nil, fault.New(fault.Invalid, "the store has the unknown argument %q", name)
		case again || len(values) != 1:
			return nil, fault.New(fault.Invalid, "the store has the argument %q twice", name)
		}
		args[lower] = values[0]
	}
	return args, nil
}

// newStore parses the URL and opens the bucket.
func newStore(ctx context.Context, r *Registry, name protocol.FragmentStore) (*Store, error) {
	u, err := name.URL()
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err)
	}
	s := &Store{url: name, parsed: u, registry: r, metrics: r.metrics.of(u), logger: r.opts.Logger}
	s.prefix = strings.TrimPrefix(u.Path, "/")
	var known []string
	if u.Scheme == "s3" {
		known = []string{"profile", "endpoint", "region", "acl", "storageclass", "sse", "ssekmskeyid"}
	}
	args, err := arguments(u, known...)
	if err != nil {
		return nil, err
	}
	s.find, s.replace = args["find"], args["replace"]
	if u.Scheme == "azure-ad" {
		// The path begins with the account and the container.
		_, rest, _ := strings.Cut(s.prefix, "/")
		_, s.prefix, _ = strings.Cut(rest, "/")
	}
	if err := checkPrefix(cmp.Or(s.prefix, "x/")); err != nil {
		return nil, err
	}
	if s.bucket, err = r.opts.Open(ctx, u, args); err != nil {
		return nil, err
	}
	return s, nil
}

// checkPrefix refuses prefixes below which there can be no objects, among them those that lead out of a directory.
func checkPrefix(prefix string) error {
	if err := bucket.ValidateKey(strings.TrimSuffix(prefix, "/")); err != nil {
		return fault.New(fault.Invalid, "path of the store: %w", err)
	}
	return nil
}
