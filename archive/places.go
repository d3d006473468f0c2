package archive

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"
	"sync"

	"github.com/daybook-dev/daybook/internal/bucket"
	"github.com/daybook-dev/daybook/internal/bucket/cloud"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
)

// Places are where archives lie: an installation's own bucket, and the buckets that projects have instead. A project's bucket may
// change; what is archived is read from where its URL says. Buckets are opened when they are first needed.
type Places struct {
	own      bucket.Bucket
	projects func() map[types.Project]string

	mu   sync.Mutex
	open map[string]bucket.Bucket // whole ones, by URL
}

// NewPlaces returns the places of an installation whose own bucket is given, and stays its caller's. projects returns the URLs of the
// buckets that projects have now instead of it: those that cloud.Open takes, or of a directory (file:///srv/archive); nil is none.
func NewPlaces(own bucket.Bucket, projects func() map[types.Project]string) *Places {
	if projects == nil {
		projects = func() map[types.Project]string { return nil }
	}
	return &Places{own: own, projects: projects, open: make(map[string]bucket.Bucket)}
}

// For returns the bucket that a project's archives are written to now. That it cannot be opened is Transient: the configuration can
// be repaired.
func (p *Places) For(ctx context.Context, project types.Project) (bucket.Bucket, error) {
	raw := p.projects()[project]
	if raw == "" {
		return p.own, nil
	}
	b, err := p.forURL(ctx, raw)
	if err != nil {
		return nil, fault.New(fault.Transient, "archive: bucket of project %s: %w", project, err)
	}
	return b, nil
}

func (p *Places) forURL(ctx context.Context, raw string) (bucket.Bucket, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, err
	}
	if u.Scheme == "file" {
		return p.directory(path.Clean(u.Path), true)
	}
	whole, prefix := cutPrefix(u)
	b, err := p.whole(ctx, whole)
	if err != nil || prefix == "" {
		return b, err
	}
	return bucket.Below(b, prefix)
}

// Of returns the bucket that an object of an archive lies in, by the object's URL.
func (p *Places) Of(ctx context.Context, object string) (bucket.Bucket, error) {
	if _, err := p.own.KeyOf(object); err == nil {
		return p.own, nil
	}
	b, err := p.of(ctx, object)
	if err != nil {
		return nil, fmt.Errorf("archive: bucket of %s: %w", object, err)
	}
	return b, nil
}

func (p *Places) of(ctx context.Context, object string) (bucket.Bucket, error) {
	u, err := url.Parse(object)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err)
	}
	if u.Scheme == "file" {
		dir := u.Path
		for range keySegments {
			dir = path.Dir(dir)
		}
		return p.directory(dir, false)
	}
	whole, _ := cutPrefix(u)
	// The URLs of objects do not have the arguments that their bucket may need to be opened.
	for _, raw := range p.projects() {
		if configured, err := url.Parse(raw); err == nil && configured.RawQuery != "" {
			if other, _ := cutPrefix(configured); other.Scheme == whole.Scheme && other.Host == whole.Host && other.Path == whole.Path {
				whole.RawQuery = configured.RawQuery
				break
			}
		}
	}
	return p.whole(ctx, whole)
}

// cutPrefix returns the URL of the whole bucket, with arguments, and the prefix below it.
func cutPrefix(u *url.URL) (whole *url.URL, prefix string) {
	whole = &url.URL{Scheme: u.Scheme, Host: u.Host, RawQuery: u.RawQuery}
	prefix = strings.Trim(u.Path, "/")
	if u.Scheme == "azure-ad" {
		account, rest, _ := strings.Cut(prefix, "/")
		container, below, _ := strings.Cut(rest, "/")
		whole.Path, prefix = "/"+account+"/"+container, below
	}
	return whole, prefix
}

// whole returns a bucket of an object store.
func (p *Places) whole(ctx context.Context, u *url.URL) (bucket.Bucket, error) {
	return p.opened(u.String(), func() (bucket.Bucket, error) { return cloud.Open(ctx, u) })
}

// directory returns a bucket in a directory. create says that it may be made.
func (p *Places) directory(dir string, create bool) (bucket.Bucket, error) {
	return p.opened("file://"+dir, func() (bucket.Bucket, error) {
		open := bucket.OpenDir
		if create {
			open = bucket.CreateDir
		}
		opened, err := open(dir, "archive")
		if err != nil {
			return nil, err
		}
		return directory{opened, dir}, nil
	})
}

func (p *Places) opened(name string, open func() (bucket.Bucket, error)) (bucket.Bucket, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if b := p.open[name]; b != nil {
		return b, nil
	}
	b, err := open()
	if err != nil {
		return nil, err
	}
	p.open[name] = b
	return b, nil
}

// Close closes the buckets that were opened.
func (p *Places) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var failed error
	for _, b := range p.open {
		failed = errors.Join(failed, b.Close())
	}
	clear(p.open)
	return failed
}

// directory is a bucket in a directory that URLs tell, since there are several.
type directory struct {
	bucket.Bucket
	path string
}

func (d directory) URL(key string) string {
	return (&url.URL{Scheme: "file", Path: d.path + "/" + key}).String()
}

func (d directory) KeyOf(object string) (string, error) {
	u, err := url.Parse(object)
	if err != nil {
		return "", fault.Wrap(fault.Invalid, err)
	}
	key, ok := strings.CutPrefix(u.Path, d.path+"/")
	if u.Scheme != "file" || !ok || u.Host != "" {
		return "", fault.New(fault.Invalid, "archive: %s is not in %s", object, d.path)
	}
	return key, bucket.ValidateKey(key)
}
