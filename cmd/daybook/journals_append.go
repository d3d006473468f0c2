package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/client"
	"github.com/daybook-dev/daybook/journal/protocol"
)

type journalsAppendCmd struct {
	journalsFlags
	selectFlags
	Input   string `help:"Read from a file." short:"i" default:"-" placeholder:"FILE"`
	Framing string `help:"none makes one append of everything; lines makes one of each line; fixed makes one of each frame: the bytes 66 33 93 36, the length in four bytes (little-endian), and so many bytes." short:"f" enum:"none,lines,fixed" default:"none"`
	Mapping string `help:"How a record finds its journal among those selected: random; or by a key, which is the record before it: modulo, rendezvous, direct (the key is the name)." short:"m" enum:"random,modulo,rendezvous,direct" default:"random"`
	Base64  bool   `help:"Keys are in base64." name:"base64"`
}

func (c *journalsAppendCmd) Help() string {
	return "Without framing nothing is appended before the input has ended well, and then all of it or nothing. " +
		"Records are appended as they come, those of one journal in their order; a record that is not complete is an error. " +
		"Line ends and headers of frames are part of what is appended. " +
		"The command ends when everything is on the broker's disk, and an error says how much is. What cannot be sent at once waits in temporary files.\n\n" +
		"  daybook journals append -l name=acme/orders < order.json\n" +
		"  tail -F app.log | daybook journals append -l name=acme/app --framing lines"
}

const (
	// appendSpool is how much may wait for the broker before the input has to.
	appendSpool = 1 << 30
	maxRecord   = 64 << 20
)

var frameMagic = [4]byte{0x66, 0x33, 0x93, 0x36}

func (c *journalsAppendCmd) Run(e *env) (err error) {
	if c.Framing == "none" && c.Mapping != "random" {
		return fault.New(fault.Invalid, "--mapping %s needs records; give --framing lines or fixed", c.Mapping)
	}
	if c.Base64 && (c.Framing != "lines" || c.Mapping == "random") {
		return fault.New(fault.Invalid, "--base64 is about keys in lines; give --framing lines and a --mapping other than random")
	}
	input := e.stdin
	if c.Input != "-" {
		if input, err = os.Open(c.Input); err != nil {
			return err
		}
		defer input.Close()
	}
	jc, closeClient, err := c.open(e)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeClient()) }()
	journals, err := c.selected(e.ctx, jc)
	if err != nil {
		return err
	}
	names := make([]string, len(journals))
	for i, j := range journals {
		names[i] = j.GetSpec().GetName()
	}
	slices.Sort(names)
	bar := newProgress(e, input)
	defer bar.end()
	if info, err := input.Stat(); err == nil && info.Mode().IsRegular() {
		bar.expect(info.Size())
	}
	// An interrupt ends the input. What was read before may still be sent for a while.
	sending, cancel := lingering(e.ctx, shutdownLimit)
	defer cancel()
	in := bufio.NewReaderSize(newInputReader(e.ctx, input, bar), inputChunk)
	if c.Framing == "none" {
		return c.appendWhole(sending, e, jc, in, names[rand.IntN(len(names))]) //nolint:gosec // Any journal will do.
	}
	return c.appendRecords(sending, e, jc, in, names)
}

// lingering returns a context that ends some time after ctx does.
func lingering(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	out, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(limit, cancel)
		context.AfterFunc(out, func() { timer.Stop() })
	})
	return out, func() {
		stop()
		cancel()
	}
}

// appendWhole makes one append. The content waits in a file until it is complete, however long that takes: a broker would not
// wait for a slow input.
func (c *journalsAppendCmd) appendWhole(sending context.Context, e *env, jc protocol.RoutedJournalClient, in io.Reader, journal string) error {
	f, err := os.CreateTemp("", "daybook-append-*")
	if err != nil {
		return err
	}
	_ = os.Remove(f.Name()) // It is ours alone, and ends with us; where open files cannot be removed, it is later.
	defer func() {
		_ = f.Close()
		_ = os.Remove(f.Name())
	}()
	n, err := io.Copy(f, in)
	if err != nil {
		return fmt.Errorf("nothing was appended: %w", err)
	}
	for attempt := 0; ; attempt++ {
		_, err := client.Append(sending, jc, &protocol.AppendRequest{Journal: journal}, io.NewSectionReader(f, 0, n))
		switch {
		case err == nil:
			return nil
		case isRefusal(err) || !fault.IsTransient(err):
			return fmt.Errorf("nothing was appended: append %s to %s: %w", bytesText(n), journal, explainAppend(err, journal))
		case pause(sending, attempt) != nil:
			return fmt.Errorf("interrupted while %s were being sent; they may have been appended all the same, so read before another attempt: %w", bytesText(n), err)
		}
		e.log.Warn("append failed, trying again", "journal", journal, "attempt", attempt, "error", err)
	}
}

// explainAppend adds what the user can do.
func explainAppend(err error, journal string) error {
	switch {
	case errors.Is(err, client.ErrIndexHasGreaterOffset):
		return fmt.Errorf("%w: its stores have more than the brokers know of, such as what a deleted journal of that name left; "+
			"daybook journals reset-head -l name=%s makes it go on behind that", err, journal)
	case errors.Is(err, client.ErrFragmentStoreUnhealthy):
		return fmt.Errorf("%w; daybook journals store-health tells when it is healthy again", err)
	case errors.Is(err, client.ErrNotAllowed):
		return fmt.Errorf("%w: its flags do not allow it; see daybook journals list -l name=%s -o yaml", err, journal)
	case errors.Is(err, client.ErrJournalNotFound):
		return fmt.Errorf("%w: it was deleted meanwhile", err)
	case fault.Is(err, fault.Denied), fault.Is(err, fault.Unauthenticated):
		return fmt.Errorf("%w; give a token that allows it with --broker-auth-token", err)
	}
	return err
}

// appendRecords appends each record of the input.
func (c *journalsAppendCmd) appendRecords(sending context.Context, e *env, jc protocol.RoutedJournalClient, in *bufio.Reader, names []string) error {
	s := client.NewAppendService(sending, jc, client.WithLogger(e.log), client.WithSpoolLimit(appendSpool))
	sent := newSentRecords()
	err := c.eachRecord(in, names, func(journal string, record []byte) error {
		if err := s.WaitForRoom(sending, int64(len(record))); err != nil {
			return err
		}
		p := s.StartAppend(&protocol.AppendRequest{Journal: journal}, nil)
		_, err := p.Writer().Write(record)
		if err := p.Require(err).Release(); err != nil {
			return err
		}
		return sent.add(journal, p, len(record))
	})
	closeErr := s.Close(sending) // Its failures are those of the records.
	if failure := sent.finish(); err == nil {
		err = failure
	}
	if err == nil {
		return closeErr
	}
	return fmt.Errorf("%w; %s", err, sent)
}

// eachRecord calls do with each record and its journal.
func (c *journalsAppendCmd) eachRecord(in *bufio.Reader, names []string, do func(journal string, record []byte) error) error {
	next := nextLine
	if c.Framing == "fixed" {
		next = nextFrame
	}
	for n := 1; ; n++ {
		var key []byte
		if c.Mapping != "random" {
			record, err := next(in)
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err == nil {
				key, err = c.key(record)
			}
			if err != nil {
				return fmt.Errorf("key of record %d: %w", n, err)
			}
		}
		record, err := next(in)
		if errors.Is(err, io.EOF) {
			if c.Mapping != "random" {
				return fault.New(fault.Invalid, "record %d has a key and nothing behind it", n)
			}
			return nil
		}
		journal := ""
		if err == nil {
			journal, err = mapRecord(c.Mapping, key, names)
		}
		if err == nil {
			err = do(journal, record)
		}
		if err != nil {
			return fmt.Errorf("record %d: %w", n, err)
		}
	}
}

// nextLine returns a line with its end. A line that has none is incomplete.
func nextLine(in *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		if len(line)+len(part) > maxRecord {
			return nil, fault.New(fault.Invalid, "line is longer than %s", bytesText(maxRecord))
		}
		line = append(line, part...)
		switch {
		case err == nil:
			return line, nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(line) != 0:
			return nil, fault.New(fault.Invalid, "the last line, of %s, has no end, so it may have been cut off; end it to append it", bytesText(int64(len(line))))
		default:
			return nil, err
		}
	}
}

// nextFrame returns a frame with its header.
func nextFrame(in *bufio.Reader) ([]byte, error) {
	var header [8]byte
	switch n, err := io.ReadFull(in, header[:]); {
	case err != nil && n > 0:
		return nil, fault.New(fault.Invalid, "the last frame is not complete")
	case err != nil:
		return nil, err
	case [4]byte(header[:4]) != frameMagic:
		return nil, fault.New(fault.Invalid, "a frame begins with %x instead of %x", header[:4], frameMagic)
	}
	size := binary.LittleEndian.Uint32(header[4:])
	if size > maxRecord {
		return nil, fault.New(fault.Invalid, "frame of %s is longer than %s", bytesText(int64(size)), bytesText(maxRecord))
	}
	frame := bytes.NewBuffer(append(make([]byte, 0, 512), header[:]...))
	if n, err := io.CopyN(frame, in, int64(size)); err != nil {
		return nil, fault.New(fault.Invalid, "the last frame ends after %d of %d bytes: %w", n, size, io.ErrUnexpectedEOF)
	}
	return frame.Bytes(), nil
}

// key returns the key of a record that is one.
func (c *journalsAppendCmd) key(record []byte) ([]byte, error) {
	if c.Framing == "fixed" {
		return record[8:], nil
	}
	record = bytes.TrimRight(record, "\r\n")
	if !c.Base64 {
		return record, nil
	}
	key, err := base64.StdEncoding.DecodeString(string(record))
	if err != nil {
		return nil, fault.New(fault.Invalid, "not base64: %w", err)
	}
	return key, nil
}

// mapRecord returns the journal of a record, given the names in their order.
func mapRecord(mapping string, key []byte, names []string) (string, error) {
	switch mapping {
	case "modulo":
		return names[int(fnvSum(key)%uint32(len(names)))], nil
	case "rendezvous":
		best, most := 0, uint32(0)
		for i, n := range names {
			if sum := fnvSum(key) ^ fnvSum([]byte(n)); i == 0 || sum > most {
				best, most = i, sum
			}
		}
		return names[best], nil
	case "direct":
		if i, ok := slices.BinarySearch(names, string(key)); ok {
			return names[i], nil
		}
		return "", fault.New(fault.NotFound, "journal %q is not among those selected", key)
	}
	return names[rand.IntN(len(names))], nil //nolint:gosec // Any journal will do.
}

func fnvSum(b []byte) uint32 {
	h := fnv.New32a()
	_, _ = h.Write(b)
	return h.Sum32()
}
