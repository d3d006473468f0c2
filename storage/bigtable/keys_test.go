package bigtable

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/storage"
	"github.com/daybook-dev/daybook/storage/runs"
)

// logdog is what LogDog writes.
type logdog struct {
	Numbers []struct{ Hex, Value string }
	Streams []struct {
		Project types.Project
		Path    types.StreamPath
		Prefix  string            `json:"row_key_prefix"`
		End     string            `json:"row_key_upper_bound"`
		Keys    map[string]string `json:"row_keys"`
	}
	Row struct {
		Key     string
		Value   []byte   `json:"value_b64"`
		Entries [][]byte `json:"entries_b64"`
		Project types.Project
		Path    types.StreamPath
	}
}

func readLogDog(t *testing.T) (l logdog) {
	t.Helper()
	b, err := os.ReadFile("testdata/rows.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &l); err != nil {
		t.Fatal(err)
	}
	return l
}

func TestKeysOfLogDog(t *testing.T) {
	l := readLogDog(t)
	if len(l.Numbers) == 0 || len(l.Streams) == 0 {
		t.Fatal("there is nothing to compare with")
	}
	for _, n := range l.Numbers {
		v, err := strconv.ParseInt(n.Value, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if got := encodeInt(v); got != n.Hex {
			t.Errorf("%d is encoded as %s, want %s", v, got, n.Hex)
		}
		if got, err := decodeInt([]byte(n.Hex)); got != v || err != nil {
			t.Errorf("%s is decoded as %d, %v; want %d", n.Hex, got, err, v)
		}
	}
	for _, s := range l.Streams {
		id := idOf(storage.Stream{Project: s.Project, Path: s.Path})
		if string(id)+sep != s.Prefix || id.end() != s.End {
			t.Errorf("keys of %s begin with %q and end before %q; want %q, %q", s.Path, id, id.end(), s.Prefix, s.End)
		}
		for what, want := range s.Keys {
			var last, count types.MessageIndex
			if _, err := fmt.Sscanf(what, "last_index=%d,count=%d", &last, &count); err != nil {
				t.Fatal(err)
			}
			if last+1 < count {
				continue // a key that no row can have
			}
			row := runs.Span{First: last + 1 - count, End: last + 1}
			if got := id.key(row); got != want {
				t.Errorf("key of %v is %q, want %q", row, got, want)
			}
			if gotID, got, err := parseKey([]byte(want)); gotID != id || got != row || err != nil {
				t.Errorf("%q is %s %v, %v; want %s %v", want, gotID, got, err, id, row)
			}
			if first := id.from(last); first >= want || id.from(last+1) <= want || want >= id.end() {
				t.Errorf("%q is not between %q and %q", want, first, id.from(last+1))
			}
		}
	}
}

func TestNumbersSort(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.Int64().Draw(t, "a"), rapid.Int64().Draw(t, "b")
		if (a < b) != (encodeInt(a) < encodeInt(b)) {
			t.Fatalf("%d is %s, and %d is %s", a, encodeInt(a), b, encodeInt(b))
		}
		if got, err := decodeInt([]byte(encodeInt(a))); got != a || err != nil {
			t.Fatalf("%d came back as %d, %v", a, got, err)
		}
	})
	for _, v := range []int64{math.MinInt64, math.MaxInt64, -1, 0} {
		if got, err := decodeInt([]byte(encodeInt(v))); got != v || err != nil {
			t.Errorf("%d came back as %d, %v", v, got, err)
		}
	}
}

var hash = base64.URLEncoding.EncodeToString(make([]byte, 32))

func TestMalformedKeys(t *testing.T) {
	for _, key := range []string{
		"", hash, hash + "~8080", hash + "~8080~8180~8180", // parts
		"~8080~8180", hash[:20] + "~8080~8180", strings.Repeat("!", len(hash)) + "~8080~8180", // hash
		hash + "~80~8180", hash + "~8x80~8180", hash + "~808~8180", hash + "~~8180", // numbers
		hash + "~8080~818000", hash + "~bfffffffffffffffff~8180", hash + "~ff8080~8180", hash + "~8081~8180", // overflow, leftovers
		hash + "~8080~8000", hash + "~8080~81c0", hash + "~8080~7f7f", hash + "~7f7f~8080", hash + "~befffffffffffffffe~8080", // no such entries
	} {
		if id, row, err := parseKey([]byte(key)); !fault.Is(err, fault.DataLoss) {
			t.Errorf("%q is %q %v, %v", key, id, row, err)
		}
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add([]byte(hash + "~8080~8180"))
	f.Add([]byte(hash + "~8080~8180~"))
	f.Fuzz(func(t *testing.T, key []byte) {
		id, row, err := parseKey(key)
		if err != nil {
			return
		}
		if row.First < 0 || row.End <= row.First {
			t.Errorf("%q has entries %v", key, row)
		}
		if got := id.key(row); got != string(id)+strings.ToLower(string(key[len(id):])) {
			t.Errorf("%q came back as %q", key, got)
		}
	})
}
