package fragment

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"github.com/daybook-dev/daybook/internal/fault"
	pb "github.com/daybook-dev/daybook/journal/protocol"
)

type vector struct {
	Codec   string
	Encoded []byte `json:"sample_encoded_base64"`
	Plain   string `json:"sample_plain"`
}

func vectors(t testing.TB) []vector {
	t.Helper()
	b, err := os.ReadFile("testdata/codecs.json")
	if err != nil {
		t.Fatal(err)
	}
	var all struct{ Codecs []vector }
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	if len(all.Codecs) == 0 {
		t.Fatal("no vectors")
	}
	return all.Codecs
}

func (v vector) codec() pb.CompressionCodec {
	return pb.CompressionCodec(pb.CompressionCodec_value[v.Codec])
}

func decode(b []byte, codec pb.CompressionCodec) ([]byte, error) {
	r, err := NewReader(bytes.NewReader(b), codec)
	if err != nil {
		return nil, err
	}
	out, err := io.ReadAll(r)
	return out, errors.Join(err, r.Close())
}

func encode(t interface{ Fatal(...any) }, content []byte, codec pb.CompressionCodec) []byte {
	var b bytes.Buffer
	w, err := NewWriter(&b, codec)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestVectors(t *testing.T) {
	for _, v := range vectors(t) {
		codec := v.codec()
		if codec == pb.CompressionCodec_GZIP_OFFLOAD_DECOMPRESSION {
			// The store takes the compression off; where it does not, the file is read as GZIP.
			codec = pb.CompressionCodec_GZIP
		}
		got, err := decode(v.Encoded, codec)
		if err != nil || string(got) != v.Plain {
			t.Errorf("%s: %q, %v", v.Codec, got, err)
		}
		if got, err = decode(encode(t, []byte(v.Plain), v.codec()), codec); err != nil || string(got) != v.Plain {
			t.Errorf("%s, written here: %q, %v", v.Codec, got, err)
		}
	}
}

func TestVectorsAreWrittenAlike(t *testing.T) {
	for _, v := range vectors(t) {
		if v.codec() == pb.CompressionCodec_NONE {
			if got := encode(t, []byte(v.Plain), v.codec()); !bytes.Equal(got, v.Encoded) {
				t.Errorf("%s: %q", v.Codec, got)
			}
		}
		if v.codec() == pb.CompressionCodec_SNAPPY {
			// Any reader of the framing format recognizes its first chunk.
			if got := encode(t, []byte(v.Plain), v.codec()); !bytes.HasPrefix(got, v.Encoded[:10]) {
				t.Errorf("%s: %q", v.Codec, got)
			}
		}
	}
}

var codecs = []pb.CompressionCodec{
	pb.CompressionCodec_NONE, pb.CompressionCodec_GZIP, pb.CompressionCodec_ZSTANDARD, pb.CompressionCodec_SNAPPY,
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		codec := rapid.SampledFrom(codecs).Draw(t, "codec")
		content := bytes.Repeat(rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "content"), rapid.IntRange(1, 1000).Draw(t, "times"))
		got, err := decode(encode(t, content, codec), codec)
		if err != nil || !bytes.Equal(got, content) {
			t.Fatalf("%s: %d bytes became %d: %v", codec, len(content), len(got), err)
		}
	})
}

func TestDamageIsDataLoss(t *testing.T) {
	content := []byte(strings.Repeat("hello, journal\n", 1000))
	for _, codec := range codecs[1:] {
		file := encode(t, content, codec)
		if _, err := decode(file[:len(file)/2], codec); !fault.Is(err, fault.DataLoss) {
			t.Errorf("%s, cut: %v", codec, err)
		}
		if _, err := decode([]byte("something else altogether"), codec); !fault.Is(err, fault.DataLoss) {
			t.Errorf("%s, another file: %v", codec, err)
		}
		broken := errors.New("connection lost")
		r, err := NewReader(io.MultiReader(bytes.NewReader(file[:len(file)/2]), iotest.ErrReader(broken)), codec)
		if err == nil {
			_, err = io.Copy(io.Discard, r)
		}
		if !errors.Is(err, broken) || fault.Is(err, fault.DataLoss) {
			t.Errorf("%s, connection lost: %v", codec, err)
		}
	}
}

func TestUnknownCodec(t *testing.T) {
	for _, codec := range []pb.CompressionCodec{pb.CompressionCodec_INVALID, 99} {
		if _, err := NewReader(nil, codec); !fault.Is(err, fault.Invalid) {
			t.Error(err)
		}
		if _, err := NewWriter(nil, codec); !fault.Is(err, fault.Invalid) {
			t.Error(err)
		}
	}
}

func TestVerify(t *testing.T) {
	f := &pb.Fragment{Journal: "a/journal", Begin: 10, End: 15, Sum: pb.SHA1SumOf([]byte("hello")), CompressionCodec: pb.CompressionCodec_NONE}
	for text, ok := range map[string]bool{"hello": true, "hellO": false, "hell": false, "hello!": false} {
		got, err := io.ReadAll(iotest.OneByteReader(Verify(strings.NewReader(text), f)))
		if string(got) != text || ok != (err == nil) || !ok && !fault.Is(err, fault.DataLoss) {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	f.Sum = nil
	if _, err := io.ReadAll(Verify(strings.NewReader("other"), f)); err != nil {
		t.Errorf("without a sum: %v", err)
	}
}

func FuzzReader(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(v.Encoded, int32(v.codec()))
	}
	f.Fuzz(func(t *testing.T, file []byte, codec int32) {
		r, err := NewReader(bytes.NewReader(file), pb.CompressionCodec(codec))
		if err == nil {
			_, err = io.Copy(io.Discard, io.LimitReader(r, 1<<20))
			_ = r.Close()
		}
		if err != nil && !fault.Is(err, fault.DataLoss) && !fault.Is(err, fault.Invalid) {
			t.Errorf("neither damage nor an unknown codec: %v", err)
		}
	})
}
