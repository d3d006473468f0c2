package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/streamclient"
	"github.com/daybook-dev/daybook/streamproto"
)

type streamCmd struct {
	captureFlags
	Name        string `help:"Name of the stream; by default stdin, or that of the source." placeholder:"NAME"`
	Type        string `help:"text, binary, or datagram: each with its length before it, as a varint." enum:"text,binary,datagram" default:"text"`
	ContentType string `help:"MIME type; by default that of the type." placeholder:"TYPE"`
	Source      string `help:"File to read; - is stdin." default:"-" placeholder:"FILE"`
	Tee         bool   `help:"Copy what is read to stdout."`
}

func (c *streamCmd) Help() string {
	return "Reads to the end of stdin. Below daybook run or daybook butler the stream is one of theirs, and the flags of the prefix, the spool and redaction mean nothing; " +
		"otherwise, or if --prefix is given, it is captured here, and the first line on stderr is the address of its page.\n\n" +
		"An interrupt is for whoever writes the other end of a pipe; SIGTERM ends the stream where it is.\n\n" + redactHelp()
}

func (c *streamCmd) Run(e *env) (err error) {
	spec := streamSpec{name: types.StreamName(c.Name), contentType: c.ContentType}
	if err := spec.typ.Set(c.Type); err != nil {
		return err
	}
	source, name, err := c.openSource(e)
	if err != nil {
		return err
	}
	defer source.Close() // it was only read
	if spec.name == "" {
		spec.name = name
	}
	if err := spec.name.Validate(); err != nil {
		return fault.New(fault.Invalid, "--name %q: %w", spec.name, err)
	}
	var tee *os.File
	if c.Tee {
		tee = e.stdout
	}
	in := newSourceReader(source, tee)
	// Whoever fills a pipe may have more to say after an interrupt.
	signal.Ignore(os.Interrupt)
	ctx, stop := signal.NotifyContext(context.WithoutCancel(e.ctx), syscall.SIGTERM)
	defer stop()
	defer context.AfterFunc(ctx, in.end)()

	if os.Getenv(streamproto.EnvAddress) != "" && c.Prefix == "" {
		return c.join(ctx, &spec, in)
	}
	k, err := c.open(context.WithoutCancel(e.ctx), e, []string{string(spec.name)}, "")
	if err != nil {
		return err
	}
	fmt.Fprintf(e.stderr, "daybook: %s\n", k.page(string(k.prefix.Join(spec.name))))
	if err := k.add(&spec, spec.name, in); err != nil {
		return errors.Join(err, in.Close())
	}
	select {
	case <-in.done:
	case <-ctx.Done():
	}
	stop()
	in.end()
	end, cancel := signal.NotifyContext(context.WithoutCancel(e.ctx), syscall.SIGTERM)
	defer cancel()
	k.finish(end)
	return cmp.Or(in.failure(), k.failure())
}

// openSource returns what is to be read, and the name of a stream for it.
func (c *streamCmd) openSource(e *env) (*os.File, types.StreamName, error) {
	if c.Source == "-" {
		return e.stdin, "stdin", nil
	}
	f, err := os.Open(c.Source)
	if err != nil {
		return nil, "", err
	}
	name, err := types.MakeStreamName("file_", filepath.Base(c.Source))
	return f, name, err
}

// join sends the stream to the Butler that is around.
func (c *streamCmd) join(ctx context.Context, spec *streamSpec, in *sourceReader) error {
	butler, err := streamclient.FromEnvironment()
	if err != nil {
		return err
	}
	var tags streamproto.TagMap
	for _, t := range c.Tag {
		if err := tags.Set(t); err != nil {
			return fault.New(fault.Invalid, "--tag: %w", err)
		}
	}
	opts := []streamclient.Option{streamclient.WithTagMap(tags)}
	if spec.contentType != "" {
		opts = append(opts, streamclient.WithContentType(spec.contentType))
	}
	confirmed := append(opts, streamclient.Confirm(nil))
	if spec.typ == streamproto.Datagram {
		s, err := butler.Client.NewDatagramStream(ctx, spec.name, confirmed...)
		if errors.Is(err, streamclient.ErrNoReply) {
			s, err = butler.Client.NewDatagramStream(ctx, spec.name, opts...)
		}
		if err != nil {
			return err
		}
		return errors.Join(copyDatagrams(s, in), s.Close(), in.failure())
	}
	if spec.typ == streamproto.Binary {
		opts = append(opts, streamclient.Binary())
		confirmed = append(confirmed, streamclient.Binary())
	}
	s, err := butler.Client.NewStream(ctx, spec.name, confirmed...)
	if errors.Is(err, streamclient.ErrNoReply) {
		s, err = butler.Client.NewStream(ctx, spec.name, opts...)
	}
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{s}, struct{ io.Reader }{in}, make([]byte, 256<<10))
	return errors.Join(err, s.Close(), in.failure())
}

// copyDatagrams sends what is read as datagrams.
func copyDatagrams(s *streamclient.DatagramStream, in io.Reader) error {
	r := bufio.NewReaderSize(in, 64<<10)
	var buf []byte
	for {
		n, err := binary.ReadUvarint(r)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("length of a datagram: %w", err)
		case n > streamproto.MaxDatagramSize:
			return fault.New(fault.Invalid, "datagram of %d bytes; at most %d are allowed", n, streamproto.MaxDatagramSize)
		}
		if uint64(cap(buf)) < n {
			buf = make([]byte, n)
		}
		if _, err := io.ReadFull(r, buf[:n]); err != nil {
			return fmt.Errorf("datagram of %d bytes: %w", n, err)
		}
		if err := s.SendDatagram(buf[:n]); err != nil {
			return err
		}
	}
}

// sourceReader reads a file, and can be ended also while a read of it waits.
type sourceReader struct {
	*io.PipeReader
	w *io.PipeWriter
	// done is closed when there is nothing more to read; err is then set.
	done chan struct{}
	err  error
}

// newSourceReader begins to read, and copies what it reads to tee unless that is nil. A read that waits is left behind at the end.
func newSourceReader(file, tee *os.File) *sourceReader {
	r, w := io.Pipe()
	s := &sourceReader{PipeReader: r, w: w, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		buf := make([]byte, 256<<10)
		for {
			n, err := file.Read(buf)
			if tee != nil && n > 0 {
				if _, terr := tee.Write(buf[:n]); terr != nil {
					s.err, tee = fmt.Errorf("write: %w", terr), nil // the stream goes on
				}
			}
			if _, werr := w.Write(buf[:n]); werr != nil {
				return // nobody wants the rest
			}
			if err != nil {
				if !errors.Is(err, io.EOF) {
					s.err = err
				}
				_ = w.Close()
				return
			}
		}
	}()
	return s
}

// end makes the stream end with what was read so far.
func (s *sourceReader) end() { _ = s.w.Close() }

// failure returns what went wrong, if the end has come.
func (s *sourceReader) failure() error {
	select {
	case <-s.done:
		return s.err
	default:
		return nil
	}
}
