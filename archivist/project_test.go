package archivist_test

import (
	"strings"
	"testing"

	"github.com/daybook-dev/daybook/archive"
	"github.com/daybook-dev/daybook/archivist"
	"github.com/daybook-dev/daybook/logs/types"
)

// A project has its own bucket and its own density of the index. When the bucket is another one later, what is archived is
// verified, and removed, where it is.
func TestProjectSettings(t *testing.T) {
	h := newHouse(t)
	dir := t.TempDir()
	buckets := map[types.Project]string{project: "file://" + dir}
	places := archive.NewPlaces(h.bucket, func() map[types.Project]string { return buckets })
	t.Cleanup(func() { _ = places.Close() })
	var density archive.Density
	a := h.archivist(func(c *archivist.Config) {
		c.Places = places
		c.ProjectDensity = func(p types.Project) archive.Density {
			if p != project {
				t.Errorf("asked about project %q", p)
			}
			return density
		}
	})
	open := func(id string) *archive.Stream {
		t.Helper()
		r := h.report(id)
		b, err := places.Of(t.Context(), r.GetStreamUrl())
		if err != nil {
			t.Fatal(err)
		}
		s, err := archive.Open(t.Context(), b, r.GetStreamUrl(), r.GetIndexUrl())
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for id, tc := range map[string]struct {
		density archive.Density
		listed  int
	}{
		"default": {archive.Density{}, 2}, // the first and the last
		"dense":   {archive.Density{StreamRange: 1}, 6},
		"sparse":  {archive.Density{StreamRange: 3}, 3},
		"bytes":   {archive.Density{ByteRange: 1}, 6},
	} {
		density = tc.density
		h.register(id)
		h.put(id, 0, 1, 2, 3, 4, 5)
		h.terminate(id, 5)
		drain(t, a)
		if url := h.report(id).GetStreamUrl(); !strings.HasPrefix(url, "file://"+dir+"/") {
			t.Errorf("%s: archived to %s", id, url)
		}
		if got := len(open(id).Index().GetEntries()); got != tc.listed {
			t.Errorf("%s: the index lists %d entries, not %d", id, got, tc.listed)
		}
	}
	if keys := h.bucket.Keys(); len(keys) != 0 {
		t.Errorf("our own bucket has %v", keys)
	}

	buckets = nil
	h.enqueue("dense")
	drain(t, a)
	if n := h.rows("dense"); n != 0 {
		t.Errorf("%d entries are left in storage", n)
	}
	h.register("later")
	h.put("later", 0)
	h.terminate("later", 0)
	drain(t, a)
	if url := h.report("later").GetStreamUrl(); !strings.HasPrefix(url, "mem://archive/") {
		t.Errorf("without a bucket of its own, archived to %s", url)
	}
}

// While a project's bucket cannot be opened, its streams wait.
func TestProjectBucketThatCannotBeOpened(t *testing.T) {
	h := newHouse(t)
	buckets := map[types.Project]string{project: "ftp://x"}
	a := h.archivist(func(c *archivist.Config) {
		c.Places = archive.NewPlaces(h.bucket, func() map[types.Project]string { return buckets })
		c.MaxFailures = 1
	})
	s := h.register("s")
	h.put("s", 0)
	h.terminate("s", 0)
	drain(t, a)
	if s.archived != nil || h.pendingTasks() != 1 || h.rows("s") != 1 {
		t.Errorf("archived: %v, %d tasks, %d entries", s.archived, h.pendingTasks(), h.rows("s"))
	}
}
