package envelope

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/daybook-dev/daybook/logs/frame"
	"github.com/daybook-dev/daybook/logs/logpb"
)

type vectors struct {
	Vectors []struct {
		Name         string          `json:"name"`
		Compress     bool            `json:"writer_compress"`
		Threshold    int             `json:"writer_compress_threshold"`
		ProtoVersion string          `json:"writer_proto_version"`
		Bundle       json.RawMessage `json:"bundle"`
		BundleSize   int             `json:"bundle_size"`
		BundleHex    string          `json:"bundle_hex"`
		MetadataHex  string          `json:"metadata_hex"`
		Compression  string          `json:"compression"`
		MessageHex   string          `json:"message_hex"`
		Result       string          `json:"reader_result"`
	} `json:"vectors"`
	Malformed []struct {
		Name       string `json:"name"`
		MessageHex string `json:"message_hex"`
		Result     string `json:"reader_result"`
	} `json:"malformed_messages"`
}

func loadVectors(t testing.TB) vectors {
	t.Helper()
	b, err := os.ReadFile("testdata/butler_bundle.json")
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestVectors(t *testing.T) {
	for _, v := range loadVectors(t).Vectors {
		t.Run(v.Name, func(t *testing.T) {
			want := new(logpb.ButlerLogBundle)
			if err := protojson.Unmarshal(v.Bundle, want); err != nil {
				t.Fatal(err)
			}
			msg := unhex(t, v.MessageHex)

			meta, got, err := new(Reader).Read(msg)
			if err != nil {
				t.Fatal(err)
			}
			if meta.GetProtoVersion() != v.ProtoVersion {
				t.Errorf("version %q, want %q", meta.GetProtoVersion(), v.ProtoVersion)
			}
			if v.Result == "ok_but_no_bundle" {
				if got != nil {
					t.Error("a bundle of another version was exposed")
				}
				return
			}
			if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
				t.Errorf("bundle (-want +got):\n%s", diff)
			}

			w := Writer{Threshold: v.Threshold}
			if v.Compress {
				w.Compression = Zlib
			}
			prefix := []byte("before")
			out, err := w.Append(prefix, want)
			if err != nil {
				t.Fatal(err)
			}
			out, ok := bytes.CutPrefix(out, prefix)
			if !ok {
				t.Fatal("what was in dst has changed")
			}
			head, _, err := frame.Cut(out, MaxSize)
			if err != nil {
				t.Fatal(err)
			}
			if got := hex.EncodeToString(head); got != v.MetadataHex {
				t.Errorf("metadata %s, want %s", got, v.MetadataHex)
			}
			meta, body, err := Open(out)
			if err != nil {
				t.Fatal(err)
			}
			bundle, err := Inflate(nil, meta.GetCompression(), body)
			if err != nil {
				t.Fatal(err)
			}
			if len(bundle) != v.BundleSize {
				t.Errorf("bundle of %d bytes, want %d", len(bundle), v.BundleSize)
			}
			again := new(logpb.ButlerLogBundle)
			if err := proto.Unmarshal(bundle, again); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, again, protocmp.Transform()); diff != "" {
				t.Errorf("bundle written (-want +got):\n%s", diff)
			}
			if v.Compression == "none" && !manyTags(want) && !bytes.Equal(out, msg) {
				t.Errorf("message\n%x, want\n%x", out, msg)
			}
		})
	}
}

// manyTags reports whether the order of tags makes the bytes of the bundle ambiguous.
func manyTags(b *logpb.ButlerLogBundle) bool {
	for _, e := range b.GetEntries() {
		if len(e.GetDesc().GetTags()) > 1 {
			return true
		}
	}
	return false
}

func TestMalformedVectors(t *testing.T) {
	// Verdicts that differ from the existing reader's, as the specification directs.
	improved := map[string]string{"truncated_body": "error:short_body"}
	texts := map[string]string{
		"error:empty_input":          "metadata frame: is missing",
		"error:missing_body_frame":   "body frame: is missing",
		"error:unknown_content_type": "unknown type",
		"error:unknown_compression":  "unknown compression",
		"error:bad_metadata_message": "metadata: ",
		"error:bad_bundle_message":   "bundle: ",
		"error:bad_zlib_data":        "zlib",
		"error:frame_too_large":      "too large",
		"error:short_body":           "3 of its 100 bytes",
	}
	for _, v := range loadVectors(t).Malformed {
		t.Run(v.Name, func(t *testing.T) {
			result := v.Result
			if r, ok := improved[v.Name]; ok {
				result = r
			}
			_, bundle, err := Read(unhex(t, v.MessageHex))
			if result == "ok" {
				if err != nil || bundle == nil {
					t.Fatalf("bundle %v, error %v", bundle, err)
				}
				return
			}
			text, known := texts[result]
			if !known {
				t.Fatalf("unknown verdict %q", result)
			}
			if err == nil || !strings.Contains(err.Error(), text) {
				t.Fatalf("error %v, want one with %q", err, text)
			}
		})
	}
}

// sized returns a bundle of exactly n serialized bytes.
func sized(t testing.TB, n int, fill byte) *logpb.ButlerLogBundle {
	t.Helper()
	b := &logpb.ButlerLogBundle{DeprecatedSource: strings.Repeat(string(fill), n)}
	for proto.Size(b) > n {
		b.DeprecatedSource = b.DeprecatedSource[:len(b.DeprecatedSource)-(proto.Size(b)-n)]
	}
	if proto.Size(b) != n {
		t.Fatalf("no bundle of %d bytes", n)
	}
	return b
}

func TestSizeLimitIsInclusive(t *testing.T) {
	for _, c := range []logpb.ButlerMetadata_Compression{None, Zlib, Zstd} {
		t.Run(c.String(), func(t *testing.T) {
			w := Writer{Compression: c}
			var r Reader
			for _, n := range []int{MaxSize - 1, MaxSize} {
				msg, err := w.Append(nil, sized(t, n, 'x'))
				if err != nil {
					t.Fatalf("writing %d bytes: %v", n, err)
				}
				if _, b, err := r.Read(msg); err != nil || proto.Size(b) != n {
					t.Fatalf("reading %d bytes: %v", n, err)
				}
			}
			if _, err := w.Append(nil, sized(t, MaxSize+1, 'x')); !errors.Is(err, ErrTooLarge) {
				t.Errorf("writing one byte too many: %v", err)
			}
			if c == None {
				return
			}
			for _, n := range []int{MaxSize + 1, 8 * MaxSize} {
				bomb, err := appendCompressed(nil, c, make([]byte, n))
				if err != nil {
					t.Fatal(err)
				}
				if _, _, err := r.Read(bomb); !errors.Is(err, ErrTooLarge) {
					t.Errorf("%d bytes in %d: %v", n, len(bomb), err)
				}
			}
		})
	}
}

func TestIncompressibleStaysAsItIs(t *testing.T) {
	noise := make([]byte, 4096)
	x := uint32(1)
	for i := range noise {
		x = x*1664525 + 1013904223
		noise[i] = byte(x >> 24)
	}
	for _, c := range []logpb.ButlerMetadata_Compression{Zlib, Zstd} {
		w := Writer{Compression: c}
		msg, err := w.AppendSerialized(nil, noise)
		if err != nil {
			t.Fatal(err)
		}
		meta, body, err := Open(msg)
		if err != nil || meta.GetCompression() != None || !bytes.Equal(body, noise) {
			t.Errorf("%v: metadata %v, error %v", c, meta, err)
		}
	}
}

func TestTruncatedCompressedBody(t *testing.T) {
	for _, c := range []logpb.ButlerMetadata_Compression{Zlib, Zstd} {
		whole, err := appendCompressed(nil, c, bytes.Repeat([]byte("some text "), 500))
		if err != nil {
			t.Fatal(err)
		}
		_, body, err := Open(whole)
		if err != nil {
			t.Fatal(err)
		}
		for n := range body {
			if _, err := Inflate(nil, c, body[:n]); err == nil && n > 0 {
				t.Fatalf("%v: %d of %d bytes were accepted", c, n, len(body))
			}
		}
	}
}

func TestReuse(t *testing.T) {
	var r Reader
	w := Writer{Compression: Zstd, Threshold: 1}
	var dst []byte
	for _, n := range []int{5000, 100, 70000, 1000} {
		want := sized(t, n, 'a')
		var err error
		if dst, err = w.Append(dst[:0], want); err != nil {
			t.Fatal(err)
		}
		_, got, err := r.Read(dst)
		if err != nil {
			t.Fatal(err)
		}
		clear(dst)
		clear(r.buf[:cap(r.buf)])
		if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
			t.Fatal(diff)
		}
	}
}

func FuzzRead(f *testing.F) {
	v := loadVectors(f)
	for _, x := range v.Vectors {
		f.Add(unhex(f, x.MessageHex))
	}
	for _, x := range v.Malformed {
		f.Add(unhex(f, x.MessageHex))
	}
	z, err := appendCompressed(nil, Zstd, bytes.Repeat([]byte("z"), 2000))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(z)
	f.Fuzz(func(t *testing.T, msg []byte) {
		meta, bundle, err := Read(msg)
		if err != nil {
			return
		}
		if (bundle == nil) != (meta.GetProtoVersion() != ProtoVersion) {
			t.Fatalf("bundle %v of version %q", bundle, meta.GetProtoVersion())
		}
		if bundle == nil {
			return
		}
		again, err := new(Writer).Append(nil, bundle)
		if err != nil {
			t.Fatal(err)
		}
		if _, b, err := Read(again); err != nil || !proto.Equal(b, bundle) {
			t.Fatalf("written and read again: %v, error %v", b, err)
		}
	})
}

func BenchmarkWriter(b *testing.B) {
	body := bytes.Repeat([]byte("2024-01-02 03:04:05 compiling package example.org/some/module\n"), 16<<10)
	for _, c := range []logpb.ButlerMetadata_Compression{None, Zlib, Zstd} {
		b.Run(c.String(), func(b *testing.B) {
			w := Writer{Compression: c}
			var dst []byte
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				var err error
				if dst, err = w.AppendSerialized(dst[:0], body); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
