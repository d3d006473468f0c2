package disklog

import (
	"encoding/binary"
	"errors"
	"hash/crc32"

	"google.golang.org/protobuf/proto"

	"github.com/daybook-dev/daybook/journal/broker/engine"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// errBody is the error of every decoder for bytes that its encoder did not write.
var errBody = errors.New("not a valid encoding")

// decoder takes values from the front of b. After a failure all values are zero and err is set.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail() { d.b, d.err = nil, errBody }

func (d *decoder) uint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

// int takes a number that must not be negative as int64.
func (d *decoder) int() int64 {
	v := int64(d.uint())
	if v < 0 {
		d.fail()
		return 0
	}
	return v
}

func (d *decoder) offset() protocol.Offset { return protocol.Offset(d.int()) }

// bytes takes a length and that many bytes, which alias the input.
func (d *decoder) bytes() []byte {
	n := d.uint()
	if n > uint64(len(d.b)) {
		d.fail()
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

// fixed takes len(into) bytes.
func (d *decoder) fixed(into []byte) {
	if len(d.b) < len(into) {
		d.fail()
		return
	}
	d.b = d.b[copy(into, d.b):]
}

// count takes the number of elements that follow, each at least size bytes long, so that a wrong one cannot make the
// caller allocate more than the input's length justifies.
func (d *decoder) count(size int) int {
	n := d.uint()
	if n > uint64(len(d.b)/size) {
		d.fail()
		return 0
	}
	return int(n)
}

func (d *decoder) message(m proto.Message) {
	if b := d.bytes(); d.err == nil && proto.Unmarshal(b, m) != nil {
		d.fail()
	}
}

// end returns the error of decoding; bytes left over are one.
func (d *decoder) end() error {
	if d.err == nil && len(d.b) != 0 {
		d.fail()
	}
	return d.err
}

func appendBytes(b, v []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(v))), v...)
}

// appendMessage appends a message that is known to be valid, and therefore marshals.
func appendMessage(b []byte, m proto.Message) []byte {
	v, err := proto.Marshal(m)
	if err != nil {
		panic("disklog: a validated message does not marshal: " + err.Error())
	}
	return appendBytes(b, v)
}

// The flags of an append record.
const (
	flagFinish    = 1 << iota // the open fragment is finished first
	flagBegin                 // a fragment begins with this content
	flagRegisters             // the registers change
	flagReference             // the content is in the fragment's file, and was synced before the record was written
	flagJump                  // the head moves to begin on purpose
	flagsKnown    = 1<<iota - 1
)

// appendBody is the body of an append record:
//
//	uvarint  journal
//	uvarint  flags
//	uvarint  begin
//	uvarint  distance from the fragment's first offset to begin
//	uvarint  time         Unix seconds
//	bytes    postfix      with flagFinish, of the fragment that is finished
//	uvarint  codec        with flagBegin
//	bytes    registers    with flagRegisters: a protocol.LabelSet
//	uvarint  length       with flagReference
//	uint32   CRC-32C      with flagReference, of the content
//	...      content      without flagReference
type appendBody struct {
	journal   uint64
	flags     uint64
	begin     protocol.Offset
	fragment  protocol.Offset
	time      int64
	postfix   string
	codec     protocol.CompressionCodec
	registers *protocol.LabelSet
	length    int64
	sum       uint32
	content   []byte
}

// head returns the body without inline content.
func (a *appendBody) head(b []byte) []byte {
	b = binary.AppendUvarint(b, a.journal)
	b = binary.AppendUvarint(b, a.flags)
	b = binary.AppendUvarint(b, uint64(a.begin))
	b = binary.AppendUvarint(b, uint64(a.begin-a.fragment))
	b = binary.AppendUvarint(b, uint64(a.time))
	if a.flags&flagFinish != 0 {
		b = appendBytes(b, []byte(a.postfix))
	}
	if a.flags&flagBegin != 0 {
		b = binary.AppendUvarint(b, uint64(a.codec))
	}
	if a.flags&flagRegisters != 0 {
		b = appendMessage(b, a.registers)
	}
	if a.flags&flagReference != 0 {
		b = binary.AppendUvarint(b, uint64(a.length))
		b = binary.LittleEndian.AppendUint32(b, a.sum)
	}
	return b
}

func decodeAppend(b []byte) (a appendBody, err error) {
	d := decoder{b: b}
	a.journal = d.uint()
	a.flags = d.uint()
	if a.flags&^flagsKnown != 0 {
		d.fail()
	}
	a.begin = d.offset()
	if a.fragment = a.begin - d.offset(); a.fragment < 0 {
		d.fail()
	}
	a.time = d.int()
	if a.flags&flagFinish != 0 {
		a.postfix = string(d.bytes())
	}
	if a.flags&flagBegin != 0 {
		a.codec = protocol.CompressionCodec(d.uint())
	}
	if a.flags&flagRegisters != 0 {
		a.registers = new(protocol.LabelSet)
		d.message(a.registers)
	}
	if a.flags&flagReference != 0 {
		a.length = d.int()
		var sum [4]byte
		d.fixed(sum[:])
		a.sum = binary.LittleEndian.Uint32(sum[:])
	} else {
		a.content, d.b = d.b, nil
		a.length = int64(len(a.content))
	}
	if a.begin+protocol.Offset(a.length) < a.begin {
		d.fail()
	}
	return a, d.end()
}

// specChange is one change of an apply record: a journal's spec as it is from now on, or its end.
type specChange struct {
	journal uint64
	created int64
	// spec is nil for a journal that is deleted.
	spec *protocol.JournalSpec
}

// encodeApply returns the body of an apply record: the revision, the number of changes, and for each
//
//	uvarint  journal
//	uvarint  revision of its creation
//	bytes    spec, empty for a journal that is deleted
func encodeApply(revision int64, changes []specChange) []byte {
	b := binary.AppendUvarint(nil, uint64(revision))
	b = binary.AppendUvarint(b, uint64(len(changes)))
	for _, c := range changes {
		b = binary.AppendUvarint(b, c.journal)
		b = binary.AppendUvarint(b, uint64(c.created))
		if c.spec == nil {
			b = appendBytes(b, nil)
		} else {
			b = appendMessage(b, c.spec)
		}
	}
	return b
}

func decodeApply(b []byte) (revision int64, changes []specChange, err error) {
	d := decoder{b: b}
	revision = d.int()
	for range d.count(3) {
		c := specChange{journal: d.uint(), created: d.int()}
		if spec := d.bytes(); len(spec) != 0 {
			c.spec = new(protocol.JournalSpec)
			if d.err == nil && proto.Unmarshal(spec, c.spec) != nil {
				d.fail()
			}
		}
		changes = append(changes, c)
	}
	return revision, changes, d.end()
}

// encodeTrim returns the body of a trim record: the journal, and the lowest offset of the fragments that remain.
func encodeTrim(journal uint64, below protocol.Offset) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(nil, journal), uint64(below))
}

func decodeTrim(b []byte) (journal uint64, below protocol.Offset, err error) {
	d := decoder{b: b}
	journal, below = d.uint(), d.offset()
	return journal, below, d.end()
}

// encodeStored returns the body of a stored record: the journal, and the fragment as checkpoints hold it.
func encodeStored(journal uint64, f engine.StoredFragment) []byte {
	return appendStored(binary.AppendUvarint(nil, journal), f)
}

func decodeStored(b []byte) (journal uint64, f engine.StoredFragment, err error) {
	d := decoder{b: b}
	journal, f = d.uint(), d.storedFragment()
	return journal, f, d.end()
}

// encodeStart returns the body of a start record: the term.
func encodeStart(term uint64) []byte { return binary.AppendUvarint(nil, term) }

func decodeStart(b []byte) (term uint64, err error) {
	d := decoder{b: b}
	term = d.uint()
	return term, d.end()
}

// appendFragment appends a fragment as checkpoints hold it.
func appendFragment(b []byte, f engine.Fragment) []byte {
	b = binary.AppendUvarint(b, uint64(f.Begin))
	b = binary.AppendUvarint(b, uint64(f.Len()))
	b = append(b, f.Sum[:]...)
	b = binary.AppendUvarint(b, uint64(f.Codec))
	b = binary.AppendUvarint(b, uint64(f.FirstAppend))
	b = binary.AppendUvarint(b, uint64(f.LastAppend))
	return appendBytes(b, []byte(f.Postfix))
}

func (d *decoder) fragment() (f engine.Fragment) {
	f.Begin = d.offset()
	f.End = f.Begin + d.offset()
	if f.End < f.Begin {
		d.fail()
	}
	d.fixed(f.Sum[:])
	f.Codec = protocol.CompressionCodec(d.uint())
	f.FirstAppend, f.LastAppend = d.int(), d.int()
	f.Postfix = string(d.bytes())
	return f
}

func appendStored(b []byte, f engine.StoredFragment) []byte {
	b = appendFragment(b, f.Fragment)
	b = appendBytes(b, []byte(f.Store))
	return binary.AppendUvarint(b, uint64(f.Modified))
}

func (d *decoder) storedFragment() engine.StoredFragment {
	return engine.StoredFragment{
		Fragment: d.fragment(), Store: protocol.FragmentStore(d.bytes()), Modified: d.int(),
	}
}

func appendSums(b []byte, sums []uint32) []byte {
	b = binary.AppendUvarint(b, uint64(len(sums)))
	for _, v := range sums {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}

// sums takes the sums of a number of blocks of size bytes; nil if there are none.
func (d *decoder) sums(size int64) []uint32 {
	n := d.count(crc32.Size)
	if n == 0 {
		return nil
	}
	if int64(n) != (size+blockSize-1)/blockSize {
		d.fail()
		return nil
	}
	out := make([]uint32, n)
	for i := range out {
		var v [crc32.Size]byte
		d.fixed(v[:])
		out[i] = binary.LittleEndian.Uint32(v[:])
	}
	return out
}
