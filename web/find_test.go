package web

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/logs/logpb"
)

// recorder keeps what it was asked.
type recorder struct {
	daybookv1.UnimplementedLogsServer
	got proto.Message
}

func (r *recorder) FindStreams(_ context.Context, req *daybookv1.FindStreamsRequest) (*daybookv1.FindStreamsResponse, error) {
	r.got = req
	return &daybookv1.FindStreamsResponse{NextPageToken: "more"}, nil
}

func (r *recorder) ListPrefixes(_ context.Context, req *daybookv1.ListPrefixesRequest) (*daybookv1.ListPrefixesResponse, error) {
	r.got = req
	return &daybookv1.ListPrefixesResponse{}, nil
}

func (r *recorder) ListFolders(_ context.Context, req *daybookv1.ListFoldersRequest) (*daybookv1.ListFoldersResponse, error) {
	r.got = req
	return &daybookv1.ListFoldersResponse{Folders: []*daybookv1.Folder{{Name: "b", Path: "a/b", Streams: 3}}}, nil
}

func (r *recorder) GetUsage(_ context.Context, req *daybookv1.GetUsageRequest) (*daybookv1.Usage, error) {
	r.got = req
	return &daybookv1.Usage{Project: req.GetProject(), Streams: 7}, nil
}

func (r *recorder) Purge(_ context.Context, req *daybookv1.PurgeRequest) (*daybookv1.PurgeResponse, error) {
	r.got = req
	return &daybookv1.PurgeResponse{Streams: 2}, nil
}

func (r *recorder) Undelete(_ context.Context, req *daybookv1.UndeleteRequest) (*daybookv1.UndeleteResponse, error) {
	r.got = req
	return &daybookv1.UndeleteResponse{Streams: 2}, nil
}

// Everything that the API can be asked for can be asked for by HTTP.
func TestParameters(t *testing.T) {
	logs := new(recorder)
	s := serve(t, logs)
	since := time.Date(2026, 3, 14, 9, 26, 53, 500, time.UTC)
	for _, test := range []struct {
		address, body string
		want          proto.Message
		answer        string
	}{
		{
			address: "streams?project=p&pattern=a/**/%2B/*&tag=k=v=w&tag=l&type=binary&content_type=text/plain&state=open&state=COMPLETE" +
				"&since=2026-03-14T09:26:53.0000005Z&until=2026-03-14T10:26:53%2B01:00&purged=1&page_size=7&page_token=t",
			want: &daybookv1.FindStreamsRequest{
				Project: "p", Pattern: "a/**/+/*", Tags: map[string]string{"k": "v=w", "l": ""}, StreamType: logpb.StreamType_BINARY.Enum(),
				ContentType: "text/plain", States: []daybookv1.StreamState{daybookv1.StreamState_OPEN, daybookv1.StreamState_COMPLETE},
				Since: timestamppb.New(since), Until: timestamppb.New(since.Truncate(time.Second)), Purged: true, PageSize: 7, PageToken: "t",
			},
			answer: `{"streams":[],"nextPageToken":"more"}`,
		},
		{
			address: "prefixes?project=p&pattern=a/*&since=2026-03-14T09:26:53Z&until=2026-03-14T09:26:53.0000005Z",
			want: &daybookv1.ListPrefixesRequest{
				Project: "p", Pattern: "a/*", Since: timestamppb.New(since.Truncate(time.Second)), Until: timestamppb.New(since),
			},
			answer: `{"prefixes":[],"nextPageToken":""}`,
		},
		{
			address: "folders?project=p&parent=a&page_size=1&page_token=t",
			want:    &daybookv1.ListFoldersRequest{Project: "p", Parent: "a", PageSize: 1, PageToken: "t"},
			answer:  `{"folders":[{"name":"b","path":"a/b","streams":"3","prefix":false,"folders":false}],"nextPageToken":""}`,
		},
		{
			address: "usage?project=p",
			want:    &daybookv1.GetUsageRequest{Project: "p"},
			answer:  `{"project":"p","prefixes":"0","streams":"7","archivedEntries":"0","archivedContentBytes":"0","archivedStoredBytes":"0"}`,
		},
		{
			address: "purge", body: `{"project":"p","path":"a/+/b"}`,
			want:   &daybookv1.PurgeRequest{Project: "p", Path: "a/+/b"},
			answer: `{"streams":"2"}`,
		},
		{
			address: "undelete", body: `{"project":"p","prefix":"a"}`,
			want:   &daybookv1.UndeleteRequest{Project: "p", Prefix: "a"},
			answer: `{"streams":"2"}`,
		},
	} {
		logs.got = nil
		var status int
		var body string
		if test.body == "" {
			res, b := get(t, s.URL+"/api/v1/"+test.address)
			status, body = res.StatusCode, b
		} else {
			status, body = post(t, s.URL+"/api/v1/"+test.address, "application/json", test.body)
		}
		if status != http.StatusOK || body != test.answer {
			t.Errorf("%s: status %d, %s", test.address, status, body)
		}
		if !proto.Equal(logs.got, test.want) {
			t.Errorf("%s asks for\n%v\nwant\n%v", test.address, logs.got, test.want)
		}
	}
}

// What changes something is not done for a page of another origin, nor for a body that is too large or no message.
func TestChangeRefusals(t *testing.T) {
	logs := new(recorder)
	s := serve(t, logs)
	for _, test := range []struct{ contentType, body string }{
		{"", `{"project":"p"}`},
		{"text/plain", `{"project":"p"}`},
		{"application/x-www-form-urlencoded", "project=p"},
		{"application/json", "{"},
		{"application/json", `{"nothing":1}`},
		{"application/json", `{"project":"` + strings.Repeat("p", maxChange) + `"}`},
	} {
		if status, body := post(t, s.URL+"/api/v1/purge", test.contentType, test.body); status != http.StatusBadRequest || !strings.Contains(body, `"invalid"`) {
			t.Errorf("%s %.30s: status %d, %s", test.contentType, test.body, status, body)
		}
	}
	for header, value := range map[string]string{"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/api/v1/purge", strings.NewReader(`{"project":"p"}`))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set(header, value)
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusForbidden {
			t.Errorf("%s %s: status %d", header, value, res.StatusCode)
		}
	}
	if logs.got != nil {
		t.Errorf("asked %v", logs.got)
	}
	res, _ := get(t, s.URL+"/api/v1/undelete")
	if res.StatusCode != http.StatusMethodNotAllowed || res.Header.Get("Allow") != "POST" {
		t.Errorf("GET: status %d, Allow %q", res.StatusCode, res.Header.Get("Allow"))
	}
}
