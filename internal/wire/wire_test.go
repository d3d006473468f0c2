package wire

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/emptypb"
)

func field(number protowire.Number, value []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), value)
}

func TestTooMany(t *testing.T) {
	file := (*descriptorpb.FileDescriptorProto)(nil).ProtoReflect().Descriptor()
	empty := (*emptypb.Empty)(nil).ProtoReflect().Descriptor()
	message := field(4, nil) // an element of message_type
	most := bytes.Repeat(message, MaxFields)
	for _, tc := range []struct {
		name string
		b    []byte
		d    protoreflect.MessageDescriptor
		want bool
	}{
		{"nothing", nil, file, false},
		{"as many as may be", most, file, false},
		{"one more", append(bytes.Clone(most), message...), file, true},
		{"as many inside, and what they are in", field(4, bytes.Repeat(field(2, nil), MaxFields)), file, true},
		{"deep inside", field(4, field(3, field(3, bytes.Repeat(field(2, nil), MaxFields)))), file, true},
		{"in a string", field(1, append(bytes.Clone(most), message...)), file, false},
		{"not known", append(bytes.Clone(most), message...), empty, true},
		{"in what is not known", field(4, append(bytes.Clone(most), message...)), empty, false},
		{"no message", bytes.Repeat([]byte{0xff}, 3*MaxFields), file, false},
		{"cut off", append(bytes.Clone(most), 0x22, 0x05), file, false},
	} {
		if got := TooMany(tc.b, tc.d); got != tc.want {
			t.Errorf("%s: %v", tc.name, got)
		}
	}
}

func FuzzTooMany(f *testing.F) {
	f.Add(field(4, field(2, nil)))
	file := (*descriptorpb.FileDescriptorProto)(nil).ProtoReflect().Descriptor()
	f.Fuzz(func(_ *testing.T, b []byte) {
		left := 10
		count(b, file, &left, 5)
	})
}
