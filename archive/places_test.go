package archive_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/daybook-dev/daybook/archive"
	"github.com/daybook-dev/daybook/internal/bucket"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
)

// What projects archive goes to their buckets, and is found there after these have changed.
func TestPlaces(t *testing.T) {
	t.Parallel()
	own := bucket.NewMem("own")
	root := t.TempDir()
	first, second := filepath.Join(root, "first"), filepath.Join(root, "a second", "below")
	projects := map[types.Project]string{"ci": "file://" + first}
	p := archive.NewPlaces(own, func() map[types.Project]string { return projects })
	closed := func(p *archive.Places) {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	defer func() { closed(p) }()

	put := func(project types.Project, content string) (url string) {
		t.Helper()
		b, err := p.For(t.Context(), project)
		if err != nil {
			t.Fatal(err)
		}
		const key = "ci/01/0123/x.entries.zst"
		if err := bucket.Put(t.Context(), b, key, strings.NewReader(content)); err != nil {
			t.Fatal(err)
		}
		return b.URL(key)
	}
	get := func(url string) string {
		t.Helper()
		b, err := p.Of(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		key, err := b.KeyOf(url)
		if err != nil {
			t.Fatal(err)
		}
		content := make([]byte, 1)
		if err := bucket.ReadFull(t.Context(), b, key, 0, content); err != nil {
			t.Fatal(err)
		}
		return string(content)
	}
	urls := []string{put("other", "0"), put("ci", "1")}
	projects = map[types.Project]string{"ci": (&urlOf{second}).String()}
	urls = append(urls, put("ci", "2"))
	projects = nil
	urls = append(urls, put("ci", "3")) // in our own, in place of the first

	want := []string{"3", "1", "2", "3"}
	check := func(when string) {
		t.Helper()
		var got []string
		for _, url := range urls {
			got = append(got, get(url))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", when, diff)
		}
	}
	check("at once")
	closed(p)
	p = archive.NewPlaces(own, nil)
	check("without the configuration of then")

	// A directory that is gone is not made anew to read from, and one that is no bucket is not taken for one.
	if err := os.RemoveAll(first); err != nil {
		t.Fatal(err)
	}
	closed(p)
	p = archive.NewPlaces(own, nil)
	if _, err := p.Of(t.Context(), urls[1]); err == nil {
		t.Error("an archive is found in a directory that is gone")
	}
	if _, err := os.Stat(first); err == nil {
		t.Error("the directory was made anew")
	}
}

type urlOf struct{ path string }

func (u *urlOf) String() string { return "file://" + strings.ReplaceAll(u.path, " ", "%20") }

// Object stores are not reached for when they are opened, so that their URLs are tested without.
func TestPlacesInObjectStores(t *testing.T) {
	t.Setenv("AWS_REGION", "")
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(t.TempDir(), "none"))
	projects := map[types.Project]string{
		"a": "s3://logs/deep/a?region=eu-1&endpoint=http://127.0.0.1:1", "bad": "s3://nowhere", "worse": "ftp://x",
	}
	p := archive.NewPlaces(bucket.NewMem("own"), func() map[types.Project]string { return projects })
	defer p.Close()
	b, err := p.For(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	url := b.URL("a/01/0123/x.index")
	if url != "s3://logs/deep/a/a/01/0123/x.index" {
		t.Errorf("URL %s", url)
	}
	// The prefix has changed since, the bucket's arguments are needed still.
	projects["a"] = "s3://logs/other?region=eu-1"
	whole, err := p.Of(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	if key, err := whole.KeyOf(url); err != nil || key != "deep/a/a/01/0123/x.index" {
		t.Errorf("key %q, %v", key, err)
	}
	for _, project := range []types.Project{"bad", "worse"} {
		if _, err := p.For(t.Context(), project); !fault.Is(err, fault.Transient) {
			t.Errorf("a bucket that cannot be opened: %v", err)
		}
	}
	for _, bad := range []string{"s3://gone/x", "nothing", "", "mem://other/x", "file:///x"} {
		if _, err := p.Of(t.Context(), bad); err == nil {
			t.Errorf("%q is found", bad)
		}
	}
}
