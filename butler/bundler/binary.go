package bundler

// binaryHoldBack is how many bytes are not worth an entry before they are old.
const binaryHoldBack = 8 << 10

// binaryParser makes entries of whatever is there (spec butler 7.4).
type binaryParser struct {
	// offset is the number of bytes so far.
	offset uint64
}

func (p *binaryParser) next(q *queue, lim limits, aggressive, _ bool, a *arena) (*slot, error) {
	n := min(q.size, lim.raw, lim.encoded-6) // tag and length
	if n <= 0 || !aggressive && q.size <= binaryHoldBack {
		return nil, nil
	}
	n = q.cut(n)
	s := a.slot()
	s.at = q.segs[0].at
	s.raw, s.encoded = n, fieldSize(n)
	s.binary.Data = q.peek(n, a)
	s.binaryC.Binary = &s.binary
	s.entry.Content = &s.binaryC
	s.entry.Sequence = p.offset
	p.offset += uint64(n)
	q.consume(n)
	return s, nil
}
