package streamclient

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/daybook-dev/daybook/streamproto"
)

func TestConfirm(t *testing.T) {
	s := startServer(t, "unix", &server{})
	url := "before"
	w, err := s.client(t).NewStream(t.Context(), "t", Confirm(&url), WithTags("k", "v"))
	if err != nil {
		t.Fatal(err)
	}
	if url != "http://h/s" {
		t.Errorf("URL %q", url)
	}
	if _, err := io.WriteString(w, "data"); err != nil {
		t.Error(err)
	}
	mustClose(t, w)
	c := <-s.got
	if c.version != 2 || c.header["name"] != "t" || c.header["op"] != "open" || string(c.data) != "data" {
		t.Errorf("the server got %+v", c)
	}

	s.reply = `{"accepted":true}` + "\n"
	d, err := s.client(t).NewDatagramStream(t.Context(), "d", Confirm(&url))
	if err != nil || url != "" {
		t.Fatalf("URL %q, %v", url, err)
	}
	mustClose(t, d)
	if c := <-s.got; c.header["type"] != "datagram" {
		t.Errorf("the server got %+v", c)
	}
}

func TestRefused(t *testing.T) {
	s := startServer(t, "unix", &server{reply: `{"accepted":false,"code":"exists","reason":"names are used once"}` + "\n"})
	client := s.client(t)
	for _, test := range []func() error{
		func() error { _, err := client.NewStream(t.Context(), "t", Confirm(nil)); return err },
		func() error { return client.AddRedaction(t.Context(), "secret") },
	} {
		var refused *streamproto.RefusedError
		err := test()
		if !errors.As(err, &refused) || refused.Code != streamproto.Exists || !strings.Contains(err.Error(), "names are used once") {
			t.Errorf("error %v", err)
		}
		<-s.got
	}
}

func TestNoReply(t *testing.T) {
	for _, reply := range []string{"no", "\n", "{}x\n", strings.Repeat("x", 20_000)} {
		s := startServer(t, "unix", &server{reply: reply})
		if _, err := s.client(t).NewStream(t.Context(), "t", Confirm(nil)); err == nil || !strings.Contains(err.Error(), "reply: ") {
			t.Errorf("%.10q: error %v", reply, err)
		}
		<-s.got
	}
	for _, network := range []string{"unix", "tcp4"} {
		s := startServer(t, network, &server{version1: true})
		for _, test := range []func() error{
			func() error { _, err := s.client(t).NewStream(t.Context(), "t", Confirm(nil)); return err },
			func() error { return s.client(t).AddRedaction(t.Context(), strings.Repeat("value", 1000)) },
		} {
			if err := test(); !errors.Is(err, ErrNoReply) || !strings.Contains(err.Error(), "without Confirm") {
				t.Errorf("error %v", err)
			}
			<-s.got
		}
	}
}

func TestAddRedaction(t *testing.T) {
	s := startServer(t, "unix", &server{})
	client := s.client(t)
	values := []string{"four", "\x00\xff\n1", strings.Repeat("long", 1000)}
	if err := client.AddRedaction(t.Context(), values...); err != nil {
		t.Fatal(err)
	}
	if c := <-s.got; !slices.Equal(c.values, values) || c.header["op"] != "redact" || c.version != 2 {
		t.Errorf("the server got %+v", c)
	}
	if err := client.AddRedaction(t.Context()); err != nil {
		t.Error(err)
	}
	_, fake := NewFake("")
	for name, bad := range map[string][]string{
		"empty": {""}, "short": {"abc"}, "long": {strings.Repeat("x", 65537)}, "many": slices.Repeat([]string{"value"}, 1001),
	} {
		for _, c := range []*Client{client, {butler: fake}} {
			if err := c.AddRedaction(t.Context(), bad...); err == nil || !strings.Contains(err.Error(), "redact") {
				t.Errorf("%s: error %v", name, err)
			}
		}
	}
}
