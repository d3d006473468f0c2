//go:build unix

package foreign

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"google.golang.org/grpc/codes"
)

// Stored fragments, in each codec, as foreign clients get at them: through the broker, also if they ask for URLs and cannot use
// those of a directory; and as files, under names and in encodings that all know.
func TestStoredFragments(t *testing.T) {
	t.Parallel()
	server, c := serve(t)
	root := filepath.Join(server.data, "fragments")
	codecs := map[int]struct {
		extension string
		decode    func(io.Reader) (io.Reader, error)
	}{
		1: {".raw", func(r io.Reader) (io.Reader, error) { return r, nil }},
		2: {".gz", func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }},
		3: {".zst", func(r io.Reader) (io.Reader, error) { return zstd.NewReader(r) }},
		4: {".sz", func(r io.Reader) (io.Reader, error) { return snappy.NewReader(r), nil }},
	}
	for codec, file := range codecs {
		name := fmt.Sprint("stored/codec-", codec)
		c.create(spec(name, func(_, f object) {
			f["compression_codec"], f["length"], f["stores"] = codec, 1024, []string{"file:///"}
		}))
		var want string
		for i := range 5 {
			part := strings.Repeat(fmt.Sprint(i), 1500) // which is more than a fragment
			c.mustAppend(name, part)
			want += part
		}
		c.mustAppend(name, "open")
		want += "open"
		var stored []object
		await(t, "five stored fragments", func() bool {
			resp := c.must(ok, "ListFragments", object{"journal": name, "signatureTTL": object{"seconds": 60}})
			stored = nil
			for _, f := range resp.list("fragments") {
				if f.sub("spec").text("backing_store") != "" {
					stored = append(stored, f)
				}
			}
			return len(stored) == 5
		})
		first := stored[0].sub("spec")
		if first.text("backing_store") != "file:///" || time.Since(time.Unix(int64(first.num("mod_time")), 0)) > time.Hour || first.num("compression_codec") != codec {
			t.Errorf("codec %d: fragment %v", codec, first)
		}
		// The URL names a file below the root, as the file transports of clients take it.
		u, err := url.Parse(stored[1].text("signed_url"))
		if err != nil || u.Scheme != "file" {
			t.Fatalf("URL %v, %v", stored[1], err)
		}
		sum := stored[1].sub("spec").sub("sum")
		if base := fmt.Sprintf("%016x-%016x-%016x%016x%08x%s", 1500, 3000, uint64(sum.num("part1")), uint64(sum.num("part2")), uint64(sum.num("part3")), file.extension); u.Path != "/"+name+"/"+base {
			t.Errorf("path %s, want %s", u.Path, base)
		}
		f, err := os.Open(filepath.Join(root, filepath.FromSlash(u.Path)))
		if err != nil {
			t.Fatal(err)
		}
		r, err := file.decode(f)
		if err != nil {
			t.Fatal(err)
		}
		if content, err := io.ReadAll(r); err != nil || string(content) != want[1500:3000] {
			t.Errorf("the file of codec %d has %d bytes, %v", codec, len(content), err)
		}
		f.Close()

		for _, req := range []object{{}, {"offset": 1}, {"offset": 1500}, {"offset": 4700}, {"offset": 1, "do_not_proxy": true}} {
			req["journal"] = name
			got, metas := c.readAll(req)
			if got != want[req.num("offset"):] {
				t.Errorf("codec %d, read %v: %d bytes", codec, req, len(got))
			}
			for _, m := range metas {
				// Nobody but us could read such a URL, and who was given one would give up on the broker.
				if m.text("fragment_url") != "" {
					t.Errorf("codec %d: the URL of a directory: %v", codec, m)
				}
			}
		}
		// Who wants nothing as old as all that is stored begins with what is not.
		got, metas := c.readAll(object{"journal": name, "begin_mod_time": int(time.Now().Add(time.Hour).Unix())})
		if got != "open" || metas[0].num("offset") != 7500 {
			t.Errorf("codec %d, from the future: %q, %v", codec, got, metas)
		}
		if got, _ := c.readAll(object{"journal": name, "begin_mod_time": first.num("mod_time")}); got != want {
			t.Errorf("codec %d, from the first: %d bytes", codec, len(got))
		}
		if got := do(t, http.MethodGet, server.URL+"/"+name+"?offset=1499", nil); got.body != want[1499:] || got.Header.Get("X-Fragment-Last-Modified") == "" {
			t.Errorf("codec %d, by HTTP: %d bytes, %v", codec, len(got.body), got.Header)
		}
	}
	listPages(c)
	storeHealth(c, root)
	metricsOf(t, server.URL)
}

// listPages follows page tokens, and the bounds of time.
func listPages(c *client) {
	c.t.Helper()
	list := func(req object) object {
		req["journal"] = "stored/codec-1;meta"
		return c.must(ok, "ListFragments", req)
	}
	var begins []int
	token := 0
	for pages := 0; ; pages++ {
		page := list(object{"page_limit": 2, "next_page_token": token})
		for _, f := range page.list("fragments") {
			begins = append(begins, f.sub("spec").num("begin"))
		}
		if token = page.num("next_page_token"); token == 0 || pages > 10 {
			break
		}
	}
	if fmt.Sprint(begins) != "[0 1500 3000 4500 6000 7500]" {
		c.t.Errorf("pages have %v", begins)
	}
	now := int(time.Now().Unix())
	for what, test := range map[string]struct {
		req  object
		want int
	}{
		"everything":            {object{}, 6},
		"since an hour":         {object{"begin_mod_time": now - 3600}, 6},
		"from the future":       {object{"begin_mod_time": now + 3600}, 1},
		"up to now":             {object{"end_mod_time": now + 1}, 5}, // what is not stored has no time
		"up to the past":        {object{"end_mod_time": now - 3600}, 0},
		"from between":          {object{"next_page_token": 1501}, 4},
		"from beyond":           {object{"next_page_token": maxOffset}, 0},
		"with a largest page":   {object{"page_limit": 10_000}, 6},
		"with the last signing": {object{"signatureTTL": object{"seconds": 1, "nanos": 5}}, 6},
	} {
		if got := list(test.req).list("fragments"); len(got) != test.want {
			c.t.Errorf("%s: %d fragments, want %d", what, len(got), test.want)
		}
	}
	for what, req := range map[string]object{
		"a large page":      {"page_limit": 10_001},
		"a negative page":   {"page_limit": -1},
		"a negative token":  {"next_page_token": -1},
		"times backwards":   {"begin_mod_time": 5, "end_mod_time": 4},
		"no time to live":   {"signatureTTL": object{}},
		"less than no time": {"signatureTTL": object{"seconds": -1}},
	} {
		req["journal"] = "stored/codec-1"
		_, err := c.invoke("ListFragments", req)
		c.refused(what, err, codes.InvalidArgument)
	}
}

// storeHealth asks for the health of stores. A broker lends its rights to no store that no journal has.
func storeHealth(c *client, root string) {
	c.t.Helper()
	c.must(ok, "FragmentStoreHealth", object{"fragment_store": "file:///"})
	c.must(ok, "FragmentStoreHealth", object{"fragment_store": "file:///", "check_delete": true, "check_delete_prefix": "probe/"})
	if left := files(c.t, root, "delete-probe"); len(left) != 0 {
		c.t.Errorf("probes are left: %v", left)
	}
	for store, want := range map[string]codes.Code{
		"file:///etc/":                       codes.PermissionDenied,
		"s3://metadata/latest/":              codes.PermissionDenied,
		"s3://b/p/?endpoint=http://10.0.0.1": codes.PermissionDenied,
		"http://169.254.169.254/":            codes.InvalidArgument,
		"file:///../":                        codes.PermissionDenied,
		"file://host/":                       codes.InvalidArgument,
		"s3://bucket":                        codes.InvalidArgument,
		"":                                   codes.InvalidArgument,
	} {
		_, err := c.invoke("FragmentStoreHealth", object{"fragment_store": store})
		c.refused("store "+store, err, want, codes.InvalidArgument)
	}
	for _, prefix := range []string{"../", "/etc/", "a//b/", "a/../../b/", "no-slash", ".."} {
		_, err := c.invoke("FragmentStoreHealth", object{"fragment_store": "file:///", "check_delete": true, "check_delete_prefix": prefix})
		c.refused("probe at "+prefix, err, codes.InvalidArgument)
	}
	_, err := c.invoke("FragmentStoreHealth", object{"fragment_store": "file:///", "check_delete_prefix": "a/"})
	c.refused("a probe that is not asked for", err, codes.InvalidArgument)
}

// metricsOf looks for the metrics that dashboards of other brokers show, after all of the above.
func metricsOf(t testing.TB, base string) {
	t.Helper()
	got := scrape(t, base)
	for _, name := range []string{
		`gazette_journal_server_started_totals{operation="Append"}`, `gazette_journal_server_completed_totals{operation="Append",status="ok"}`,
		`gazette_journal_server_completed_totals{operation="Read",status="OFFSET_NOT_YET_AVAILABLE"}`,
		`gazette_journal_server_completed_totals{operation="ListFragments",status="ok"}`,
		`gazette_journal_server_completed_totals{operation="ListFragments",status="<error>"}`,
		`gazette_journal_server_started_totals{operation="List"}`, `gazette_journal_server_started_totals{operation="Apply"}`,
		`gazette_journal_server_started_totals{operation="FragmentStoreHealth"}`,
		"gazette_spool_commits_total", "gazette_spool_commit_bytes_total", "gazette_spool_persisted_total",
		`gazette_store_operation_total{operation="put",status="ok",store="file:///"}`,
		`gazette_store_operation_total{operation="get",status="ok",store="file:///"}`,
		`gazette_store_operation_duration_seconds_count{operation="put",status="ok",store="file:///"}`,
		`gazette_store_put_bytes_total{encoding="",store="file:///"}`, `gazette_store_health_check_total{status="ok",store="file:///"}`,
		`grpc_server_started_total{grpc_method="Append",grpc_service="protocol.Journal",grpc_type="client_stream"}`,
		`grpc_server_handled_total{grpc_code="OK",grpc_method="Apply",grpc_service="protocol.Journal",grpc_type="unary"}`,
		`grpc_server_handled_total{grpc_code="PermissionDenied",grpc_method="FragmentStoreHealth",grpc_service="protocol.Journal",grpc_type="unary"}`,
		`grpc_server_handled_total{grpc_code="OK",grpc_method="Read",grpc_service="protocol.Journal",grpc_type="server_stream"}`,
		"gazette_store_active", "daybook_journal_log_sync_seconds_count", "daybook_journal_read_bytes_total", "daybook_journal_call_seconds_count",
	} {
		if got[name] <= 0 {
			t.Errorf("metric %s is %v", name, got[name])
		}
	}
	for _, name := range []string{
		"gazette_spool_rollbacks_total", "gazette_spool_rollback_bytes_total", "daybook_journal_appends_receiving", "daybook_journal_appends_committing",
		"daybook_journal_log_queued_records", "daybook_journal_unstored_bytes",
	} {
		if value, there := got[name]; !there || value != 0 {
			t.Errorf("metric %s is %v, %t", name, value, there)
		}
	}
}
