package testkit

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"
)

// echo returns the address of a server that sends back what it gets.
func echo(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				_, _ = io.Copy(c, c) // ends with the connection
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	return l.Addr().String()
}

func dial(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// roundTrip sends text and reads it back.
func roundTrip(c net.Conn, text string) error {
	if _, err := io.WriteString(c, text); err != nil {
		return err
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if string(got) != text {
		return errors.New("got " + string(got))
	}
	return nil
}

func TestProxyPassesAllBytesAndTheEnd(t *testing.T) {
	p := NewProxy(t, echo(t))
	c := dial(t, p.Addr())
	content := Content{Kind: Random, Seed: 1, Size: 5 << 20}
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := io.Copy(c, content.Reader()); err != nil {
			t.Errorf("write: %v", err)
		}
		if err := c.CloseWrite(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	if err := Compare(content.Reader(), c); err != nil {
		t.Error(err)
	}
	wg.Wait()
}

func TestProxyCut(t *testing.T) {
	p := NewProxy(t, echo(t))
	c := dial(t, p.Addr())
	if err := roundTrip(c, "before"); err != nil {
		t.Fatal(err)
	}
	p.Cut()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read after cut: %v, want a reset", err)
	}
	if err := roundTrip(dial(t, p.Addr()), "again"); err != nil {
		t.Errorf("a new connection: %v", err)
	}
}

func TestProxyRefuse(t *testing.T) {
	p := NewProxy(t, echo(t))
	c := dial(t, p.Addr())
	if err := roundTrip(c, "before"); err != nil {
		t.Fatal(err)
	}
	p.Refuse()
	if c, err := net.Dial("tcp", p.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial: %v, %v", c, err)
	}
	if err := roundTrip(c, "still"); err != nil {
		t.Errorf("the connection that was there: %v", err)
	}
	p.Accept()
	if err := roundTrip(dial(t, p.Addr()), "again"); err != nil {
		t.Errorf("after Accept: %v", err)
	}
}

func TestProxyStallAndResume(t *testing.T) {
	p := NewProxy(t, echo(t))
	c := dial(t, p.Addr())
	if err := roundTrip(c, "before"); err != nil {
		t.Fatal(err)
	}
	p.Stall()
	if _, err := io.WriteString(c, "held"); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Fatalf("read of a stalled connection: %d, %v", n, err)
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	p.Resume()
	got := make([]byte, 4)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "held" {
		t.Errorf("after Resume: %q, %v", got, err)
	}
}

func TestProxyDelay(t *testing.T) {
	p := NewProxy(t, echo(t))
	c := dial(t, p.Addr())
	const delay = 30 * time.Millisecond
	p.Delay(delay)
	start := time.Now()
	if err := roundTrip(c, "slow"); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took < 2*delay {
		t.Errorf("there and back took %v, want at least %v", took, 2*delay)
	}
}

func TestProxyCutAfter(t *testing.T) {
	p := NewProxy(t, echo(t))
	c := dial(t, p.Addr())
	p.CutAfter(10_000)
	_, err := c.Write(bytes.Repeat([]byte("x"), 10_000))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read: %v, want a reset", err)
	}
	if err := roundTrip(dial(t, p.Addr()), "once"); err != nil {
		t.Errorf("a cut happens once: %v", err)
	}
}

func TestProxyWithoutTarget(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	c, err := net.Dial("tcp", NewProxy(t, l.Addr().String()).Addr())
	if err != nil {
		return // reset so fast that it was never there
	}
	defer c.Close()
	if n, err := c.Read(make([]byte, 1)); err == nil {
		t.Errorf("read %d bytes of a server that is not there", n)
	}
}
