package logpb

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"
)

// anything fills a message with anything, bytes that are no field of it included.
func anything(t *rapid.T, m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if !rapid.Bool().Draw(t, string(f.Name())) {
			continue
		}
		switch {
		case f.IsMap():
			entries := m.Mutable(f).Map()
			for range rapid.IntRange(0, 3).Draw(t, "entries") {
				entries.Set(protoreflect.ValueOfString(text(t)).MapKey(), protoreflect.ValueOfString(text(t)))
			}
		case f.IsList():
			list := m.Mutable(f).List()
			for range rapid.IntRange(0, 4).Draw(t, "length") {
				anything(t, list.AppendMutable().Message(), depth+1)
			}
		case f.Kind() == protoreflect.MessageKind:
			anything(t, m.Mutable(f).Message(), depth+1)
		default:
			m.Set(f, scalar(t, f))
		}
	}
	if rapid.IntRange(0, 200).Draw(t, "unknown") == 0 {
		m.SetUnknown([]byte{0xf8, 0x7f, 1})
	}
}

func text(t *rapid.T) string {
	return rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", "\n", "\r\n"})).Draw(t, "text")
}

func scalar(t *rapid.T, f protoreflect.FieldDescriptor) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(rapid.Bool().Draw(t, "bool"))
	case protoreflect.BytesKind:
		n := rapid.SampledFrom([]int{0, 1, 5, 127, 128, 16_383, 16_384, 70_000}).Draw(t, "size")
		return protoreflect.ValueOfBytes(bytes.Repeat([]byte{rapid.Byte().Draw(t, "byte")}, n))
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(rapid.Int32().Draw(t, "enum")))
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(rapid.Int32().Draw(t, "int32"))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(rapid.Int64().Draw(t, "int64"))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(rapid.Uint32().Draw(t, "uint32"))
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(rapid.Uint64().Draw(t, "uint64"))
	}
	return protoreflect.ValueOfString(text(t))
}

// TestEncode compares with what proto.Marshal makes of the same bundle, with an encoder that has been used before.
func TestEncode(t *testing.T) {
	var e Encoder
	rapid.Check(t, func(t *rapid.T) {
		b := new(ButlerLogBundle)
		anything(t, b.ProtoReflect(), 0)
		want, err := proto.MarshalOptions{Deterministic: true}.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		got, err := e.Encode(b)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes, error %v; want %d bytes: %v\n%x\n%x", len(got), err, len(want), b, got, want)
		}
	})
}

func TestEncodeUnusual(t *testing.T) {
	line := func(l *Text_Line) *ButlerLogBundle {
		return &ButlerLogBundle{Entries: []*ButlerLogBundle_Entry{{Logs: []*LogEntry{{Content: &LogEntry_Text{&Text{Lines: []*Text_Line{l}}}}}}}}
	}
	log := func(l *LogEntry) *ButlerLogBundle {
		return &ButlerLogBundle{Entries: []*ButlerLogBundle_Entry{{Logs: []*LogEntry{l}}}}
	}
	for _, b := range []*ButlerLogBundle{
		nil, line(nil), log(nil),
		{Entries: []*ButlerLogBundle_Entry{nil}},
		log(&LogEntry{Content: (*LogEntry_Text)(nil)}), log(&LogEntry{Content: &LogEntry_Text{}}),
		log(&LogEntry{Content: &LogEntry_Binary{}}), log(&LogEntry{Content: &LogEntry_Datagram{}}),
		line(&Text_Line{Delimiter: "\xff"}),
		{Project: "\xff"},
		{Entries: []*ButlerLogBundle_Entry{{Desc: &LogStreamDescriptor{Name: "\xff"}}}},
	} {
		want, wantErr := proto.Marshal(b)
		got, err := new(Encoder).Encode(b)
		if !bytes.Equal(got, want) && err == nil || (err == nil) != (wantErr == nil) {
			t.Errorf("%v: %x, error %v; want %x, error %v", b, got, err, want, wantErr)
		}
	}
}

// logBundle has a mebibyte in lines of a size.
func logBundle(size int) *ButlerLogBundle {
	b := &ButlerLogBundle{Timestamp: timestamppb.Now(), Project: "p", Prefix: "a/prefix", Secret: make([]byte, 32)}
	e := &ButlerLogBundle_Entry{Desc: &LogStreamDescriptor{Name: "stdout", ContentType: "text/plain", Timestamp: timestamppb.Now()}}
	value := bytes.Repeat([]byte{'x'}, size-1)
	for range 100 {
		var lines []*Text_Line
		for range 10 << 10 / size {
			lines = append(lines, &Text_Line{Value: value, Delimiter: "\n"})
		}
		e.Logs = append(e.Logs, &LogEntry{TimeOffset: durationpb.New(12345678), StreamIndex: 7, Content: &LogEntry_Text{&Text{Lines: lines}}})
	}
	b.Entries = append(b.Entries, e)
	return b
}

func BenchmarkEncode(b *testing.B) {
	for _, size := range []int{8, 80} {
		bundle := logBundle(size)
		name := map[int]string{8: "8-byte lines", 80: "80-byte lines"}[size]
		b.Run("Encoder/"+name, func(b *testing.B) {
			var e Encoder
			b.SetBytes(1000 << 10)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := e.Encode(bundle); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("proto/"+name, func(b *testing.B) {
			var buf []byte
			b.SetBytes(1000 << 10)
			b.ReportAllocs()
			for b.Loop() {
				var err error
				if buf, err = (proto.MarshalOptions{}).MarshalAppend(buf[:0], bundle); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
