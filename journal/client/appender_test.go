package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/daybook-dev/daybook/internal/fault"
	pb "github.com/daybook-dev/daybook/journal/protocol"
)

func TestAppender(t *testing.T) {
	b := &broker{}
	a := NewAppender(t.Context(), b.start(t), request("test/journal;meta"))
	for _, s := range []string{"ab", "", "cd"} {
		if n, err := io.WriteString(a, s); n != len(s) || err != nil {
			t.Fatal(n, err)
		}
	}
	wantNil(t, a.Close())
	wantContent(t, b, "test/journal", "abcd")
	if a.Response.Commit.GetEnd() != 4 {
		t.Errorf("got %v", a.Response)
	}
	a.Reset()
	wantNil(t, a.Close())
	if a.Response.Commit.GetBegin() != 4 || a.Response.Commit.GetEnd() != 4 {
		t.Errorf("got %v", a.Response)
	}
}

func TestAppenderAborts(t *testing.T) {
	b := &broker{}
	a := NewAppender(t.Context(), b.start(t), request("test/journal"))
	a.Abort()
	_, err := io.WriteString(a, "x")
	wantNil(t, err)
	a.Abort()
	if len(b.commits()) != 0 {
		t.Error("it was committed")
	}
}

// A broker that refuses before the content has come is heard by a later Write.
func TestAppenderHearsRefusals(t *testing.T) {
	b := &broker{fail: func(_ string, at stage) error {
		if at == atOpen {
			return brokerStatus(pb.Status_NOT_ALLOWED)
		}
		return nil
	}}
	a := NewAppender(t.Context(), b.start(t), request("test/journal"))
	for {
		if _, err := a.Write(make([]byte, 1000)); err != nil {
			wantErrorIs(t, err, ErrNotAllowed)
			return
		}
	}
}

func TestAppenderStatuses(t *testing.T) {
	for s, want := range statusErrors {
		b := &broker{fail: func(_ string, at stage) error {
			if at == atCommit {
				return brokerStatus(s)
			}
			return nil
		}}
		a := NewAppender(t.Context(), b.start(t), request("test/journal"))
		err := a.Close()
		wantErrorIs(t, err, want)
		if s == pb.Status_FRAGMENT_STORE_UNHEALTHY && err.Error() != "disk on fire: FRAGMENT_STORE_UNHEALTHY" {
			t.Errorf("got %v", err)
		}
		if want.Error() != s.String() {
			t.Errorf("%s reads %q", s, want)
		}
	}
	if err := errorOfStatus(pb.Status_WRONG_ROUTE); err.Error() != "WRONG_ROUTE" {
		t.Errorf("got %v", err)
	}
}

// A response that is not valid is an error, and nothing is learnt from it.
func TestAppenderRefusesBadResponses(t *testing.T) {
	for name, resp := range map[string]*pb.AppendResponse{
		"no header":    {Registers: new(pb.LabelSet)},
		"no commit":    {Header: testHeader(), Registers: new(pb.LabelSet)},
		"other status": {Status: 99, Header: testHeader()},
	} {
		b := &broker{answer: resp}
		cache := NewRouteCache(1, time.Minute)
		a := NewAppender(t.Context(), pb.NewRoutedJournalClient(b.start(t), cache), request("test/journal"))
		if err := a.Close(); !fault.Is(err, fault.Internal) {
			t.Errorf("%s: %v", name, err)
		}
		if len(cache.Route(t.Context(), "test/journal").Members) != 0 {
			t.Errorf("%s: its route is used", name)
		}
	}
}

func TestAppenderRequests(t *testing.T) {
	rjc := (&broker{}).start(t)
	for _, req := range []*pb.AppendRequest{{}, {Journal: "bad name"}} {
		if err := NewAppender(t.Context(), rjc, req).Close(); !fault.Is(err, fault.Invalid) {
			t.Errorf("%v: %v", req, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantErrorIs(t, NewAppender(ctx, rjc, request("test/journal")).Close(), context.Canceled)
}

func TestAppend(t *testing.T) {
	var fails atomic.Int32
	b := &broker{fail: func(_ string, at stage) error {
		if at != atCommit {
			return nil
		}
		switch fails.Add(1) {
		case 1:
			return errUnavailable
		case 2:
			return brokerStatus(pb.Status_NO_JOURNAL_PRIMARY_BROKER)
		}
		return nil
	}}
	large := strings.Repeat("0123456789", 10_000)
	resp, err := Append(t.Context(), b.start(t), request("test/journal"), strings.NewReader("ab"), strings.NewReader(""), strings.NewReader(large))
	wantNil(t, err)
	if resp.Commit.GetEnd() != 100_002 {
		t.Errorf("got %v", resp)
	}
	wantContent(t, b, "test/journal", "ab"+large)
}

type brokenReader struct{ bytes.Reader }

var errBroken = errors.New("broken")

func (brokenReader) ReadAt(p []byte, off int64) (int, error) {
	if off == 0 {
		return 1, nil
	}
	return 0, errBroken
}

func TestAppendSurfaces(t *testing.T) {
	b := &broker{fail: func(_ string, at stage) error {
		if at == atCommit {
			return brokerStatus(pb.Status_FRAGMENT_STORE_UNHEALTHY)
		}
		return nil
	}}
	rjc := b.start(t)
	_, err := Append(t.Context(), rjc, request("test/journal"), brokenReader{})
	wantErrorIs(t, err, errBroken)
	_, err = Append(t.Context(), rjc, request("test/journal"))
	wantErrorIs(t, err, ErrFragmentStoreUnhealthy)

	b.fail = func(string, stage) error { return errUnavailable }
	ctx, cancel := context.WithCancel(t.Context())
	b.fail = func(string, stage) error { cancel(); return errUnavailable }
	_, err = Append(ctx, rjc, request("test/journal"))
	wantErrorIs(t, err, context.Canceled)
}
