package streamclient

import (
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/daybook-dev/daybook/logs/logpb"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/streamproto"
)

func TestFake(t *testing.T) {
	fake := RegisterFake()
	defer fake.Unregister()
	client, err := New(fake.Address(), "ns")
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2024, 1, 2, 3, 4, 5, 6, time.UTC)
	w, err := client.NewStream(t.Context(), "t", WithTimestamp(at), WithTags("k", "v"))
	if err != nil {
		t.Fatal(err)
	}
	d, err := client.NewDatagramStream(t.Context(), "d", WithTimestamp(at))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"one", "", "three"} {
		if _, err := io.WriteString(w, s); err != nil {
			t.Error(err)
		}
		if err := d.SendDatagram([]byte(s)); err != nil {
			t.Error(err)
		}
	}
	mustClose(t, w)
	if err := client.AddRedaction(t.Context(), "value"); err != nil {
		t.Error(err)
	}
	want := map[types.StreamName]FakeStream{
		"ns/t": {
			Flags: streamproto.Flags{
				Name: "ns/t", ContentType: "text/plain; charset=utf-8", Timestamp: at, Tags: streamproto.TagMap{"k": "v"},
			},
			Data: []byte("onethree"), Closed: true,
		},
		"ns/d": {
			Flags: streamproto.Flags{
				Name: "ns/d", Type: streamproto.Datagram, ContentType: "application/x-logdog-datagram", Timestamp: at,
			},
			Datagrams: [][]byte{[]byte("one"), {}, []byte("three")},
		},
	}
	if diff := cmp.Diff(want, fake.Streams(), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("streams (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want["ns/d"], fake.Stream("ns/d"), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("stream (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"value"}, fake.Redactions()); diff != "" {
		t.Error(diff)
	}
	if got := fake.Stream("other"); got.Flags.Name != "" {
		t.Errorf("a stream that never was: %+v", got)
	}

	// After the end, and a second time.
	if _, err := w.Write(nil); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("write after close: %v", err)
	}
	if err := w.Close(); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("close after close: %v", err)
	}
	if _, err := client.NewStream(t.Context(), "t"); err == nil {
		t.Error("a name was used twice")
	}
	if _, err := client.NewDatagramStream(t.Context(), "t"); err == nil {
		t.Error("a name was used twice")
	}
	if _, err := client.NewStream(t.Context(), "t", Confirm(nil)); !errors.As(err, new(*streamproto.RefusedError)) {
		t.Errorf("a name was used twice: %v", err)
	}
	fake.SetError(errTest)
	if _, err := client.NewStream(t.Context(), "u"); !errors.Is(err, errTest) {
		t.Errorf("error %v", err)
	}
	if err := client.AddRedaction(t.Context(), "value"); !errors.Is(err, errTest) {
		t.Errorf("error %v", err)
	}
	fake.SetError(nil)
	fake.Unregister()
	fake.Unregister()
	if _, err := New(fake.Address(), ""); err == nil {
		t.Error("an unregistered fake was found")
	}
	if _, err := client.NewStream(t.Context(), "u"); err != nil {
		t.Errorf("a client that was there: %v", err)
	}
	if _, fake := NewFake(""); fake.Address() != "" {
		t.Error("a fake that is not registered has an address")
	}
}

func TestNull(t *testing.T) {
	for _, address := range []string{"null", "null:"} {
		client, err := New(address, "ns")
		if err != nil {
			t.Fatal(err)
		}
		url := "before"
		for _, opts := range [][]Option{nil, {Binary()}, {Confirm(&url)}, {ForProcess()}} {
			w, err := client.NewStream(t.Context(), "t", opts...)
			if err != nil {
				t.Fatal(err)
			}
			if n, err := w.Write([]byte("data")); n != 4 || err != nil {
				t.Error(n, err)
			}
			mustClose(t, w)
			_, file := w.(*os.File)
			if err := w.Close(); file && !errors.Is(err, os.ErrClosed) || !file && err != nil {
				t.Errorf("%T closed again: %v", w, err)
			}
		}
		if url != "" {
			t.Errorf("URL %q", url)
		}
		d, err := client.NewDatagramStream(t.Context(), "t")
		if err != nil {
			t.Fatal(err)
		}
		if err := d.SendDatagram([]byte("data")); err != nil {
			t.Error(err)
		}
		mustClose(t, d)
		if err := client.AddRedaction(t.Context(), "value"); err != nil {
			t.Error(err)
		}
	}
}

// adder takes one stream, and refuses others.
type adder struct {
	got  *logpb.LogStreamDescriptor
	data chan string
}

func (a *adder) AddStream(r io.ReadCloser, d *logpb.LogStreamDescriptor) error {
	if a.got != nil {
		return errTest
	}
	a.got = d
	go func() {
		b, err := io.ReadAll(r)
		if err != nil {
			b = []byte(err.Error())
		}
		r.Close()
		a.data <- string(b)
	}()
	return nil
}

func TestLoopback(t *testing.T) {
	a := &adder{data: make(chan string)}
	client := NewLoopback(a, "ns")
	w, err := client.NewStream(t.Context(), "t", ForProcess())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, "data"); err != nil {
		t.Error(err)
	}
	mustClose(t, w)
	if got := <-a.data; got != "data" || a.got.GetName() != "ns/t" || a.got.GetTimestamp() == nil {
		t.Errorf("%q of %v", got, a.got)
	}
	if _, err := client.NewStream(t.Context(), "t"); !errors.Is(err, errTest) {
		t.Errorf("error %v", err)
	}
	if err := client.AddRedaction(t.Context(), "value"); err == nil {
		t.Error("a redaction was promised")
	}
}
