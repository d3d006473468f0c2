package streamclient

import (
	"bytes"
	"io"
	"testing"
)

func benchmark(b *testing.B, size int, open func(*Client) (func([]byte) error, io.Closer, error)) {
	s := startServer(b, "unix", &server{discard: true})
	write, w, err := open(s.client(b))
	if err != nil {
		b.Fatal(err)
	}
	data := bytes.Repeat([]byte("x"), size)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		if err := write(data); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkLines(b *testing.B) {
	benchmark(b, 80, func(c *Client) (func([]byte) error, io.Closer, error) {
		w, err := c.NewStream(b.Context(), "t")
		return func(p []byte) error { _, err := w.Write(p); return err }, w, err
	})
}

func BenchmarkDatagrams(b *testing.B) {
	benchmark(b, 1000, func(c *Client) (func([]byte) error, io.Closer, error) {
		d, err := c.NewDatagramStream(b.Context(), "t")
		return d.SendDatagram, d, err
	})
}
