package disklog

import (
	"bytes"
	"testing"

	"github.com/daybook-dev/daybook/journal/broker/engine"
	"github.com/daybook-dev/daybook/journal/broker/engine/enginetest"
	"github.com/daybook-dev/daybook/journal/protocol"
)

func FuzzRecord(f *testing.F) {
	b := appendRecord(nil, recordAppend, 7, []byte("head"), []byte("content"))
	seal(b, 1, 0)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, size, ok := parseRecord(b, 1)
		if !ok {
			return
		}
		again := appendRecord(nil, r.typ, r.seq, r.body, nil)
		seal(again, 1, r.base)
		// The reserved field and the padding are not part of what a record says.
		if len(again) != size || !bytes.Equal(again[4:28], b[4:28]) {
			t.Errorf("%x becomes %x", b[:size], again)
		}
		if _, _, ok := parseRecord(b, 2); ok {
			t.Error("a record is one of another segment too")
		}
	})
}

func FuzzBodies(f *testing.F) {
	a := appendBody{
		journal: 3, flags: flagBegin | flagRegisters | flagReference, begin: 1000, fragment: 1000,
		codec: protocol.CompressionCodec_GZIP, time: 1_700_000_000, postfix: "a=b",
		registers: protocol.MustLabelSet("name", "value"), length: 5000, sum: 7,
	}
	f.Add(a.head(nil))
	f.Add(encodeApply(5, []specChange{{1, 2, enginetest.Spec("test/a")}, {journal: 3, created: 4}}))
	f.Add(encodeTrim(1, 100))
	f.Add(encodeStart(9))
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, err := decodeAppend(b); err == nil {
			again, err := decodeAppend(append(a.head(nil), a.content...))
			if err != nil || again.begin != a.begin || again.length != a.length || !bytes.Equal(again.content, a.content) {
				t.Errorf("%+v becomes %+v, %v", a, again, err)
			}
		}
		if revision, changes, err := decodeApply(b); err == nil {
			if again, _, err := decodeApply(encodeApply(revision, changes)); err != nil || again != revision {
				t.Errorf("revision %d becomes %d, %v", revision, again, err)
			}
		}
		_, _, _ = decodeTrim(b)
		if id, f, err := decodeStored(b); err == nil {
			if _, again, err := decodeStored(encodeStored(id, f)); err != nil || again != f {
				t.Errorf("%v becomes %v, %v", f, again, err)
			}
		}
		_, _ = decodeStart(b)
	})
}

func FuzzCheckpoint(f *testing.F) {
	s := (&state{registers: protocol.MustLabelSet("name", "value")}).begin(protocol.CompressionCodec_NONE, 5)
	s = s.grow(3, 5, s.hashed([]byte("abc")), s.blocks.extend([]byte("abc"))).finish("a=b").begin(protocol.CompressionCodec_GZIP, 6)
	s = s.grow(2, 6, s.hashed([]byte("de")), s.blocks.extend([]byte("de"))).damage(span{1, 2})
	s = s.finish("a=b").begin(protocol.CompressionCodec_NONE, 7).store(engine.StoredFragment{Fragment: s.openFragment(), Store: "file:///a/", Modified: 9})
	im := &image{
		identity: engine.Identity{Cluster: 1, Member: 2, Term: 3}, nextID: 4, from: position{5, 6}, revision: 7, specsSeq: 8,
		journals: []journalImage{{id: 1, spec: engine.Spec{JournalSpec: enginetest.Spec("test/a"), Created: 1, Modified: 2}, state: s}},
	}
	good := im.encode()
	if again, err := decodeImage(good); err != nil || !bytes.Equal(again.encode(), good) {
		f.Fatalf("a checkpoint does not survive: %v", err)
	}
	f.Add(good[:len(good)-4])
	f.Fuzz(func(t *testing.T, b []byte) {
		// Without the checksum the fuzzer would see nothing but its failure.
		sealed := sealImage(bytes.Clone(b))
		im, err := decodeImage(sealed)
		if err != nil {
			return
		}
		if _, err := decodeImage(im.encode()); err != nil {
			t.Errorf("what was decoded cannot be encoded: %v", err)
		}
	})
}
